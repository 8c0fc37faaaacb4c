"""What the parts of one running Coinbase feed share."""

from __future__ import annotations

import asyncio
import logging
import random
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
        last_ids: The last id made for each product, by connections that ended; outlives a run.
    """

    def __init__(
        self,
        settings: CoinbaseSettings,
        counters: Counters,
        limits: Limits,
        rng: random.Random,
        emit: Emit,
        open_socket: Open,
        last_ids: dict[str, int],
    ) -> None:
        super().__init__(settings, counters, limits.connections, rng, emit, open_socket, logger)
        self.settings = settings
        self.counters = counters
        self.halted: set[str] = set()
        self._commands = limits.commands
        self.last_ids = last_ids

    async def permit_command(self) -> None:
        """Wait until the venue's limit on messages leaves room for one, and take it."""
        loop = asyncio.get_running_loop()
        while True:
            delay = self._commands.delay(1, loop.time())
            if delay <= 0:
                break
            await asyncio.sleep(delay)
        self._commands.spend(1, loop.time())
