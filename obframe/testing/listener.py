"""Listens to a feed, and rebuilds its books the plain, slow way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from obframe._core import DepthSnapshot, DepthUpdate
from obframe.protocols import FeedEvent
from obframe.testing.reference import ReferenceBook
from obframe.types import FeedStatus, StreamEvent

_BREAKS = (StreamEvent.SUBSCRIBED, StreamEvent.DISCONNECTED, StreamEvent.INVALID)


class FeedListener:
    """Takes what a feed emits and keeps all of it: ``await feed.run(listener)``.

    Attributes:
        events: Everything, in order.
        threads: The threads that called.
        on_event: Called with each event, after it was kept.
    """

    def __init__(self) -> None:
        self.events: list[FeedEvent] = []
        self.threads: set[int] = set()
        self.on_event: Callable[[FeedEvent], None] | None = None

    def __call__(self, event: FeedEvent) -> None:
        self.threads.add(threading.get_ident())
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def of(self, symbol: str, since: int = 0) -> list[FeedEvent]:
        """Return the events of a symbol, and the statuses that name it.

        Args:
            symbol: Whose.
            since: Index in ``events`` of the first to be looked at.
        """
        return [event for event in self.events[since:] if symbol in symbols_of(event)]

    def updates(self, symbol: str, since: int = 0) -> list[DepthUpdate]:
        """Return the updates of a symbol."""
        return [event for event in self.of(symbol, since) if isinstance(event, DepthUpdate)]

    def snapshots(self, symbol: str, since: int = 0) -> list[DepthSnapshot]:
        """Return the snapshots of a symbol."""
        return [event for event in self.of(symbol, since) if isinstance(event, DepthSnapshot)]

    def statuses(self, symbol: str, *wanted: StreamEvent, since: int = 0) -> list[FeedStatus]:
        """Return what was told of a symbol; with ``wanted`` only such."""
        return [
            event
            for event in self.of(symbol, since)
            if isinstance(event, FeedStatus) and (not wanted or event.event in wanted)
        ]

    def stream(self, symbol: str) -> list[FeedEvent] | None:
        """Return the events of a symbol's stream since it was opened; None while it is not open."""
        events = self.of(symbol)
        for index in range(len(events) - 1, -1, -1):
            event = events[index]
            if isinstance(event, FeedStatus):
                if event.event is StreamEvent.DISCONNECTED:
                    return None
                if event.event is StreamEvent.SUBSCRIBED:
                    return events[index + 1 :]
        return None

    def breaks(self, symbol: str, since: int = 0) -> list[str]:
        """Describe each update that does not join the one before it on an unbroken stream."""
        found = []
        last: int | None = None
        for event in self.of(symbol, since):
            if isinstance(event, FeedStatus):
                if event.event in _BREAKS:
                    last = None
            elif isinstance(event, DepthUpdate):
                if last is not None and event.prev_update_id != last:
                    found.append(
                        f"{symbol}: an update to {event.last_update_id} after "
                        f"{event.prev_update_id} follows one to {last}"
                    )
                last = event.last_update_id
        return found

    def book(self, symbol: str) -> ReferenceBook | None:
        """Return the book of the stream that is open, as its newest usable snapshot gives it.

        None until a snapshot is there that an update of the same stream joins.
        """
        events = self.stream(symbol) or []
        updates = [event for event in events if isinstance(event, DepthUpdate)]
        for snapshot in reversed(events):
            if isinstance(snapshot, DepthSnapshot):
                book = _join(snapshot, updates)
                if book is not None:
                    return book
        return None

    def describe(self, symbol: str, most: int = 8) -> str:
        """Say in one line what came last of a symbol."""
        events = self.of(symbol)
        told = ", ".join(describe_event(event) for event in events[-most:]) or "nothing"
        return f"{symbol}: {'… ' if len(events) > most else ''}{told}"


def symbols_of(event: FeedEvent) -> Collection[str]:
    """Return the symbols that an event is about."""
    if isinstance(event, FeedStatus):
        return {instrument.symbol for instrument in event.instruments}
    return (getattr(event, "symbol", ""),)


def describe_event(event: FeedEvent) -> str:
    """Say in a few words what an event is."""
    if isinstance(event, DepthUpdate):
        return f"update {event.prev_update_id}..{event.last_update_id}"
    if isinstance(event, DepthSnapshot):
        return f"snapshot {event.last_update_id}"
    if isinstance(event, FeedStatus):
        return f"{event.event} ({event.reason})" if event.reason else str(event.event)
    return f"a {type(event).__name__}, which is no feed event"


def _join(snapshot: DepthSnapshot, updates: list[DepthUpdate]) -> ReferenceBook | None:
    """Apply the updates after a snapshot; None unless they join it and each other."""
    at = snapshot.last_update_id
    after = [update for update in updates if update.last_update_id >= at]
    if not after or after[0].prev_update_id > at:
        return None
    book = ReferenceBook()
    book.load(at, snapshot.bids, snapshot.asks)
    for index, update in enumerate(after):
        if index and update.prev_update_id != book.update_id:
            return None
        book.apply(update.last_update_id, update.bids, update.asks)
    return book
