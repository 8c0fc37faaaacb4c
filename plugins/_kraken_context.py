"""What the parts of one running Kraken feed share."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from obframe import Emit
from obframe_plugins._kraken_settings import KrakenSettings
from obframe_plugins._kraken_wire import Pair
from obframe_plugins._link import LinkContext, LinkCounters
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._websocket import Open

logger = logging.getLogger("obframe.kraken")

CLOSED_STATUSES = frozenset({"cancel_only", "delisted", "maintenance", "work_in_progress"})
"""Of a pair or of the whole venue, in which no order is matched and none may be added."""


@dataclass(slots=True)
class Counters(LinkCounters):
    """What happened so far."""

    snapshots: int = 0
    checksums: int = 0
    checksum_mismatches: int = 0
    unchecked: int = 0
    probes: int = 0
    pongs: int = 0
    rate_limited: int = 0


class Context(LinkContext):
    """One run of the feed.

    Attributes:
        pairs: What the venue says of its pairs; empty until it has.
        engine: What it says of itself.
        last_ids: The last id made for each symbol; outlives a run.
    """

    def __init__(
        self,
        settings: KrakenSettings,
        counters: Counters,
        connections: RollingLimit,
        rng: random.Random,
        emit: Emit,
        open_socket: Open,
        last_ids: dict[str, int],
    ) -> None:
        super().__init__(settings, counters, connections, rng, emit, open_socket, logger)
        self.settings = settings
        self.counters = counters
        self.pairs: dict[str, Pair] = {}
        self.engine = "online"
        self.last_ids = last_ids

    def is_open(self, symbol: str) -> bool:
        """Tell whether the venue has a pair and takes orders for it."""
        pair = self.pairs.get(symbol)
        return pair is not None and not ({pair.status, self.engine} & CLOSED_STATUSES)
