"""What the parts of one running Binance feed share."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from obframe import DepthSnapshot, Emit, FeedStatus, GapReason, Instrument, StreamEvent
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._pacing import Backoff, RollingLimit
from obframe_plugins._websocket import Open

logger = logging.getLogger("obframe.binance")


@dataclass(slots=True)
class Counters:
    """What happened so far."""

    messages: int = 0
    bytes: int = 0
    malformed: int = 0
    invalid: int = 0
    capacity: int = 0
    unsubscribed: int = 0
    unknown_events: int = 0
    connections: int = 0
    reconnects: int = 0
    handovers: int = 0
    handovers_failed: int = 0
    silences: int = 0
    refused: int = 0
    resubscribed: int = 0
    snapshots: int = 0
    snapshot_retries: int = 0
    rate_limited: int = 0
    blocked: int = 0
    rest_requests: int = 0
    rest_errors: int = 0


class Context:
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
        self.settings = settings
        self.counters = counters
        self.rng = rng
        self.emit = emit
        self.open_socket = open_socket
        self.halted: set[str] = set()
        self._connections = connections
        self._connections_held_until = 0.0
        self._logged_kinds: set[str] = set()
        self._open: dict[str, int] = {}
        self._openings = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._ending: set[asyncio.Task[Any]] = set()

    def finish(self, ending: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
        """Let something come to its end in the background; ``drain`` waits for it."""
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("an ending failed", exc_info=error)

    async def drain(self) -> None:
        """Wait until everything given to ``finish`` has ended."""
        while self._ending:
            await asyncio.wait(set(self._ending))

    def new_backoff(self) -> Backoff:
        """Return delays that have seen no failure yet."""
        return Backoff(self.settings.backoff_max, self.rng)

    def tell(
        self,
        event: StreamEvent,
        instruments: Collection[Instrument],
        reason: GapReason | None = None,
        detail: str = "",
    ) -> None:
        """Emit a status, and remember which streams it opens or ends."""
        if not instruments:
            return
        if event is StreamEvent.SUBSCRIBED:
            for instrument in instruments:
                self._open[instrument.symbol] = next(self._openings)
                waiter = self._waiting.pop(instrument.symbol, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
        elif event is StreamEvent.DISCONNECTED:
            for instrument in instruments:
                self._open.pop(instrument.symbol, None)
        self.emit(FeedStatus(event, frozenset(instruments), reason, detail))

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

    def hold_connections(self, seconds: float) -> None:
        """Open no connection for a while: the venue turned this address away."""
        until = asyncio.get_running_loop().time() + seconds
        self._connections_held_until = max(self._connections_held_until, until)

    async def permit_connection(self) -> None:
        """Wait until the venue's limit on new connections leaves room for one, and take it."""
        loop = asyncio.get_running_loop()
        told = False
        while True:
            now = loop.time()
            held, full = self._connections_held_until - now, self._connections.delay(1, now)
            if held <= 0 and full <= 0:
                break
            if full > 0 and not told:
                told = True
                logger.warning(
                    "%d connections were opened within %g s, the most the venue allows: "
                    "waiting %.1f s",
                    self._connections.limit,
                    self._connections.period,
                    full,
                )
            await asyncio.sleep(max(held, full))
        self._connections.spend(1, loop.time())
        self.counters.connections += 1

    def deliver(self, snapshot: DepthSnapshot) -> None:
        """Emit a snapshot."""
        self.counters.snapshots += 1
        self.emit(snapshot)

    def log_unknown(self, kind: str) -> None:
        """Log an event of unknown type, once for each type and not for ever more types."""
        self.counters.unknown_events += 1
        if kind not in self._logged_kinds and len(self._logged_kinds) < 100:
            self._logged_kinds.add(kind)
            logger.info("events of type %s are ignored", kind)
