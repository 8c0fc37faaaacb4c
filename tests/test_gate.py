"""The gate itself: what is slow, missing or measured by nobody fails the run of the benchmarks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "safety"))

from corebuild import build_copy, copy_environment  # noqa: E402

Run = Callable[..., subprocess.CompletedProcess[str]]

BUDGETS = """
[quick]
statistic = "median"
microseconds = 1e6
ratio = 0.0001
"""
BENCHMARK = """
def test_quick(race):
    race("quick", work=lambda: sum(range(50_000)), reference=lambda: sum(range(100)), rounds=20)
"""


def run_benchmarks(folder: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
    # Benchmarks refuse to run where they think that they are one of several workers.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", "-q", str(folder), *options],
        cwd=ROOT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a benchmark with its budgets under the real gate."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("conftest.py", "gate.py"):
        shutil.copy(ROOT / "benchmarks" / name, folder)

    def go(
        budgets: str = BUDGETS, benchmark: str = BENCHMARK, *options: str
    ) -> subprocess.CompletedProcess[str]:
        (folder / "budgets.toml").write_text(budgets)
        (folder / "bench_it.py").write_text(benchmark)
        return run_benchmarks(folder, *options)

    return go


def test_what_is_held_passes_and_is_printed(run: Run) -> None:
    done = run()
    assert done.returncode == 0, done.stdout
    assert re.search(r"quick +median .* us +1,000,000 us .* x +0\.0001 x +ok", done.stdout), (
        done.stdout
    )


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("microseconds = 1e6", "microseconds = 50", r"quick: .* 50 us are allowed"),
        ("ratio = 0.0001", "ratio = 100", r"quick: .* 100 times is the least allowed"),
        ('"median"', '"p99"', r"quick: no p99 of 20 values"),
        ('"median"', '"value"', r"quick: no statistic 'value'"),
    ],
    ids=["over the limit", "below the ratio", "too few for p99", "not of rounds"],
)
def test_what_is_missed_fails(run: Run, old: str, new: str, complaint: str) -> None:
    assert old in BUDGETS
    done = run(BUDGETS.replace(old, new))
    assert done.returncode == 1, done.stdout
    assert re.search(complaint, done.stdout), done.stdout


def test_a_machine_too_slow_for_the_reference_is_judged_by_the_ratio(run: Run) -> None:
    done = run(BUDGETS.replace("1e6", "1e-3"))
    assert done.returncode == 0, done.stdout
    assert "this machine is too slow for the limit" in done.stdout


@pytest.mark.parametrize(
    ("ours", "reference", "told"),
    [
        (3.0, 2.0, r"ok, this machine is too slow for the limit"),
        (3.0, 0.2, r"quick: 3 %, 1 % are allowed"),
        (5.0, 2.0, r"quick: 0\.4 times as good as the reference, 0\.5 times is the least"),
    ],
    ids=["as dear for all", "dear for us", "dear for all, and more so for us"],
)
def test_a_share_of_the_cpu_is_judged_like_a_time(
    run: Run, ours: float, reference: float, told: str
) -> None:
    budgets = '[quick]\nstatistic = "value"\npercent = 1.0\nratio = 0.5\n'
    done = run(budgets, f"def test_quick(gate):\n    gate.hold('quick', {ours}, {reference})\n")
    assert done.returncode == (0 if told.startswith("ok") else 1), done.stdout
    assert re.search(told, done.stdout), done.stdout


# Both budgets are missed once, each in another attempt.
MOODS = """
attempts = []


def test_quick(gate):
    attempts.append(1)
    late = {1: "quick", 2: "other"}.get(len(attempts))
    missed = []
    for name in ("quick", "other"):
        try:
            gate.hold(name, 9e6 if name == late else 1.0, 1.0)
        except AssertionError as error:
            missed.append(str(error))
    assert len(attempts) < 3
    if missed:
        from gate import BudgetMissed

        raise BudgetMissed("; ".join(missed))
"""


def test_a_busy_moment_is_measured_again_and_told(run: Run) -> None:
    done = run(BUDGETS + BUDGETS.replace("quick", "other"), MOODS)
    assert done.returncode == 0, done.stdout
    assert re.search(r"quick .* ok, attempt 2$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"other .* ok$", done.stdout, re.MULTILINE), done.stdout


def test_what_is_slow_misses_every_attempt(run: Run) -> None:
    done = run(BUDGETS.replace("0.0001", "100"), BENCHMARK, "--attempts", "3")
    assert done.returncode == 1, done.stdout
    assert re.search(r"quick .* MISSED, 3 attempts$", done.stdout, re.MULTILINE), done.stdout


def test_a_statistic_that_was_not_measured_fails(run: Run) -> None:
    done = run(BUDGETS, BENCHMARK, "--benchmark-disable")
    assert done.returncode == 1, done.stdout
    assert "nothing was measured" in done.stdout


def test_a_budget_without_benchmark_fails(run: Run) -> None:
    done = run(BUDGETS + BUDGETS.replace("quick", "forgotten"))
    assert done.returncode == 1, done.stdout
    assert re.search(r"forgotten +median +MISSING", done.stdout), done.stdout


def test_a_benchmark_without_budget_fails(run: Run) -> None:
    done = run(BUDGETS, BENCHMARK + "\ndef test_idle():\n    pass\n")
    assert done.returncode == 1, done.stdout
    assert "test_idle measures for no budget" in done.stdout
    done = run(BUDGETS, BENCHMARK.replace('"quick"', '"slow"'))
    assert done.returncode == 1, done.stdout
    assert "budgets.toml has no budget 'slow'" in done.stdout


@pytest.mark.parametrize(
    "table", ['statistic = "median"', 'statistic = "mode"\nratio = 1', "ratio = 1", "median = 3"]
)
def test_a_budget_that_says_nothing_fails(run: Run, table: str) -> None:
    done = run(f"[quick]\n{table}\n")
    assert done.returncode != 0
    assert "budget quick" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def slowed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build a core whose books do their work eight times over; return PYTHONPATH for it."""
    source = (ROOT / "obframe/_core.pyx").read_text()
    (head,) = re.findall(r"^cdef class OrderBook:$", source, re.MULTILINE)
    (apply,) = re.findall(r"^    def apply\(self, .*\):$", source, re.MULTILINE)
    argument = re.search(r"DepthUpdate (\w+)", apply)
    assert argument is not None
    again = f"""
        global planted
        if planted == 0:
            planted = 1
            for _ in range(7):
                self.apply({argument[1]})
            planted = 0
"""
    changes = {head: f"cdef int planted = 0\n\n{head}", apply: apply + again}
    core = build_copy(tmp_path_factory.mktemp("slowed"), changes=changes)
    return copy_environment(core)["PYTHONPATH"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_slowed_core_is_reported(slowed: str) -> None:
    """It misses the book's budget, and no other of the core."""
    done = run_benchmarks(ROOT / "benchmarks/bench_core.py", PYTHONPATH=slowed)
    assert done.returncode == 1, done.stdout
    assert re.search(r"core_book: \S+ times as good as the reference", done.stdout), done.stdout
    assert re.search(r"core_book .*MISSED", done.stdout), done.stdout
    assert re.search(r"core_parse .* ok$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"decode .* ok$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_instructions_of_a_slowed_core_are_reported(slowed: str) -> None:
    """Beside the last commit's, and no function that was not slowed."""
    done = count_instructions("--reference", "HEAD", PYTHONPATH=slowed)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"OrderBook\.apply .* \+[4-8]\d\d\.\d\d%  MISSED", done.stdout), done.stdout
    assert re.search(r"Snapshot\.pack .*  ok", done.stdout), done.stdout
    assert "add a line to benchmarks/instructions.md" in done.stdout


def test_instructions_are_not_counted_without_valgrind(tmp_path: Path) -> None:
    done = count_instructions(PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "instructions are not compared: there is no valgrind" in done.stdout


def count_instructions(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(ROOT / "benchmarks/instructions.py"), *options],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


READS = ("read_an_hour", "read_the_newest_from_another_process")
# File: what stands there once, and what is slower.
SLOWER = {
    "obframe_plugins/_writing.py": (
        "                self._write(database, fresh)\n",
        "                self._write(database, fresh)\n                database.flush()\n",
    ),
    "obframe_plugins/_reading.py": (
        "            self._handle.catch_up()\n",
        "            __import__('time').sleep(0.01)\n            self._handle.catch_up()\n",
    ),
    "obframe/query.py": (
        "Snapshot.unpack(",
        "[Snapshot.unpack(value) for _ in range(10)] and Snapshot.unpack(",
    ),
    "obframe/sync.py": (
        "            book.apply(update)\n",
        "            __import__('time').sleep(0.002)\n            book.apply(update)\n",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_slowed_storing_reading_and_recording_are_reported(tmp_path: Path) -> None:
    for name, package in (("obframe", "obframe"), ("obframe_plugins", "plugins")):
        shutil.copytree(ROOT / package, tmp_path / name)
    for name, (old, new) in SLOWER.items():
        text = (tmp_path / name).read_text()
        assert text.count(old) == 1, name
        (tmp_path / name).write_text(text.replace(old, new))
    benchmarks = [f"benchmarks/bench_storage.py::test_{name}" for name in ("append[put]", *READS)]
    benchmarks.append("benchmarks/bench_recording.py::test_latency_of_20_symbols")
    done = run_benchmarks(
        ROOT / benchmarks[0],
        *(str(ROOT / benchmark) for benchmark in benchmarks[1:]),
        "--attempts=2",
        PYTHONPATH=str(tmp_path),
        OBFRAME_BENCH_SECONDS="5",
    )
    assert done.returncode == 1, done.stdout
    for budget in ("put", "read_hour", "reader_latest", "latency_20"):
        missed = rf"^{budget} .* MISSED, 2 attempts$"
        assert re.search(missed, done.stdout, re.MULTILINE), done.stdout
