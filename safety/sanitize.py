"""Runs the core's tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer.

Exits with 0 when all tests passed; a finding aborts the run and shows where.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from corebuild import ROOT, build_copy, copy_environment

# Cython compiles with wrapping integers, which would hide signed overflows.
FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-wrapv",
    "-fno-omit-frame-pointer",
    "-O1",
)
TESTS = (*sorted((ROOT / "tests/unit").glob("test_core_*.py")), ROOT / "tests/properties")
CAPTURES = ROOT / "tests/properties/test_captures.py"
# An over-read is only seen when Python's objects come from malloc.
OPTIONS = {
    "PYTHONMALLOC": "malloc",
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def find_runtimes() -> str:
    """Return the sanitizers' libraries as LD_PRELOAD takes them.

    Raises:
        FileNotFoundError: The compiler has none.
    """
    compiler = os.environ.get("CC", "cc")
    found = []
    for name in ("libasan.so", "libubsan.so"):
        answer = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        if not Path(answer).is_absolute():
            raise FileNotFoundError(f"{compiler} has no {name}; on Debian gcc brings it")
        found.append(str(Path(answer).resolve()))
    return " ".join(found)


def sanitized_environment(folder: Path) -> dict[str, str]:
    """Return the environment in which Python runs the sanitized copy."""
    return {**copy_environment(folder), **OPTIONS, "LD_PRELOAD": find_runtimes()}


def main(arguments: list[str]) -> int:
    """Build, check that the build is what gets imported, and run the tests on it."""
    folder = build_copy(ROOT / "build/sanitize", FLAGS)
    environment = sanitized_environment(folder)
    python = [sys.executable, "-P"]
    where = "import obframe._core; print(obframe._core.__file__)"
    imported = subprocess.check_output([*python, "-c", where], env=environment, text=True).strip()
    if not Path(imported).is_relative_to(folder):
        sys.exit(f"the sanitized core is not the one imported: {imported}")
    options = ["--hypothesis-profile", "short", "-p", "no:cacheprovider", "--timeout", "900"]
    command = [*python, "-m", "pytest", "-q", *options]
    # The captures in a process of their own: they take half of the time.
    halves = [
        subprocess.Popen(
            [*command, *map(str, tests), *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for tests in ([*TESTS, f"--ignore={CAPTURES}"], [CAPTURES])
    ]
    for half in halves:
        sys.stdout.write(half.communicate()[0])
    return max(abs(half.returncode) for half in halves)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
