"""Coinbase's words: commands, and every message that is no level2 data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from obframe import MalformedMessage
from obframe_plugins._venue import clip

LEVEL2 = "level2"
HEARTBEATS = "heartbeats"
_MOST_SEQUENCE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of the connection; of no product."""

    sequence: int | None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """All that is subscribed on the connection; the answer to every command that is obeyed.

    Attributes:
        sequence: The message's number.
        channels: Products by channel.
    """

    sequence: int | None
    channels: dict[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Complaint:
    """A command was not obeyed; the venue does not say which."""

    sequence: int | None
    text: str

    @property
    def is_about_pace(self) -> bool:
        """Whether the command may be repeated later as it was."""
        text = self.text.lower()
        return "rate limit" in text or "too many requests" in text or "too many messages" in text


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a kind that is not ours."""

    sequence: int | None
    kind: str


Notice: TypeAlias = Heartbeat | Subscribed | Complaint | Unknown


def encode_command(kind: str, channel: str, products: Sequence[str] = ()) -> str:
    """Return a message that subscribes to or unsubscribes from a channel."""
    command: dict[str, object] = {"type": kind, "channel": channel}
    if products:
        command["product_ids"] = list(products)
    return msgspec.json.encode(command).decode()


def read_notice(data: bytes) -> Notice:
    """Read a message that is no level2 data.

    Raises:
        MalformedMessage: It is not JSON.
    """
    try:
        message = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(clip(str(error))) from error
    if not isinstance(message, dict):
        return Unknown(None, f"a bare {type(message).__name__}")
    number = message.get("sequence_num")
    sequence = number if type(number) is int and 0 <= number <= _MOST_SEQUENCE else None
    channel = message.get("channel")
    if "error" in (message.get("type"), channel):
        return Complaint(sequence, _find_words(message))
    if channel == HEARTBEATS:
        return Heartbeat(sequence)
    if channel == "subscriptions":
        return Subscribed(sequence, _read_channels(message.get("events")))
    return Unknown(sequence, clip(str(channel or message.get("type") or "without a type"), 80))


def _find_words(message: dict[str, Any]) -> str:
    words = [message.get(name) for name in ("message", "reason", "error")]
    said = ": ".join(word for word in words if isinstance(word, str) and word)
    return clip(said or str(message))


def _read_channels(events: object) -> dict[str, frozenset[str]]:
    """Return the products by channel, of the last event that tells them."""
    found: dict[str, frozenset[str]] = {}
    for event in events if isinstance(events, list) else ():
        told = event.get("subscriptions") if isinstance(event, dict) else None
        if isinstance(told, dict):
            found = {
                str(channel): frozenset(name for name in names if isinstance(name, str))
                for channel, names in told.items()
                if isinstance(names, list)
            }
    return found
