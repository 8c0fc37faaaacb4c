"""Settings of the Coinbase feed. No facts of the venue but its hosts and limits stand here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from obframe_plugins._venue_settings import check_common, find_proxy, setting

MOST_PRODUCTS = 100
"""Products on one connection that can be asked for; the venue bears some 16 to 30 of them."""


@dataclass(frozen=True, slots=True)
class CoinbaseSettings:
    """How to reach Coinbase and how long to wait for what. Times are in seconds.

    Raises:
        ValueError: A value is out of its range; the message names all such values.
    """

    rest_url: str = setting("", "base URL of the REST interface; empty for the public host")
    ws_url: str = setting("", "URL of the streams; empty for the public host")
    proxy: str = setting(
        "", "http:// proxy for both; empty for the environment's, 'none' to use no proxy"
    )
    transport: Literal["auto", "websockets", "picows"] = setting(
        "auto", "library that reads the streams; auto: picows when it is installed"
    )
    products_per_connection: int = setting(
        10, "most products on one connection; a message lost on it costs all of them"
    )
    max_message_bytes: int = setting(
        67_108_864, "longest message to accept; a whole book takes 5 MB and more"
    )
    open_timeout: float = setting(10.0, "for a connection to open")
    ack_timeout: float = setting(10.0, "for a subscription to be acknowledged")
    snapshot_timeout: float = setting(
        30.0, "for a product's whole book to come until it is asked for again"
    )
    stale_after: float = setting(10.0, "without data until a connection's books count as stale")
    idle_timeout: float = setting(60.0, "without data until a connection is opened anew")
    backoff_max: float = setting(60.0, "upper bound of the delay between two attempts")
    stable_after: float = setting(60.0, "of good data until earlier failures are forgotten")
    request_timeout: float = setting(10.0, "for a REST request to be answered")
    blocked_retry: float = setting(300.0, "until the next try after the venue turned us away")
    status_poll: float = setting(300.0, "between two looks at which products trade")
    halted_poll: float = setting(60.0, "the same while a product is halted or unknown")

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        found = check_common(self)
        if not 1 <= self.products_per_connection <= MOST_PRODUCTS:
            found.append(
                f"products_per_connection is {self.products_per_connection}; "
                f"use 1 to {MOST_PRODUCTS}"
            )
        return found

    @property
    def section(self) -> str:
        """Name of the settings' section."""
        return "coinbase"

    @property
    def stream_url(self) -> str:
        """URL of the streams."""
        return self.ws_url or "wss://advanced-trade-ws.coinbase.com"

    @property
    def products_url(self) -> str:
        """URL of the public list of products."""
        base = (self.rest_url or "https://api.coinbase.com").rstrip("/")
        return base + "/api/v3/brokerage/market/products"

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy to reach ``url`` by. This machine is always reached directly."""
        return find_proxy(self.proxy, url)
