"""The structures beside the core's: `make bench-structures` in short; a wrong one is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
STREAMS = ("syn", "spot", "usdm", "traps", "odd")


def compare(benchmarks: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(benchmarks / "structures/run.py"), "--quick", *options]
    return subprocess.run(
        command,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("--portable",)], ids=["as it is", "portable"])
def test_all_structures_hold_what_the_core_holds(captures: Path, options: tuple[str, ...]) -> None:
    done = compare(BENCHMARKS, *options, OBFRAME_CAPTURES=str(captures), CFLAGS="-O1")
    assert done.returncode == 0, done.stderr
    for stream in STREAMS:
        assert f"{stream}: " in done.stderr, done.stderr
    assert done.stderr.count("structures agree with the core") == len(STREAMS) + 2, done.stderr
    for table in ("One hot book", "20 books in turn", "kB a book"):
        assert table in done.stdout
    for structure in ("flat", "blocks 75%", "pages packed"):
        assert done.stdout.count(f"| {structure} |") == 4, done.stdout  # tables


@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        ("ticks.h", "* ticks->size)", "* ticks->size + 1)", "pages: differs from flat after"),
        ("structure.h", "{change->low,", "{change->low ^ 1,", "syn: the structures differ from"),
    ],
    ids=["one", "all alike"],
)
def test_a_wrong_structure_is_told(
    tmp_path: Path, file: str, right: str, wrong: str, message: str
) -> None:
    shutil.copytree(BENCHMARKS, tmp_path / "benchmarks")
    source = tmp_path / "benchmarks/structures" / file
    text = source.read_text()
    assert right in text
    source.write_text(text.replace(right, wrong))
    done = compare(tmp_path / "benchmarks", CFLAGS="-O0")
    assert done.returncode == 1, done.stdout
    assert message in done.stderr
