"""Runs safety/threads.py on a Python without GIL, under ThreadSanitizer where that Python has it.

Such a Python is looked for under the names given. Where there is none, the reason is printed and
nothing is tested, which fails with OBFRAME_REQUIRE_FREE_THREADED=1.

One for the sanitizer is CPython configured with --disable-gil --with-thread-sanitizer.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / "build/free-threaded"
ASK = """
import json, sys, sysconfig as c
free = bool(c.get_config_var("Py_GIL_DISABLED"))
sanitized = "thread-sanitizer" in (c.get_config_var("CONFIG_ARGS") or "")
version = sys.version.split()[0]
print(json.dumps([free, sanitized, version, c.get_path("include"), c.get_config_var("EXT_SUFFIX")]))
"""
SANITIZER = ("-fsanitize=thread", "-g1", "-O1", "-fno-omit-frame-pointer")


def main(names: list[str]) -> int:
    """Test with every interpreter of the names that has no GIL."""
    tested = failed = 0
    for name in names:
        found = shutil.which(name)
        if found is None:
            continue
        answer = subprocess.check_output([found, "-c", ASK])
        free, sanitized, version, headers, suffix = json.loads(answer)
        if not free:
            sys.stdout.write(f"{name} is a Python with GIL\n")
            continue
        sys.stdout.write(f"{name}: {version}{', ThreadSanitizer' if sanitized else ''}\n")
        sys.stdout.flush()
        tested += 1
        folder = FOLDER / f"{version}{'-sanitized' if sanitized else ''}"
        build(folder / "obframe", headers, suffix, SANITIZER if sanitized else ("-O3",))
        failed |= test(found, folder, sanitized)
    if not tested:
        sys.stdout.write(
            f"not tested without GIL: no Python of that kind among {', '.join(names)}; "
            "name one: make free-threaded FREE_THREADED_PYTHON=...\n"
        )
        return int(os.environ.get("OBFRAME_REQUIRE_FREE_THREADED") == "1")
    return failed


def build(package: Path, headers: str, suffix: str, flags: Sequence[str]) -> None:
    """Build the core, and no more of obframe: what the rest needs may not be there.

    Cython runs in this interpreter: the other one needs nothing but its headers.
    """
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "obframe/errors.py", package)
    source = package / "_core.c"
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", "obframe._core"]
    subprocess.run([*cython, str(ROOT / "obframe/_core.pyx"), "-o", str(source)], check=True)
    compiler = [*shlex.split(os.environ.get("CC", "cc")), "-shared", "-fPIC"]
    compiler += [f"-I{headers}", f"-I{ROOT / 'obframe'}"]  # the latter for the core's own headers
    core = package / f"_core{suffix}"
    subprocess.run([*compiler, *flags, str(source), "-o", str(core)], check=True)


def test(interpreter: str, folder: Path, sanitized: bool) -> int:
    """Drive the core from many threads; return the exit code."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment["TSAN_OPTIONS"] = "halt_on_error=1:exitcode=66"
    # Where addresses are drawn at random, a sanitizer may find no room for its shadow memory.
    setarch = shutil.which("setarch")
    prefix = [setarch, "-R"] if sanitized and setarch else []
    # A module that does not declare itself safe brings the GIL back with a warning: an error here.
    command = [*prefix, interpreter, "-W", "error", "-P", str(HERE / "threads.py")]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
