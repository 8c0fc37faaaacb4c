"""Settings of the Kraken feed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from obframe import SNAPSHOT_DEPTH
from obframe_plugins._venue import check_transport, check_url, find_proxy

PUBLIC_URL = "wss://ws.kraken.com/v2"
DEPTHS = (25, 100, 500, 1000)
"""What may be subscribed and is deep enough for a row; the venue has 10 besides."""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class KrakenSettings:
    """How to reach Kraken and how long to wait for what. Times are in seconds.

    Raises:
        ValueError: A value is out of its range; the message names all such values.
    """

    ws_url: str = _setting("", "URL of the WebSocket API v2; empty for the public host")
    proxy: str = _setting("", "http:// proxy; empty for the environment's, 'none' to use no proxy")
    transport: Literal["auto", "websockets", "picows"] = _setting(
        "auto", "library that reads the streams; auto: picows when it is installed"
    )
    depth: int = _setting(100, "levels a side to subscribe to: 25, 100, 500 or 1000")
    symbols_per_connection: int = _setting(200, "most symbols on one connection")
    max_message_bytes: int = _setting(8_388_608, "longest message to accept")
    open_timeout: float = _setting(10.0, "for a connection to open")
    ack_timeout: float = _setting(10.0, "for a subscription to be acknowledged")
    control_interval: float = _setting(0.25, "between two requests on a connection")
    ping_interval: float = _setting(30.0, "between two pings of ours")
    stale_after: float = _setting(
        5.0, "without any message, heartbeats included, until a connection's books count as stale"
    )
    idle_timeout: float = _setting(15.0, "the same until a connection is opened anew")
    probe_after: float = _setting(
        60.0, "without data of a symbol until its book is compared with a new snapshot"
    )
    snapshot_timeout: float = _setting(
        10.0, "for the snapshot after a subscription, until it is asked for again"
    )
    backoff_max: float = _setting(60.0, "upper bound of the delay between two attempts")
    stable_after: float = _setting(60.0, "of good data until earlier failures are forgotten")
    blocked_retry: float = _setting(300.0, "until the next try after the venue turned us away")

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        found = []
        if mend := check_url(self.ws_url, ("ws", "wss")):
            found.append(f"ws_url is {self.ws_url!r}; {mend}")
        if self.proxy not in ("", "none") and (mend := check_url(self.proxy, ("http",))):
            found.append(f"proxy is {self.proxy!r}; {mend}, or 'none'")
        if mend := check_transport(self.transport):
            found.append(mend)
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(item.default, float) and not (0 < value < math.inf):
                found.append(f"{item.name} is {value!r}; use a number of seconds above 0")
        if self.depth not in DEPTHS:
            sizes = ", ".join(map(str, DEPTHS))
            found.append(
                f"depth is {self.depth}; use {sizes} (rows have {SNAPSHOT_DEPTH} levels a side)"
            )
        if not 1 <= self.symbols_per_connection <= 1000:
            found.append(f"symbols_per_connection is {self.symbols_per_connection}; use 1 to 1000")
        if self.max_message_bytes < 65_536:
            found.append(f"max_message_bytes is {self.max_message_bytes}; use 65536 or more")
        if self.stale_after > self.idle_timeout:
            found.append(
                f"stale_after is {self.stale_after:g}, above idle_timeout {self.idle_timeout:g}; "
                "make it the smaller one"
            )
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
