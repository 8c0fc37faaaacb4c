"""Settings of the Kraken feed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from obframe import SNAPSHOT_DEPTH
from obframe_plugins._venue_settings import check_common, find_proxy, setting

PUBLIC_URL = "wss://ws.kraken.com/v2"
DEPTHS = (25, 100, 500, 1000)
"""What may be subscribed and is deep enough for a row; the venue has 10 besides."""


@dataclass(frozen=True, slots=True)
class KrakenSettings:
    """How to reach Kraken and how long to wait for what. Times are in seconds.

    Raises:
        ValueError: A value is out of its range; the message names all such values.
    """

    ws_url: str = setting("", "URL of the WebSocket API v2; empty for the public host")
    proxy: str = setting("", "http:// proxy; empty for the environment's, 'none' to use no proxy")
    transport: Literal["auto", "websockets", "picows"] = setting(
        "auto", "library that reads the streams; auto: picows when it is installed"
    )
    depth: int = setting(100, "levels a side to subscribe to: 25, 100, 500 or 1000")
    symbols_per_connection: int = setting(200, "most symbols on one connection")
    max_message_bytes: int = setting(8_388_608, "longest message to accept")
    open_timeout: float = setting(10.0, "for a connection to open")
    ack_timeout: float = setting(10.0, "for a subscription to be acknowledged")
    control_interval: float = setting(0.25, "between two requests on a connection")
    ping_interval: float = setting(30.0, "between two pings of ours")
    stale_after: float = setting(
        5.0, "without any message, heartbeats included, until a connection's books count as stale"
    )
    idle_timeout: float = setting(15.0, "the same until a connection is opened anew")
    probe_after: float = setting(
        60.0, "without data of a symbol until its book is compared with a new snapshot"
    )
    snapshot_timeout: float = setting(
        10.0, "for the snapshot after a subscription, until it is asked for again"
    )
    backoff_max: float = setting(60.0, "upper bound of the delay between two attempts")
    stable_after: float = setting(60.0, "of good data until earlier failures are forgotten")
    blocked_retry: float = setting(300.0, "until the next try after the venue turned us away")

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        found = check_common(self, least_message_bytes=65_536)
        if self.depth not in DEPTHS:
            sizes = ", ".join(map(str, DEPTHS))
            found.append(
                f"depth is {self.depth}; use {sizes} (rows have {SNAPSHOT_DEPTH} levels a side)"
            )
        if not 1 <= self.symbols_per_connection <= 1000:
            found.append(f"symbols_per_connection is {self.symbols_per_connection}; use 1 to 1000")
        return found

    @property
    def section(self) -> str:
        """Name of this section."""
        return "kraken"

    @property
    def url(self) -> str:
        """Where to connect."""
        return self.ws_url or PUBLIC_URL

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy to reach ``url`` by. This machine is always reached directly."""
        return find_proxy(self.proxy, url)
