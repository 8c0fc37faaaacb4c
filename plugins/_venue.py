"""What feeds of ours share around their connections: why one ends, and parts that fail."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol

from obframe import FeedError, GapReason
from obframe_plugins._pacing import Backoff
from obframe_plugins._websocket import (
    Closed,
    HandshakeFailed,
    HandshakeRefused,
    ProxyFailed,
)

_LONGEST_BAN = 3 * 24 * 3600.0


class LinkSettings(Protocol):
    """The settings that a feed has for its connections, whatever its venue. Times in seconds."""

    @property
    def section(self) -> str:
        """Name of the settings' section."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """Longest message to accept."""
        ...

    @property
    def open_timeout(self) -> float:
        """For a connection to open."""
        ...

    @property
    def blocked_retry(self) -> float:
        """Until the next try after the venue turned us away."""
        ...

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy to reach ``url`` by."""
        ...


class StreamLost(FeedError):
    """A connection's end.

    Attributes:
        reason: What the seconds that it costs are to be put down to.
        retry_after: Seconds to wait at least before the next attempt.
        code: The close code, when the venue sent one.
    """

    def __init__(
        self,
        reason: GapReason,
        detail: str,
        retry_after: float = 0.0,
        code: int | None = None,
    ) -> None:
        self.reason = reason
        self.retry_after = retry_after
        self.code = code
        super().__init__(detail)


def clip(text: str | bytes, most: int = 200) -> str:
    """Return text of a venue as one line of printable ASCII for a log."""
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "backslashreplace")
    short = text[:most]
    shown = ascii(short)[1:-1]
    return shown + "…" if len(text) > most else shown


def read_retry_after(value: str | None, default: float) -> float:
    """Return a ``Retry-After`` header in seconds, or the default when it makes no sense."""
    try:
        seconds = float(value or "")
    except ValueError:
        return default
    return min(seconds, _LONGEST_BAN) if seconds >= 0 else default


def describe_close(error: Closed, settings: LinkSettings) -> StreamLost:
    """Say why an open connection ended."""
    if error.too_big:
        detail = (
            f"the venue sent a message longer than {settings.max_message_bytes} bytes; "
            f"raise {settings.section}.max_message_bytes if that is to be expected"
        )
        return StreamLost(GapReason.DISCONNECTED, detail)
    return StreamLost(GapReason.DISCONNECTED, clip(str(error)), code=error.code)


def describe_failure(error: Exception, url: str, settings: LinkSettings) -> StreamLost:
    """Say why a connection could not be opened, and which setting helps."""
    retry = 0.0
    section = settings.section
    other = f"set {section}.ws_url to a host that serves you, or {section}.proxy"
    what = clip(str(error)) or type(error).__name__
    if isinstance(error, HandshakeRefused):
        said = f"{url} answered {error.status}"
        if error.status in (403, 451):
            retry = settings.blocked_retry
            why = f"{said}, which means that this address or place is not served; {other}"
        elif error.status in (418, 429):
            default = 120.0 if error.status == 418 else 60.0
            retry = read_retry_after(error.retry_after, default)
            why = f"{said}, too many connections from this address; waiting {retry:g} s"
        else:
            why = f"{said} instead of opening a stream; check {section}.ws_url"
    elif isinstance(error, ProxyFailed):
        why = f"the proxy failed for {url}: {what}; check {section}.proxy"
    elif isinstance(error, ssl.SSLError | ssl.CertificateError):
        why = f"TLS with {url} failed: {what}; check {section}.ws_url and the clock"
    elif isinstance(error, socket.gaierror | UnicodeError):
        why = f"the host name of {url} cannot be resolved: {what}; {other}"
    elif isinstance(error, TimeoutError):
        why = f"{url} did not open within {settings.open_timeout:g} s; {other}"
    elif isinstance(error, OSError):
        why = f"{url} cannot be reached: {what}; {other}"
    elif isinstance(error, HandshakeFailed):
        why = f"{url} does not speak WebSocket: {what}; check {section}.ws_url"
    else:
        why = f"{url} cannot be opened: {type(error).__name__}: {what}"
    return StreamLost(GapReason.DISCONNECTED, why, retry)


async def supervise(
    name: str,
    run: Callable[[], Coroutine[Any, Any, None]],
    backoff: Backoff,
    failed: Callable[[Exception], None] | None = None,
    *,
    logger: logging.Logger,
) -> None:
    """Run a part of the feed, and run it anew after a fault of ours; the other parts go on.

    Args:
        name: For the log.
        run: Starts the part.
        backoff: Delays between the attempts.
        failed: Told of every fault.
        logger: Takes it.
    """
    while True:
        try:
            await run()
            return
        except Exception as error:
            logger.exception("%s failed and is started anew", name)
            try:
                if failed is not None:
                    failed(error)
            except Exception:
                logger.exception("%s failed again while that was told", name)
            await asyncio.sleep(0.1 + backoff.next())


async def race(*coroutines: Coroutine[Any, Any, NoReturn]) -> NoReturn:
    """Run all until the first one fails, cancel the others, and raise what that one raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    raise RuntimeError("a part of a connection ended without saying why")
