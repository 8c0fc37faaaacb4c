"""The recorder on a fake clock and a scripted feed: every second a row, or a gap with its cause."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obframe import (
    BookState,
    DepthSnapshot,
    DepthUpdate,
    Gap,
    GapReason,
    Instrument,
    Mark,
    MarkKind,
    ObframeError,
    Record,
    Snapshot,
    StorageError,
    StoreUnavailable,
    StreamEvent,
)
from obframe import sampler as sampler_module
from obframe.recorder import Recorder, RunSummary
from obframe.settings import Duration, RecorderSettings, RetentionSettings
from obframe.sinks import SinkPart
from obframe.testing.clock import FakeClock
from obframe.testing.feed import ScriptedFeed
from obframe.testing.waiting import until
from obframe_plugins.memory import MemoryStorage

START = 1_700_000_000
FOREVER = 9_999_999_999


def update(
    symbol: str, first: int, last: int, bids: list[tuple[str, str]] | None = None
) -> DepthUpdate:
    return DepthUpdate(symbol, first, last, first - 1, bids or [], [])


def snapshot(symbol: str, last: int, limit: int = 0) -> DepthSnapshot:
    return DepthSnapshot(symbol, last, [("100.50", "1.5")], [("100.60", "2.0")], limit)


class Symbols:
    """A symbol source whose set the test changes."""

    def __init__(self, *symbols: str) -> None:
        self._sets: asyncio.Queue[frozenset[Instrument]] = asyncio.Queue()
        self.want(*symbols)

    def want(self, *symbols: str) -> None:
        self._sets.put_nowait(frozenset(Instrument(symbol) for symbol in symbols))

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        while True:
            yield await self._sets.get()


def part(sink: Any) -> SinkPart:
    """A sink that is opened without more ado; one with an attribute ``backfill`` wants that."""
    return SinkPart(lambda: nullcontext(sink), getattr(sink, "backfill", False))  # type: ignore[arg-type]


def count(desk: Desk, sink: str, what: str) -> int:
    return dict(desk.recorder._telling.counters())[f"sink.{sink}"].get(what, 0)


class Desk:
    """A recorder with everything around it in the test's hands."""

    def __init__(
        self,
        *symbols: str,
        storage: MemoryStorage | None = None,
        wall: float = START + 0.25,
        settings: RecorderSettings | None = None,
        retention: RetentionSettings | None = None,
        sinks: dict[str, object] | None = None,
    ) -> None:
        self.clock = FakeClock(wall=wall, monotonic=0.0)
        self.feed = ScriptedFeed()
        self.storage = storage if storage is not None else MemoryStorage()
        self.symbols = Symbols(*symbols)
        self.notices: list[tuple[str, dict[str, object]]] = []
        self.recorder = Recorder(
            feed=self.feed,
            storage=self.storage,
            symbol_source=self.symbols,
            settings=settings,
            retention=retention or RetentionSettings(max_age=Duration(0)),
            sinks={name: part(sink) for name, sink in (sinks or {}).items()},
            notify=lambda hook, **values: self.notices.append((hook, values)),
            clock=self.clock,
        )
        self.summary: RunSummary | None = None

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[Desk]:
        task = asyncio.create_task(self.recorder.run())
        await self.feed.started()
        try:
            yield self
        finally:
            self.recorder.stop()
            self.summary = await task

    def bring_live(self, *symbols: str) -> None:
        self.feed.say(StreamEvent.SUBSCRIBED, *symbols)
        for symbol in symbols:
            self.feed.send(update(symbol, 11, 12), snapshot(symbol, 11))

    def rows(self, symbol: str) -> list[int]:
        return [record.timestamp - START for record in self.storage.scan(symbol, 10**9, FOREVER)]

    def gaps(self, symbol: str) -> list[tuple[int, int, str]]:
        return [
            (gap.start - START, gap.end - START, str(gap.reason))
            for gap in self.storage.gaps(symbol, 10**9, FOREVER)
        ]


async def test_a_row_a_second_aligned_with_the_golden_bytes() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(5)
    assert desk.rows("BTCUSDT") == [1, 2, 3, 4, 5]
    assert desk.gaps("BTCUSDT") == []
    latest = desk.storage.latest("BTCUSDT")
    assert latest is not None
    assert latest.value == bytes.fromhex(
        "9491 92a6 3130302e3530 a3 312e35 9192 a6 3130302e3630 a3 322e30 0c ce 6553f105"
    )
    assert desk.summary is not None
    assert (desk.summary.rows, desk.summary.gap_seconds, desk.summary.drained) == (5, {}, True)


async def test_each_second_without_a_row_is_a_gap_with_its_cause() -> None:
    desk = Desk("BTCUSDT", "ETHUSDT")
    async with desk.recording():
        desk.feed.say(StreamEvent.CONNECTING, "BTCUSDT", "ETHUSDT")
        await desk.clock.run(2)
        desk.feed.say(StreamEvent.SUBSCRIBED, "BTCUSDT", "ETHUSDT")
        await desk.clock.run(2)
        desk.bring_live("BTCUSDT", "ETHUSDT")
        await desk.clock.run(2)
        desk.feed.send(update("BTCUSDT", 20, 21))
        await desk.clock.run(2)
        desk.feed.send(snapshot("BTCUSDT", 20))
        await desk.clock.run(2)
        desk.feed.say(StreamEvent.SILENT, "BTCUSDT", reason=GapReason.SILENT)
        await desk.clock.run(2)
        desk.feed.say(StreamEvent.DISCONNECTED, "BTCUSDT", reason=GapReason.DISCONNECTED)
        await desk.clock.run(2)
    assert desk.rows("BTCUSDT") == [5, 6, 9, 10]
    assert desk.gaps("BTCUSDT") == [
        (1, 2, "connecting"),
        (3, 4, "syncing"),
        (7, 8, "sequence"),
        (11, 12, "silent"),
        (13, 14, "disconnected"),
    ]
    assert desk.rows("ETHUSDT") == list(range(5, 15)), "the other symbol has no hole"
    told = [values["gap"] for hook, values in desk.notices if hook == "obframe_gap"]
    assert len(told) == 5 + 2
    resets = [values["reason"] for hook, values in desk.notices if hook == "obframe_book_reset"]
    assert resets == ["sequence", "disconnected"]
    hooks = [hook for hook, _ in desk.notices]
    assert (hooks[0], hooks[-1]) == ("obframe_run_started", "obframe_run_finished")


async def test_row_8_and_10_crossed_and_empty_books_give_no_row_and_row_9_one_side_does() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(1)
        desk.feed.send(update("BTCUSDT", 13, 13, bids=[("100.60", "1")]))
        await desk.clock.run(1)
        desk.feed.send(update("BTCUSDT", 14, 14, bids=[("100.60", "0"), ("100.50", "0")]))
        await desk.clock.run(1)
        desk.feed.send(DepthUpdate("BTCUSDT", 15, 15, 14, [], [("100.60", "0")]))
        await desk.clock.run(1)
    assert desk.rows("BTCUSDT") == [1, 3]
    assert desk.gaps("BTCUSDT") == [(2, 2, "crossed"), (4, 4, "empty")]
    one_sided = next(iter(desk.storage.scan("BTCUSDT", START + 3, START + 3)))
    assert Snapshot.unpack(one_sided.value).bids == []


async def test_row_30_rows_beyond_the_coverage_are_marked() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.feed.say(StreamEvent.SUBSCRIBED, "BTCUSDT")
        desk.feed.send(update("BTCUSDT", 11, 12), snapshot("BTCUSDT", 11, limit=1))
        await desk.clock.run(3)
    marks = desk.storage.marks("BTCUSDT", START, FOREVER)
    assert Mark("BTCUSDT", START + 1, START + 3, MarkKind.UNCERTAIN) in marks
    assert Mark("BTCUSDT", START + 1, START + 1, MarkKind.EPOCH) in marks
    assert desk.feed.requested.count(Instrument("BTCUSDT")) >= 2, "a wider snapshot was asked for"


async def test_row_36_a_step_back_overwrites_nothing() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(10)
        before = list(desk.storage.scan("BTCUSDT", START, FOREVER))
        desk.clock.step(-5)
        desk.feed.send(update("BTCUSDT", 13, 13, bids=[("100.50", "9")]))
        await desk.clock.run(10)
    after = list(desk.storage.scan("BTCUSDT", START, FOREVER))
    assert after[: len(before)] == before
    assert desk.rows("BTCUSDT") == list(range(1, 16))
    assert desk.gaps("BTCUSDT") == [], "no second is both stored and lost"
    marks = desk.storage.marks("BTCUSDT", START, FOREVER)
    [relived] = [mark for mark in marks if mark.kind is MarkKind.RELIVED]
    assert relived.end == START + 10
    assert relived.end - relived.start in (3, 4, 5)


async def test_row_37_a_step_forward_is_a_gap_and_the_books_are_proven_anew() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        desk.clock.step(100)
        await desk.clock.run(2)
        assert desk.recorder.books.get("BTCUSDT").state is BookState.RESYNCING
        desk.feed.send(update("BTCUSDT", 13, 13), snapshot("BTCUSDT", 12))
        await desk.clock.run(2)
    rows, gaps = desk.rows("BTCUSDT"), desk.gaps("BTCUSDT")
    assert {reason for _, _, reason in gaps} == {"clock_step"}
    covered = set(rows) | {second for a, b, _ in gaps for second in range(a, b + 1)}
    assert covered == set(range(1, max(covered) + 1))
    assert max(covered) >= 106


async def test_row_37_suspend() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        desk.clock.suspend(50)
        await desk.clock.run(2)
    assert next(reason for _, _, reason in desk.gaps("BTCUSDT")) == "suspended"
    assert desk.rows("BTCUSDT") == [1, 2, 3]


async def test_row_39_a_stalled_loop_leaves_a_gap() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        desk.clock.advance(4.5)
        await desk.clock.run(2)
    gaps = desk.gaps("BTCUSDT")
    assert [reason for _, _, reason in gaps] == ["stalled"]
    covered = set(desk.rows("BTCUSDT")) | set(range(gaps[0][0], gaps[0][1] + 1))
    assert covered == set(range(1, max(covered) + 1))


class TroubledStorage(MemoryStorage):
    """Fails while told to; what was acknowledged stays."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.attempts = 0

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        return super().append(records)

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        if self.error is not None:
            raise self.error
        super().append_gaps(gaps)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obframe.writer._RETRY_FIRST", 0.001)
    monkeypatch.setattr("obframe.writer._RETRY_MAX", 0.002)


@pytest.mark.usefixtures("quick_retries")
async def test_row_41_a_full_disk_holds_rows_and_loses_none_within_the_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = TroubledStorage()
    desk = Desk("BTCUSDT", storage=storage)
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        storage.error = StoreUnavailable("No space left on device", "db")
        for first in range(13, 33):
            desk.feed.send(update("BTCUSDT", first, first))
            await desk.clock.run(1)
        assert desk.recorder.books.get("BTCUSDT").state is BookState.LIVE
        assert desk.recorder.books.counters["updates"] == 21
        await until(lambda: desk.recorder._writer.counters["failures"] >= 3)
        storage.error = None
        await desk.clock.run(3)
    assert desk.rows("BTCUSDT") == list(range(1, 27))
    assert desk.gaps("BTCUSDT") == []
    assert caplog.text.count("No space left") == 1, "logged once, not a hundred times"


@pytest.mark.usefixtures("quick_retries")
async def test_row_41_past_the_bound_the_rows_become_a_gap_that_says_disk() -> None:
    storage = TroubledStorage()
    desk = Desk("BTCUSDT", storage=storage, settings=RecorderSettings(queue_rows=5))
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        await until(lambda: desk.recorder._writer.queued_rows == 0)
        storage.error = StoreUnavailable("No space left on device", "db")
        await desk.clock.run(1)
        await until(lambda: desk.recorder._writer.trouble)
        await desk.clock.run(9)
        storage.error = None
        await until(lambda: desk.recorder._writer.queued_rows == 0)
        await desk.clock.run(2)
    rows, gaps = desk.rows("BTCUSDT"), desk.gaps("BTCUSDT")
    assert rows == [1, 2, 3, 4, 5, 6, 7, 13, 14]
    assert gaps == [(8, 12, "disk")]
    assert "No space left" in desk.storage.gaps("BTCUSDT", START, FOREVER)[0].detail


class PoisonedStorage(MemoryStorage):
    """Cannot take one symbol's rows at all."""

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        if any(record.symbol == "BADUSDT" for record in records):
            raise ValueError("cannot encode BADUSDT")
        return super().append(records)


async def test_a_row_that_cannot_be_stored_touches_no_other_symbols_rows() -> None:
    desk = Desk("BTCUSDT", "BADUSDT", storage=PoisonedStorage())
    async with desk.recording():
        desk.bring_live("BTCUSDT", "BADUSDT")
        await desk.clock.run(3)
    assert desk.rows("BTCUSDT") == [1, 2, 3]
    assert desk.rows("BADUSDT") == []
    assert {reason for _, _, reason in desk.gaps("BADUSDT")} == {"internal"}
    covered = {second for a, b, _ in desk.gaps("BADUSDT") for second in range(a, b + 1)}
    assert covered == {1, 2, 3}


class HangingStorage(MemoryStorage):
    """Never comes back from its second batch until released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.calls = 0

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        self.calls += 1
        if self.calls > 1:
            self.released.wait(30)
        return super().append(records)


async def test_row_51_a_hanging_storage_stops_no_book_and_the_end_does_not_wait_for_ever() -> None:
    storage = HangingStorage()
    desk = Desk("BTCUSDT", storage=storage, settings=RecorderSettings(drain_timeout=0.05))
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        for first in range(13, 23):
            desk.feed.send(update("BTCUSDT", first, first))
            await desk.clock.run(1)
        book = desk.recorder.books.get("BTCUSDT").book
        assert book is not None
        assert book.update_id == 22
    storage.released.set()
    assert desk.summary is not None
    assert not desk.summary.drained


async def test_the_time_between_two_runs_is_a_gap_at_the_next_start() -> None:
    storage = MemoryStorage()
    first = Desk("BTCUSDT", storage=storage)
    async with first.recording():
        first.bring_live("BTCUSDT")
        await first.clock.run(3)
    second = Desk("BTCUSDT", "ETHUSDT", storage=storage, wall=START + 60.25)
    async with second.recording():
        second.bring_live("BTCUSDT", "ETHUSDT")
        await second.clock.run(2)
    assert second.rows("BTCUSDT") == [1, 2, 3, 61, 62]
    assert second.gaps("BTCUSDT") == [(4, 60, "process_down")]
    assert second.gaps("ETHUSDT") == [], "what was never recorded has no gap"
    assert second.summary is not None
    assert second.summary.gap_seconds == {GapReason.PROCESS_DOWN: 57}


async def test_the_ledger_counts_as_known_when_the_last_run_ended_in_a_gap() -> None:
    storage = MemoryStorage()
    first = Desk("BTCUSDT", storage=storage)
    async with first.recording():
        first.bring_live("BTCUSDT")
        await first.clock.run(2)
        first.feed.say(StreamEvent.DISCONNECTED, "BTCUSDT")
        await first.clock.run(3)
    second = Desk("BTCUSDT", storage=storage, wall=START + 20.25)
    async with second.recording():
        second.bring_live("BTCUSDT")
        await second.clock.run(1)
    assert second.gaps("BTCUSDT") == [(3, 5, "disconnected"), (6, 20, "process_down")]


async def test_row_36_a_run_that_begins_before_the_end_of_the_last_loses_no_stored_second() -> None:
    """The wall clock was set back between two runs."""
    storage = MemoryStorage()
    first = Desk("BTCUSDT", storage=storage)
    async with first.recording():
        first.bring_live("BTCUSDT")
        await first.clock.run(3)
        first.feed.say(StreamEvent.DISCONNECTED, "BTCUSDT")
        await first.clock.run(3)
    before = list(storage.scan("BTCUSDT", START, FOREVER))
    second = Desk("BTCUSDT", storage=storage, wall=START + 1.25)
    async with second.recording():
        await second.clock.run(3)
        second.bring_live("BTCUSDT")
        await second.clock.run(5)
    assert second.rows("BTCUSDT") == [1, 2, 3, 5, 6, 7, 8, 9]
    assert second.gaps("BTCUSDT") == [(4, 6, "disconnected")]
    assert list(storage.scan("BTCUSDT", START, FOREVER))[:3] == before


async def test_row_36_rows_from_a_clock_far_ahead_hide_no_later_run() -> None:
    storage = MemoryStorage()
    for wall in (START + 0.25, START + 100_000.25):
        desk = Desk("BTCUSDT", storage=storage, wall=wall)
        async with desk.recording():
            desk.bring_live("BTCUSDT")
            await desk.clock.run(2)
    assert desk.gaps("BTCUSDT") == [(3, 100_000, "process_down")]
    storage.append([Record("ETHUSDT", START + 5, b"\x94\x90\x90\x01\x01")])
    storage.append([Record("ETHUSDT", START + 99_000, b"\x94\x90\x90\x01\x01")])
    right = Desk("BTCUSDT", "ETHUSDT", storage=storage, wall=START + 9_000.25)
    async with right.recording():
        await until(lambda: len(right.feed.wanted) == 2)
        right.bring_live("BTCUSDT", "ETHUSDT")
        await right.clock.run(2)
    assert right.rows("BTCUSDT") == [1, 2, 9001, 9002, 100_001, 100_002]
    assert right.rows("ETHUSDT") == [5, 9001, 9002, 99_000]
    assert right.gaps("ETHUSDT") == [(6, 9000, "process_down")]


async def test_a_long_gap_is_durable_while_it_lasts() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.feed.say(StreamEvent.CONNECTING, "BTCUSDT")
        await desk.clock.run(30)
        await until(lambda: desk.gaps("BTCUSDT") and desk.gaps("BTCUSDT")[0][1] >= 24)
        assert [(start, reason) for start, _, reason in desk.gaps("BTCUSDT")] == [(1, "connecting")]
    assert desk.gaps("BTCUSDT") == [(1, 30, "connecting")]


async def test_symbols_come_and_go_while_others_go_on() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        desk.symbols.want("BTCUSDT", "ETHUSDT")
        await desk.clock.run(0.5)
        desk.bring_live("ETHUSDT")
        await desk.clock.run(2)
        desk.symbols.want("BTCUSDT")
        await desk.clock.run(3)
        desk.symbols.want("BTCUSDT", "ETHUSDT")
        await desk.clock.run(0.5)
        desk.bring_live("ETHUSDT")
        await desk.clock.run(2)
    assert desk.rows("BTCUSDT") == list(range(1, 11))
    assert desk.gaps("BTCUSDT") == []
    assert desk.rows("ETHUSDT") == [3, 4, 9, 10]
    assert desk.gaps("ETHUSDT") == [(5, 7, "unsubscribed"), (8, 8, "connecting")]


class Sink:
    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.seen: list[int] = []

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        if self.behaviour == "raise":
            raise RuntimeError("no")
        if self.behaviour == "hang":
            await asyncio.Event().wait()
        self.seen += [snapshot.timestamp - START for snapshot in snapshots]


async def test_symbols_go_and_come_back_and_the_run_ends_between_the_books_of_one_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampler_module, "_SAMPLED_AT_ONCE", 1)
    names = [f"S{n}USDT" for n in range(12)]
    desk = Desk(*names)
    sample = desk.recorder._sampler._sample_symbol
    ticks = 0

    def watch(sync: Any, sampled: Any, second: int, rows: Any) -> None:
        nonlocal ticks
        sample(sync, sampled, second, rows)
        if sync.instrument.symbol == names[0]:
            ticks += 1
            if ticks == 3:
                desk.symbols.want(*names[:-1])  # the last one goes before its turn
            if ticks == 5:
                desk.symbols.want(*names)
            if ticks == 7:
                desk.symbols.want(*names[:-1])
                desk.symbols.want(*names)  # it goes and comes back within the tick
            if ticks == 9:
                desk.recorder.stop()

    monkeypatch.setattr(desk.recorder._sampler, "_sample_symbol", watch)
    async with desk.recording():
        desk.bring_live(*names)
        await desk.clock.run(8)
        desk.clock.advance(1.0)
    for name in names:
        seconds = set(desk.rows(name))
        lost = {at for start, end, _ in desk.gaps(name) for at in range(start, end + 1)}
        assert not seconds & lost, name
        assert {1, 2} <= seconds
        if name != names[-1]:
            assert set(range(1, 9)) <= seconds
    assert 3 not in desk.rows(names[-1])
    assert desk.rows(names[0])[-1] == 9, "what was sampled before the end is stored"
    assert desk.summary is not None
    assert desk.summary.drained


class Stubborn(Sink):
    """Blocks its thread in spite of all time-outs."""

    def __init__(self) -> None:
        super().__init__("")
        self.free = threading.Event()

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        self.free.wait(30)


async def test_row_53_a_sink_that_hangs_raises_or_blocks_touches_neither_rows_nor_other_sinks() -> (
    None
):
    good, stubborn = Sink(""), Stubborn()
    alone = Desk("BTCUSDT", "ETHUSDT")
    crowded = Desk(
        "BTCUSDT",
        "ETHUSDT",
        sinks={"good": good, "bad": Sink("raise"), "hung": Sink("hang"), "stuck": stubborn},
        settings=RecorderSettings(
            sink_queue_rows=3,
            sink_timeout=0.05,
            sink_break_after=2,
            sink_backoff_max=0.01,
            drain_timeout=0.5,
        ),
    )
    for desk in (alone, crowded):
        async with desk.recording():
            desk.bring_live("BTCUSDT", "ETHUSDT")
            for first in range(13, 23):
                await desk.clock.run(1)
                desk.feed.send(update("BTCUSDT", first, first, bids=[("100.5", str(first))]))
                if desk is crowded:
                    await until(lambda first=first: good.seen[-1:] == [first - 12])
            if desk is crowded:
                await until(lambda: count(crowded, "bad", "breaks"))
                await until(lambda: count(crowded, "hung", "timeouts"))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        rows = [list(desk.storage.scan(symbol, START, FOREVER)) for desk in (alone, crowded)]
        assert len(rows[0]) == 10
        assert rows[0] == rows[1], "byte for byte what is stored without them"
        assert crowded.gaps(symbol) == []
    assert good.seen == [second for second in range(1, 11) for _ in range(2)]
    assert crowded.summary is not None
    counters = crowded.summary.counters
    assert counters["sink.good.written"] == 20
    assert counters["sink.bad.dropped"] == counters["sink.hung.dropped"] == 20
    assert counters["sink.bad.breaks"] == 1
    assert counters["sink.hung.timeouts"] >= 1
    assert counters["sink.stuck.dropped"] == 20
    assert crowded.summary.abandoned == ("sink stuck",)
    assert crowded.summary.drained
    stubborn.free.set()


class Kept(Sink):
    """Wants back-fill; fails while it is told to."""

    backfill = True

    def __init__(self) -> None:
        super().__init__("")
        self.fails = False
        self.values: list[bytes] = []

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        if self.fails:
            raise ConnectionError("away")
        await super().write(snapshots)
        self.values += [snapshot.pack() for snapshot in snapshots]


QUICK = RecorderSettings(sink_backoff_max=0.01, sink_queue_rows=5, drain_timeout=2)


@pytest.fixture
def state(tmp_path: Path) -> RecorderSettings:
    return replace(QUICK, state=str(tmp_path / "state"))


async def test_row_53_after_an_outage_and_an_overflow_everything_stored_is_told_once_in_order(
    state: RecorderSettings,
) -> None:
    sink = Kept()
    desk = Desk("BTCUSDT", sinks={"kept": sink}, settings=state)
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        await until(lambda: sink.seen == [1, 2, 3])
        sink.fails = True
        await desk.clock.run(20)
        await until(lambda: count(desk, "kept", "spilled") >= 10)
        sink.fails = False
        await desk.clock.run(5)
        await until(lambda: len(sink.seen) == 28)
    assert sink.seen == list(range(1, 29))
    assert sink.values == [row.value for row in desk.storage.scan("BTCUSDT", START, FOREVER)]
    assert desk.summary is not None
    counters = desk.summary.counters
    assert counters["sink.kept.backfilled"] >= 10
    assert counters["sink.kept.lag_seconds"] == 0
    assert counters["sink.kept.written"] == 28


async def test_row_53_a_restart_goes_on_where_the_position_stands(state: RecorderSettings) -> None:
    storage, sink = MemoryStorage(), Kept()
    desk = Desk("BTCUSDT", storage=storage, sinks={"kept": sink}, settings=state)
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        await until(lambda: sink.seen == [1, 2, 3])
        sink.fails = True
        await desk.clock.run(4)
    assert desk.summary is not None
    assert desk.summary.counters["sink.kept.lag_seconds"] == 4
    assert "sink.kept.dropped" not in desk.summary.counters
    sink.fails = False
    again = Desk(
        "BTCUSDT", storage=storage, sinks={"kept": sink}, settings=state, wall=START + 9.25
    )
    async with again.recording():
        again.bring_live("BTCUSDT")
        await again.clock.run(2)
        await until(lambda: sink.seen[-1] == 11)
    assert sink.seen == [*range(1, 8), 10, 11]
    assert sink.values == [row.value for row in storage.scan("BTCUSDT", START, FOREVER)]


async def test_a_sink_with_back_fill_is_told_only_what_the_storage_has(
    state: RecorderSettings, quick_retries: None
) -> None:
    storage, sink = TroubledStorage(), Kept()
    desk = Desk(
        "BTCUSDT", storage=storage, sinks={"kept": sink}, settings=replace(state, queue_rows=5)
    )
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        await until(lambda: sink.seen == [1, 2])
        storage.error = StoreUnavailable("No space left on device", "db")
        await desk.clock.run(1)
        await until(lambda: desk.recorder._writer.trouble)
        await desk.clock.run(9)
        assert sink.seen == [1, 2], "what is not settled is told to nobody"
        storage.error = None
        await until(lambda: desk.recorder._writer.queued_rows == 0)
        await desk.clock.run(2)
        await until(lambda: sink.seen[-1] == 14)
    assert sink.seen == desk.rows("BTCUSDT") == [1, 2, 3, 4, 5, 6, 7, 13, 14]


async def test_rows_that_retention_took_before_they_were_told_are_counted_as_lost(
    state: RecorderSettings, caplog: pytest.LogCaptureFixture
) -> None:
    storage, sink = MemoryStorage(), Kept()
    sink.fails = True
    desk = Desk(
        "BTCUSDT",
        storage=storage,
        sinks={"kept": sink},
        settings=replace(state, sink_queue_rows=2),
        retention=RetentionSettings(max_age=Duration(5), interval=Duration(0.01)),
    )
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(20)
        await until(lambda: min(desk.rows("BTCUSDT"), default=0) >= 15)
        await until(lambda: count(desk, "kept", "lost_seconds") >= 14)
        sink.fails = False
        await until(lambda: sink.seen[-1:] == [20])
    assert sink.seen[0] >= 15
    assert sink.seen == list(range(sink.seen[0], 21))
    assert "before they could be delivered" in caplog.text
    assert desk.summary is not None
    assert desk.summary.counters["sink.kept.lost_seconds"] == sink.seen[0] - 1


async def test_retention_runs_and_keeps_what_is_young() -> None:
    storage = MemoryStorage()
    old = [Record("BTCUSDT", START - 100 + i, b"\x94\x90\x90\x01\x01") for i in range(50)]
    storage.append(old)
    storage.append([Record("GONEUSDT", START - 5000, b"\x94\x90\x90\x01\x01")])
    desk = Desk(
        "BTCUSDT",
        storage=storage,
        retention=RetentionSettings(max_age=Duration(80), interval=Duration(0.01)),
    )
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        await until(lambda: storage.symbols() == ["BTCUSDT"])
        await until(lambda: min(desk.rows("BTCUSDT")) > -100)
    assert min(desk.rows("BTCUSDT")) in (-80, -79, -78)


async def test_the_time_between_two_runs_is_told_though_the_last_row_is_past_its_age() -> None:
    """Retention must not delete the last row before the time since then is accounted for."""
    storage = MemoryStorage()
    storage.append([Record("BTCUSDT", START - 500, b"\x94\x90\x90\x01\x01")])
    storage.append([Record("GONEUSDT", START - 500, b"\x94\x90\x90\x01\x01")])
    desk = Desk(
        "BTCUSDT",
        storage=storage,
        retention=RetentionSettings(max_age=Duration(80), interval=Duration(0.01)),
    )
    async with desk.recording():
        await asyncio.sleep(0.05)  # time enough for a retention that does not wait
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        await until(lambda: storage.symbols() == ["BTCUSDT"])
        await until(lambda: desk.gaps("BTCUSDT") and desk.gaps("BTCUSDT")[0][0] > -100)
    [(start, end, reason)] = desk.gaps("BTCUSDT")
    assert -81 <= start <= -78
    assert (end, reason) == (0, "process_down")


async def test_a_clock_that_leaps_ahead_does_not_make_all_rows_old_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = MemoryStorage()
    storage.append([Record("BTCUSDT", START - 50, b"\x94\x90\x90\x01\x01")])
    week = RetentionSettings(max_age=Duration(7 * 86_400), interval=Duration(0.01))
    desk = Desk("BTCUSDT", storage=storage, retention=week)
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        desk.clock.step(30 * 86_400)
        await desk.clock.run(2)
        await asyncio.sleep(0.05)  # time enough for a retention that believes it
        assert min(desk.rows("BTCUSDT")) == -50
        assert "nothing is deleted for an hour" in caplog.text
        desk.clock.advance(3600)  # nobody has set it right: it is right
        await until(lambda: min(desk.rows("BTCUSDT"), default=0) > -50)


@pytest.mark.parametrize("seconds", [0, 2])
async def test_a_run_is_vain_when_no_second_that_was_due_has_a_row(seconds: int) -> None:
    desk = Desk("FARUSDT", "NOPE", "STILLUSDT")
    async with desk.recording():
        reason = GapReason.UNKNOWN_SYMBOL
        desk.feed.say(StreamEvent.HALTED, "NOPE", reason=reason, detail="has no such symbol")
        desk.feed.say(StreamEvent.DISCONNECTED, "FARUSDT", detail="cannot be reached")
        desk.feed.say(StreamEvent.HALTED, "STILLUSDT")
        await until(lambda: desk.recorder.books.get("NOPE").cause is reason)
        await desk.clock.run(seconds)
    assert desk.summary is not None
    assert desk.summary.is_vain is bool(seconds), "ended before any second was due, it is not"
    assert desk.summary.unknown == {"NOPE": "has no such symbol"}
    assert desk.summary.unproven == {
        "FARUSDT": "connecting: cannot be reached",
        "NOPE": "unknown_symbol: has no such symbol",
        "STILLUSDT": "halted",
    }


async def test_a_run_whose_seconds_were_stored_before_is_not_vain() -> None:
    storage = MemoryStorage()
    for _ in range(2):
        desk = Desk("BTCUSDT", storage=storage)
        async with desk.recording():
            desk.bring_live("BTCUSDT")
            await desk.clock.run(2)
            desk.feed.say(StreamEvent.DISCONNECTED, "BTCUSDT")
            await desk.clock.run(1)
    assert desk.summary is not None
    assert (desk.summary.rows, desk.summary.is_vain) == (0, False)


async def test_a_run_that_stored_rows_is_not_vain_whatever_became_of_its_symbols() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        desk.feed.say(StreamEvent.HALTED, "BTCUSDT", reason=GapReason.UNKNOWN_SYMBOL)
        await desk.clock.run(2)
    assert desk.summary is not None
    assert desk.summary.gap_seconds[GapReason.UNKNOWN_SYMBOL] == 2
    assert set(desk.summary.unknown) == {"BTCUSDT"}
    assert not desk.summary.is_vain


async def test_the_update_id_that_falls_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(1)
        desk.feed.say(StreamEvent.DISCONNECTED, "BTCUSDT")
        desk.feed.say(StreamEvent.SUBSCRIBED, "BTCUSDT")
        desk.feed.send(update("BTCUSDT", 3, 4), snapshot("BTCUSDT", 3))
        await desk.clock.run(1)
    assert "update id fell from 12 to 4" in caplog.text
    assert desk.rows("BTCUSDT") == [1, 2]


async def test_a_summary_line_each_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    desk = Desk("BTCUSDT", settings=RecorderSettings(summary_interval=0.01))
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(3)
        await until(lambda: "rows 3" in caplog.text)
    assert "live 1" in caplog.text


class NoSymbols:
    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        raise StorageError("the list is gone")
        yield frozenset()


async def test_a_symbol_source_that_fails_at_once_ends_the_run_with_its_reason() -> None:
    recorder = Recorder(feed=ScriptedFeed(), storage=MemoryStorage(), symbol_source=NoSymbols())
    with pytest.raises(Exception, match="the list is gone"):
        await recorder.run()


class Nothing:
    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        return
        yield frozenset()


async def test_a_symbol_source_that_ends_without_a_word_ends_the_run() -> None:
    recorder = Recorder(feed=ScriptedFeed(), storage=MemoryStorage(), symbol_source=Nothing())
    with pytest.raises(ObframeError, match="named no instruments"):
        await recorder.run(duration=2.0)


async def test_row_38_a_row_whose_label_is_far_from_the_clock_is_refused() -> None:
    desk = Desk("BTCUSDT")
    tick = desk.recorder.books.tick

    def late(now: float) -> None:
        """The wall clock jumps between the tick and the sampling."""
        tick(now)
        if int(desk.clock.time()) == START + 3:
            desk.clock.step(20)

    desk.recorder.books.tick = late  # type: ignore[method-assign]
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(6)
    assert desk.rows("BTCUSDT") == [1, 2]
    gaps = desk.gaps("BTCUSDT")
    assert {reason for _, _, reason in gaps} == {"clock_step"}
    lost = [second for a, b, _ in gaps for second in range(a, b + 1)]
    assert lost == list(range(3, lost[-1] + 1))
    assert lost[-1] >= 23


async def test_rows_that_stand_at_the_last_update_before_a_gap_are_marked_stale() -> None:
    desk = Desk("BTCUSDT", "ETHUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT", "ETHUSDT")
        await desk.clock.run(2)
        desk.feed.send(update("BTCUSDT", 13, 13), update("ETHUSDT", 13, 13))
        await desk.clock.run(3)
        desk.feed.send(update("BTCUSDT", 20, 21))  # 14 to 19 were lost at some time since second 2
        desk.feed.send(update("ETHUSDT", 14, 14), update("ETHUSDT", 20, 21))
        await desk.clock.run(1)
    stale = [m for m in desk.storage.marks("BTCUSDT", START, FOREVER) if m.kind is MarkKind.STALE]
    assert stale == [Mark("BTCUSDT", START + 3, START + 5, MarkKind.STALE)]
    assert desk.rows("BTCUSDT") == [1, 2, 3, 4, 5]
    others = desk.storage.marks("ETHUSDT", START, FOREVER)
    assert [m for m in others if m.kind is MarkKind.STALE] == [], "14 came after its last row"


async def test_a_stale_mark_found_at_the_very_end_is_stored() -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(2)
        desk.feed.say(StreamEvent.DISCONNECTED, "BTCUSDT")
    marks = desk.storage.marks("BTCUSDT", START, FOREVER)
    assert Mark("BTCUSDT", START + 1, START + 2, MarkKind.STALE) in marks


async def test_a_live_book_that_gives_no_row_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk("BTCUSDT")
    async with desk.recording():
        desk.bring_live("BTCUSDT")
        await desk.clock.run(1)
        desk.feed.send(update("BTCUSDT", 13, 13, bids=[("100.60", "1")]))
        await desk.clock.run(2)
    assert caplog.text.count("BTCUSDT: live, but no row (crossed)") == 1
