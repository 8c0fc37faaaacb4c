"""Budgets, what was measured, and whether the one holds the other."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNITS = {"microseconds": "us", "milliseconds": "ms", "seconds": "s", "bytes": "B", "percent": "%"}
PER_SECOND = {"microseconds": 1e6, "milliseconds": 1e3, "seconds": 1.0}

Statistic = Callable[[Sequence[float]], float]


def percentile_99(values: Sequence[float]) -> float:
    """Return the 99th percentile, of at least 100 values."""
    if len(values) < 100:
        raise ValueError(f"no p99 of {len(values)} values")
    return sorted(values)[len(values) * 99 // 100]


STATISTICS: dict[str, Statistic] = {
    "median": statistics.median,
    "p99": percentile_99,
    "min": min,
    "mean": statistics.fmean,
}


class BudgetMissed(AssertionError):
    """A budget was not held, or could not be judged."""


class NotJudged(BudgetMissed):
    """A budget could not be judged; measuring again changes nothing."""


@dataclass(frozen=True)
class Budget:
    """What is allowed of one figure.

    Attributes:
        name: Of the budget.
        statistic: Of the rounds; ``value`` for a figure that is measured once.
        unit: What the figure is counted in.
        limit: At most this, in the unit.
        ratio: At least this many times better than the reference in the same run.
    """

    name: str
    statistic: str
    unit: str = "microseconds"
    limit: float | None = None
    ratio: float | None = None

    @classmethod
    def parse(cls, name: str, table: Mapping[str, Any]) -> Budget:
        """Read one table of budgets.toml.

        Raises:
            ValueError: It is not a budget.
        """
        units = [unit for unit in UNITS if unit in table]
        unknown = set(table) - {"statistic", "unit", "ratio", *units}
        statistic = table.get("statistic")
        unit = units[0] if units else table.get("unit", "microseconds")
        if unknown or len(units) > 1 or unit not in UNITS:
            raise ValueError(f"budget {name}: cannot be read: {dict(table)}")
        if statistic not in (*STATISTICS, "value"):
            raise ValueError(f"budget {name}: no such statistic: {statistic!r}")
        limit, ratio = (table[units[0]] if units else None), table.get("ratio")
        if limit is None and ratio is None:
            raise ValueError(f"budget {name} has no limit")
        return cls(name, statistic, unit, limit, ratio)


def read_budgets(path: Path) -> dict[str, Budget]:
    """Read budgets.toml.

    Raises:
        ValueError: One of them is not a budget.
    """
    tables = tomllib.loads(path.read_text())
    return {name: Budget.parse(name, table) for name, table in tables.items()}


@dataclass(frozen=True)
class Result:
    """What was measured for a budget, in its unit; the ratio is the reference's by ours."""

    budget: Budget
    measured: float
    reference: float | None = None
    ratio: float | None = None
    attempt: int = 1

    @property
    def ours(self) -> float | None:
        """What the ratio allows, in the unit, beside the reference as it was measured."""
        if self.budget.ratio is None or self.reference is None:
            return None
        return self.reference / self.budget.ratio

    @property
    def exceeds(self) -> bool:
        """Whether the figure is over its limit."""
        limit = self.budget.limit
        return limit is not None and not self.measured <= limit

    @property
    def excused(self) -> bool:
        """Whether the reference takes over a quarter of a limit of time: then the ratio judges."""
        limit, reference = self.budget.limit, self.reference
        if limit is None or reference is None or self.budget.ratio is None:
            return False
        return self.budget.unit in (*PER_SECOND, "percent") and reference > limit / 4

    @property
    def trouble(self) -> str:
        """Say in which way the budget is missed, nothing when it holds."""
        budget, unit = self.budget, UNITS[self.budget.unit]
        if self.exceeds and not self.excused:
            return f"{budget.name}: {self.measured:.4g} {unit}, {budget.limit:g} {unit} are allowed"
        if budget.ratio is not None:
            if self.ratio is None:
                return f"{budget.name}: is a ratio and was compared with nothing"
            if not self.ratio >= budget.ratio:
                return (
                    f"{budget.name}: {self.ratio:.3g} times as good as the reference, "
                    f"{budget.ratio:g} times is the least allowed"
                )
        return ""

    @property
    def verdict(self) -> str:
        """Say it in a word."""
        if self.trouble:
            return "MISSED" if self.attempt == 1 else f"MISSED, {self.attempt} attempts"
        verdict = "ok, this machine is too slow for the limit" if self.exceeds else "ok"
        return verdict if self.attempt == 1 else f"{verdict}, attempt {self.attempt}"


class Gate:
    """Collects what the benchmarks of one run measured.

    A benchmark that missed a budget may run again: what one of its attempts held is held. Whatever
    is slower is so in all of them, a busy moment of the machine is not.
    """

    def __init__(self, budgets: Mapping[str, Budget]) -> None:
        self.budgets = dict(budgets)
        self.results: dict[str, Result] = {}
        self.skipped: dict[str, str] = {}
        self.held_by: dict[str, set[str]] = {}
        self.benchmark = ""

    def hold(
        self, name: str, measured: float, reference: float | None = None, ratio: float | None = None
    ) -> Result:
        """Take a figure, in its budget's unit, and the reference's.

        Args:
            name: Of the budget.
            measured: The figure.
            reference: The same of the reference.
            ratio: How many times better than the reference; by default from the two.

        Raises:
            BudgetMissed: There is no such budget, or it is missed.
        """
        budget = self._find(name)
        if not measured >= 0:
            raise NotJudged(f"{name}: {measured!r} is not a measurement")
        if ratio is None and reference is not None and measured:
            ratio = reference / measured
        held = self.held_by.setdefault(self.benchmark, set())
        before = self.results[name] if name in held else None
        if before is not None and not before.trouble:
            return before
        attempt = 1 if before is None else before.attempt + 1
        result = Result(budget, measured, reference, ratio, attempt)
        self.results[name] = result
        held.add(name)
        if result.trouble:
            raise BudgetMissed(result.trouble)
        return result

    def hold_rounds(
        self,
        name: str,
        rounds: Sequence[float],
        reference: Sequence[float] | None = None,
        units: int = 1,
    ) -> Result:
        """Take the seconds of each round, and those of the reference beside each round.

        The ratio of medians is the median of the rounds' ratios: what disturbs the machine for a
        while disturbs both sides of a round.

        Raises:
            BudgetMissed: The budget is missed, or its statistic cannot be had.
        """
        budget = self._find(name)
        scale = PER_SECOND.get(budget.unit)
        statistic = STATISTICS.get(budget.statistic)
        if scale is None or statistic is None or not rounds:
            raise NotJudged(f"{name}: no statistic {budget.statistic!r} of {len(rounds)} rounds")
        try:
            ours = statistic(rounds) * scale / units
            if reference is None:
                return self.hold(name, ours)
            theirs = statistic(reference) * scale / units
        except ValueError as error:
            raise NotJudged(f"{name}: {error}") from error
        ratio = None
        if budget.statistic == "median":
            pairs = zip(reference, rounds, strict=True)
            ratio = statistics.median(other / own for other, own in pairs)
        return self.hold(name, ours, theirs, ratio)

    def _find(self, name: str) -> Budget:
        if name not in self.budgets:
            raise NotJudged(f"budgets.toml has no budget {name!r}")
        return self.budgets[name]

    def missing(self) -> list[str]:
        """Name the budgets that no benchmark held and none was allowed to skip."""
        return [name for name in self.budgets if name not in {*self.results, *self.skipped}]

    def table(self, complete: bool) -> list[str]:
        """Write one line a budget; of a run that is not complete only what was measured."""
        figures = ("measured", "limit", "ours", "reference", "ratio", "least")
        head = ("budget", "statistic", *figures, "")
        lines = [head]
        for name, budget in self.budgets.items():
            result = self.results.get(name)
            if result is None and not complete and name not in self.skipped:
                continue
            if result is None:
                verdict = f"skipped: {self.skipped[name]}" if name in self.skipped else "MISSING"
                lines.append((name, budget.statistic, *[""] * 6, verdict))
                continue
            unit = UNITS[budget.unit]
            lines.append(
                (
                    name,
                    budget.statistic,
                    _write(result.measured, unit),
                    _write(budget.limit, unit),
                    _write(result.ours, unit),
                    _write(result.reference, unit),
                    _write(result.ratio, "x"),
                    _write(budget.ratio, "x"),
                    result.verdict,
                )
            )
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        texts = []
        for line in lines:
            left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(line[2:8], widths[2:8], strict=True)]
            texts.append("  ".join([*left, *right, line[8]]).rstrip())
        return texts


def _write(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}"
