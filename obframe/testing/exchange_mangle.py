"""Messages as a venue in trouble would send them, made from true ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from obframe.testing.exchange_faults import Fault
from obframe.testing.exchange_market import Depth, Event


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def write_zero(quantity: str) -> str:
    """Write zero with the decimals of another quantity, as the venue deletes a level."""
    _, point, decimals = quantity.partition(".")
    return "0" + point + "0" * len(decimals)


def _first_level(message: dict[str, Any]) -> list[str] | None:
    for side in ("b", "a"):
        if message[side]:
            level: list[str] = message[side][0]
            return level
    return None


def break_number(data: bytes, fault: Fault) -> bytes:
    """Put the fault's value in place of the first level's price or quantity."""
    message = json.loads(data)
    level = _first_level(message)
    if level is None:
        level = ["1.0", "1.0"]
        message["b"].append(level)
    level[0 if fault.text("field") == "price" else 1] = fault.text("value")
    return _encode(message)


def break_id(data: bytes, fault: Fault) -> bytes:
    """Spoil ``u`` in the fault's kind of way."""
    message = json.loads(data)
    last: int = message["u"]
    message["u"] = {
        "order": message["U"] - 1,
        "negative": -last,
        "float": last + 0.5,
        "bool": True,
        "string": str(last),
        "huge": last + 2**64,
    }[fault.text("kind")]
    return _encode(message)


def repeat_level(data: bytes) -> bytes:
    """Put the first level's price before itself with another quantity."""
    message = json.loads(data)
    for side in ("b", "a"):
        if message[side]:
            price, quantity = message[side][0]
            message[side].insert(0, [price, "7" + quantity])
            break
    return _encode(message)


def cross(data: bytes, book: Depth) -> tuple[bytes, str]:
    """Add a bid deep among the asks.

    Returns:
        The message and the bid's price; empty when the book has no asks.
    """
    message = json.loads(data)
    if not book.asks:
        return data, ""
    price, quantity = book.asks[min(200, len(book.asks) - 1)]
    message["b"].append([price, quantity])
    return _encode(message), price


def withdraw(data: bytes, price: str, book: Depth) -> bytes:
    """Take back the bid that ``cross`` added."""
    message = json.loads(data)
    if all(level[0] != price for level in message["b"]):
        true = next((level for level in book.bids if level[0] == price), None)
        pattern = (book.bids or book.asks or [("0", "0")])[0][1]
        message["b"].append([price, true[1] if true else write_zero(pattern)])
    return _encode(message)


def delete_all(data: bytes, side: str, book: Depth) -> bytes:
    """Make a message delete every level of a side, or of both."""
    message = json.loads(data)
    for name, key, levels in (("bids", "b", book.bids), ("asks", "a", book.asks)):
        if side in (name, "both"):
            touched = [*message[key], *levels]
            message[key] = [[price, write_zero(quantity)] for price, quantity in touched]
    return _encode(message)


def withhold(data: bytes, side: str) -> bytes:
    """Take a side's levels, or both sides', out of a message."""
    message = json.loads(data)
    for name, key in (("bids", "b"), ("asks", "a")):
        if side in (name, "both"):
            message[key] = []
    return _encode(message)


def restore(data: bytes, side: str, book: Depth) -> bytes:
    """Make a message bring back all levels of a side, or of both."""
    message = json.loads(data)
    for name, key, levels in (("bids", "b", book.bids), ("asks", "a", book.asks)):
        if side in (name, "both"):
            message[key] = [list(level) for level in levels]
    return _encode(message)


def stray(data: bytes) -> bytes:
    """Make a message one of a symbol that nobody subscribed to."""
    message = json.loads(data)
    message["s"] = "STRAY" + message["s"]
    return _encode(message)


def unknown_event(event: Event, size: int = 0) -> bytes:
    """Make an event of a type that does not exist, of at least ``size`` bytes."""
    message = {"e": "novelty", "E": event.time_ms, "s": event.symbol, "x": "." * size}
    return _encode(message)


def server_shutdown(time_ms: int) -> bytes:
    """Make the event that tells of the venue's end."""
    return _encode({"e": "serverShutdown", "E": time_ms})


def merge(events: list[Event], futures: bool) -> Event:
    """Make one depth event of several successive ones, as the slower streams carry them."""
    first, last = events[0], events[-1]
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}
    for event in events:
        bids.update(event.bids)
        asks.update(event.asks)
    message = json.loads(last.data)
    message["U"] = first.first
    if futures:
        message["pu"] = first.prev
    message["b"], message["a"] = list(bids.items()), list(asks.items())
    return Event(
        symbol=last.symbol,
        stream=last.stream,
        data=_encode(message),
        depth=True,
        first=first.first,
        last=last.last,
        prev=first.prev,
        time_ms=last.time_ms,
        bids=list(bids.items()),
        asks=list(asks.items()),
    )
