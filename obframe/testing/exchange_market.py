"""What the three Binance markets share and where they differ, as far as a venue shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

Levels: TypeAlias = Sequence[tuple[str, str]]
"""``(price, quantity)`` texts, best first unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Market:
    """The facts of one market.

    Attributes:
        name: ``spot``, ``usdm`` or ``coinm``.
        rest: Prefix of its REST paths.
        sockets: Prefixes of its websocket paths.
        futures: Whether events carry ``T`` and ``pu`` and may jump in ids.
        incoming_limit: Messages a second that a client may send on one connection.
        weight_limit: REST weight a minute.
        info_weight: REST weight of ``exchangeInfo``.
        default_depth: Levels a side when a depth request names no limit.
        depths: The limits that a depth request may name; empty: any.
        depth_weights: Pairs of (limit up to and including, weight), ascending.
        cadences: Depth stream suffix to the seconds between its events; 0: every event.
        base: Suffix of the depth stream that carries every event.
    """

    name: str
    rest: str
    sockets: tuple[str, ...]
    futures: bool
    incoming_limit: int
    weight_limit: int
    info_weight: int
    default_depth: int
    depths: tuple[int, ...]
    depth_weights: tuple[tuple[int, int], ...]
    cadences: Mapping[str, float]
    base: str

    def depth_weight(self, limit: int) -> int:
        """Return the REST weight of a depth request."""
        for bound, weight in self.depth_weights:
            if limit <= bound:
                return weight
        return self.depth_weights[-1][1]


_FUTURES: dict[str, Any] = {
    "sockets": ("", "/public"),
    "futures": True,
    "incoming_limit": 10,
    "weight_limit": 2400,
    "info_weight": 1,
    "default_depth": 500,
    "depths": (5, 10, 20, 50, 100, 500, 1000),
    "depth_weights": ((50, 2), (100, 5), (500, 10), (1000, 20)),
    "cadences": {"depth@0ms": 0.0, "depth@100ms": 0.0, "depth": 0.25, "depth@500ms": 0.5},
    "base": "depth@0ms",
}

MARKETS: Mapping[str, Market] = {
    "spot": Market(
        name="spot",
        rest="/api/v3",
        sockets=("",),
        futures=False,
        incoming_limit=5,
        weight_limit=6000,
        info_weight=20,
        default_depth=100,
        depths=(),
        depth_weights=((100, 5), (500, 25), (1000, 50), (5000, 250)),
        cadences={"depth@100ms": 0.0, "depth": 1.0},
        base="depth@100ms",
    ),
    "usdm": Market(name="usdm", rest="/fapi/v1", **_FUTURES),
    "coinm": Market(name="coinm", rest="/dapi/v1", **_FUTURES),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol as ``exchangeInfo`` tells of it.

    Attributes:
        symbol: Such as ``BTCUSDT``.
        tick: Text of the price step.
        step: Text of the quantity step.
    """

    symbol: str
    tick: str
    step: str


@dataclass(slots=True)
class Event:
    """One message of the venue, true and whole.

    Attributes:
        symbol: Whose.
        stream: The stream's full name, such as ``btcusdt@depth@100ms``.
        data: The message's JSON, unwrapped.
        depth: Whether it is a depth diff; the rest is empty when not.
        first: ``U``. last: ``u``. prev: ``pu``, 0 on spot.
        time_ms: ``E``.
        bids: ``b``. asks: ``a``.
    """

    symbol: str
    stream: str
    data: bytes
    depth: bool
    first: int = 0
    last: int = 0
    prev: int = 0
    time_ms: int = 0
    bids: Levels = ()
    asks: Levels = ()


@dataclass(frozen=True, slots=True)
class Depth:
    """A book as REST tells of it; ``time_ms`` is the time of its last event."""

    last_update_id: int
    bids: Levels
    asks: Levels
    time_ms: int


class Source(Protocol):
    """Where the venue's market comes from: captures or a simulation."""

    market: Market
    listings: Mapping[str, Listing]
    waits: bool
    """Whether its clock starts with the first depth subscription, not at once."""
    paced: bool
    """Whether it follows the clock; if not, it goes as fast as clients drain."""

    def due(self) -> float | None:
        """Return the seconds from the start to the next event; None at the end."""
        ...

    def advance(self) -> Event | None:
        """Make the next event happen, in the source's own book too. None: nothing to send."""
        ...

    def depth(self, symbol: str, limit: int | None = None) -> Depth:
        """Return the symbol's book now; without a limit all of it."""
        ...
