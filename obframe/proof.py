"""One attempt to join a stream of updates and a snapshot; the rule stands in ``obframe.sync``."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from obframe._core import DepthSnapshot, DepthUpdate, OrderBook
from obframe.types import Instrument


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """Bounds of one synchroniser.

    Args:
        buffer_updates: Updates kept while a snapshot is awaited; past it the attempt is given up.
        buffer_levels: The same bound in level changes.
        backoff_first: Seconds before the second snapshot request of a series.
        backoff_max: Upper bound of that delay.
        stable_after: Seconds live after which the series of failures is forgotten.
        first_update_wait: Seconds an open stream may be silent before a snapshot is asked for.
        crossed_after: Seconds a book may stay crossed or locked before it is proven anew.
        refresh_every: Least seconds between two snapshots that widen a live book's coverage.
        catch_up_after: Seconds in which nothing but old updates may come before what the book
            stands at is doubted: the snapshot was far ahead, or the venue's ids began anew.
    """

    buffer_updates: int = 5_000
    buffer_levels: int = 500_000
    backoff_first: float = 0.5
    backoff_max: float = 30.0
    stable_after: float = 60.0
    first_update_wait: float = 3.0
    crossed_after: float = 3.0
    refresh_every: float = 30.0
    catch_up_after: float = 10.0


class BufferFull(Exception):
    """The buffer's bound was reached."""


class Proof:
    """One attempt to join a stream and a snapshot into a proven book."""

    __slots__ = ("_counters", "_instrument", "_levels", "_limits", "_updates", "book", "proven")

    def __init__(self, instrument: Instrument, limits: SyncLimits, counters: Counter[str]) -> None:
        self._instrument = instrument
        self._limits = limits
        self._counters = counters
        self._updates: deque[DepthUpdate] = deque()
        self._levels = 0
        self.book: OrderBook | None = None
        self.proven = False

    @property
    def streaming(self) -> bool:
        """Whether any update has been seen."""
        return bool(self._updates) or self.book is not None

    def add_update(self, update: DepthUpdate) -> bool:
        """Take the next update of the stream.

        Returns:
            False when a snapshot that was waiting for its first update turned out too old; the
            update is kept for the next one.
        """
        if self.book is not None:
            return self._join(update)
        if self._updates:
            newest = self._updates[-1].last_update_id
            if update.prev_update_id != newest:
                if update.last_update_id <= newest:
                    self._counters["old"] += 1
                    return True
                self._counters["sequence"] += 1
                self.clear()
        self._keep(update)
        return True

    def add_snapshot(self, snapshot: DepthSnapshot) -> bool:
        """Take a snapshot; return False when it is older than what is kept (which stays)."""
        if self._updates and self._updates[0].prev_update_id > snapshot.last_update_id:
            return False
        book = OrderBook(self._instrument.symbol, self._instrument.native)
        book.load(snapshot)
        self.book = book
        updates, self._updates, self._levels = self._updates, deque(), 0
        usable = True
        for update in updates:
            usable &= self._join(update)
        return usable

    def clear(self) -> None:
        """Forget everything kept."""
        self._updates.clear()
        self._levels = 0
        self.book = None

    def _join(self, update: DepthUpdate) -> bool:
        book = self.book
        assert book is not None
        if self.proven:
            book.apply(update)
        elif update.last_update_id < book.update_id:
            self._counters["old"] += 1
        elif update.prev_update_id <= book.update_id:
            book.apply(update)
            self.proven = True
        else:
            self.clear()
            self._keep(update)
            return False
        return True

    def _keep(self, update: DepthUpdate) -> None:
        self._levels += len(update)
        if len(self._updates) >= self._limits.buffer_updates or (
            self._levels > self._limits.buffer_levels
        ):
            raise BufferFull
        self._updates.append(update)
