"""Retention, pass by pass: whose turn it is, what the cap takes, and space that comes back late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from obframe import GapReason, Record, StoreUnavailable, Usage
from obframe.clock import Missed
from obframe.retainer import Retainer
from obframe.settings import Duration, RecorderSettings, RetentionSettings, Size
from obframe.telling import Telling
from obframe.testing.clock import FakeClock
from obframe.testing.waiting import until
from obframe.writer import StorageWriter
from obframe_plugins.memory import MemoryStorage

START = 1_700_000_000
FOREVER = 9_999_999_999


class Weighed(MemoryStorage):
    """A storage whose rows take up a megabyte each, until what is deleted is given back."""

    def __init__(self, *symbols: str, rows: int = 100) -> None:
        super().__init__()
        self.garbage = 0
        self.reclaims = 0
        self.is_stuck = False
        for symbol in symbols:
            seconds = range(START - rows, START)
            self.append([Record(symbol, each, b"\x94\x90\x90\x01\x01") for each in seconds])

    def _sizes(self) -> dict[str, int]:
        return {symbol: 10**6 * len(self.seconds(symbol)) for symbol in self.symbols()}

    def seconds(self, symbol: str) -> list[int]:
        return [record.timestamp - START for record in self.scan(symbol, 10**9, FOREVER)]

    def delete_before(self, symbol: str, timestamp: int) -> None:
        before = self._sizes()
        super().delete_before(symbol, timestamp)
        self.garbage += sum(before.values()) - sum(self._sizes().values())

    def usage(self) -> Usage:
        sizes = self._sizes()
        return Usage(sum(sizes.values()) + self.garbage, 0, sizes)

    def reclaim(self) -> None:
        self.reclaims += 1
        if self.is_stuck:
            raise StoreUnavailable("no room to rewrite files")
        self.garbage = 0


class Desk:
    """A retainer with everything around it in the test's hands; ``resuming`` names symbols."""

    def __init__(self, storage: Weighed, size: str = "0", age: float = 0) -> None:
        self.clock = FakeClock(wall=START)
        self.resuming: set[str] = set()
        self.writer = StorageWriter(storage, queue_rows=10)
        self.retainer = Retainer(
            RetentionSettings(
                max_age=Duration(age), max_bytes=Size.parse(size), interval=Duration(0.01)
            ),
            storage,
            self.writer,
            Telling({}, storage, RecorderSettings(), now=START),
            is_resuming=self.resuming.__contains__,
            clock=self.clock,
        )

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Retainer]:
        task = asyncio.create_task(self.writer.run())
        try:
            yield self.retainer
        finally:
            self.writer.close()
            await asyncio.wait_for(task, 10)


async def test_the_cap_takes_as_much_of_what_is_recorded_as_of_what_no_longer_is() -> None:
    """At the start the recorded symbols wait for their first row; the others must not pay."""
    storage = Weighed("BTCUSDT", "GONEUSDT")
    desk = Desk(storage, "200MB")
    desk.resuming.add("BTCUSDT")
    async with desk.writing() as retainer:
        assert not await retainer.delete_old()
        assert len(storage.seconds("GONEUSDT")) == 100
        desk.resuming.clear()
        assert await retainer.delete_old()
    assert storage.seconds("BTCUSDT") == storage.seconds("GONEUSDT") == list(range(-85, 0))
    assert (storage.reclaims, storage.garbage) == (1, 0)
    assert retainer.counters == {"retention_by_bytes": 30}


async def test_age_takes_its_own_while_another_symbol_waits_for_its_first_row() -> None:
    storage = Weighed("BTCUSDT", "GONEUSDT")
    desk = Desk(storage, age=60)
    desk.resuming.add("BTCUSDT")
    async with desk.writing() as retainer:
        assert not await retainer.delete_old()
    assert storage.seconds("GONEUSDT") == list(range(-60, 0))
    assert len(storage.seconds("BTCUSDT")) == 100


async def test_no_row_goes_for_the_space_of_rows_that_went_before() -> None:
    storage = Weighed("BTCUSDT")
    async with Desk(storage, "100MB", age=60).writing() as retainer:
        await retainer.delete_old()
        assert (storage.garbage, storage.reclaims) == (40 * 10**6, 0)
        await retainer.delete_old()  # finds 60 MB of rows, and 40 MB yet to come back
    assert storage.seconds("BTCUSDT") == list(range(-60, 0))
    assert (storage.garbage, storage.reclaims) == (0, 1)


async def test_while_space_cannot_be_given_back_no_more_rows_go_for_it() -> None:
    storage = Weighed("BTCUSDT")
    storage.is_stuck = True
    wanted = asyncio.Event()
    wanted.set()
    async with Desk(storage, "100MB").writing() as retainer:
        task = asyncio.create_task(retainer.run(wanted))
        await until(lambda: storage.reclaims >= 5)
        assert storage.seconds("BTCUSDT") == list(range(-85, 0))
        assert retainer.counters["retention_failures"] >= 4
        storage.is_stuck = False
        await until(lambda: storage.garbage == 0)
        task.cancel()
        await asyncio.wait((task,))
    assert storage.seconds("BTCUSDT") == list(range(-85, 0))


@pytest.mark.parametrize(
    ("reason", "leapt", "believed"),
    [
        (GapReason.CLOCK_STEP, 3600, False),
        (GapReason.CLOCK_STEP, 3599, True),
        (GapReason.SUSPENDED, 86_400, True),
    ],
)
async def test_a_clock_that_leapt_ahead_is_doubted_for_an_hour(
    reason: GapReason, leapt: int, believed: bool
) -> None:
    storage = Weighed("BTCUSDT")
    desk = Desk(storage, age=3600)
    async with desk.writing() as retainer:
        desk.clock.step(leapt)
        retainer.doubt_clock(Missed(START + 1, START + leapt, reason, ""))
        desk.clock.step(86_400)
        assert await retainer.delete_old() is believed
        assert bool(storage.seconds("BTCUSDT")) is not believed
        desk.clock.advance(3599)
        assert await retainer.delete_old() is believed
        desk.clock.advance(1)  # nobody has set it right: it is right
        assert await retainer.delete_old()
    assert storage.symbols() == []


async def test_nothing_goes_before_it_is_known_what_is_recorded() -> None:
    storage = Weighed("BTCUSDT")
    wanted = asyncio.Event()
    desk = Desk(storage, age=60)
    async with desk.writing() as retainer:
        task = asyncio.create_task(retainer.run(wanted))
        for _ in range(10):  # by turns with what a pass would call
            await desk.writer.call(storage.symbols)
        assert len(storage.seconds("BTCUSDT")) == 100
        wanted.set()
        await until(lambda: len(storage.seconds("BTCUSDT")) == 60)
        task.cancel()
        await asyncio.wait((task,))


async def test_what_keeps_all_for_ever_ends_at_once() -> None:
    await asyncio.wait_for(Desk(Weighed()).retainer.run(asyncio.Event()), 10)
