"""Rows: their bytes, both forms read, everything else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from obframe._core import (
    DepthSnapshot,
    Level,
    OrderBook,
    Snapshot,
    parse_depth_snapshot,
    parse_depth_update,
)
from obframe.errors import DecodeError, InvalidEvent

GOLDEN = bytes.fromhex(
    "94 91 92 a6 31 30 30 2e 35 30 a3 31 2e 35 91 92 a6 31 30 30 2e 36 30 a3 32 2e 30"
    "cd 30 39 ce 67 8a ef 00"
)
BIDS: list[Level] = [("100.50", "1.5")]
ASKS: list[Level] = [("100.60", "2.0")]


def make(update_id: int = 12345, timestamp: int = 1737158400) -> Snapshot:
    return Snapshot("BTCUSDT", update_id, timestamp, BIDS, ASKS)


def row(**fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "bids": BIDS,
        "asks": ASKS,
        "update_id": 12345,
        "timestamp": 1737158400,
    }
    values.update(fields)
    return values


def pack(values: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(list(values.values()))
    return packed


def test_the_golden_vector() -> None:
    assert make().pack() == GOLDEN
    book = OrderBook("BTCUSDT")
    book.load(DepthSnapshot("BTCUSDT", 12345, BIDS, ASKS))
    assert book.snapshot(1737158400).pack() == GOLDEN
    assert book.snapshot(1737158400) == make()
    snapshot = Snapshot.unpack(GOLDEN, "BTCUSDT")
    assert (snapshot.symbol, snapshot.update_id, snapshot.timestamp) == (
        "BTCUSDT",
        12345,
        1737158400,
    )
    assert (snapshot.bids, snapshot.asks) == (BIDS, ASKS)
    assert (snapshot.bid_count, snapshot.ask_count) == (1, 1)
    assert "BTCUSDT second 1737158400 at 12345" in repr(snapshot)


def test_twenty_levels_open_with_an_array_of_16_bits() -> None:
    levels = [(f"{i + 1}.00", "1.0") for i in range(25)]
    book = OrderBook("X")
    book.load(DepthSnapshot("X", 1, levels, levels))
    packed = book.snapshot(1).pack()
    assert packed[:4] == b"\x94\xdc\x00\x14"
    assert packed == msgpack.packb([levels[:4:-1], levels[:20], 1, 1])
    assert book.snapshot(1, 15).pack()[:2] == b"\x94\x9f"
    assert book.snapshot(1, 16).pack()[:4] == b"\x94\xdc\x00\x10"


def test_long_texts_take_a_longer_head() -> None:
    for size in (31, 32):
        quantity = "0." + "1" * 28 + "0" * (size - 30)
        book = OrderBook("X")
        book.load(DepthSnapshot("X", 1, [("1.5", quantity)], []))
        packed = book.snapshot(1).pack()
        assert packed == msgpack.packb([[("1.5", quantity)], [], 1, 1])
        assert (b"\xd9\x20" in packed) == (size == 32)
        assert Snapshot.unpack(packed).bids == [("1.5", quantity)]
    for size in (255, 256, 65_535, 65_536):
        text = "7" * size
        packed = msgpack.packb([[(text, "1")], [], 1, 1])
        assert Snapshot("X", 1, 1, [(text, "1")], []).pack() == packed
        assert Snapshot.unpack(packed).bids == [(text, "1")]


INTEGERS = [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1]


@pytest.mark.parametrize("value", INTEGERS)
def test_integers_take_their_smallest_form(value: int) -> None:
    for number in {value, -value, -value - 1}:
        packed = make(value, number).pack()
        assert packed == msgpack.packb([BIDS, ASKS, value, number])
        snapshot = Snapshot.unpack(packed)
        assert (snapshot.update_id, snapshot.timestamp) == (value, number)
    assert OrderBook("X").snapshot(-value - 1).pack() == msgpack.packb([[], [], 0, -value - 1])


def test_the_largest_update_id_is_unsigned() -> None:
    packed = make(2**64 - 1).pack()
    assert packed == msgpack.packb([BIDS, ASKS, 2**64 - 1, 1737158400])
    assert Snapshot.unpack(packed).update_id == 2**64 - 1


def test_the_map_form_is_read_in_any_order_and_written_as_an_array() -> None:
    values = row()
    for keys in (list(values), list(values)[::-1], ["asks", "timestamp", "bids", "update_id"]):
        packed = msgpack.packb({key: values[key] for key in keys})
        snapshot = Snapshot.unpack(packed, "BTCUSDT")
        assert snapshot == make()
        assert snapshot.pack() == GOLDEN


def widen(value: Any, form: int) -> bytes:
    """Pack a value in a larger form than needed; ``form`` chooses which."""
    if isinstance(value, str):
        text = value.encode()
        sizes = [b"\xd9" + len(text).to_bytes(1), b"\xda" + len(text).to_bytes(2)]
        return [*sizes, b"\xdb" + len(text).to_bytes(4)][form % 3] + text
    if isinstance(value, int):
        forms = [b"\xcf" + value.to_bytes(8), b"\xd3" + value.to_bytes(8, signed=True)]
        if value < 2**31:
            forms += [b"\xd2" + value.to_bytes(4, signed=True), b"\xce" + value.to_bytes(4)]
        return forms[form % len(forms)]
    head = [b"\xdc" + len(value).to_bytes(2), b"\xdd" + len(value).to_bytes(4)][form % 2]
    if isinstance(value, dict):
        head = [b"\xde" + len(value).to_bytes(2), b"\xdf" + len(value).to_bytes(4)][form % 2]
        return head + b"".join(widen(k, form) + widen(v, form) for k, v in value.items())
    return head + b"".join(widen(item, form) for item in value)


@pytest.mark.parametrize("form", range(12))
def test_larger_forms_are_read_and_written_in_the_smallest(form: int) -> None:
    for values in (list(row().values()), row()):
        assert Snapshot.unpack(widen(values, form), "BTCUSDT").pack() == GOLDEN


def test_negative_timestamps_in_every_form() -> None:
    start = GOLDEN[:-5]
    for number, forms in {
        -1: ("ff", "d0ff", "d1ffff", "d2ffffffff", "d3ffffffffffffffff"),
        -32: ("e0", "d0e0"),
        -33: ("d0df", "d1ffdf"),
        -(2**63): ("d38000000000000000",),
    }.items():
        for form in forms:
            assert Snapshot.unpack(start + bytes.fromhex(form)).timestamp == number


BAD = [
    b"",
    b"\xc0",
    b"\xc3",
    b"\x94",
    b"\x93\x90\x90\x00",
    b"\x95\x90\x90\x00\x00\x00",
    GOLDEN + b"\x00",
    b"\x01" + GOLDEN,
    b"\xff",
    b"\xca\x00\x00\x00\x00",
    b"\xc4\x00",
    b"\xc1",
    b"\xd4\x00\x00",
    b"\x94\xdd\xff\xff\xff\xff",
    b"\x94\x90\xdc\xff\xff\x00\x00",
    b"\x94\x91\x92\xdb\xff\xff\xff\xff",
    pack(row(bids=None)),
    pack(row(bids=5)),
    pack(row(bids="x")),
    pack(row(asks={})),
    pack(row(asks=[5])),
    pack(row(asks=["12"])),
    pack(row(asks=[[]])),
    pack(row(asks=[["1"]])),
    pack(row(asks=[["1", "2", "3"]])),
    pack(row(asks=[["1", 2]])),
    pack(row(asks=[[1.5, "2"]])),
    pack(row(asks=[["1", b"2"]])),
    pack(row(asks=[["1", None]])),
    pack(row(update_id=-1)),
    pack(row(update_id=1.0)),
    pack(row(update_id="1")),
    pack(row(update_id=None)),
    pack(row(update_id=True)),
    pack(row(timestamp=2**63)),
    pack(row(timestamp=1.5)),
    pack(row(timestamp=[])),
    pack(row(timestamp=False)),
    msgpack.packb({}),
    msgpack.packb({"bids": [], "asks": [], "update_id": 1}),
    msgpack.packb({"bids": [], "asks": [], "update_id": 1, "other": 1}),
    msgpack.packb({"bids": [], "asks": [], "update_id": 1, 4: 1}),
    msgpack.packb({**row(), "more": 1}),
    b"\x84\xa4bids\x90\xa4bids\x90\xa9update_id\x00\xa9timestamp\x00",
    b"\x84\xa4bids\x90\xa4asks\x90\xa9update_id\x00\xdb\xff\xff\xff\xff",
]


@pytest.mark.parametrize("data", BAD, ids=lambda data: data[:10].hex() or "empty")
def test_row_50_other_bytes_are_refused(data: bytes) -> None:
    for given in (data, bytearray(data), memoryview(b"\x00" + data + GOLDEN)[1 : 1 + len(data)]):
        with pytest.raises(DecodeError) as error:
            Snapshot.unpack(given)
        assert 0 <= error.value.offset <= len(data)


TEXTS = ["", "-1", "+1", ".5", "1.", "1e5", "NaN", "1.2.3", " 1", "1 ", "１", "1\x00", "0x1", "1,5"]


@pytest.mark.parametrize("text", TEXTS)
def test_row_50_texts_that_are_no_decimals_are_refused(text: str) -> None:
    for level in ((text, "1"), ("1", text)):
        with pytest.raises(DecodeError):
            Snapshot.unpack(pack(row(bids=[level])))
        with pytest.raises(DecodeError):
            Snapshot.unpack(msgpack.packb(row(asks=[level])))
        with pytest.raises(InvalidEvent):
            Snapshot("X", 1, 1, [level], [])
        with pytest.raises(InvalidEvent):
            Snapshot("X", 1, 1, [], [level])


def test_row_50_every_truncation_is_refused() -> None:
    for data in (GOLDEN, msgpack.packb(row()), widen(row(), 1)):
        for end in range(len(data)):
            with pytest.raises(DecodeError):
                Snapshot.unpack(memoryview(data)[:end])


def test_stored_texts_may_be_more_than_a_venue_may_send() -> None:
    levels = [("007.10", "00"), ("9" * 70, "0.0")]
    snapshot = Snapshot.unpack(msgpack.packb([levels, [], 0, 0]))
    assert snapshot.bids == levels


def test_bytes_in_their_smallest_form_are_kept_and_nothing_else_is() -> None:
    class Other(bytes):
        pass

    negative = make(12345, -5).pack()
    long = Snapshot("BTCUSDT", 1, 1, [("1" * 32, "1")] * 200, []).pack()
    for packed in (GOLDEN, b"\x94\x90\x90\x00\x00", negative, long):
        assert Snapshot.unpack(packed).pack() is packed
        for given in (Other(packed), bytearray(packed), memoryview(packed)):
            copied = Snapshot.unpack(given).pack()
            assert type(copied) is bytes
            assert copied == packed
            assert copied is not packed
    wide = widen(list(row().values()), 1)
    assert Snapshot.unpack(wide).pack() == GOLDEN


def test_equality_and_hash() -> None:
    one, other = make(), Snapshot.unpack(bytearray(GOLDEN), "BTCUSDT")
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1
    assert one != Snapshot.unpack(GOLDEN, "ETHUSDT")
    assert one != make(12346)
    assert one != Snapshot("BTCUSDT", 12345, 1737158400, [("100.5", "1.5")], ASKS)
    other_type: object = GOLDEN
    assert one != other_type
    assert one is not None


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot = make()
    with pytest.raises(TypeError, match="made already"):
        snapshot.__init__("X", 1, 1, [], [])
    with pytest.raises(AttributeError):
        snapshot.timestamp = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        snapshot.other = 5  # type: ignore[attr-defined]
    snapshot.bids.append(("1", "1"))
    assert snapshot == make()


def test_a_later_change_of_the_buffer_changes_nothing() -> None:
    data = bytearray(GOLDEN)
    snapshot = Snapshot.unpack(data, "BTCUSDT")
    data[:] = b"\x00" * len(data)
    assert snapshot == make()


@pytest.mark.parametrize(
    "arguments",
    [
        (None, 1, 1, [], []),
        ("X", None, 1, [], []),
        ("X", "1", 1, [], []),
        ("X", 1.0, 1, [], []),
        ("X", True, 1, [], []),
        ("X", 1, None, [], []),
        ("X", 1, 1, None, []),
        ("X", 1, 1, [], 5),
        ("X", 1, 1, "12", []),
        ("X", 1, 1, ["12"], []),
        ("X", 1, 1, [(1, "2")], []),
        ("X", 1, 1, [("1", None)], []),
    ],
)
def test_wrong_types_are_type_errors(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        Snapshot(*arguments)


def test_integers_that_do_not_fit_overflow() -> None:
    for update_id, timestamp in ((-1, 0), (2**64, 0), (0, 2**63), (0, -(2**63) - 1)):
        with pytest.raises(OverflowError):
            make(update_id, timestamp)


def test_a_text_is_refused_with_what_makes_it_bytes() -> None:
    text: Any = "[]"
    calls: tuple[Callable[[], object], ...] = (
        lambda: Snapshot.unpack(text),
        lambda: parse_depth_update(text),
        lambda: parse_depth_snapshot(text, "X"),
        lambda: OrderBook("X").follow(text),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"not str; text\.encode\(\) gives them"):
            call()


def test_unpack_takes_bytes_only() -> None:
    wrong: list[Any] = [None, "text", 5, []]
    for data in wrong:
        with pytest.raises(TypeError):
            Snapshot.unpack(data)
    with pytest.raises(TypeError):
        Snapshot.unpack(GOLDEN, None)  # type: ignore[arg-type]
    empty = Snapshot.__new__(Snapshot)
    assert (empty.pack(), empty.bids, empty.asks) == (b"\x94\x90\x90\x00\x00", [], [])
