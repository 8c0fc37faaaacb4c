"""Builds the compiled core; everything else stands in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

extra_flags = os.environ.get("OBFRAME_CFLAGS", "").split()
headers = ("_core", "_levels", "_book", "_apply", "_rows")

setup(
    ext_modules=cythonize(
        [
            Extension(
                "obframe._core",
                ["obframe/_core.pyx"],
                include_dirs=["obframe"],
                depends=[f"obframe/{name}.h" for name in headers],
                extra_compile_args=["-O3", "-g0", *extra_flags],
                extra_link_args=extra_flags,
            )
        ],
        build_dir="build/cython",
        language_level=3,
    )
)
