"""How a snapshot is written outside of the store: one JSON layout and one CSV layout.

Sinks and files write it, and ``obframe query`` adds to it. A JSON message, without line end::

    {"symbol":"BTCUSDT","timestamp":1737158400,"update_id":12,
     "bids":[["100.50","1.5"],…],"asks":[["100.60","2.0"],…]}

``timestamp`` is the Unix second; a side is best first, up to 20 levels ``[price, quantity]``, as
the very text that the venue wrote. Keys may be added later, none will go or change its meaning.
"""

from __future__ import annotations

from typing import Final

import msgspec

from obframe._core import Level, Snapshot
from obframe.errors import DecodeError, InvalidEvent
from obframe.types import SNAPSHOT_DEPTH

SNAPSHOT_COLUMNS: Final[tuple[str, ...]] = (
    "symbol",
    "timestamp",
    "update_id",
    *(
        f"{side}{level}_{field}"
        for side in ("bid", "ask")
        for level in range(1, SNAPSHOT_DEPTH + 1)
        for field in ("price", "quantity")
    ),
)
"""Headings of the CSV layout: one row a line, empty cells where a side has fewer levels."""


class _Message(msgspec.Struct):
    symbol: str
    timestamp: int
    update_id: int
    bids: list[Level]
    asks: list[Level]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


def snapshot_to_json(snapshot: Snapshot) -> bytes:
    """Return the JSON message of a snapshot: UTF-8, on one line, without line end."""
    return _encode(
        _Message(
            snapshot.symbol,
            snapshot.timestamp,
            snapshot.update_id,
            snapshot.bids,
            snapshot.asks,
        )
    )


def snapshot_from_json(data: bytes) -> Snapshot:
    """Return the snapshot of a JSON message, digit for digit what was written.

    Raises:
        DecodeError: It is no such message.
    """
    try:
        message = _decode(data)
        return Snapshot(
            message.symbol, message.update_id, message.timestamp, message.bids, message.asks
        )
    except (msgspec.DecodeError, InvalidEvent, OverflowError, ValueError) as error:
        raise DecodeError(f"no snapshot in JSON: {error}") from error


def snapshot_to_cells(snapshot: Snapshot) -> list[object]:
    """Return the cells of a snapshot under ``SNAPSHOT_COLUMNS``."""
    cells: list[object] = [snapshot.symbol, snapshot.timestamp, snapshot.update_id]
    for side in (snapshot.bids, snapshot.asks):
        for level in side[:SNAPSHOT_DEPTH]:
            cells += level
        cells += [""] * 2 * (SNAPSHOT_DEPTH - len(side))
    return cells


def snapshot_id(snapshot: Snapshot) -> str:
    """Return what a row is known by everywhere, its key: ``BTCUSDT:1737158400``.

    Two messages of one id are of the same row: a consumer keeps the first.
    """
    return f"{snapshot.symbol}:{snapshot.timestamp}"
