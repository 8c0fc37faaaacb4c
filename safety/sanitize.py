"""Runs the core's tests on builds with AddressSanitizer and UndefinedBehaviorSanitizer.

One build for each way the core has to read digits and to search: side by side, by the widest
instructions that the processor has and by AVX2, in words of 64 bits, and one by one. The same tests
hold all to the same reference. Beside them run safety/book.c, safety/levels.c and safety/rows.c,
which see what no test in Python can: what is read or stored outside of one of a book's arrays, of a
message or of a row.

Exits with 0 when all passed; a finding aborts the run and shows where.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corebuild import ROOT, build_copy, copy_environment

# Cython compiles with wrapping integers, which would hide signed overflows.
FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-wrapv",
    "-fno-omit-frame-pointer",
    "-O1",
    "-ftrivial-auto-var-init=pattern",  # what is read before it is set shows
)
BUILDS: dict[str, Sequence[str]] = {
    "sanitize": (),
    "sanitize-avx2": ("-DOBFRAME_NO_AVX512",),
    "sanitize-words": ("-DOBFRAME_NO_SIMD",),
    "sanitize-portable": ("-DOBFRAME_PORTABLE",),
}
PROGRAMS = {"book": 200_000, "levels": 500_000, "rows": 2_000_000}  # steps of each, some 20 seconds
SEED = 1
PYTHON = [sys.executable, "-P"]
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


def build(name: str, flags: Sequence[str]) -> dict[str, str]:
    """Build a copy, and return the environment in which Python imports it."""
    folder = build_copy(ROOT / "build" / name, [*FLAGS, *flags])
    environment = sanitized_environment(folder)
    where = "import obframe._core; print(obframe._core.__file__)"
    imported = subprocess.check_output([*PYTHON, "-c", where], env=environment, text=True).strip()
    if not Path(imported).is_relative_to(folder):
        sys.exit(f"the sanitized core is not the one imported: {imported}")
    return environment


def compile_program(name: str, program: Path, flags: Sequence[str]) -> None:
    """Compile one of the programs beside this module."""
    compiler = [*shlex.split(os.environ.get("CC", "cc")), f"-I{ROOT / 'obframe'}", *flags]
    subprocess.run([*compiler, str(ROOT / f"safety/{name}.c"), "-o", str(program)], check=True)


def run_program(name: str) -> subprocess.CompletedProcess[str]:
    """Let one of the programs run with sanitizers."""
    program = ROOT / f"build/sanitize-{name}"
    program.parent.mkdir(exist_ok=True)
    compile_program(name, program, FLAGS)
    return subprocess.run(
        [str(program), str(PROGRAMS[name]), str(SEED)],
        env={**os.environ, **OPTIONS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def choose_builds() -> dict[str, Sequence[str]]:
    """Return the builds that differ on this processor: without AVX-512 the first two are one."""
    builds = dict(BUILDS)
    processor = Path("/proc/cpuinfo")
    if processor.exists() and "avx512_vbmi2" not in processor.read_text(errors="replace").split():
        del builds["sanitize-avx2"]
        sys.stdout.write("no AVX-512 here: what the core does by it is not run\n")
    return builds


def main(arguments: list[str]) -> int:
    """Build, check that each build is what gets imported, and run the tests on it."""
    builds = choose_builds()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        environments = dict(zip(builds, pool.map(build, builds, builds.values()), strict=True))
        # The captures in a process of their own: they take half of the time.
        runs: list[tuple[str, list[Path]]] = [("sanitize", [CAPTURES])]
        runs += [(name, [*TESTS, Path(f"--ignore={CAPTURES}")]) for name in builds]

        def run(name: str, tests: list[Path]) -> subprocess.CompletedProcess[str]:
            options = ["--hypothesis-profile", "short", "-p", "no:cacheprovider"]
            command = [*PYTHON, "-m", "pytest", "-q", *options, "--timeout", "900"]
            return subprocess.run(
                [*command, *map(str, tests), *arguments],
                cwd=ROOT,
                env=environments[name],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )

        programs = {name: pool.submit(run_program, name) for name in PROGRAMS}
        worst = 0
        for (name, _), result in zip(runs, pool.map(lambda each: run(*each), runs), strict=True):
            sys.stdout.write(f"{name}:\n{result.stdout}")
            worst = max(worst, abs(result.returncode))
        for name, done in programs.items():
            sys.stdout.write(f"{name}.c:\n{done.result().stdout}")
            worst = max(worst, abs(done.result().returncode))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
