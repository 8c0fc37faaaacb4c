"""Holds every benchmark to its budget in budgets.toml."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

Hold = Callable[..., float]


def read_statistic(benchmark: Any, name: str) -> float:
    """Return a statistic in microseconds; a benchmark that did not measure it fails."""
    measured = getattr(getattr(benchmark, "stats", None), "stats", None)
    value = getattr(measured, name, None)
    if not isinstance(value, float) or not value > 0:
        pytest.fail(f"no statistic {name!r}: run with --benchmark-only")
    return value * 1e6


@pytest.fixture(scope="session")
def budgets() -> dict[str, Any]:
    """Return budgets.toml."""
    with (HERE / "budgets.toml").open("rb") as file:
        return tomllib.load(file)


@pytest.fixture
def hold(benchmark: Any, budgets: dict[str, Any]) -> Hold:
    """Return a function that fails the test when a budget is missed or has no limit.

    It takes the budget's name, how many units of work one round is, and, for a budget that is a
    ratio, the reference's microseconds for one unit. It returns the microseconds of one unit.
    """

    def check(name: str, units: int = 1, reference: float | None = None) -> float:
        budget = budgets[name]
        spent = read_statistic(benchmark, budget["statistic"]) / units
        benchmark.extra_info["microseconds"] = round(spent, 3)
        if "microseconds" not in budget and "ratio" not in budget:
            pytest.fail(f"budget {name} has no limit")
        if "microseconds" in budget:
            assert spent <= budget["microseconds"], f"{name}: {spent:.2f} us"
        if "ratio" in budget:
            if reference is None:
                pytest.fail(f"budget {name} is a ratio and has nothing to compare with")
            ratio = reference / spent
            benchmark.extra_info["ratio"] = round(ratio, 1)
            assert ratio >= budget["ratio"], f"{name}: {ratio:.1f} times the reference's speed"
        return spent

    return check
