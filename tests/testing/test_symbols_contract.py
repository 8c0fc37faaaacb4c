"""The symbol source contract holds for good sources, and each rule catches one that breaks it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from obframe import Instrument, SymbolSource
from obframe.testing.contracts import Rule, SymbolSourceContract

from .catching import Broken, Table, cases, check_caught

Wanted = frozenset[Instrument]


def instruments(*symbols: str) -> Wanted:
    return frozenset(Instrument(symbol) for symbol in symbols)


class Desk:
    """Where a person changes what is wanted; ``None`` cannot be read."""

    def __init__(self, wanted: Wanted | None) -> None:
        self.wanted = wanted
        self.looks = asyncio.Event()

    def put(self, wanted: Wanted | None) -> None:
        self.wanted = wanted
        self.looks.set()


class MemorySource:
    """Keeps every rule."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def watch(self) -> AsyncIterator[Wanted]:
        if self.desk.wanted is None:
            raise ValueError("the desk is empty: put symbols on it")
        told: Wanted | None = None
        while True:
            self.desk.looks.clear()
            wanted = self.desk.wanted
            if wanted is not None and wanted != told:
                told = wanted
                yield wanted
            await self.desk.looks.wait()


class TestMemory(SymbolSourceContract):
    first = instruments("BTCUSDT", "kraken/BTC/USD")
    can_change = can_touch = can_spoil = can_fail = True
    quiet = 0.05
    source: type[MemorySource] = MemorySource
    desk: Desk

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        self.desk = Desk(self.first)
        self.count = 0
        yield self.source(self.desk)

    @asynccontextmanager
    async def make_failing_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        yield self.source(Desk(None))

    async def change(self, tmp_path: Path) -> Wanted:
        self.count += 1
        wanted = instruments("BTCUSDT", f"NEW{self.count}")
        self.desk.put(wanted)
        return wanted

    async def touch(self, tmp_path: Path) -> None:
        assert self.desk.wanted is not None
        self.desk.put(frozenset(set(self.desk.wanted)))

    async def spoil(self, tmp_path: Path) -> None:
        self.desk.put(None)

    async def mend(self, tmp_path: Path) -> Wanted:
        return await self.change(tmp_path)


class Fixed:
    """Never changes, and ends after its only set."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    async def watch(self) -> AsyncIterator[Wanted]:
        yield self._wanted


class TestFixed(SymbolSourceContract):
    first = instruments("BTCUSDT")
    quiet = 0.05

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        yield Fixed(self.first)


class Awaited(MemorySource):
    async def watch(self) -> Any:  # type: ignore[override]
        return super().watch()


class WaitsForAChange(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        await self.desk.looks.wait()
        async for wanted in super().watch():
            yield wanted


class TellsASet(MemorySource):
    async def watch(self) -> AsyncIterator[Any]:
        async for wanted in super().watch():
            yield set(wanted)


class TellsTexts(MemorySource):
    async def watch(self) -> AsyncIterator[Any]:
        async for wanted in super().watch():
            yield frozenset(item.symbol for item in wanted)


class OneSymbolTwice(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        async for wanted in super().watch():
            yield wanted | {Instrument("kraken/BTC/USD", "kraken")}


class LeavesOneAway(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        async for wanted in super().watch():
            yield frozenset(sorted(wanted)[1:])


class TellsWhatIsNew(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        known: Wanted = frozenset()
        async for wanted in super().watch():
            yield wanted - known
            known = wanted


class TellsOnce(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        assert self.desk.wanted is not None
        yield self.desk.wanted
        await asyncio.Event().wait()


class TellsAgain(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        while True:
            self.desk.looks.clear()
            if self.desk.wanted is not None:
                yield self.desk.wanted
            await self.desk.looks.wait()


class FailsAfterwards(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        assert self.desk.wanted is not None
        yield self.desk.wanted
        raise RuntimeError("the end")


class EndsThoughItCanChange(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        assert self.desk.wanted is not None
        yield self.desk.wanted


class WatchedOnce(MemorySource):
    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.only = super().watch()

    def watch(self) -> AsyncIterator[Wanted]:
        return self.only


class BeginsWithTheOld(MemorySource):
    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.old = desk.wanted

    async def watch(self) -> AsyncIterator[Wanted]:
        assert self.old is not None
        yield self.old
        async for wanted in super().watch():
            if wanted != self.old:
                yield wanted


class Swallows(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        with contextlib.suppress(asyncio.CancelledError):
            async for wanted in super().watch():
                yield wanted


class Lingers(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        try:
            async for wanted in super().watch():
                yield wanted
        finally:
            await asyncio.sleep(5)


class LeavesATask(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        self.task = asyncio.create_task(asyncio.sleep(5))
        async for wanted in super().watch():
            yield wanted


class LeavesAThread(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        threading.Thread(target=time.sleep, args=(1.5,), name="poll", daemon=True).start()
        async for wanted in super().watch():
            yield wanted


class Blocks(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        time.sleep(0.3)  # noqa: ASYNC251 - that is the fault
        async for wanted in super().watch():
            yield wanted


class SaysNothingOfTrouble(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        if self.desk.wanted is None:
            raise ValueError
        async for wanted in super().watch():
            yield wanted


class EmptyAtFirst(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        if self.desk.wanted is None:
            yield frozenset()
        async for wanted in super().watch():
            yield wanted


class NeverTells(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        while self.desk.wanted is None:
            await self.desk.looks.wait()
        async for wanted in super().watch():
            yield wanted


class EmptiedByTrouble(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        while True:
            self.desk.looks.clear()
            yield self.desk.wanted or frozenset()
            await self.desk.looks.wait()


class EndsByTrouble(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        while self.desk.wanted is not None:
            self.desk.looks.clear()
            yield self.desk.wanted
            await self.desk.looks.wait()


class BrokenForGood(MemorySource):
    async def watch(self) -> AsyncIterator[Wanted]:
        assert self.desk.wanted is not None
        yield self.desk.wanted
        while self.desk.wanted is not None:
            await self.desk.looks.wait()
        await asyncio.Event().wait()


BROKEN: Table = {
    "test_is_a_symbol_source": Broken(Awaited, "watch must not be async"),
    "test_what_is_wanted_is_told_at_once": Broken(WaitsForAChange, "should have been told at once"),
    "test_what_is_told_is_a_frozenset_of_instruments": [
        Broken(TellsASet, "a set: "),
        Broken(TellsTexts, "should come"),
    ],
    "test_no_symbol_stands_twice": Broken(OneSymbolTwice, "these stand twice: kraken/BTC/USD"),
    "test_the_first_set_is_the_one_asked_for": Broken(LeavesOneAway, "{kraken/BTC/USD} was told"),
    "test_a_change_is_told_whole": [
        Broken(TellsWhatIsNew, "the whole new set {BTCUSDT, NEW1}"),
        Broken(TellsOnce, "the whole new set {BTCUSDT, NEW1}"),
    ],
    "test_what_did_not_change_is_not_told_again": Broken(TellsAgain, "nothing changed, and"),
    "test_after_the_first_set_it_ends_or_stays_open": [
        Broken(FailsAfterwards, "raised RuntimeError('the end')"),
        Broken(EndsThoughItCanChange, "and watch() has ended"),
    ],
    "test_watching_again_begins_with_the_set_as_it_is": [
        Broken(WatchedOnce, "but watch() ended"),
        Broken(BeginsWithTheOld, "{BTCUSDT, NEW1} is wanted"),
    ],
    "test_cancelling_ends_a_watch_promptly": [
        Broken(Swallows, "did not come out"),
        Broken(Lingers, "did not end within"),
    ],
    "test_nothing_is_left_behind": [
        Broken(LeavesATask, "a task that runs sleep"),
        Broken(LeavesAThread, "the thread 'poll'"),
    ],
    "test_the_loop_is_not_blocked": Broken(Blocks, "watch"),
    "test_a_source_without_a_first_set_says_why": [
        Broken(SaysNothingOfTrouble, "does not say what failed"),
        Broken(EmptyAtFirst, "cannot know what is wanted, and told {}"),
        Broken(NeverTells, "it did not raise within"),
    ],
    "test_trouble_later_leaves_the_set_as_it_is": [
        Broken(EmptiedByTrouble, "a fault is no change, and it told {BTCUSDT, kraken/BTC/USD}, {}"),
        Broken(EndsByTrouble, "ended as if all was told"),
        Broken(BrokenForGood, "the whole new set {BTCUSDT, NEW1}"),
    ],
}


class Hasty(TestMemory):
    patience = prompt = 0.3
    most_blocking = 0.15
    __test__ = False


@pytest.mark.parametrize(("rule", "broken"), cases(BROKEN, SymbolSourceContract))
def test_the_contract_catches(rule: Rule, broken: Broken, tmp_path: Path) -> None:
    contract = Hasty()
    contract.source = broken.part
    check_caught(contract, rule, broken.words, tmp_path)
