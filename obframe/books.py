"""The books of one feed: a synchroniser each, supervised, observable.

``BookManager.emit`` is the hot path: it takes one feed event through synchroniser and book in one
synchronous call. What goes wrong with one symbol stays with that symbol.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from obframe._core import DepthSnapshot, DepthUpdate, OrderBook, Snapshot
from obframe.histogram import Histogram
from obframe.proof import SyncLimits
from obframe.protocols import Feed, FeedEvent
from obframe.sync import BookSynchronizer, SnapshotWanted
from obframe.types import (
    BookState,
    FeedStatus,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
)

logger = logging.getLogger("obframe.books")

_LOST = (BookState.STALE, BookState.RESYNCING, BookState.RECONNECTING, BookState.HALTED)
_RESTART_FIRST = 0.5
_RESTART_MAX = 60.0
_REQUEST_AGAIN = 5.0
"""Seconds until a feed that raised is asked for the same snapshot again."""


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


class Entry:
    """What the manager holds of one instrument."""

    __slots__ = ("snapshot_timer", "sync", "watchers")

    def __init__(self, sync: BookSynchronizer) -> None:
        self.sync = sync
        self.watchers: set[asyncio.Event] = set()
        self.snapshot_timer: asyncio.TimerHandle | None = None

    def view(self) -> BookView:
        """Return one look at the book."""
        sync = self.sync
        return BookView(sync.instrument, sync.state, sync.cause, sync.detail, sync.book)


class BookManager:
    """Keeps the books of one feed.

    Args:
        feed: Where events come from.
        on_change: Called with every state change, synchronously; must not raise.
        limits: Bounds of every synchroniser.
        rng: Source of jitter.

    Attributes:
        latency: Nanoseconds from the receipt of an update to the updated book.
        counters: ``updates``, ``unsubscribed``, ``unknown``, ``errors``, ``feed_restarts``.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        on_change: Callable[[StateChange], None] | None = None,
        limits: SyncLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._feed = feed
        self._on_change = on_change
        self._limits = limits
        self._random = rng or random.Random()
        self._entries: dict[str, Entry] = {}
        self._recovered: list[StateChange] = []  # told in the log together, at the next tick
        self.latency = Histogram()
        self.counters: Counter[str] = Counter()

    # -- what is wanted --------------------------------------------------------------------------

    def subscribe(self, *instruments: Instrument) -> None:
        """Want these books; those already wanted stay as they are."""
        new = [item for item in instruments if item.symbol not in self._entries]
        for instrument in new:
            self._entries[instrument.symbol] = Entry(BookSynchronizer(instrument, self._limits))
        if new:
            self._feed.subscribe(new)

    def unsubscribe(self, *instruments: Instrument) -> None:
        """Want these books no longer; watchers see them end."""
        known = [item for item in instruments if item.symbol in self._entries]
        for instrument in known:
            entry = self._entries.pop(instrument.symbol)
            if entry.snapshot_timer is not None:
                entry.snapshot_timer.cancel()
            entry.sync.unsubscribe()
            self._tell(entry)
        if known:
            self._feed.unsubscribe(known)

    # -- what is known ---------------------------------------------------------------------------

    @property
    def synchronizers(self) -> Collection[BookSynchronizer]:
        """All synchronisers, for reading."""
        return [entry.sync for entry in self._entries.values()]

    def get(self, symbol: str) -> BookView:
        """Return one look at a book.

        Raises:
            KeyError: The symbol is not subscribed.
        """
        return self._entries[symbol].view()

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
                yield entry.view()
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
        """Run the feed; restart it with back-off whenever it fails, until cancelled."""
        delay = _RESTART_FIRST
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._feed.run(self.emit)
            except Exception as error:
                logger.exception("the feed failed and is started anew")
                self.counters["feed_restarts"] += 1
                # The next run knows nothing of what this one said: it begins with no book halted.
                self._tell_all(StreamEvent.TRADING, None, "")
                detail = f"the feed failed: {type(error).__name__}: {error}"
                self._tell_all(StreamEvent.DISCONNECTED, GapReason.INTERNAL, detail)
            else:
                logger.info("the feed has come to its end")
                detail = "the feed has come to its end"
                self._tell_all(StreamEvent.DISCONNECTED, GapReason.INTERNAL, detail)
                return
            if loop.time() - began > _RESTART_MAX:
                delay = _RESTART_FIRST
            await asyncio.sleep(delay * (0.5 + 0.5 * self._random.random()))
            delay = min(delay * 2, _RESTART_MAX)

    def emit(self, event: FeedEvent) -> None:
        """Take one event through synchroniser and book. Never raises."""
        if isinstance(event, DepthUpdate):
            entry = self._entries.get(event.symbol)
            if entry is None:
                self.counters["unsubscribed"] += 1
                return
            self.counters["updates"] += 1
            try:
                entry.sync.receive_update(event)
            except Exception as error:
                self._fail(entry, error)
            if event.received_ns:
                self.latency.add(time.monotonic_ns() - event.received_ns)
            if entry.sync.events or entry.watchers:
                _log_changes(self._tell(entry))
        elif isinstance(event, DepthSnapshot):
            entry = self._entries.get(event.symbol)
            if entry is None:
                self.counters["unsubscribed"] += 1
                return
            try:
                entry.sync.receive_snapshot(event)
            except Exception as error:
                self._fail(entry, error)
            _log_changes(self._tell(entry))
        elif isinstance(event, FeedStatus):
            lost: list[StateChange] = []
            for instrument in sorted(event.instruments):
                entry = self._entries.get(instrument.symbol)
                if entry is not None:
                    entry.sync.receive_status(event)
                    lost += self._tell(entry)
            _log_changes(lost)
        else:
            self.counters["unknown"] += 1
            logger.error("the feed emitted a %s, which is no feed event", type(event).__name__)

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
                self._fail(entry, error)
            if entry.sync.events:
                lost += self._tell(entry)
        _log_changes(lost)
        _log_changes(self._recovered)
        self._recovered.clear()

    def resynchronise_all(self, reason: GapReason, detail: str) -> None:
        """Throw every proven book away and prove it anew; the others keep their own cause."""
        lost: list[StateChange] = []
        for entry in list(self._entries.values()):
            if entry.sync.book is not None:
                entry.sync.resynchronise(reason, detail)
                lost += self._tell(entry)
        _log_changes(lost)

    def close(self) -> None:
        """Cancel what is scheduled."""
        _log_changes(self._recovered)
        self._recovered.clear()
        for entry in self._entries.values():
            if entry.snapshot_timer is not None:
                entry.snapshot_timer.cancel()

    # -- inside ----------------------------------------------------------------------------------

    def _fail(self, entry: Entry, error: Exception) -> None:
        self.counters["errors"] += 1
        symbol = entry.sync.instrument.symbol
        logger.error("%s: the book failed and is proven anew", symbol, exc_info=error)
        detail = f"{type(error).__name__}: {error}"
        entry.sync.resynchronise(GapReason.INTERNAL, detail)

    def _tell_all(self, event: StreamEvent, reason: GapReason | None, detail: str) -> None:
        instruments = frozenset(entry.sync.instrument for entry in self._entries.values())
        self.emit(FeedStatus(event, instruments, reason, detail))

    def _tell(self, entry: Entry) -> list[StateChange]:
        """Pass on what a synchroniser has to tell; return what was lost, to be logged at once."""
        lost: list[StateChange] = []
        for event in entry.sync.take_events():
            if isinstance(event, SnapshotWanted):
                self._schedule_snapshot(entry, event.delay)
            else:
                (lost if event.new in _LOST else self._recovered).append(event)
                if self._on_change is not None:
                    self._on_change(event)
        for watcher in entry.watchers:
            watcher.set()
        return lost

    def _schedule_snapshot(self, entry: Entry, delay: float) -> None:
        if entry.snapshot_timer is not None:
            entry.snapshot_timer.cancel()
            entry.snapshot_timer = None
        if delay <= 0:
            self._request_snapshot(entry)
        else:
            loop = asyncio.get_running_loop()
            entry.snapshot_timer = loop.call_later(delay, self._request_snapshot, entry)

    def _request_snapshot(self, entry: Entry) -> None:
        instrument = entry.sync.instrument
        try:
            self._feed.request_snapshot(instrument)
        except Exception:
            self.counters["errors"] += 1
            logger.exception("%s: the feed cannot be asked for a snapshot", instrument.symbol)
            self._schedule_snapshot(entry, _REQUEST_AGAIN)


def _log_changes(changes: Iterable[StateChange]) -> None:
    """Log one line for all books that changed alike."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for change in changes:
        lost = change.new in _LOST
        reason = str(change.reason) if lost else ""
        kind = (change.old, change.new, reason, change.detail if lost else "")
        alike.setdefault(kind, []).append(change.instrument.symbol)
    for (old, new, reason, detail), symbols in alike.items():
        logger.log(
            logging.WARNING if reason else logging.INFO,
            "%s: %s -> %s%s%s",
            name_some(symbols),
            old,
            new,
            f" ({reason})" if reason else "",
            f": {detail}" if detail else "",
        )


def name_some(symbols: Sequence[str], most: int = 10) -> str:
    """Name the first symbols, and say how many more there are."""
    shown = ", ".join(symbols[:most])
    return shown if len(symbols) <= most else f"{shown} and {len(symbols) - most} more"
