"""The recorder: its parts, their life, and on every second what each has to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import math
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from obframe.books import BookManager
from obframe.clock import Clock, SystemClock, ticks
from obframe.errors import ObframeError
from obframe.feeds import FeedSet, name_some
from obframe.histogram import Histogram
from obframe.protocols import Feed, Storage, SymbolSource
from obframe.retainer import Retainer
from obframe.sampler import Sampler
from obframe.settings import RecorderSettings, RetentionSettings
from obframe.sinks import SinkPart
from obframe.telling import Telling
from obframe.types import BookState, Gap, GapReason, Instrument, RunInfo, StateChange
from obframe.writer import StorageWriter

logger = logging.getLogger("obframe.recorder")

UNRECORDED: Final = (GapReason.PROCESS_DOWN, GapReason.UNSUBSCRIBED)
"""Causes that tell of time in which nobody recorded a symbol, before or in this run."""

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
        unproven: Symbols without a proven book at the end, with the cause and its detail.
        counters: What happened, by part and name, such as ``feed.reconnects``.
        storage: Where ``obframe run`` has stored the rows, as far as the storage tells.
        query: The command that shows them, if another process can.
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
    unproven: Mapping[str, str] = field(default_factory=dict)
    storage: str = ""
    query: str = ""

    @property
    def is_vain(self) -> bool:
        """Whether seconds were due and not one of them has a row."""
        due = any(count for reason, count in self.gap_seconds.items() if reason not in UNRECORDED)
        return due and not self.rows and not self.counters.get("storage.already_stored")


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
        self._sampler = Sampler(self.books, self._writer, self._telling, self._clock)
        self._retainer = Retainer(
            retention or RetentionSettings(),
            storage,
            self._writer,
            self._telling,
            is_resuming=self._sampler.is_resuming,
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
            self._writer.submit(0, (), self._sampler.take_late_marks())
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
            self.books.unsubscribe(instrument)
            self._sampler.forget(instrument.symbol)
        added = sorted(new - old)
        for instrument in added:
            self._sampler.want(instrument.symbol)
        self.books.subscribe(*added)
        if added:
            logger.info("recording %s", name_some([item.symbol for item in added]))

    # -- the ticks -------------------------------------------------------------------------------

    async def _sample_ticks(self, first_wanted: asyncio.Event) -> None:
        await first_wanted.wait()
        async for tick in ticks(self._clock, self._settings.late_tolerance):
            began = self._clock.monotonic()
            self.books.tick(began)
            self._telling.watch()
            if tick.missed is not None:
                if tick.relived:
                    self._sampler.relive(tick.missed)
                else:
                    self._sampler.lose(tick.missed)
                    self._retainer.doubt_clock(tick.missed)
                if tick.resync:
                    self.books.resynchronise_all(tick.missed.reason, tick.missed.detail)
            if tick.second is None:
                continue
            if tick.relived:
                self._counters["relived_seconds"] += 1
                continue
            await self._sampler.sample(tick.second)
            lag = tick.lag + self._clock.monotonic() - began
            self._lag.add(int(lag * 1e9))

    # -- beside the ticks ------------------------------------------------------------------------

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
        self._sampler.note_change(change)
        live = (BookState.LIVE, BookState.STALE)
        if change.old in live and change.new in _LOST_STATES and change.reason is not None:
            self._notify(
                "obframe_book_reset",
                instrument=change.instrument,
                reason=str(change.reason),
                at=int(self._clock.time()),
            )

    def _observe_gap(self, gap: Gap) -> None:
        self._notify("obframe_gap", gap=gap)

    def _summary(self, drained: bool) -> RunSummary:
        counters: Counter[str] = Counter()
        parts: list[tuple[str, Mapping[str, int]]] = [
            ("feed", self.books.feed_counters()),
            ("books", self.books.counters),
            ("storage", self._writer.counters),
            ("recorder", self._counters),
            ("recorder", self._sampler.counters),
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
            unproven={
                sync.instrument.symbol: f"{sync.cause}: {sync.detail}".removesuffix(": ")
                for sync in self.books.synchronizers
                if sync.book is None
            },
        )


def _notify_nobody(_hook: str, **_arguments: object) -> None:
    """Observe nothing."""
