"""Settings of the Binance feed, and the facts about each market that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from obframe import SNAPSHOT_DEPTH
from obframe_plugins._venue_settings import check_common, find_proxy, setting

MOST_STREAMS = 1024
"""Streams that Binance allows on one connection."""

_FUTURES_LIMITS = {20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}


@dataclass(frozen=True, slots=True)
class _Market:
    """What differs between Binance's markets.

    Attributes:
        rest_url: Public REST host.
        ws_url: Public stream host.
        api: Path of the REST interface.
        futures: Whether events carry ``pu`` and are joined by it.
        weight_per_minute: What the venue allows an address.
        info_weight: Weight of ``exchangeInfo``.
    """

    rest_url: str
    ws_url: str
    api: str
    futures: bool
    weight_per_minute: int
    info_weight: int


_MARKETS = {
    "spot": _Market(
        "https://api.binance.com", "wss://stream.binance.com:9443", "/api/v3", False, 6000, 20
    ),
    "usdm": _Market(
        "https://fapi.binance.com", "wss://fstream.binance.com/public", "/fapi/v1", True, 2400, 1
    ),
    "coinm": _Market(
        "https://dapi.binance.com", "wss://dstream.binance.com", "/dapi/v1", True, 2400, 1
    ),
}

_SAFE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class BinanceSettings:
    """How to reach Binance and how long to wait for what. Times are in seconds.

    Raises:
        ValueError: A value is out of its range; the message names all such values.
    """

    market: Literal["spot", "usdm", "coinm"] = setting("spot", "which market's books to record")
    rest_url: str = setting("", "base URL of the REST interface; empty for the public host")
    ws_url: str = setting("", "base URL of the streams; empty for the public host")
    proxy: str = setting(
        "", "http:// proxy for both; empty for the environment's, 'none' to use no proxy"
    )
    transport: Literal["auto", "websockets", "picows"] = setting(
        "auto", "library that reads the streams; auto: picows when it is installed"
    )
    snapshot_limit: int = setting(0, "levels a side of a REST snapshot; 0 for 1000")
    streams_per_connection: int = setting(300, "most symbols on one connection, up to 1024")
    max_message_bytes: int = setting(8_388_608, "longest message to accept")
    open_timeout: float = setting(10.0, "for a connection to open")
    ack_timeout: float = setting(10.0, "for a subscription to be acknowledged")
    control_interval: float = setting(0.3, "between two control messages on a connection")
    stale_after: float = setting(5.0, "without data until a connection's books count as stale")
    idle_timeout: float = setting(30.0, "without data until a connection is opened anew")
    first_data_timeout: float = setting(60.0, "without any data until a symbol is asked for again")
    backoff_max: float = setting(60.0, "upper bound of the delay between two attempts")
    stable_after: float = setting(60.0, "of good data until earlier failures are forgotten")
    connection_lifetime: float = setting(
        82_800.0, "until a connection is handed over to a new one (the venue ends it after 24 h)"
    )
    handover_timeout: float = setting(30.0, "for a hand-over to complete")
    request_timeout: float = setting(10.0, "for a REST request to be answered")
    rest_concurrency: int = setting(5, "most REST requests at once")
    rest_weight_per_minute: int = setting(
        0, "request weight to use a minute; 0 for four fifths of what the market allows"
    )
    blocked_retry: float = setting(300.0, "until the next try after the venue turned us away")
    status_poll: float = setting(300.0, "between two looks at which symbols trade")
    halted_poll: float = setting(60.0, "the same while a symbol is halted or unknown")

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        if self.market not in _MARKETS:
            known = ", ".join(_MARKETS)
            return [f"market is {self.market!r}; use one of {known}"]
        found = check_common(self)
        if self.market == "spot":
            if self.snapshot_limit and not SNAPSHOT_DEPTH <= self.snapshot_limit <= 5000:
                found.append(f"snapshot_limit is {self.snapshot_limit}; use 20 to 5000, or 0")
        elif self.snapshot_limit and self.snapshot_limit not in _FUTURES_LIMITS:
            sizes = ", ".join(map(str, _FUTURES_LIMITS))
            found.append(f"snapshot_limit is {self.snapshot_limit}; futures take {sizes}, or 0")
        if not 1 <= self.streams_per_connection <= MOST_STREAMS:
            found.append(f"streams_per_connection is {self.streams_per_connection}; use 1 to 1024")
        if not 1 <= self.rest_concurrency <= 100:
            found.append(f"rest_concurrency is {self.rest_concurrency}; use 1 to 100")
        if not found and self.rest_weight_per_minute:
            least = max(self.snapshot_weight, self.info_weight)
            # What another host than the public one allows, its owner knows.
            most = 10**9 if self.rest_url else _MARKETS[self.market].weight_per_minute
            if not least <= self.rest_weight_per_minute <= most:
                found.append(
                    f"rest_weight_per_minute is {self.rest_weight_per_minute}; use {least} (one "
                    f"request) to {most} (what the venue allows), or 0"
                )
        return found

    @property
    def section(self) -> str:
        """Name of this section."""
        return "binance"

    @property
    def futures(self) -> bool:
        """Whether events are joined by ``pu``."""
        return _MARKETS[self.market].futures

    @property
    def stream_url(self) -> str:
        """URL of the combined stream."""
        base = (self.ws_url or _MARKETS[self.market].ws_url).rstrip("/")
        return base if base.endswith("/stream") else base + "/stream"

    @property
    def api_url(self) -> str:
        """Base URL of the REST interface, to which ``/depth`` and the like are added."""
        market = _MARKETS[self.market]
        base = (self.rest_url or market.rest_url).rstrip("/")
        return base if base.endswith(market.api) else base + market.api

    @property
    def limit(self) -> int:
        """Levels a side of a REST snapshot."""
        return self.snapshot_limit or 1000

    @property
    def snapshot_weight(self) -> int:
        """Weight of one snapshot request."""
        if self.futures:
            return _FUTURES_LIMITS[self.limit]
        return next(
            weight
            for most, weight in ((100, 5), (500, 25), (1000, 50), (5000, 250))
            if self.limit <= most
        )

    @property
    def info_weight(self) -> int:
        """Weight of one ``exchangeInfo`` request."""
        return _MARKETS[self.market].info_weight

    @property
    def weight_budget(self) -> int:
        """Request weight to use a minute."""
        allowed = _MARKETS[self.market].weight_per_minute
        return self.rest_weight_per_minute or int(allowed * _SAFE_SHARE)

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy to reach ``url`` by. This machine is always reached directly."""
        return find_proxy(self.proxy, url)
