"""Joining two connections that carry the same streams, without a seam."""

from __future__ import annotations

import asyncio
from collections import deque

from obframe import DepthUpdate
from obframe_plugins._binance_stream import Connection


class Handover:
    """Holds what a new connection says until it goes on exactly where the old one stands.

    The old connection is delivered all along. A stream of the new one is *aligned* once one of its
    updates begins or ends at the last id that the old one delivered: from then on either of the
    two can go on without a gap. When every stream that had data is aligned, the whole connection
    is taken over at once.

    Args:
        old: The connection that is being delivered.

    Attributes:
        done: Set when every stream can go on.
        aligned: Symbols of the streams that can go on.
    """

    def __init__(self, old: Connection) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.aligned: set[str] = set()
        self._old = old
        self._new: Connection | None = None
        self._waiting = {
            symbol for symbol, stream in old.streams.items() if stream.last_id is not None
        }
        self._held: dict[str, deque[DepthUpdate]] = {}
        self._ids_when_ready: dict[str, int | None] | None = None

    def attach(self, new: Connection) -> None:
        """Name the connection whose updates ``hold`` takes."""
        self._new = new

    def hold(self, update: DepthUpdate) -> None:
        """Take an update of the new connection."""
        symbol = update.symbol
        held = self._held.setdefault(symbol, deque())
        held.append(update)
        old = self._old.streams.get(symbol)
        if old is None or old.last_id is None:
            return
        exact = _drop_old(held, old.last_id)
        if symbol not in self.aligned and (
            exact or (held and held[0].prev_update_id == old.last_id)
        ):
            self.aligned.add(symbol)
            self._waiting.discard(symbol)
            self.check()

    def check(self) -> None:
        """See whether everything is ready; to be called when a stream opened or is not wanted."""
        if self.done.done() or self._new is None:
            return
        streams = self._new.streams
        self._waiting.intersection_update(streams)
        if self._ids_when_ready is None:
            old = self._old.streams
            if not all(streams[s].open for s, item in old.items() if item.open and s in streams):
                return
            self._ids_when_ready = {symbol: item.last_id for symbol, item in old.items()}
        if not self._waiting:
            self.done.set_result(None)

    @property
    def settled(self) -> bool:
        """Whether all that keeps the hand-over waiting are streams on which nothing happens."""
        ids = self._ids_when_ready
        if ids is None:
            return False
        old = self._old.streams
        return all(old[s].last_id == ids.get(s) for s in self._waiting if s in old)

    def release(self, symbol: str) -> list[DepthUpdate]:
        """Return what is to be delivered of a stream when the new connection takes over."""
        held = self._held.pop(symbol, deque())
        old = self._old.streams.get(symbol)
        if old is not None and old.last_id is not None:
            _drop_old(held, old.last_id)
        return list(held)


def _drop_old(held: deque[DepthUpdate], last_id: int) -> bool:
    """Drop what ends at or before ``last_id``; return whether one ends exactly there."""
    exact = False
    while held and held[0].last_update_id <= last_id:
        exact = held.popleft().last_update_id == last_id
    return exact
