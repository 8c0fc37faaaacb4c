"""The recorder: on every second, a row of each live book, and a gap for each that has none."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import math
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from obframe._core import Snapshot
from obframe.books import BookManager
from obframe.clock import Clock, Missed, SystemClock, ticks
from obframe.errors import ObframeError
from obframe.feeds import FeedSet, name_some
from obframe.histogram import Histogram
from obframe.protocols import Feed, Storage, SymbolSource
from obframe.retainer import Retainer
from obframe.settings import RecorderSettings, RetentionSettings
from obframe.sinks import SinkPart
from obframe.sync import BookSynchronizer
from obframe.telling import Telling
from obframe.types import (
    SNAPSHOT_DEPTH,
    BookState,
    Gap,
    GapReason,
    Instrument,
    Mark,
    MarkKind,
    Record,
    RunInfo,
    StateChange,
)
from obframe.writer import StorageWriter

logger = logging.getLogger("obframe.recorder")

_OLDEST_LABEL = 5.0
_NEWEST_LABEL = 1.0
_SAMPLED_AT_ONCE = 250
"""Books sampled in one turn of the event loop: two to three milliseconds."""
_SAMPLED_WITHIN = 0.1
"""Seconds after which a tick's rows are sampled without any more turns: they have to be of it."""
# Losses that are found only some time after the first update went missing.
_MISSED_BEFORE = (
    GapReason.SEQUENCE,
    GapReason.CHECKSUM,
    GapReason.SILENT,
    GapReason.DISCONNECTED,
)
_LOST_STATES = (BookState.RESYNCING, BookState.RECONNECTING, BookState.HALTED)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one run did.

    Attributes:
        rows: Rows acknowledged by the storage.
        gap_seconds: Lost seconds by reason, all symbols.
        states: Books by state at the end.
        updates: Depth updates received.
        tick_lag_p99: Seconds from a second's label to the sampling of its last row, 99th percent.
        tick_lag_p50: The same, half of the seconds.
        book_latency_p99: Seconds from the receipt of an update to the updated book, likewise.
        drained: Whether everything sampled was stored before the end.
        abandoned: Sinks that had not ended when their time at the end was over.
        unknown: Symbols that no venue knew at the end, with what was said of each.
        counters: What happened, by part and name, such as ``feed.reconnects``.
    """

    rows: int
    gap_seconds: Mapping[GapReason, int]
    states: Mapping[BookState, int]
    updates: int
    tick_lag_p99: float
    book_latency_p99: float
    drained: bool
    counters: Mapping[str, int]
    abandoned: tuple[str, ...] = ()
    tick_lag_p50: float = 0.0
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_vain(self) -> bool:
        """Whether nothing was stored because no venue knows any of the symbols."""
        return (
            not self.rows
            and bool(self.gap_seconds.get(GapReason.UNKNOWN_SYMBOL))
            and len(self.unknown) == sum(self.states.values())
        )


@dataclass(slots=True)
class _Sampled:
    """What the sampler remembers of one symbol.

    ``first`` is the first second it accounts for: the tick that comes after the subscription.
    """

    before: GapReason
    first: int | None = None
    lost: GapReason | None = None  # why its live book gave no row at the last tick
    epoch: int = 0
    update_id: int = -1  # of the last row, and since which second and until when rows have it
    since: int = 0
    until: int = 0


@dataclass(slots=True)
class _Sample:
    records: list[Record] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)


class Recorder:
    """Records the books of one feed or of several into one storage, and tells sinks.

    Args:
        feed: The venue, or all of them.
        storage: Where rows, gaps and marks go.
        symbol_source: Which instruments are wanted.
        sinks: Others who are told every row, by name.
        settings: Bounds and times.
        retention: How long rows are kept.
        notify: Calls an observer hook by name with keyword arguments; must neither raise nor block.
        plugins: Names of the loaded plugins, for observers.
        sections: Settings of the loaded plugins by section, for observers.
        clock: Where time comes from.

    Raises:
        StorageError: A sink's delivery position cannot be read.
    """

    def __init__(
        self,
        *,
        feed: Feed | FeedSet,
        storage: Storage,
        symbol_source: SymbolSource,
        sinks: Mapping[str, SinkPart] | None = None,
        settings: RecorderSettings | None = None,
        retention: RetentionSettings | None = None,
        notify: Callable[..., None] | None = None,
        plugins: Collection[str] = (),
        sections: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._source = symbol_source
        self._settings = settings or RecorderSettings()
        self._notify = notify or _notify_nobody
        self._plugins = tuple(plugins)
        self._sections = dict(sections or {})
        self._clock = clock or SystemClock()
        self._stopping = asyncio.Event()
        self._sampled: dict[str, _Sampled] = {}
        self._left: set[str] = set()
        self._late_marks: list[Mark] = []
        self._lag = Histogram()
        self._counters: Counter[str] = Counter()
        self._telling = Telling(
            sinks or {}, storage, self._settings, now=math.floor(self._clock.time())
        )
        self.books = BookManager(feed, on_change=self._observe_change)
        self._writer = StorageWriter(
            storage,
            queue_rows=self._settings.queue_rows,
            on_gap=self._observe_gap,
            on_stored=self._telling.offer_stored,
        )
        self._retainer = Retainer(
            retention or RetentionSettings(),
            storage,
            self._writer,
            self._telling,
            is_resuming=self._is_resuming,
            clock=self._clock,
        )

    # -- life ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the run in order: no more ticks, then everything sampled is stored."""
        self._stopping.set()

    async def run(self, duration: float | None = None) -> RunSummary:
        """Record until ``stop``, or for ``duration`` seconds; then drain.

        Raises:
            ObframeError: The symbol source failed before it named any instrument.
        """
        version = importlib.metadata.version("obframe")
        run = RunInfo(
            uuid.uuid4().hex, int(self._clock.time()), version, self._plugins, self._sections
        )
        self._notify("obframe_run_started", run=run)
        error: BaseException | None = None
        try:
            return await self._run(duration)
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._notify("obframe_run_finished", run=run, error=error)

    async def _run(self, duration: float | None) -> RunSummary:
        await self._telling.start()
        writer = asyncio.create_task(self._writer.run(), name="storage-writer")
        first_wanted = asyncio.Event()
        tasks = {
            "symbols": asyncio.create_task(self._follow_symbols(first_wanted)),
            "books": asyncio.create_task(self.books.run()),
            "sampler": asyncio.create_task(self._sample_ticks(first_wanted)),
            "retention": asyncio.create_task(self._retainer.run(first_wanted)),
            "summary": asyncio.create_task(self._summarise()),
        }
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await self._supervise(tasks, stopping, writer, duration)
        finally:
            stopping.cancel()
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(stopping, *tasks.values(), return_exceptions=True)
            self.books.close()
            self._writer.submit(0, (), self._take_late_marks())
            drained = await self._drain(writer)
        return self._summary(drained)

    async def _supervise(
        self,
        tasks: Mapping[str, asyncio.Task[None]],
        stopping: asyncio.Task[bool],
        writer: asyncio.Task[None],
        duration: float | None,
    ) -> None:
        """Wait for the end; whatever else ends before it is a failure, except a finished part."""
        loop = asyncio.get_running_loop()
        deadline = None if duration is None else loop.time() + duration
        pending: set[asyncio.Task[Any]] = {stopping, writer, *tasks.values()}
        while not stopping.done():
            timeout = None if deadline is None else max(deadline - loop.time(), 0)
            done, pending = await asyncio.wait(
                pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return
            for task in done:
                task.result()

    async def _drain(self, writer: asyncio.Task[None]) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_timeout
        self._writer.close()
        await asyncio.wait((writer,), timeout=self._settings.drain_timeout)
        drained = writer.done() and writer.exception() is None
        # Now sinks have been given all that is stored.
        await self._telling.close(max(deadline - loop.time(), 1.0))
        writer.cancel()
        await asyncio.wait((writer,), timeout=1.0)
        if not drained:
            held = self._writer.queued_rows
            logger.error("%d rows could not be stored before the end", held)
        return drained

    # -- what is wanted --------------------------------------------------------------------------

    async def _follow_symbols(self, first_wanted: asyncio.Event) -> None:
        wanted: frozenset[Instrument] = frozenset()
        delay = 1.0
        while True:
            try:
                async for now_wanted in self._source.watch():
                    self._want(wanted, now_wanted)
                    wanted = now_wanted
                    first_wanted.set()
            except Exception as error:
                if not first_wanted.is_set():
                    raise ObframeError(f"the symbol source failed: {error}") from error
                logger.exception("the symbol source failed, the set of symbols stands")
                await asyncio.sleep(delay)
                delay = min(delay * 2, 60.0)
            else:
                if not first_wanted.is_set():
                    raise ObframeError("the symbol source named no instruments")
                return

    def _want(self, old: frozenset[Instrument], new: frozenset[Instrument]) -> None:
        for instrument in sorted(old - new):
            symbol = instrument.symbol
            self.books.unsubscribe(instrument)
            self._writer.close_gap(symbol)
            self._sampled.pop(symbol, None)
            self._left.add(symbol)
        added = sorted(new - old)
        for instrument in added:
            symbol = instrument.symbol
            again = symbol in self._left
            self._left.discard(symbol)
            reason = GapReason.UNSUBSCRIBED if again else GapReason.PROCESS_DOWN
            self._sampled[symbol] = _Sampled(reason)
        self.books.subscribe(*added)
        if added:
            logger.info("recording %s", name_some([item.symbol for item in added]))

    def _is_resuming(self, symbol: str) -> bool:
        """Tell whether the symbol's newest row has to stay: the time since then begins with it."""
        sampled = self._sampled.get(symbol)
        return sampled is not None and (sampled.first is None or self._writer.is_resuming(symbol))

    # -- sampling --------------------------------------------------------------------------------

    async def _sample_ticks(self, first_wanted: asyncio.Event) -> None:
        await first_wanted.wait()
        async for tick in ticks(self._clock, self._settings.late_tolerance):
            began = self._clock.monotonic()
            self.books.tick(began)
            self._telling.watch()
            if tick.missed is not None:
                if tick.relived:
                    self._relive(tick.missed)
                else:
                    self._lose(tick.missed)
                    self._retainer.doubt_clock(tick.missed)
                if tick.resync:
                    self.books.resynchronise_all(tick.missed.reason, tick.missed.detail)
            if tick.second is None:
                continue
            if tick.relived:
                self._counters["relived_seconds"] += 1
                continue
            await self._sample(tick.second)
            lag = tick.lag + self._clock.monotonic() - began
            self._lag.add(int(lag * 1e9))

    def _relive(self, missed: Missed) -> None:
        """Mark the seconds that come again: each is told of already, and that stays."""
        logger.warning("seconds %d to %d come again: %s", *missed[:2], missed.detail)
        start, end, kind = missed.start, missed.end, MarkKind.RELIVED
        marks = [
            Mark(symbol, max(start, sampled.first), end, kind)
            for symbol, sampled in self._sampled.items()
            if sampled.first is not None and sampled.first <= end
        ]
        self._writer.submit(end, (), marks)

    def _lose(self, missed: Missed) -> None:
        logger.warning("seconds %d to %d are lost: %s", *missed[:2], missed.detail)
        for symbol, sampled in self._sampled.items():
            if sampled.first is not None:
                self._writer.add_gap(symbol, *missed)
        self._writer.submit(missed.end, (), ())

    async def _sample(self, second: int) -> None:
        """Account for one second of every symbol; let the loop read between some and the next."""
        sample = _Sample(marks=self._take_late_marks())
        age = self._clock.time() - second
        if not -_NEWEST_LABEL <= age <= _OLDEST_LABEL:
            # The tick itself vouches for this; a row that says otherwise must never be stored.
            detail = f"the label {second} is {age:+.1f} s from the clock"
            for symbol, sampled in self._sampled.items():
                if sampled.first is not None:
                    self._writer.add_gap(symbol, second, second, GapReason.CLOCK_STEP, detail)
            self._writer.submit(second, (), sample.marks)
            return
        began = self._clock.monotonic()
        wanted = [
            (sync, self._sampled[sync.instrument.symbol]) for sync in self.books.synchronizers
        ]
        try:
            for start in range(0, len(wanted), _SAMPLED_AT_ONCE):
                if start and self._clock.monotonic() - began < _SAMPLED_WITHIN:
                    await asyncio.sleep(0)
                for sync, sampled in wanted[start : start + _SAMPLED_AT_ONCE]:
                    # Meanwhile it may have gone, or gone and come again.
                    if self._sampled.get(sync.instrument.symbol) is sampled:
                        self._sample_symbol(sync, sampled, second, sample)
        finally:
            self._writer.submit(second, sample.records, sample.marks)
        if sample.snapshots:
            # Next, and not now: it wakes threads that want the interpreter.
            asyncio.get_running_loop().call_soon(self._telling.offer_live, sample.snapshots)

    def _sample_symbol(
        self, sync: BookSynchronizer, sampled: _Sampled, second: int, sample: _Sample
    ) -> None:
        symbol = sync.instrument.symbol
        if sampled.first is None:
            sampled.first = second
            self._writer.resume(symbol, second, sampled.before)
        try:
            lost = self._sample_book(sync, sampled, second, sample)
        except Exception as error:
            logger.exception("%s: the book could not be sampled", symbol)
            lost = GapReason.INTERNAL, f"{type(error).__name__}: {error}"
        if lost is not None:
            self._writer.add_gap(symbol, second, second, *lost)

    def _sample_book(
        self, sync: BookSynchronizer, sampled: _Sampled, second: int, sample: _Sample
    ) -> tuple[GapReason, str] | None:
        """Add the book's row to the sample, or return why there is none."""
        book = sync.book
        if sync.state is not BookState.LIVE or book is None:
            return sync.cause or GapReason.INTERNAL, sync.detail
        symbol = sync.instrument.symbol
        lost: tuple[GapReason, str] | None = None
        if book.crossed:
            lost = GapReason.CROSSED, "best bid at or above best ask"
        elif book.bid_count == 0 and book.ask_count == 0:
            lost = GapReason.EMPTY, "both sides of the book are empty"
        if lost is not None:
            if sampled.lost is not lost[0]:
                logger.warning("%s: live, but no row (%s): %s", symbol, *lost)
            sampled.lost = lost[0]
            return lost
        sampled.lost = None
        snapshot = book.snapshot(second, SNAPSHOT_DEPTH)
        if snapshot.update_id < sampled.update_id:
            self._counters["update_id_fell"] += 1
            logger.warning(
                "%s: update id fell from %d to %d", symbol, sampled.update_id, snapshot.update_id
            )
        if snapshot.update_id != sampled.update_id:
            sampled.since = second
        sampled.update_id, sampled.until = snapshot.update_id, second
        if sync.epoch != sampled.epoch:
            sampled.epoch = sync.epoch
            sample.marks.append(Mark(symbol, second, second, MarkKind.EPOCH))
        if not book.covers(SNAPSHOT_DEPTH):
            self._counters["uncertain_rows"] += 1
            sample.marks.append(Mark(symbol, second, second, MarkKind.UNCERTAIN))
        sample.records.append(Record(symbol, second, snapshot.pack()))
        if self._telling.wants_live:
            sample.snapshots.append(snapshot)
        return None

    # -- beside the sampling ---------------------------------------------------------------------

    async def _summarise(self) -> None:
        rows = gaps = 0
        while True:
            await asyncio.sleep(self._settings.summary_interval)
            now_rows = self._writer.counters["rows"]
            now_gaps = sum(self._writer.gap_seconds.values())
            logger.info(
                "rows %d (+%d), lost seconds %d (+%d), held %d, tick lag p99 %.1f ms, "
                "book latency p99 %.2f ms, %s%s%s",
                now_rows,
                now_rows - rows,
                now_gaps,
                now_gaps - gaps,
                self._writer.queued_rows,
                self._lag.quantile(0.99) / 1e6,
                self.books.latency.quantile(0.99) / 1e6,
                ", ".join(f"{state} {count}" for state, count in self.books.states().items()),
                f", storage in trouble: {self._writer.trouble}" if self._writer.trouble else "",
                self._telling.describe(),
            )
            rows, gaps = now_rows, now_gaps

    def _observe_change(self, change: StateChange) -> None:
        sampled = self._sampled.get(change.instrument.symbol)
        if (
            sampled is not None
            and change.reason in _MISSED_BEFORE
            and change.update_id == sampled.update_id
        ):
            kind = MarkKind.STALE
            mark = Mark(change.instrument.symbol, sampled.since, sampled.until, kind)
            self._late_marks.append(mark)
        live = (BookState.LIVE, BookState.STALE)
        if change.old in live and change.new in _LOST_STATES and change.reason is not None:
            self._notify(
                "obframe_book_reset",
                instrument=change.instrument,
                reason=str(change.reason),
                at=int(self._clock.time()),
            )

    def _take_late_marks(self) -> list[Mark]:
        marks, self._late_marks = self._late_marks, []
        return marks

    def _observe_gap(self, gap: Gap) -> None:
        self._notify("obframe_gap", gap=gap)

    def _summary(self, drained: bool) -> RunSummary:
        counters: Counter[str] = Counter()
        parts: list[tuple[str, Mapping[str, int]]] = [
            ("feed", self.books.feed_counters()),
            ("books", self.books.counters),
            ("storage", self._writer.counters),
            ("recorder", self._counters),
            ("recorder", self._retainer.counters),
        ]
        for sync in self.books.synchronizers:
            parts.append(("book", {**sync.counters, "unknown_deletes": sync.unknown_deletes}))
        parts += self._telling.counters()
        for part, counts in parts:
            for name, count in counts.items():
                counters[f"{part}.{name}"] += count
        return RunSummary(
            rows=self._writer.counters["rows"],
            gap_seconds=dict(self._writer.gap_seconds),
            states=dict(self.books.states()),
            updates=self.books.counters["updates"],
            tick_lag_p99=self._lag.quantile(0.99) / 1e9,
            tick_lag_p50=self._lag.quantile(0.5) / 1e9,
            book_latency_p99=self.books.latency.quantile(0.99) / 1e9,
            drained=drained,
            counters=dict(sorted(counters.items())),
            abandoned=tuple(self._telling.abandoned),
            unknown={
                sync.instrument.symbol: sync.detail
                for sync in self.books.synchronizers
                if sync.state is BookState.HALTED and sync.cause is GapReason.UNKNOWN_SYMBOL
            },
        )


def _notify_nobody(_hook: str, **_arguments: object) -> None:
    """Observe nothing."""
