"""Binance's words: stream names, control messages and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from obframe import MalformedMessage
from obframe_plugins._venue import clip

POLICY_VIOLATION = 1008


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


def name_stream(symbol: str) -> str:
    """Return the name of a symbol's depth stream."""
    return f"{symbol.lower()}@depth@100ms"


def encode_command(method: str, names: Sequence[str], number: int) -> str:
    """Return a control message."""
    command = {"method": method, "params": list(names), "id": number}
    return msgspec.json.encode(command).decode()


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
