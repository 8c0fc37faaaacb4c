"""Holds every benchmark to its budget in budgets.toml, and every budget to a benchmark."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gate import BudgetMissed, Gate, NotJudged, read_budgets  # noqa: E402

Hold = Callable[..., float]
Race = Callable[..., Any]

GATE = pytest.StashKey[Gate]()
COMPLETE = pytest.StashKey[bool]()
DESELECTED = pytest.StashKey[list[str]]()
ATTEMPT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take how often to measure."""
    parser.addoption(
        "--attempts", type=int, default=5, help="measurements before a budget counts as missed"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the budgets; one table at the end says it all."""
    config.stash[GATE] = Gate(read_budgets(HERE / "budgets.toml"))
    config.stash[COMPLETE] = False
    config.stash[DESELECTED] = []
    config.option.benchmark_quiet = True


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember that not all benchmarks run."""
    for item in items:
        item.config.stash[DESELECTED].append(item.nodeid)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember which benchmark runs."""
    item.config.stash[GATE].benchmark = item.nodeid


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[Any]:  # what a wrapper yields
    """Fail a benchmark that held no budget; put one that missed its budget last, to run again."""
    report = yield
    held = item.config.stash[GATE].held_by
    if call.when != "call":
        return report
    if report.passed and not held.get(item.nodeid):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} measures for no budget"
    missed = call.excinfo is not None and call.excinfo.errisinstance(BudgetMissed)
    if missed and not call.excinfo.errisinstance(NotJudged):
        attempt = item.stash.get(ATTEMPT, 1)
        item.stash[ATTEMPT] = attempt + 1
        if attempt < item.config.option.attempts:
            report.outcome, report.longrepr = "again", None
            item.session.items.append(item)
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show an attempt that is not the last."""
    return ("again", "A", "AGAIN") if report.outcome == "again" else None


def is_complete(session: pytest.Session) -> bool:
    """Return whether every benchmark was asked for."""
    files = {item.path for item in session.items}
    asked_in_part = any("::" in argument for argument in session.config.args)
    deselected = session.config.stash[DESELECTED]
    return files >= set(HERE.glob("bench_*.py")) and not asked_in_part and not deselected


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a complete run in which a budget was measured by no benchmark."""
    complete = session.config.stash[COMPLETE] = is_complete(session)
    missing = session.config.stash[GATE].missing()
    if exitstatus == pytest.ExitCode.OK and complete and missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table."""
    gate = config.stash[GATE]
    if gate.results:
        terminalreporter.section("budgets")
        for line in gate.table(config.stash[COMPLETE]):
            terminalreporter.write_line(line)


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Return what collects the figures of this run."""
    return request.config.stash[GATE]


def read_rounds(benchmark: Any) -> list[float]:
    """Return the seconds of each round; a benchmark that did not measure fails.

    Raises:
        NotJudged: Nothing was measured.
    """
    measured = getattr(getattr(benchmark, "stats", None), "stats", None)
    rounds = list(getattr(measured, "data", ()))
    if not rounds:
        raise NotJudged("nothing was measured; benchmarks must not be disabled")
    return rounds


@pytest.fixture
def hold(benchmark: Any, gate: Gate) -> Hold:
    """Return a function that fails the test when a budget is missed or has no limit.

    It takes the budget's name, how many units of work one round is, and, for a budget that is a
    ratio, the reference's microseconds for one unit. It returns the microseconds of one unit.
    """

    def check(name: str, units: int = 1, reference: float | None = None) -> float:
        rounds = read_rounds(benchmark)
        beside = None if reference is None else [reference * units / 1e6] * len(rounds)
        return gate.hold_rounds(name, rounds, beside, units).measured

    return check


@pytest.fixture
def race(benchmark: Any, gate: Gate, request: pytest.FixtureRequest) -> Race:
    """Return a function that runs work and reference in turns and holds budgets to it.

    It takes the names of the budgets, what to measure, what to compare with, the number of rounds
    and how many units of work a round is, for both alike. Both are timed by the timer of the
    benchmark's mark. Garbage is collected as ever. ``settle`` runs untimed after each turn of the
    reference.
    """
    mark = request.node.get_closest_marker("benchmark")
    timer = mark.kwargs.get("timer", time.perf_counter) if mark else time.perf_counter

    def run(
        *names: str,
        work: Callable[[], Any],
        reference: Callable[[], Any],
        settle: Callable[[], Any] = lambda: None,
        rounds: int = 100,
        units: int = 1,
    ) -> None:
        beside: list[float] = []

        def run_reference() -> None:
            start = timer()
            reference()
            beside.append(timer() - start)
            settle()

        benchmark.pedantic(work, setup=run_reference, rounds=rounds, warmup_rounds=3)
        own = read_rounds(benchmark)
        missed = []
        for name in names:
            try:
                gate.hold_rounds(name, own, beside[-len(own) :], units)
            except NotJudged:
                raise
            except BudgetMissed as error:
                missed.append(str(error))
        if missed:
            raise BudgetMissed("; ".join(missed))

    return run
