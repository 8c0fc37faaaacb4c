"""What Kraken's WebSocket v2 says, as the venue on loopback writes it, and books of limited depth.

Shares no code with the feed that reads it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from obframe.testing.exchange_market import Depth, Levels

DEPTHS = (10, 25, 100, 500, 1000)
CHECKED_LEVELS = 10


def write_time(moment_us: int) -> str:
    """Return Unix microseconds as the venue writes times."""
    moment = datetime.fromtimestamp(moment_us // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_us % 1_000_000:06d}Z"


def count_decimals(text: str) -> int:
    """Return the number of digits after the point."""
    return len(text.partition(".")[2])


def checksum(depth: Depth) -> int:
    """Return the CRC32 of the best 10 levels of both sides, as the venue's documents have it."""
    text = ""
    for side in (depth.asks, depth.bids):
        for level in side[:CHECKED_LEVELS]:
            for number in level:
                text += number.replace(".", "").lstrip("0")
    return zlib.crc32(text.encode())


def book_message(
    kind: str, symbol: str, bids: Levels, asks: Levels, check: int | None, moment_us: int
) -> bytes:
    """Return a message of the channel ``book``; numbers stand in it as they are written.

    Args:
        kind: ``snapshot`` or ``update``.
        symbol: Whose.
        bids: Levels.
        asks: Levels.
        check: The checksum; None leaves it out.
        moment_us: The time of the book.
    """
    ending = "" if check is None else f'"checksum":{check},'
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}",'
        f'"bids":[{_levels(bids)}],"asks":[{_levels(asks)}],{ending}'
        f'"timestamp":"{write_time(moment_us)}"}}]}}'
    ).encode()


def _levels(levels: Levels) -> str:
    return ",".join([f'{{"price":{price},"qty":{quantity}}}' for price, quantity in levels])


def status_message(system: str) -> bytes:
    """Return a message of the channel ``status``."""
    data = {"system": system, "api_version": "v2", "connection_id": 1, "version": "2.0.0"}
    return _encode({"channel": "status", "type": "update", "data": [data]})


def instrument_message(kind: str, pairs: Iterable[dict[str, Any]]) -> bytes:
    """Return a message of the channel ``instrument``."""
    data = {"assets": [], "pairs": list(pairs)}
    return _encode({"channel": "instrument", "type": kind, "data": data})


def describe_pair(symbol: str, tick: str, step: str, status: str) -> dict[str, Any]:
    """Return a pair as the channel ``instrument`` tells of it."""
    base, _, quote = symbol.partition("/")
    return {
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "status": status,
        "price_increment": float(tick),
        "price_precision": count_decimals(tick),
        "qty_increment": float(step),
        "qty_min": float(step),
        "qty_precision": count_decimals(step),
        "cost_min": "0.5",
        "cost_precision": 5,
        "marginable": False,
        "has_index": True,
    }


def answer(request: dict[str, Any], *, symbol: str = "", error: str = "") -> bytes:
    """Return the answer to a request, about one symbol of it or about all."""
    params = request.get("params", {})
    reply: dict[str, Any] = {"method": request.get("method"), "success": not error}
    if "req_id" in request:
        reply["req_id"] = request["req_id"]
    if error:
        reply["error"] = error
        if symbol:
            reply["symbol"] = symbol
    else:
        result: dict[str, Any] = {"channel": params.get("channel"), "snapshot": True}
        if symbol:
            result |= {"symbol": symbol, "depth": params.get("depth", 10)}
        reply["result"] = result
    now = write_time(int(datetime.now(UTC).timestamp() * 1e6))
    return _encode({**reply, "time_in": now, "time_out": now})


def pong(request: dict[str, Any]) -> bytes:
    """Return the answer to a ping."""
    reply = {"method": "pong", "req_id": request.get("req_id")}
    return _encode({key: value for key, value in reply.items() if value is not None})


HEARTBEAT = b'{"channel":"heartbeat"}'


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


class DepthView:
    """A book as those see it who are subscribed to so many levels.

    A level that falls out of the best ``depth`` is not told of, one that comes into them is.
    """

    def __init__(self, depth: int, book: Depth) -> None:
        self.depth = depth
        self._bids = dict(book.bids[:depth])
        self._asks = dict(book.asks[:depth])

    def follow(self, book: Depth) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return what is to be said, now that the book is this one, at least as deep as needed."""
        bids, self._bids = _compare(self._bids, book.bids[: self.depth], self.depth, 1)
        asks, self._asks = _compare(self._asks, book.asks[: self.depth], self.depth, -1)
        return bids, asks


def _compare(
    before: dict[str, str], levels: Sequence[tuple[str, str]], depth: int, sign: int
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Return the changes from one view of a side to the next; bids have the sign 1, asks -1."""
    now = dict(levels)
    changes = [(price, qty) for price, qty in levels if before.get(price) != qty]
    gone = [price for price in before if price not in now]
    if gone and len(levels) >= depth:
        # Whatever is worse than all that is seen is out of sight, deleted or not.
        worst = sign * Decimal(levels[-1][0])
        gone = [price for price in gone if sign * Decimal(price) > worst]
    if gone:
        decimals = count_decimals(next(iter(before.values())))
        zero = "0." + "0" * decimals if decimals else "0"
        changes += [(price, zero) for price in gone]
    return changes, now
