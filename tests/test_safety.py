"""The fuzzer: its seeds hold, and what is wrong in a core is found and can be run again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAFETY = ROOT / "safety"
sys.path.append(str(SAFETY))

import free_threaded  # noqa: E402
from corebuild import build_copy  # noqa: E402
from fuzz import COVERAGE  # noqa: E402
from sanitize import FLAGS, compile_program  # noqa: E402
from targets import TARGETS  # noqa: E402
from threads import check_books_apart, check_one_book, check_one_decoder  # noqa: E402

SEEDS = sorted((SAFETY / "corpus").glob("*/*"))
PARSER = r"^def parse_depth_snapshot\(.*\):$"
# What is read of the message lies behind the end of a buffer when the message ends in "!".
OVER_READ = """
    cdef unsigned char* planted = <unsigned char*>planted_malloc(8)
    planted[0] = 1
    if bytes(data).endswith(b"!") and planted[len(data) % 8 + 8] == 255:
        return None
    planted_free(planted)
"""
OVER_READ_FOUND = "heap-buffer-overflow|insufficient space for an object"
DISAGREEMENT = """
    if bytes(data) == b"{}?":
        raise InvalidEvent("bids", "?", "planted", "for a test")
"""


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_core_and_its_oracles_agree_on_every_seed(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


def test_every_target_has_seeds() -> None:
    assert {path.parent.name for path in SEEDS} == set(TARGETS)


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SAFETY / "fuzz.py"), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_wrong_is_found_and_can_be_run_again(tmp_path: Path) -> None:
    """An over-read that few inputs make ends the fuzzer; a wrong answer is told from the right."""
    (parser,) = re.findall(PARSER, (ROOT / "obframe/_core.pyx").read_text(), re.MULTILINE)
    imports = "from libc.stdlib cimport free as planted_free, malloc as planted_malloc\n\n"
    changes = {parser: imports + parser + OVER_READ + DISAGREEMENT}
    # Not optimised, it is built in half the time and finds the same.
    core = build_copy(tmp_path / "core", (*FLAGS, *COVERAGE, "-O0"), changes)
    options = ["--core", str(core), "--folder", str(tmp_path), "--target", "snapshot"]
    done = fuzz(*options, "--seconds", "30", "--seed", "1")
    assert done.returncode == 1, done.stdout
    assert re.search(OVER_READ_FOUND, done.stdout), done.stdout
    replay = re.search(r"replay it: \S+ safety/fuzz\.py --replay snapshot (\S+)", done.stdout)
    assert replay is not None, done.stdout
    assert Path(replay[1]).read_bytes().endswith(b"!")
    again = fuzz("--core", str(core), "--replay", "snapshot", replay[1])
    assert again.returncode != 0
    assert re.search(OVER_READ_FOUND, again.stdout), again.stdout
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"{}?")
    done = fuzz("--core", str(core), "--replay", "snapshot", str(wrong))
    assert done.returncode == 1
    assert "AssertionError: not JSON, and InvalidEvent" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("replay", "told"),
    [
        (("nope", "x"), "no target 'nope'; there are update,"),
        (("row", "no-file"), "no file no-file"),
    ],
)
def test_a_replay_of_what_is_not_there_is_refused_with_a_line(
    replay: tuple[str, str], told: str
) -> None:
    done = fuzz("--replay", *replay)
    assert done.returncode == 2
    assert told in done.stdout, done.stdout


NUMBERS = """
#include <stdio.h>
#include <stdlib.h>
#include "_core.h"
int main(void) {
    /* Texts of every length, and every number of bytes behind them. */
    int size, behind, point, scale, wrong = 0;
    for (size = 1; size <= 20; size++)
        for (behind = 0; behind <= 20; behind++)
            for (point = 0; point < size; point++)
                for (scale = 0; scale <= 8; scale++) {
                    uint8_t *text = malloc((size_t)(1 + size + behind)), *end;
                    const uint8_t *next;
                    uint64_t count;
                    obf_units units;
                    end = text + 1 + size + behind;
                    memset(text, '0', (size_t)(end - text));
                    text[0] = (uint8_t)(0xA0 + size);
                    if (point)
                        text[point] = '.';
                    obf_set_units(&units, scale);
                    next = obf_read_units(text, end, &units, &count);
                    wrong += next != NULL && next >= end;
                    free(text);
                }
    printf("%d wrong\\n", wrong);
    return wrong != 0;
}
"""


@pytest.mark.parametrize(
    "flag", ["", "-DOBFRAME_NO_AVX512", "-DOBFRAME_NO_SIMD", "-DOBFRAME_PORTABLE"]
)
def test_a_number_read_at_once_leaves_something_to_read_behind_it(
    tmp_path: Path, flag: str
) -> None:
    """What reads the next looks at its first byte; and nothing behind the end is looked at."""
    (tmp_path / "numbers.c").write_text(NUMBERS)
    command = [*shlex.split(os.environ.get("CC", "cc")), "-fsanitize=address", f"-I{ROOT}/obframe"]
    command += [flag] if flag else []
    subprocess.run([*command, "numbers.c", "-o", "numbers"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "numbers"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0 wrong\n"), done.stderr


def run_program(name: str, steps: int, flag: str, folder: Path) -> list[int]:
    """Compile and run a program of safety/, and return what it says that each variant has done."""
    flags = ["-O2", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
    compile_program(name, folder / name, [*flags, flag] if flag else flags)
    command = [folder / name, str(steps), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in re.findall(r"(\d+) (?:by|without) ", done.stdout)]


@pytest.mark.parametrize("flag", ["", "-DOBFRAME_NO_SIMD"])
def test_all_variants_keep_a_book_as_a_plain_model_does_and_stay_within_its_arrays(
    tmp_path: Path, flag: str
) -> None:
    """Where Python cannot look: every key, hole and index, and memory that must not be touched."""
    assert sum(run_program("book", 10_000, flag, tmp_path)) == 10_000


@pytest.mark.parametrize("flag", ["", "-DOBFRAME_NO_AVX512"])
def test_all_variants_read_the_levels_that_a_plain_model_reads_and_nothing_beside_the_message(
    tmp_path: Path, flag: str
) -> None:
    by_avx2, by_avx512 = run_program("levels", 30_000, flag, tmp_path)
    flags = Path("/proc/cpuinfo").read_text(errors="replace").split()
    assert (by_avx2 > 100_000) == ("avx2" in flags)
    assert (by_avx512 > 100_000) == ("avx512_vbmi2" in flags and not flag)


@pytest.mark.parametrize("flag", ["", "-DOBFRAME_NO_SIMD", "-DOBFRAME_PORTABLE"])
def test_a_row_is_checked_at_once_as_a_plain_model_does_and_nothing_beside_it_is_read(
    tmp_path: Path, flag: str
) -> None:
    rows = run_program("rows", 200_000, flag, tmp_path)
    assert sum(rows) == 200_000
    assert min(rows) > 50_000


def test_threads_take_the_same_rows_as_one() -> None:
    """With books of their own, and while they read one that another changes."""
    check_books_apart(messages=100)
    check_one_book(messages=100)
    check_one_decoder(tries=100)


def test_the_core_is_built_for_another_python_and_driven_there(tmp_path: Path) -> None:
    """By what `make free-threaded` does; here the other Python is this one."""
    headers, suffix = sysconfig.get_path("include"), sysconfig.get_config_var("EXT_SUFFIX")
    free_threaded.build(tmp_path / "obframe", headers, suffix, ("-O0",))
    program = "from obframe import _core; print(_core.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert free_threaded.test(sys.executable, tmp_path, sanitized=False) == 0


def test_without_a_free_threaded_python_the_reason_is_told() -> None:
    command = [sys.executable, str(SAFETY / "free_threaded.py"), "no-such-python"]
    for required, code in (("0", 0), ("1", 1)):
        done = subprocess.run(
            command,
            env={**os.environ, "OBFRAME_REQUIRE_FREE_THREADED": required},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "not tested without GIL: no Python of that kind among no-such-python" in done.stdout
