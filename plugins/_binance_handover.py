"""Joining two connections that carry the same streams, without a seam."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from obframe import DepthUpdate
from obframe_plugins._binance_stream import Connection


class Handover:
    """Holds what a new connection says until it can go on where the old one stands.

    The old connection is delivered all along. A stream of the new one is *aligned* once both have
    shown the same boundary between two updates: what follows is then the same on both, and either
    can go on without a gap. It does not matter which of the two is ahead: what is ahead is held,
    and what lags is repeated, which a book ignores. When every stream that had data is aligned,
    the whole connection is taken over at once.

    Args:
        old: The connection that is being delivered.
        deliver: Takes the updates of the old connection.

    Attributes:
        done: Set when every stream can go on.
        aligned: Symbols of the streams that can go on.
    """

    def __init__(self, old: Connection, deliver: Callable[[DepthUpdate], None]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.aligned: set[str] = set()
        self._old = old
        self._new: Connection | None = None
        self._deliver = deliver
        self._old_ids = {
            symbol: {stream.last_id}
            for symbol, stream in old.streams.items()
            if stream.last_id is not None
        }
        self._new_ids: dict[str, set[int]] = {}
        self._waiting = set(self._old_ids)
        self._held: dict[str, deque[DepthUpdate]] = {}
        self._ids_when_ready: dict[str, int | None] | None = None

    def attach(self, new: Connection) -> None:
        """Name the connection whose updates ``hold`` takes."""
        self._new = new

    def pass_on(self, update: DepthUpdate) -> None:
        """Deliver an update of the old connection."""
        symbol = update.symbol
        if symbol not in self.aligned:
            self._old_ids.setdefault(symbol, set()).add(update.last_update_id)
            if update.last_update_id in self._new_ids.get(symbol, ()):
                self._align(symbol)
        self._deliver(update)

    def hold(self, update: DepthUpdate) -> None:
        """Take an update of the new connection."""
        symbol = update.symbol
        held = self._held.setdefault(symbol, deque())
        held.append(update)
        old = self._old.streams.get(symbol)
        if old is not None and old.last_id is not None:
            _drop_old(held, old.last_id)
        if symbol not in self.aligned:
            ids = {update.prev_update_id, update.last_update_id}
            self._new_ids.setdefault(symbol, set()).update(ids)
            if not ids.isdisjoint(self._old_ids.get(symbol, ())):
                self._align(symbol)

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

    def _align(self, symbol: str) -> None:
        self.aligned.add(symbol)
        self._old_ids.pop(symbol, None)
        self._new_ids.pop(symbol, None)
        self._waiting.discard(symbol)
        if not self._waiting:
            self.check()


def _drop_old(held: deque[DepthUpdate], last_id: int) -> None:
    while held and held[0].last_update_id <= last_id:
        held.popleft()
