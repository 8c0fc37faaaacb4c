"""What the parts of one running Coinbase feed share."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass

from obframe import Emit
from obframe_plugins._coinbase_settings import CoinbaseSettings
from obframe_plugins._link import LinkContext, LinkCounters
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._websocket import Open

logger = logging.getLogger("obframe.coinbase")


@dataclass(slots=True)
class Counters(LinkCounters):
    """What happened so far."""

    heartbeats: int = 0
    old: int = 0
    sequence: int = 0
    lost_messages: int = 0
    awaiting: int = 0
    rate_limited: int = 0
    snapshots: int = 0
    snapshot_retries: int = 0
    rest_requests: int = 0
    rest_errors: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the venue allows an address; outlives a run.

    Args:
        connections: New ones.
        commands: Messages to it, on all connections together.
    """

    connections: RollingLimit
    commands: RollingLimit


class Context(LinkContext):
    """One run of the feed.

    Attributes:
        halted: Products that the venue says it does not trade.

    Args:
        settings: The feed's.
        counters: The feed's; they outlive a run.
        limits: What the venue allows.
        rng: Source of all jitter.
        emit: Where events go.
        open_socket: Opens websocket connections.
    """

    def __init__(
        self,
        settings: CoinbaseSettings,
        counters: Counters,
        limits: Limits,
        rng: random.Random,
        emit: Emit,
        open_socket: Open,
    ) -> None:
        super().__init__(settings, counters, limits.connections, rng, emit, open_socket, logger)
        self.settings = settings
        self.counters = counters
        self.halted: set[str] = set()
        self._commands = limits.commands
        self._highest_id = 0

    async def permit_command(self) -> None:
        """Wait until the venue's limit on messages leaves room for one, and take it."""
        loop = asyncio.get_running_loop()
        while True:
            delay = self._commands.delay(1, loop.time())
            if delay <= 0:
                break
            await asyncio.sleep(delay)
        self._commands.spend(1, loop.time())

    def begin_ids(self) -> int:
        """Return what a new connection adds to its sequence numbers to make update ids of them.

        Sequence numbers begin anew with every connection, update ids must not fall: they go on
        from the wall clock's microseconds, which no connection's messages overtake.
        """
        return max(time.time_ns() // 1000, self._highest_id)

    def note_id(self, update_id: int) -> None:
        """Note the last update id of a connection that ended."""
        self._highest_id = max(self._highest_id, update_id)
