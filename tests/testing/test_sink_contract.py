"""The sink contract holds for a good sink, and each of its rules catches one that breaks it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from obframe import Level, Sink, Snapshot
from obframe.testing.contracts import Rule, SinkContract
from obframe.testing.waiting import until

from .catching import Broken, Table, cases, check_caught
from .sinks import MemorySink, Server


class TestMemory(SinkContract):
    can_break = True
    sink: type[MemorySink] = MemorySink
    servers: dict[Path, Server]

    def server(self, tmp_path: Path) -> Server:
        if "servers" not in vars(self):
            self.servers = {}
        return self.servers.setdefault(tmp_path, Server())

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        async with self.sink.open(self.server(tmp_path)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        return list(self.server(tmp_path).rows.values())

    async def break_(self, tmp_path: Path) -> None:
        self.server(tmp_path).down = True

    async def mend(self, tmp_path: Path) -> None:
        self.server(tmp_path).down = False


class TestPartOfEach(TestMemory):
    """A sink that tells of the best bid only."""

    def expect(self, snapshot: Snapshot) -> Any:
        return snapshot.symbol, snapshot.timestamp, snapshot.bids[:1]

    async def read_back(self, tmp_path: Path) -> Sequence[Any]:
        return [self.expect(row) for row in self.server(tmp_path).rows.values()]


class NotAsync(MemorySink):
    def write(self, snapshots: Sequence[Snapshot]) -> None:  # type: ignore[override]
        pass


class NeedsOne(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        assert snapshots[0].symbol
        await super().write(snapshots)


class WritesTheFirst(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        await super().write(snapshots[:1])


class NewestFirst(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        await super().write(list(snapshots)[::-1])


class OneSecondOnly(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        newest = max((row.timestamp for row in snapshots), default=0)
        await super().write([row for row in snapshots if row.timestamp == newest])


class WritesLater(MemorySink):
    """Accepts into a list, which goes out with the call after."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.held: list[Snapshot] = []

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        held, self.held = self.held, list(snapshots)
        await super().write(held)

    async def close(self) -> None:
        await super().write(self.held)


class NeverBack(MemorySink):
    """Takes no second before the newest of any symbol, as a stream with ids by time would."""

    newest = 0

    async def put(self, row: Snapshot) -> None:
        if row.timestamp >= self.newest:
            self.newest = row.timestamp
            await super().put(row)


class ShortCalls(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        await super().write(snapshots[:500])


class CutsZeros(MemorySink):
    async def put(self, row: Snapshot) -> None:
        bids: list[Level] = [(f"{Decimal(p).normalize():f}", q) for p, q in row.bids]
        made = Snapshot(row.symbol, row.update_id, row.timestamp, bids, row.asks)
        await super().put(made)


class Floats(MemorySink):
    async def put(self, row: Snapshot) -> None:
        bids: list[Level] = [(f"{float(p):.8f}", q) for p, q in row.bids]
        made = Snapshot(row.symbol, row.update_id, row.timestamp, bids, row.asks)
        await super().put(made)


class NeedsBothSides(MemorySink):
    async def put(self, row: Snapshot) -> None:
        assert row.bids[0] < row.asks[0] or row.asks
        await super().put(row)


class CarelessNames(MemorySink):
    async def put(self, row: Snapshot) -> None:
        symbol = row.symbol.replace("/", "-").upper()
        await self.server.put((symbol, row.timestamp), row)


class WritesTwice(MemorySink):
    count = 0

    async def put(self, row: Snapshot) -> None:
        self.count += 1
        await self.server.put(self.count, row)


class KnowsCallsOnly(WritesTwice):
    """Drops a call that it has seen, not a row."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.known: list[list[Snapshot]] = []

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        if list(snapshots) not in self.known:
            await super().write(snapshots)
            self.known.append(list(snapshots))


class ForgottenAtTheEnd(MemorySink):
    async def close(self) -> None:
        self.server.rows.clear()


class StartsOver(MemorySink):
    """Numbers its rows from the start, each time that it is opened."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.ids: dict[tuple[str, int], int] = {}

    async def put(self, row: Snapshot) -> None:
        key = row.symbol, row.timestamp
        await self.server.put(self.ids.setdefault(key, len(self.ids)), row)


class MarksBeforeItWrites(MemorySink):
    """Takes for written what a cancelled write had only begun with."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.done: set[tuple[str, int]] = set()

    async def put(self, row: Snapshot) -> None:
        key = row.symbol, row.timestamp
        if key not in self.done:
            self.done.add(key)
            await super().put(row)


class HangsWhenCancelled(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        try:
            await super().write(snapshots)
        except asyncio.CancelledError:
            await asyncio.sleep(1.5)
            raise


class SwallowsTheCancel(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await super().write(snapshots)


class HidesTheOutage(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        with contextlib.suppress(ConnectionError):
            await super().write(snapshots)


class WaitsOutTheOutage(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        await until(lambda: not self.server.down)
        await super().write(snapshots)


class BrokenForGood(MemorySink):
    broken = False

    async def put(self, row: Snapshot) -> None:
        self.broken = self.broken or self.server.down
        if self.broken:
            raise ConnectionError("the connection was lost")
        await super().put(row)


class MarksTheCall(MemorySink):
    """Takes a whole call for written when its first row is."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.begun: set[tuple[str, int]] = set()

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        for number, row in enumerate(snapshots):
            key = row.symbol, row.timestamp
            if number == 0 and key in self.begun:
                return
            await self.put(row)
            if number == 0:
                self.begun.add(key)


class LeavesATask(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        self.task = asyncio.create_task(asyncio.sleep(5))
        await super().write(snapshots)


class LeavesAThread(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        threading.Thread(target=time.sleep, args=(1.5,), name="sender", daemon=True).start()
        await super().write(snapshots)


class LeavesASocket(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        self.sockets = socket.socketpair()
        await super().write(snapshots)

    def __del__(self) -> None:
        for each in getattr(self, "sockets", ()):
            each.close()


class ClosesSlowly(MemorySink):
    async def close(self) -> None:
        await asyncio.sleep(0.5)


class ClosesWhenTheServerIsBack(MemorySink):
    async def close(self) -> None:
        for _ in range(50):
            if not self.server.down:
                break
            await asyncio.sleep(0.01)


class Blocks(MemorySink):
    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        if len(snapshots) > 100:
            time.sleep(0.3)  # noqa: ASYNC251 - that is the fault
        await super().write(snapshots)


class NeedsTheMainThread(MemorySink):
    def __init__(self, server: Server) -> None:
        super().__init__(server)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


BROKEN: Table = {
    "test_is_a_sink": Broken(NotAsync, "write must be async"),
    "test_nothing_to_write_is_no_error": Broken(NeedsOne, "index out of range"),
    "test_a_second_of_several_symbols_arrives": [
        Broken(WritesTheFirst, "does not find ETHUSDT:1737158400, BTCUSDT_260327:1737158400"),
        Broken(WritesLater, "does not find BTCUSDT:1737158400"),
    ],
    "test_several_seconds_in_one_call_arrive_in_order": [
        Broken(NewestFirst, "finds BTCUSDT in this order: 1737158411, 1737158410"),
        Broken(OneSecondOnly, "does not find ETHUSDT:1737158400, ETHUSDT:1737158401"),
    ],
    "test_many_calls_arrive_in_order": Broken(WritesLater, "does not find BTCUSDT:1737158411"),
    "test_a_symbol_may_lag_behind_another": Broken(NeverBack, "does not find ETHUSDT:1737158400"),
    "test_a_long_back_fill_arrives": Broken(ShortCalls, "and 94 more"),
    "test_every_digit_arrives": [
        Broken(CutsZeros, "what was never written"),
        Broken(Floats, "what was never written"),
    ],
    "test_books_of_any_shape_arrive": Broken(NeedsBothSides, "index out of range"),
    "test_any_symbol_arrives": Broken(CarelessNames, "does not find btc:1737158400"),
    "test_writing_again_changes_nothing": Broken(WritesTwice, "finds these twice"),
    "test_an_overlapping_call_adds_what_is_new": Broken(
        KnowsCallsOnly, "finds these twice: BTCUSDT:1737158403"
    ),
    "test_what_was_accepted_outlives_the_sink": Broken(ForgottenAtTheEnd, "does not find BTCUSDT"),
    "test_the_next_sink_knows_what_was_written": Broken(
        StartsOver, "does not find BTCUSDT:1737158404"
    ),
    "test_a_cancelled_write_can_be_repeated": Broken(MarksBeforeItWrites, "does not find BTCUSDT"),
    "test_a_cancelled_write_ends_promptly": [
        Broken(HangsWhenCancelled, "write() did not end within"),
        Broken(SwallowsTheCancel, "cancelled, it returned, and"),
    ],
    "test_an_outage_raises": [
        Broken(HidesTheOutage, "write() says that it accepted"),
        Broken(WaitsOutTheOutage, "write() says nothing for"),
    ],
    "test_nothing_is_lost_by_an_outage": Broken(BrokenForGood, "the other end is back, and"),
    "test_an_outage_in_the_middle_of_a_write_loses_nothing": Broken(
        MarksTheCall, "does not find BTCUSDT"
    ),
    "test_closing_leaves_nothing_behind": [
        Broken(LeavesATask, "a task that runs sleep"),
        Broken(LeavesAThread, "the thread 'sender'"),
        Broken(LeavesASocket, "2 open sockets"),
    ],
    "test_closing_is_prompt": Broken(ClosesSlowly, "it took 0.5 s"),
    "test_closing_is_prompt_during_an_outage": Broken(ClosesWhenTheServerIsBack, "it took 0."),
    "test_the_loop_is_not_blocked": Broken(Blocks, "write"),
    "test_it_works_in_another_thread": Broken(NeedsTheMainThread, "main thread"),
}


class Hasty(TestMemory):
    patience = prompt = give_up = 0.3
    most_blocking = 0.15
    __test__ = False


@pytest.mark.parametrize(("rule", "broken"), cases(BROKEN, SinkContract))
def test_the_contract_catches(rule: Rule, broken: Broken, tmp_path: Path) -> None:
    contract = Hasty()
    contract.sink = broken.part
    check_caught(contract, rule, broken.words, tmp_path)
