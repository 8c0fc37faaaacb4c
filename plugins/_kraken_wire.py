"""Kraken's words, typed after the documents of its WebSocket API v2.

Source: docs.kraken.com, Spot WebSocket v2: ``book``, ``instrument``, ``status``, ``heartbeat``,
``ping``; subscribe and unsubscribe of the former two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from obframe import MalformedMessage
from obframe_plugins._venue import clip


class BookLevel(msgspec.Struct, gc=False):
    """One level; both numbers stay the text that the venue wrote."""

    price: msgspec.Raw
    qty: msgspec.Raw


_NO_LEVELS = msgspec.Raw(b"[]")


class BookData(msgspec.Struct):
    """A whole book, or what changed of one; both sides are arrays of ``BookLevel`` as written."""

    symbol: str
    bids: msgspec.Raw = _NO_LEVELS
    asks: msgspec.Raw = _NO_LEVELS
    checksum: int | None = None
    timestamp: str | None = None


class Book(msgspec.Struct, tag_field="channel", tag="book"):
    """A message of the channel ``book``; ``type`` is ``snapshot`` or ``update``."""

    type: str
    data: list[BookData]


class Pair(msgspec.Struct):
    """What the channel ``instrument`` tells of a pair, as far as it is of use here."""

    symbol: str
    price_precision: int
    qty_precision: int
    status: str = "online"


class Reference(msgspec.Struct):
    """Pairs, and the assets that are of no use here."""

    pairs: list[Pair] = []


class Instruments(msgspec.Struct, tag_field="channel", tag="instrument"):
    """A message of the channel ``instrument``: all pairs, or those that changed."""

    type: str
    data: Reference


class EngineStatus(msgspec.Struct):
    """How the venue itself is."""

    system: str = "online"


class Status(msgspec.Struct, tag_field="channel", tag="status"):
    """A message of the channel ``status``, which nobody subscribes to."""

    data: list[EngineStatus]


class Heartbeat(msgspec.Struct, tag_field="channel", tag="heartbeat"):
    """Said about once a second when there is nothing else to say."""


class Result(msgspec.Struct):
    """What was subscribed or ended."""

    channel: str = ""
    symbol: str = ""


class Reply(msgspec.Struct):
    """An answer to a request: one for each symbol of it."""

    method: str = ""
    success: bool | None = None
    error: str | None = None
    req_id: int | None = None
    symbol: str = ""
    result: Result | None = None

    @property
    def about(self) -> str:
        """The symbol it is about; empty when it is about all of the request."""
        return self.symbol or (self.result.symbol if self.result is not None else "")


class Unknown(msgspec.Struct):
    """A message of a channel that is not ours."""

    kind: str


Message: TypeAlias = Book | Heartbeat | Instruments | Status | Reply | Unknown


class _Envelope(msgspec.Struct):
    channel: str | None = None
    method: str | None = None
    error: str | None = None


_decode: Callable[[bytes], Book | Heartbeat | Instruments | Status] = msgspec.json.Decoder(
    Book | Heartbeat | Instruments | Status
).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_levels = msgspec.json.Decoder(list[BookLevel]).decode
_decode_reply = msgspec.json.Decoder(Reply).decode
_SYMBOL = re.compile(rb'"symbol":\s*"([!-~]{1,64}?)"')
_OURS = ("book", "heartbeat", "instrument", "status")


def read(data: bytes) -> Message:
    """Read a message of the venue.

    Raises:
        MalformedMessage: It is not JSON, or not what its channel says; it names the symbol when
            that can be read.
    """
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        return _read_other(data, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(clip(str(error)), symbol=_guess_symbol(data)) from error


def _read_other(data: bytes, fault: msgspec.ValidationError) -> Message:
    try:
        envelope = _decode_envelope(data)
        if envelope.channel is None and (envelope.method or envelope.error):
            return _decode_reply(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(clip(str(error)), symbol=_guess_symbol(data)) from error
    if envelope.channel in _OURS:
        raise MalformedMessage(clip(str(fault)), symbol=_guess_symbol(data)) from fault
    return Unknown(clip(envelope.channel or "without a channel", 80))


def _guess_symbol(data: bytes) -> str | None:
    """Return the only symbol that a message names, which may be all that can be read of it."""
    named = set(_SYMBOL.findall(data))
    return named.pop().decode("ascii") if len(named) == 1 else None


def read_levels(levels: msgspec.Raw) -> list[BookLevel]:
    """Read one side of a book.

    Raises:
        msgspec.ValidationError: It is no array of levels.
    """
    return _decode_levels(levels)


def read_time(text: str | None) -> int:
    """Return a time of the venue in Unix microseconds; 0 when there is none."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
        return round(moment.timestamp() * 1e6) if moment.tzinfo is not None else 0
    except (ValueError, OverflowError):
        return 0


def encode_request(method: str, symbols: Sequence[str], depth: int, number: int) -> str:
    """Return a request to begin or end the books of some symbols."""
    params: dict[str, object] = {"channel": "book", "symbol": list(symbols), "depth": depth}
    if method == "subscribe":
        params["snapshot"] = True
    return msgspec.json.encode({"method": method, "params": params, "req_id": number}).decode()


def encode_instruments(number: int) -> str:
    """Return the request for all pairs and what changes about them."""
    request = {"method": "subscribe", "params": {"channel": "instrument"}, "req_id": number}
    return msgspec.json.encode(request).decode()


def encode_ping(number: int) -> str:
    """Return a ping."""
    return msgspec.json.encode({"method": "ping", "req_id": number}).decode()
