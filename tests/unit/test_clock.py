"""The second's tick under steps, stalls, slews and suspends (faults rows 36, 37, 39)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from obframe import GapReason
from obframe.clock import SystemClock, Tick, ticks
from obframe.testing.clock import FakeClock

START = 1_700_000_000


async def take(clock: FakeClock, count: int, tolerance: float = 0.5) -> list[Tick]:
    seen: list[Tick] = []
    async for tick in ticks(clock, tolerance):
        seen.append(tick)
        if len(seen) == count:
            break
    return seen


def labels(seen: list[Tick]) -> list[int]:
    return [tick.second for tick in seen if tick.second is not None]


async def test_every_second_once_and_aligned() -> None:
    clock = FakeClock(wall=START + 0.25, auto=True)
    seen = await take(clock, 100)
    assert labels(seen) == list(range(START + 1, START + 101))
    assert all(tick.lag < 1e-6 and tick.missed is None for tick in seen)


async def test_no_drift_when_every_tick_takes_time() -> None:
    clock = FakeClock(wall=START + 0.25, auto=True)
    lags = []
    async for tick in ticks(clock):
        lags.append(tick.lag)
        clock.advance(0.2)  # the work of this tick
        if len(lags) == 1000:
            break
    assert max(lags) < 1e-6
    assert clock.time() == pytest.approx(START + 1000.2)


async def test_slewed_wall_clock_is_followed() -> None:
    clock = FakeClock(wall=START + 0.25, auto=True)
    rng = random.Random(7)
    seen = []
    async for tick in ticks(clock):
        seen.append(tick)
        clock.step(rng.uniform(-0.01, 0.01))
        if len(seen) == 500:
            break
    assert labels(seen) == list(range(START + 1, START + 501))
    assert all(tick.missed is None and not tick.relived for tick in seen)
    assert all(0 <= tick.lag <= 0.0101 for tick in seen)


async def test_row_36_step_back_gives_no_second_twice() -> None:
    clock = FakeClock(wall=START + 0.25, monotonic=0.0, auto=True)
    clock.at(5.0, lambda: clock.step(-10.0))
    seen = await take(clock, 30)
    fresh = [tick.second for tick in seen if tick.second is not None and not tick.relived]
    assert fresh == sorted(set(fresh))
    assert fresh[:5] == list(range(START + 1, START + 6))
    lost = [tick.missed for tick in seen if tick.missed is not None]
    assert len(lost) == 1
    assert lost[0].reason is GapReason.CLOCK_STEP
    relived = [tick.second for tick in seen if tick.relived and tick.second is not None]
    assert relived == list(range(lost[0].start, lost[0].end + 1))
    assert fresh[5] == START + 6


async def test_row_37_step_forward_is_a_gap_and_asks_for_proof() -> None:
    clock = FakeClock(wall=START + 0.25, monotonic=0.0, auto=True)
    clock.at(5.0, lambda: clock.step(100.0))
    seen = await take(clock, 12)
    missed = [tick for tick in seen if tick.missed is not None]
    assert len(missed) == 1
    assert missed[0].resync
    assert missed[0].missed is not None
    assert missed[0].missed.reason is GapReason.CLOCK_STEP
    covered = set(labels(seen)) | set(range(missed[0].missed.start, missed[0].missed.end + 1))
    assert covered == set(range(START + 1, max(covered) + 1))
    assert not set(labels(seen)) & set(range(missed[0].missed.start, missed[0].missed.end + 1))


async def test_row_37_suspend_is_told_apart_from_a_step() -> None:
    clock = FakeClock(wall=START + 0.25, monotonic=0.0, auto=True)
    clock.at(5.0, lambda: clock.suspend(3600.0))
    seen = await take(clock, 10)
    missed = [tick for tick in seen if tick.missed is not None]
    assert [tick.missed.reason for tick in missed if tick.missed] == [GapReason.SUSPENDED]
    assert missed[0].resync
    assert missed[0].missed is not None
    assert missed[0].missed.end - missed[0].missed.start >= 3598


@pytest.mark.parametrize("stall", [0.3, 0.6, 1.3, 1.74, 5.9, 60.0])
async def test_row_39_stall_gives_the_true_label_or_a_gap(stall: float) -> None:
    clock = FakeClock(wall=START + 0.25, monotonic=0.0, auto=True)
    clock.at(4.75, lambda: clock.advance(stall))  # at the tick of second 5
    seen = await take(clock, 12)
    given = labels(seen)
    gaps = [tick.missed for tick in seen if tick.missed is not None]
    lost = {second for gap in gaps for second in range(gap.start, gap.end + 1)}
    assert all(gap.reason is GapReason.STALLED for gap in gaps)
    assert not lost & set(given)
    assert lost | set(given) == set(range(START + 1, max(given) + 1))
    assert all(tick.lag <= 0.5 for tick in seen if tick.second is not None)
    if stall > 0.5:
        assert START + 5 in lost
    else:
        assert not lost


async def test_every_second_is_given_or_lost_whatever_happens() -> None:
    """Random steps, suspends and stalls: no second given twice, none unaccounted for."""
    for seed in range(150):
        rng = random.Random(seed)
        clock = FakeClock(wall=START + rng.random(), monotonic=0.0, auto=True)

        def change(clock: FakeClock = clock, rng: random.Random = rng) -> Callable[[], None]:
            amount = rng.choice([0.1, 0.7, 1.0, 3.3, 40.0])
            return rng.choice(
                [
                    lambda: clock.step(amount),
                    lambda: clock.step(-amount),
                    lambda: clock.suspend(amount),
                    lambda: clock.advance(amount),
                ]
            )

        for _ in range(8):
            clock.at(rng.uniform(0, 60), change())
        seen = await take(clock, 120)
        given = [tick.second for tick in seen if tick.second is not None and not tick.relived]
        assert given == sorted(set(given)), seed
        lost = {
            second
            for tick in seen
            if tick.missed is not None
            for second in range(tick.missed.start, tick.missed.end + 1)
        }
        assert set(range(START + 2, max(given))) <= set(given) | lost, seed


async def test_system_clock_keeps_its_promise() -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + 0.05
    await clock.sleep_until(deadline)
    assert clock.monotonic() >= deadline
    assert clock.boottime() > 0
    assert clock.time() > START
