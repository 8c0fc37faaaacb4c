"""What is stored of a second: a row of each live book, and a gap for each that has none."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field

from obframe._core import Snapshot
from obframe.books import BookManager
from obframe.clock import Clock, Missed
from obframe.sync import BookSynchronizer
from obframe.telling import Telling
from obframe.types import (
    SNAPSHOT_DEPTH,
    BookState,
    GapReason,
    Mark,
    MarkKind,
    Record,
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


class Sampler:
    """Accounts for every second of every symbol, from the first tick after its subscription on.

    Args:
        books: What is sampled.
        writer: Takes rows, gaps and marks.
        telling: Takes the snapshots of the rows, for sinks.
        clock: Where time comes from.

    Attributes:
        counters: ``update_id_fell`` and ``uncertain_rows``.
    """

    def __init__(
        self, books: BookManager, writer: StorageWriter, telling: Telling, clock: Clock
    ) -> None:
        self._books = books
        self._writer = writer
        self._telling = telling
        self._clock = clock
        self._sampled: dict[str, _Sampled] = {}
        self._left: set[str] = set()
        self._late_marks: list[Mark] = []
        self.counters: Counter[str] = Counter()

    # -- which symbols ---------------------------------------------------------------------------

    def want(self, symbol: str) -> None:
        """Account for the symbol from the next tick on."""
        again = symbol in self._left
        self._left.discard(symbol)
        reason = GapReason.UNSUBSCRIBED if again else GapReason.PROCESS_DOWN
        self._sampled[symbol] = _Sampled(reason)

    def forget(self, symbol: str) -> None:
        """Account for the symbol no longer."""
        self._writer.close_gap(symbol)
        self._sampled.pop(symbol, None)
        self._left.add(symbol)

    def is_resuming(self, symbol: str) -> bool:
        """Tell whether the symbol's newest row has to stay: the time since then begins with it."""
        sampled = self._sampled.get(symbol)
        return sampled is not None and (sampled.first is None or self._writer.is_resuming(symbol))

    # -- seconds that have no tick ---------------------------------------------------------------

    def relive(self, missed: Missed) -> None:
        """Mark the seconds that come again: each is told of already, and that stays."""
        logger.warning("seconds %d to %d come again: %s", *missed[:2], missed.detail)
        start, end, kind = missed.start, missed.end, MarkKind.RELIVED
        marks = [
            Mark(symbol, max(start, sampled.first), end, kind)
            for symbol, sampled in self._sampled.items()
            if sampled.first is not None and sampled.first <= end
        ]
        self._writer.submit(end, (), marks)

    def lose(self, missed: Missed) -> None:
        """Record the seconds as gaps of every symbol that is accounted for."""
        logger.warning("seconds %d to %d are lost: %s", *missed[:2], missed.detail)
        for symbol, sampled in self._sampled.items():
            if sampled.first is not None:
                self._writer.add_gap(symbol, *missed)
        self._writer.submit(missed.end, (), ())

    # -- a tick ----------------------------------------------------------------------------------

    async def sample(self, second: int) -> None:
        """Account for one second of every symbol; let the loop read between some and the next."""
        sample = _Sample(marks=self.take_late_marks())
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
            (sync, self._sampled[sync.instrument.symbol]) for sync in self._books.synchronizers
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
            self.counters["update_id_fell"] += 1
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
            self.counters["uncertain_rows"] += 1
            sample.marks.append(Mark(symbol, second, second, MarkKind.UNCERTAIN))
        sample.records.append(Record(symbol, second, snapshot.pack()))
        if self._telling.wants_live:
            sample.snapshots.append(snapshot)
        return None

    # -- rows that are stored already ------------------------------------------------------------

    def note_change(self, change: StateChange) -> None:
        """Mark the last rows of a book that turns out to have missed something before them."""
        sampled = self._sampled.get(change.instrument.symbol)
        if (
            sampled is not None
            and change.reason in _MISSED_BEFORE
            and change.update_id == sampled.update_id
        ):
            kind = MarkKind.STALE
            mark = Mark(change.instrument.symbol, sampled.since, sampled.until, kind)
            self._late_marks.append(mark)

    def take_late_marks(self) -> list[Mark]:
        """Return the marks of rows that are stored already, once."""
        marks, self._late_marks = self._late_marks, []
        return marks
