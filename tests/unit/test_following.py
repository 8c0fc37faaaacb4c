"""Following a symbol: no row missing, none twice, and little looking."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from obframe import (
    Mark,
    MarkKind,
    QueryError,
    Record,
    Snapshot,
    StoreCorrupt,
    StoreUnavailable,
    Trust,
)
from obframe.following import follow, pause
from obframe_plugins.memory import MemoryStorage

T = 1_737_158_400


def record(second: int) -> Record:
    return Record("A", second, Snapshot("A", 1, second, [("1", "2")], [("3", "4")]).pack())


class Desk:
    """A clock that passes as it is waited for, and a recorder that stores while it does."""

    def __init__(self, storage: MemoryStorage, arrivals: dict[int, float], now: float) -> None:
        self.storage = storage
        self.arrivals = arrivals  # when each second's row is stored
        self.now = now
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= 1.03
        self.looks += 1
        self.now += seconds
        for second in [each for each, at in self.arrivals.items() if at <= self.now]:
            self.storage.append([record(second)])
            del self.arrivals[second]

    def run(self, start: int, until: float) -> list[tuple[int, float]]:
        """Follow until a time; return each second with the time it was seen."""
        seen = []
        for row in follow(self.storage, "A", start, clock=self.clock, wait=self.wait):
            if row is not None:
                seen.append((row.timestamp, self.now))
            elif self.now > until:
                return seen
        raise AssertionError("ended by itself")


def test_history_and_live_rows_come_without_a_seam() -> None:
    storage = MemoryStorage()
    storage.append([record(T + n) for n in range(-2000, 1)])
    arrivals = {T + n: T + n + 0.015 for n in range(1, 60)}
    desk = Desk(storage, arrivals, T + 0.5)
    seen = desk.run(T - 2000, T + 60)
    assert [second for second, _ in seen] == list(range(T - 2000, T + 60))
    ages = [at - second for second, at in seen[2001:]]
    assert max(ages) < 0.03
    assert desk.looks < 70 + 8, "one look a second finds its row"


@pytest.mark.parametrize("seed", range(5))
def test_whenever_rows_are_stored_each_comes_once_and_soon(seed: int) -> None:
    draw = random.Random(seed)
    arrivals, stored = {}, 0.0
    for n in range(200):
        if draw.random() < 0.85:  # the rest is lost
            stored = max(stored, T + n + draw.choice([0.01, 0.1, 0.5, 1.7]) * draw.random())
            arrivals[T + n] = stored
    expected = dict(arrivals)
    desk = Desk(MemoryStorage(), arrivals, T - 3.3)
    seen = desk.run(T, T + 203)
    assert [second for second, _ in seen] == sorted(expected)
    late = max(at - expected[second] for second, at in seen)
    assert late < 0.4
    assert desk.looks < 206 * 7


def test_a_look_that_fails_for_a_moment_is_repeated() -> None:
    class Shaky(MemoryStorage):
        failures = 3

        def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
            for count, each in enumerate(super().scan(symbol, start, end)):
                if count == 2 and self.failures:
                    self.failures -= 1
                    raise StoreUnavailable("the files changed all the while")
                yield each

    storage = Shaky()
    storage.append([record(T + n) for n in range(9)])
    desk = Desk(storage, {}, T + 9.0)
    assert [second for second, _ in desk.run(T, T + 12)] == list(range(T, T + 9))
    assert storage.failures == 0


def test_a_storage_that_stays_unavailable_or_is_damaged_ends_it() -> None:
    class Broken(MemoryStorage):
        error: Exception = StoreUnavailable("gone")

        def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
            raise self.error
            yield

    storage = Broken()
    desk = Desk(storage, {}, T + 0.5)
    with pytest.raises(StoreUnavailable):
        desk.run(T, T + 1000)
    assert 10 < desk.now - T < 12
    storage.error = StoreCorrupt("damaged")
    with pytest.raises(StoreCorrupt):
        desk.run(T, T + 1000)


def test_rows_that_are_followed_bear_their_trust() -> None:
    storage = MemoryStorage()
    storage.append([record(T), record(T + 1)])
    storage.append_marks([Mark("A", T + 1, T + 1, MarkKind.EPOCH)])
    found = follow(storage, "A", T)
    assert [row and row.trust for row in (next(found), next(found), next(found))] == [
        Trust.LIVE,
        Trust.EPOCH,
        None,
    ]
    with pytest.raises(QueryError, match="milliseconds"):
        follow(storage, "A", T * 1000)


def test_the_pause_is_to_the_next_second_once_the_present_one_s_row_is_there() -> None:
    assert pause(T + 0.25, T + 1) == pytest.approx(0.77, abs=1e-5)
    assert pause(T + 0.0, T) == pytest.approx(0.02, abs=1e-5)
    assert pause(T + 0.05, T) == pytest.approx(0.03, abs=1e-5)
    assert pause(T + 0.99, T) == pytest.approx(0.03, abs=1e-5)
    assert pause(T + 0.5, T + 500) == pytest.approx(1.02, abs=1e-5)
    assert all(0.005 <= pause(T + n / 1000, T) <= 0.4 for n in range(1000))
