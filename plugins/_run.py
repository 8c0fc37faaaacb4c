"""What the parts of one running feed share, whatever its venue."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, Protocol

from obframe import Emit
from obframe_plugins._pacing import Backoff, RollingLimit
from obframe_plugins._websocket import Open


class RunCounters(Protocol):
    """What every feed counts that opens connections."""

    connections: int
    unknown_events: int


class RunContext:
    """One run of a feed: where events go, what comes to its end, how connections are limited.

    Args:
        counters: The feed's; they outlive a run.
        connections: Limits new connections; outlives a run.
        rng: Source of all jitter.
        backoff_max: Upper bound of the delay between two attempts, in seconds.
        emit: Where events go.
        open_socket: Opens websocket connections.
        logger: The feed's.

    Attributes:
        halted: Symbols that the venue says it does not trade.
    """

    def __init__(
        self,
        counters: RunCounters,
        connections: RollingLimit,
        rng: random.Random,
        backoff_max: float,
        emit: Emit,
        open_socket: Open,
        logger: logging.Logger,
    ) -> None:
        self.rng = rng
        self.emit = emit
        self.open_socket = open_socket
        self.halted: set[str] = set()
        self._counts = counters
        self._connections = connections
        self._backoff_max = backoff_max
        self._logger = logger
        self._connections_held_until = 0.0
        self._logged_kinds: set[str] = set()
        self._ending: set[asyncio.Task[Any]] = set()

    def finish(self, ending: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
        """Let something come to its end in the background; ``drain`` waits for it."""
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.debug("an ending failed", exc_info=error)

    async def drain(self) -> None:
        """Wait until everything given to ``finish`` has ended."""
        while self._ending:
            await asyncio.wait(set(self._ending))

    def new_backoff(self) -> Backoff:
        """Return delays that have seen no failure yet."""
        return Backoff(self._backoff_max, self.rng)

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
                self._logger.warning(
                    "%d connections were opened within %g s, the most the venue allows: "
                    "waiting %.1f s",
                    self._connections.limit,
                    self._connections.period,
                    full,
                )
            await asyncio.sleep(max(held, full))
        self._connections.spend(1, loop.time())
        self._counts.connections += 1

    def log_unknown(self, kind: str) -> None:
        """Log an event of unknown type, once for each type and not for ever more types."""
        self._counts.unknown_events += 1
        if kind not in self._logged_kinds and len(self._logged_kinds) < 100:
            self._logged_kinds.add(kind)
            self._logger.info("events of type %s are ignored", kind)
