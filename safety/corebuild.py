"""Builds the core into a copy of the package, with flags or source changes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = Path("obframe/_core.pyx")
PROJECT = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def build_copy(
    folder: Path,
    flags: Sequence[str] = (),
    changes: Mapping[str, str] | None = None,
    root: Path = ROOT,
) -> Path:
    """Copy the package and build its core there; the checkout's own build stays as it is.

    A copy that was built before from the same source with the same flags is built no second time.

    Args:
        folder: Where to; made if need be.
        flags: For compiler and linker.
        changes: Texts of the core's source, each found exactly once, and what replaces them.
        root: The tree to copy, by default this one.

    Returns:
        The folder, to be the first of PYTHONPATH.

    Raises:
        ValueError: A text to be replaced is not there exactly once.
        RuntimeError: The build failed.
    """
    source = (root / CORE).read_text()
    for old, new in (changes or {}).items():
        if source.count(old) != 1:
            raise ValueError(f"{source.count(old)} times in {CORE}: {old!r}")
        source = source.replace(old, new)
    stamp = folder / "built.json"
    files = [root / "setup.py", *(Path(flag) for flag in flags if flag.endswith(".h"))]
    files += sorted((root / CORE.parent).glob("*.h"))
    texts = source + "".join(file.read_text() for file in files)
    made_of = json.dumps([hashlib.sha256(texts.encode()).hexdigest(), *flags])
    rebuild = not stamp.exists() or stamp.read_text() != made_of
    if rebuild:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    for package in ("obframe", "plugins"):
        shutil.copytree(root / package, folder / package, ignore=ignored, dirs_exist_ok=True)
    for name in PROJECT:
        shutil.copy(root / name, folder)
    (folder / CORE).write_text(source)
    if rebuild:
        _compile(folder, flags)
        stamp.write_text(made_of)
    return folder


def copy_environment(folder: Path) -> dict[str, str]:
    """Return the environment in which Python imports the copy instead of the checkout.

    Run Python with ``-P`` in it: else the current folder comes first.
    """
    return {**os.environ, "PYTHONPATH": str(folder)}


def _compile(folder: Path, flags: Sequence[str]) -> None:
    result = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, "OBFRAME_CFLAGS": " ".join(flags)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"the core could not be built:\n{result.stdout[-4000:]}")
