"""The books of one run: a synchroniser each, watchable; every feed works for its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import chain

from obframe._core import OrderBook, Snapshot
from obframe.errors import SymbolError
from obframe.feeds import Entry, FeedRunner, FeedSet, Venues, describe_twin, log_changes
from obframe.histogram import Histogram
from obframe.proof import SyncLimits
from obframe.protocols import Feed
from obframe.sync import BookSynchronizer
from obframe.types import (
    BookState,
    FeedStatus,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
)


@dataclass(frozen=True, slots=True)
class BookView:
    """One look at a book.

    Attributes:
        instrument: Whose book.
        state: Where it stands.
        cause: Why it is not live; None while live.
        detail: The same in words.
        book: The proven book, to be read before the next ``await``; None unless live or stale.
    """

    instrument: Instrument
    state: BookState
    cause: GapReason | None
    detail: str
    book: OrderBook | None

    def snapshot(self, depth: int = 20) -> Snapshot | None:
        """Return the best levels now, labelled with the wall clock's second."""
        return None if self.book is None else self.book.snapshot(int(time.time()), depth)


class BookManager:
    """Keeps the books of one feed or of several.

    Args:
        feed: Where events come from; a single feed speaks for every instrument.
        on_change: Called with every state change, synchronously; must not raise.
        limits: Bounds of every synchroniser.
        rng: Source of jitter.

    Attributes:
        latency: Nanoseconds from the receipt of an update to the updated book.
        runners: What runs the feeds, by venue; the empty name is a single feed's.
    """

    def __init__(
        self,
        feed: Feed | FeedSet,
        *,
        on_change: Callable[[StateChange], None] | None = None,
        limits: SyncLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        jitter = rng or random.Random()
        self._limits = limits
        self._entries: dict[str, Entry] = {}
        self.latency = Histogram()
        feeds: Mapping[str, Feed] = feed.feeds if isinstance(feed, FeedSet) else {"": feed}
        several = len(feeds) > 1
        self.runners = {
            venue: FeedRunner(venue if several else "", each, self.latency, on_change, jitter)
            for venue, each in feeds.items()
        }
        self._venues: Venues | None = None
        if isinstance(feed, FeedSet):
            self._venues = Venues(feeds, feed.default)
        self._nobody = FeedRunner("", None, self.latency, on_change, jitter)

    # -- what is wanted --------------------------------------------------------------------------

    def subscribe(self, *instruments: Instrument) -> None:
        """Want these books; those already wanted stay as they are.

        An instrument that no feed speaks for, and a second name of one book, is taken as halted.
        """
        added: dict[FeedRunner, list[Entry]] = {}
        for instrument in instruments:
            if instrument.symbol in self._entries:
                continue
            runner, reason, refusal = self._place(instrument)
            entry = Entry(BookSynchronizer(instrument, self._limits), runner)
            self._entries[instrument.symbol] = entry
            if reason is None:
                runner.entries[entry.told.symbol] = entry
                added.setdefault(runner, []).append(entry)
            else:
                status = FeedStatus(StreamEvent.HALTED, frozenset(), reason, refusal)
                entry.sync.receive_status(status)
                log_changes(runner.tell(entry))
        for runner, entries in added.items():
            runner.subscribe(entries)

    def _place(self, instrument: Instrument) -> tuple[FeedRunner, GapReason | None, str]:
        """Return who runs the instrument's feed; with a reason, why nobody does."""
        if self._venues is None:
            return self.runners[""], None, ""
        try:
            runner = self.runners[self._venues.resolve(instrument)[0]]
        except SymbolError as error:
            return self._nobody, GapReason.UNKNOWN_SYMBOL, str(error)
        twin = runner.entries.get(instrument.native)
        if twin is not None:
            detail = describe_twin(twin.sync.instrument.symbol)
            return self._nobody, GapReason.UNSUBSCRIBED, detail
        return runner, None, ""

    def unsubscribe(self, *instruments: Instrument) -> None:
        """Want these books no longer; watchers see them end."""
        gone: dict[FeedRunner, list[Entry]] = {}
        for instrument in instruments:
            entry = self._entries.pop(instrument.symbol, None)
            if entry is not None:
                entry.cancel()
                entry.sync.unsubscribe()
                entry.runner.tell(entry)
                gone.setdefault(entry.runner, []).append(entry)
        for runner, entries in gone.items():
            if runner is not self._nobody:
                runner.unsubscribe(entries)

    # -- what is known ---------------------------------------------------------------------------

    @property
    def counters(self) -> Counter[str]:
        """``updates``, ``unsubscribed``, ``unknown``, ``errors``, ``feed_restarts``; of all feeds.

        ``unsubscribed`` are events of symbols that their feed was not asked for.
        """
        return sum((runner.counters for runner in self.runners.values()), Counter())

    def feed_counters(self) -> dict[str, int]:
        """Return what the feeds counted; with several the venue stands before each name."""
        counts: dict[str, int] = {}
        for venue, runner in self.runners.items():
            prefix = f"{venue}." if len(self.runners) > 1 else ""
            for name, count in runner.feed_counters().items():
                counts[prefix + name] = count
            if prefix:
                counts.update({prefix + name: count for name, count in runner.counters.items()})
        return counts

    @property
    def synchronizers(self) -> Collection[BookSynchronizer]:
        """All synchronisers, for reading."""
        return [entry.sync for entry in self._entries.values()]

    def get(self, symbol: str) -> BookView:
        """Return one look at a book.

        Raises:
            KeyError: The symbol is not subscribed.
        """
        return _view(self._entries[symbol].sync)

    async def watch(self, symbol: str) -> AsyncIterator[BookView]:
        """Yield the book now and then whenever it has changed, until it is unsubscribed.

        Only the latest state is seen: a watcher that is slow misses what lay between and slows
        nobody.

        Raises:
            KeyError: The symbol is not subscribed.
        """
        entry = self._entries[symbol]
        changed = asyncio.Event()
        entry.watchers.add(changed)
        try:
            while True:
                yield _view(entry.sync)
                if self._entries.get(symbol) is not entry:
                    return
                await changed.wait()
                changed.clear()
        finally:
            entry.watchers.discard(changed)

    def states(self) -> Counter[BookState]:
        """Count the books by state."""
        return Counter(entry.sync.state for entry in self._entries.values())

    # -- what happens ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Run every feed by itself, those of several as soon as they are wanted; until cancelled.

        Ends when all feeds have come to their end.
        """
        several = len(self.runners) > 1
        await asyncio.gather(*(runner.run(when_wanted=several) for runner in self.runners.values()))

    def tick(self, now: float) -> None:
        """Let every synchroniser do what time alone brings about.

        Args:
            now: Seconds of a monotonic clock.
        """
        lost: list[StateChange] = []
        for entry in list(self._entries.values()):
            try:
                entry.sync.tick(now)
            except Exception as error:
                entry.runner.fail(entry, error)
            if entry.sync.events:
                lost += entry.runner.tell(entry)
        log_changes(lost)
        self._log_recovered()

    def resynchronise_all(self, reason: GapReason, detail: str) -> None:
        """Throw every proven book away and prove it anew; the others keep their own cause."""
        lost: list[StateChange] = []
        for entry in list(self._entries.values()):
            if entry.sync.book is not None:
                entry.sync.resynchronise(reason, detail)
                lost += entry.runner.tell(entry)
        log_changes(lost)

    def close(self) -> None:
        """Cancel what is scheduled."""
        self._log_recovered()
        for entry in self._entries.values():
            entry.cancel()

    def _log_recovered(self) -> None:
        for runner in self.runners.values():
            log_changes(chain.from_iterable(runner.recovered.values()))
            runner.recovered.clear()


def _view(sync: BookSynchronizer) -> BookView:
    return BookView(sync.instrument, sync.state, sync.cause, sync.detail, sync.book)
