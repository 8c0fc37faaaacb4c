"""Limits in time, delays, batches: without I/O and without a clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe_plugins._binance_plan import MOST_COMMAND_BYTES, Tuning, fit
from obframe_plugins._pacing import Backoff, RollingLimit

COSTS = st.lists(st.tuples(st.integers(1, 10), st.floats(0, 5)), min_size=1, max_size=60)


@given(costs=COSTS)
def test_row_32_no_stretch_of_time_ever_holds_more_than_the_limit(
    costs: list[tuple[int, float]],
) -> None:
    limit = RollingLimit(20, 10.0)
    now = 1000.0
    spent: list[tuple[float, int]] = []
    for cost, idle in costs:
        now += idle
        delay = limit.delay(cost, now)
        assert delay <= 10.0
        if delay > 0:
            assert limit.delay(cost, now + delay * 0.99 - 1e-6) > 0 or delay < 1e-3
        now += delay
        assert limit.delay(cost, now) == pytest.approx(0.0, abs=1e-6)
        limit.spend(cost, now)
        spent.append((now, cost))
    for start, _ in spent:
        assert sum(units for at, units in spent if start <= at < start + 10.0 - 1e-6) <= 20


def test_what_others_spent_counts_until_the_venue_forgets_it() -> None:
    limit = RollingLimit(100, 60.0)
    limit.spend(30, 0.0)
    limit.report(90, 1.0, until=21.0)
    assert limit.delay(10, 1.0) == 0.0
    assert limit.delay(11, 1.0) == pytest.approx(20.0)
    assert limit.delay(71, 1.0) == pytest.approx(59.0)
    assert limit.delay(11, 21.0) == 0.0
    limit.report(5, 22.0, until=60.0)
    assert limit.delay(70, 22.0) == 0.0, "less than we spent ourselves tells nothing new"


def test_row_35_the_time_until_a_queue_is_done() -> None:
    limit = RollingLimit(4800, 60.0)
    assert limit.wait_for_all(4800, 0.0) == 0.0
    assert limit.wait_for_all(1024 * 50, 0.0) == pytest.approx(580.0)
    limit.spend(4800, 0.0)
    assert limit.wait_for_all(4800, 0.0) == pytest.approx(60.0)


@given(most=st.floats(0.01, 100.0), seed=st.integers(0, 100))
def test_row_27_delays_are_jittered_and_capped(most: float, seed: int) -> None:
    backoff = Backoff(most, random.Random(seed))
    for failures in range(200):
        bound = min(most, min(0.5, most) * 2 ** min(failures, 40))
        assert 0.0 <= backoff.next() <= bound
    backoff.reset()
    assert backoff.next() <= min(0.5, most)


@given(names=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=400))
def test_a_control_message_holds_what_fits_and_at_least_one(names: list[str]) -> None:
    taken = fit(names, 200)
    assert taken == names[: len(taken)]
    assert 1 <= len(taken) <= 200
    assert sum(len(name.encode()) + 3 for name in taken) <= max(
        MOST_COMMAND_BYTES, len(names[0].encode()) + 3
    )


@given(count=st.integers(2, 300), data=st.data())
def test_row_28_halving_finds_the_stream_that_gets_the_connection_cut(
    count: int, data: st.DataObject
) -> None:
    names = [f"s{n}" for n in range(count)]
    bad = data.draw(st.sampled_from(names))
    tuning = Tuning(0.3, 60.0)
    cuts = 0
    while bad not in tuning.refused:
        on_wire: set[str] = set()
        while batch := tuning.batch([name for name in names if name not in on_wire], 0.0):
            if bad in batch:
                cuts += 1
                tuning.cut_off(batch)
                if len(batch) == 1:
                    tuning.refuse(bad, 0.0)
                break
            tuning.accept(batch)
            on_wire.update(batch)
        assert cuts <= 12
    assert tuning.batch([bad], 59.0) == []
    assert tuning.batch([bad], 60.0) == [bad]
    assert list(tuning.refused) == [bad]
    assert 0.3 < tuning.interval <= 2.0
    tuning.reset()
    assert tuning.interval == 0.3
