"""What the parts of one running Binance feed share."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Collection
from dataclasses import dataclass

from obframe import DepthSnapshot, Emit, GapReason, Instrument, StreamEvent
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._link import LinkContext, LinkCounters
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._websocket import Open

logger = logging.getLogger("obframe.binance")


@dataclass(slots=True)
class Counters(LinkCounters):
    """What happened so far."""

    handovers: int = 0
    handovers_failed: int = 0
    snapshots: int = 0
    snapshot_retries: int = 0
    rate_limited: int = 0
    blocked: int = 0
    rest_requests: int = 0
    rest_errors: int = 0


class Context(LinkContext):
    """One run of the feed: where events go, and which streams are open.

    Args:
        settings: The feed's.
        counters: The feed's; they outlive a run.
        connections: Limits new connections; outlives a run.
        rng: Source of all jitter.
        emit: Where events go.
        open_socket: Opens websocket connections.
    """

    def __init__(
        self,
        settings: BinanceSettings,
        counters: Counters,
        connections: RollingLimit,
        rng: random.Random,
        emit: Emit,
        open_socket: Open,
    ) -> None:
        super().__init__(settings, counters, connections, rng, emit, open_socket, logger)
        self.settings = settings
        self.counters = counters
        self.halted: set[str] = set()
        self._open: dict[str, int] = {}
        self._openings = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def tell(
        self,
        event: StreamEvent,
        instruments: Collection[Instrument],
        reason: GapReason | None = None,
        detail: str = "",
    ) -> None:
        """Emit a status, and remember which streams it opens or ends."""
        if event is StreamEvent.SUBSCRIBED:
            for instrument in instruments:
                self._open[instrument.symbol] = next(self._openings)
                waiter = self._waiting.pop(instrument.symbol, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
        elif event is StreamEvent.DISCONNECTED:
            for instrument in instruments:
                self._open.pop(instrument.symbol, None)
        super().tell(event, instruments, reason, detail)

    def forget(self, symbol: str) -> None:
        """Forget the stream of a symbol that is wanted no longer."""
        self._open.pop(symbol, None)

    def opening(self, symbol: str) -> int | None:
        """Return a number that identifies the open stream of a symbol; None when there is none."""
        return self._open.get(symbol)

    async def wait_open(self, symbol: str) -> int:
        """Wait until the stream of a symbol is open; return what ``opening`` returns."""
        while (opening := self._open.get(symbol)) is None:
            waiter = self._waiting.get(symbol)
            if waiter is None:
                waiter = asyncio.get_running_loop().create_future()
                self._waiting[symbol] = waiter
            await asyncio.shield(waiter)
        return opening

    def deliver(self, snapshot: DepthSnapshot) -> None:
        """Emit a snapshot."""
        self.counters.snapshots += 1
        self.emit(snapshot)
