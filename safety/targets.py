"""What the fuzzer runs: each target takes bytes and raises when the core disagrees with its oracle.

The oracles are those of ``tests/properties``; none shares code with the core, but that columns are
compared with what ``Snapshot.unpack`` reads, which has a target of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/properties"))

import test_core_columns as columns
import test_core_level2 as level2
import test_core_parse as events
import test_core_snapshot as rows

from obframe._core import (
    DepthSnapshot,
    DepthUpdate,
    OrderBook,
    Snapshot,
    parse_depth_snapshot,
    parse_depth_update,
)
from obframe.errors import CapacityError, InvalidEvent, MalformedMessage
from obframe.testing.reference import ReferenceBook

Level = tuple[str, str]


def check_update(data: bytes) -> None:
    """Parse an event; the first byte's lowest bit says whether of a futures market."""
    events.assert_judged_alike(data[1:], bool(data[:1] and data[0] & 1))


def check_snapshot(data: bytes) -> None:
    """Parse a snapshot of a book."""
    taken: DepthSnapshot | Exception
    try:
        taken = parse_depth_snapshot(memoryview(data), "X", 5)
    except (MalformedMessage, InvalidEvent, CapacityError) as error:
        taken = error
    expected = judge_snapshot(data)
    if expected == "malformed":
        assert isinstance(taken, MalformedMessage), f"not JSON, and {taken!r}"
        assert 0 <= taken.offset <= len(data)
    elif expected == "refused":
        assert isinstance(taken, InvalidEvent | CapacityError), f"to be refused, and {taken!r}"
    elif isinstance(taken, InvalidEvent):
        assert "\\" in taken.value, f"refused: {taken}"  # the oracle sees strings unescaped
    elif not isinstance(taken, CapacityError):
        assert isinstance(taken, DepthSnapshot), repr(taken)
        assert (taken.last_update_id, taken.bids, taken.asks) == expected


def judge_snapshot(data: bytes) -> tuple[int, list[Level], list[Level]] | str:
    """Return what a snapshot says, or in a word why it is none."""
    try:
        top = events.read_json(data)
        names = ("lastUpdateId", "bids", "asks")
        if not isinstance(top, events.Pairs) or any(len(top.all(name)) != 1 for name in names):
            return "refused"
        bids, asks = (events.judge_levels(top.get(side)) for side in ("bids", "asks"))
        return events.judge_id(top.get("lastUpdateId")), bids, asks
    except events.Malformed:
        return "malformed"
    except events.Refused:
        return "refused"


def check_level2(data: bytes) -> None:
    """Parse a message of Coinbase."""
    level2.assert_judged_alike(data)


def check_row(data: bytes) -> None:
    """Decode a stored row."""
    rows.assert_judged_alike(data)


def check_columns(data: bytes) -> None:
    """Decode rows, parted by a byte that no row has; the first byte says how deep and how many."""
    shape = data[0] if data else 0
    columns.assert_judged_alike(data[1:].split(b"\xc1"), 1 + shape % 4, 1 + shape // 4 % 4)


def check_book(data: bytes) -> None:
    """Drive a book and the reference book by a program of loads and events written in the bytes."""
    book, reference = OrderBook("X"), ReferenceBook()
    program = Program(data)
    last = 1
    for _ in range(12):
        kind = program.take()
        if kind is None:
            return
        bids, asks = program.draw_side(), program.draw_side()
        last += 1
        try:
            if kind % 8 == 0:
                book.load(DepthSnapshot("X", last, bids, asks, kind % 3 * 20))
            elif kind % 8 == 2:
                assert book.follow(write_event(book.update_id + 1, last, bids, asks))
            else:
                book.apply(make_update(last, bids, asks, raw=kind % 2 == 0))
        except CapacityError:
            assert_same(book, reference)  # refused whole
            continue
        if kind % 8 == 0:
            reference.load(last, bids, asks)
        else:
            reference.apply(last, bids, asks)
        assert_same(book, reference)


def make_update(last: int, bids: list[Level], asks: list[Level], raw: bool) -> DepthUpdate:
    """Make an event, by way of its JSON or without."""
    if not raw:
        return DepthUpdate("X", last, last, last - 1, bids, asks)
    update = parse_depth_update(write_event(last, last, bids, asks))
    assert update is not None
    return update


def write_event(first: int, last: int, bids: list[Level], asks: list[Level]) -> bytes:
    """Write an event as JSON."""
    event = {"e": "depthUpdate", "s": "X", "U": first, "u": last, "b": bids, "a": asks}
    return json.dumps(event).encode()


def assert_same(book: OrderBook, reference: ReferenceBook) -> None:
    """Compare all that both books tell."""
    bids, asks = reference.bids(), reference.asks()
    assert book.bids() == bids
    assert book.asks() == asks
    assert (book.bid_count, book.ask_count) == (len(bids), len(asks))
    assert book.crossed == reference.crossed
    if reference.update_id:
        assert book.update_id == reference.update_id
        snapshot = book.snapshot(7)
        assert snapshot.pack() == reference.pack(7)
        assert Snapshot.unpack(snapshot.pack(), "X") == snapshot


class Program:
    """Bytes read as a program; what is left out at the end reads as nothing."""

    def __init__(self, data: bytes) -> None:
        self._bytes: Iterator[int] = iter(data)

    def take(self) -> int | None:
        """Return the next byte, None after the last."""
        return next(self._bytes, None)

    def draw_side(self) -> list[Level]:
        """Return the levels of one side: single ones, or runs of neighbouring prices."""
        count = (self.take() or 0) % 4
        side: list[Level] = []
        for _ in range(count):
            shape, at, size = (self.take() or 0 for _ in range(3))
            if shape < 64:
                step = 1 + shape % 4
                start = at * 4 + 1
                ticks = range(start, start + step * (1 + size % 100), step)
                side += [(write_price(tick, shape), write_quantity(size + tick)) for tick in ticks]
            else:
                side.append((write_price(at + 1, shape), write_quantity(size)))
        return side


def write_price(tick: int, shape: int) -> str:
    """Write a price on a grid; a few lie far off it, or have more decimals than seen so far."""
    if shape >= 250:
        return f"{tick}.{'0' * (shape - 250)}{tick}"
    if shape >= 244:
        return f"{tick}{'0' * (shape - 240)}.5"
    return f"{tick // 10}.{tick % 10}" + "0" * (shape % 3)


def write_quantity(size: int) -> str:
    """Write a quantity, a quarter of them zero, some as large and as fine as they come."""
    match size % 16:
        case 0 | 1 | 2:
            return "0"
        case 3:
            return "0." + "0" * (1 + size % 8)
        case 4:
            return f"{10**12 - size}.{size:018d}"
        case 5:
            return f"0.{'0' * (size % 18)}{size % 9 + 1}"
        case _:
            return f"{size}.{size % 7}"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "update": check_update,
    "snapshot": check_snapshot,
    "level2": check_level2,
    "row": check_row,
    "columns": check_columns,
    "book": check_book,
}

TOKENS: dict[str, list[bytes]] = {
    "update": [
        *(b'"e"', b'"E"', b'"s"', b'"U"', b'"u"', b'"pu"', b'"b"', b'"a"', b'"data"', b'"stream"'),
        *(b'"depthUpdate"', b'["1","2"]', b'"0.10"', b'"1000000000000.00000001"', b"null", b"1e5"),
        *(b"9223372036854775807", b"9223372036854775808", b"\\u0031", b"\\ud83d\\ude00", b"\\"),
        *(b"[", b"]", b"{", b"}", b",", b":", b'"', b".", b"-", b"0", b" ", b"\xef\xbc\x91"),
        *(b"true", b"NaN", b"[[[[", b"]]]]", b'{"a":', b"18446744073709551616", b"\xff", b"\x00"),
    ],
    "row": [
        *(b"\x94", b"\x84", b"\x90", b"\xdc\x00\x14", b"\xdd\x00\x00\x00\x01", b"\x92\xa11\xa11"),
        *(b"\xd9\x01", b"\xda\x00\x01", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd3\x80", b"0"),
        *(b"\xa4bids", b"\xa4asks", b"\xa9update_id", b"\xa9timestamp", b"\xc0", b"\xc1", b"\xdb"),
    ],
    "book": [bytes([op]) for op in (0, 1, 2, 3, 63, 64, 128, 243, 245, 249, 250, 251, 255)],
}
TOKENS["columns"] = [
    *TOKENS["row"],
    b"\x92",
    b"\xa3",
    b"\xaa",
    b".",
    b"1",
    b"00000000",
    b"12345678",
]
TOKENS["level2"] = [
    *TOKENS["update"],
    *(b'"channel"', b'"l2_data"', b'"sequence_num"', b'"timestamp"', b'"events"', b'"type"'),
    *(b'"snapshot"', b'"product_id"', b'"updates"', b'"side"', b'"bid"', b'"offer"'),
    *(b'"price_level"', b'"new_quantity"', b'"event_time":"2023-02-09T20:32:50.714964855Z",'),
]
TOKENS["snapshot"] = [*TOKENS["update"], b'"lastUpdateId"', b'"bids"', b'"asks"']
