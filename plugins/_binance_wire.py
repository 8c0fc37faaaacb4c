"""Binance's words: stream names, control messages, answers, and what failures mean."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from obframe import FeedError, GapReason, MalformedMessage
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._websocket import Closed, HandshakeFailed, HandshakeRefused, ProxyFailed

POLICY_VIOLATION = 1008

_LONGEST_BAN = 3 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a control message; ``error`` is None when it was done."""

    id: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The server is about to close this connection."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a kind that is not ours."""

    kind: str


Notice: TypeAlias = Reply | Shutdown | Unknown


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


def name_stream(symbol: str) -> str:
    """Return the name of a symbol's depth stream."""
    return f"{symbol.lower()}@depth@100ms"


def encode_command(method: str, names: Sequence[str], number: int) -> str:
    """Return a control message."""
    command = {"method": method, "params": list(names), "id": number}
    return msgspec.json.encode(command).decode()


def clip(text: str | bytes, most: int = 200) -> str:
    """Return text of a venue as one line of printable ASCII for a log."""
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "backslashreplace")
    short = text[:most]
    shown = ascii(short)[1:-1]
    return shown + "…" if len(text) > most else shown


def read_notice(data: bytes) -> Notice:
    """Read a message that is no depth update.

    Raises:
        MalformedMessage: It is not JSON.
    """
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(clip(str(error))) from error
    if not isinstance(message, dict):
        return Unknown(f"a bare {type(message).__name__}")
    reply = _read_reply(message)
    if reply is not None:
        return reply
    inner = message.get("data", message.get("event", message))
    kind = inner.get("e") if isinstance(inner, dict) else None
    if kind == "serverShutdown":
        return Shutdown()
    if kind is None:
        kind = message.get("stream", "without a type")
    return Unknown(clip(str(kind), 80))


def _read_reply(message: dict[str, Any]) -> Reply | None:
    number = message.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        number = None
    error = message.get("error")
    if error is None and "code" in message and "msg" in message:
        error = message
    if isinstance(error, dict):
        return Reply(number, clip(f"{error.get('msg', '')} (code {error.get('code')})"))
    if error is not None:
        return Reply(number, clip(str(error)))
    if "result" in message and "id" in message:
        return Reply(number, None)
    return None


def read_retry_after(value: str | None, default: float) -> float:
    """Return a ``Retry-After`` header in seconds, or the default when it makes no sense."""
    try:
        seconds = float(value or "")
    except ValueError:
        return default
    return min(seconds, _LONGEST_BAN) if seconds >= 0 else default


def describe_close(error: Closed, settings: BinanceSettings) -> StreamLost:
    """Say why an open connection ended."""
    if error.too_big:
        detail = (
            f"the venue sent a message longer than {settings.max_message_bytes} bytes; "
            "raise binance.max_message_bytes if that is to be expected"
        )
        return StreamLost(GapReason.DISCONNECTED, detail)
    return StreamLost(GapReason.DISCONNECTED, clip(str(error)), code=error.code)


def describe_failure(error: Exception, url: str, settings: BinanceSettings) -> StreamLost:
    """Say why a connection could not be opened, and which setting helps."""
    retry = 0.0
    what = clip(str(error)) or type(error).__name__
    if isinstance(error, HandshakeRefused):
        said = f"{url} answered {error.status}"
        if error.status in (403, 451):
            retry = settings.blocked_retry
            why = f"{said}, which means that this address or place is not served; " + _OTHER_WS
        elif error.status in (418, 429):
            default = 120.0 if error.status == 418 else 60.0
            retry = read_retry_after(error.retry_after, default)
            why = f"{said}, too many connections from this address; waiting {retry:g} s"
        else:
            why = f"{said} instead of opening a stream; check binance.ws_url"
    elif isinstance(error, ProxyFailed):
        why = f"the proxy failed for {url}: {what}; check binance.proxy"
    elif isinstance(error, ssl.SSLError | ssl.CertificateError):
        why = f"TLS with {url} failed: {what}; check binance.ws_url and the clock"
    elif isinstance(error, socket.gaierror | UnicodeError):
        why = f"the host name of {url} cannot be resolved: {what}; {_OTHER_WS}"
    elif isinstance(error, TimeoutError):
        why = f"{url} did not open within {settings.open_timeout:g} s; {_OTHER_WS}"
    elif isinstance(error, OSError):
        why = f"{url} cannot be reached: {what}; {_OTHER_WS}"
    elif isinstance(error, HandshakeFailed):
        why = f"{url} does not speak WebSocket: {what}; check binance.ws_url"
    else:
        why = f"{url} cannot be opened: {type(error).__name__}: {what}"
    return StreamLost(GapReason.DISCONNECTED, why, retry)


_OTHER_WS = "set binance.ws_url to a host that serves you, or binance.proxy"
