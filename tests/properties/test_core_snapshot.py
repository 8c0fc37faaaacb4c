"""Rows against the msgpack library, and damaged bytes against a strict reading of it."""

from __future__ import annotations

import random
import re
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from obframe._core import Level, Snapshot
from obframe.errors import DecodeError
from obframe.testing.strategies import levels

TEXT = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
FIELDS = ("bids", "asks", "update_id", "timestamp")


class Pairs(tuple[tuple[Any, Any], ...]):
    """A map as it stands, duplicates included."""


def judge(data: bytes) -> list[Any] | None:
    """Return the row's four values; None when it is not exactly one row."""
    try:
        value = msgpack.unpackb(data, object_pairs_hook=Pairs, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError):
        return None
    if isinstance(value, Pairs):
        if sorted(map(repr, (key for key, _ in value))) != sorted(map(repr, FIELDS)):
            return None
        value = [dict(value)[field] for field in FIELDS]
    if not isinstance(value, list) or len(value) != 4:
        return None
    bids, asks, update_id, timestamp = value
    for side in (bids, asks):
        if not isinstance(side, list):
            return None
        for level in side:
            if not isinstance(level, list) or len(level) != 2:
                return None
            if not all(isinstance(text, str) and TEXT.fullmatch(text) for text in level):
                return None
    if type(update_id) is not int or type(timestamp) is not int:
        return None
    if not 0 <= update_id < 2**64 or not -(2**63) <= timestamp < 2**63:
        return None
    return value


def unpack(data: bytes | memoryview) -> Snapshot | tuple[str, int]:
    """Return the row, or what is wrong with it and where."""
    try:
        return Snapshot.unpack(data, "X")
    except DecodeError as error:
        return error.reason, error.offset


def assert_judged_alike(data: bytes) -> None:
    expected = judge(data)
    snapshot = unpack(data)
    assert unpack(memoryview(data)) == snapshot
    if not isinstance(snapshot, Snapshot):
        assert expected is None
        return
    assert expected is not None
    bids, asks = ([tuple(level) for level in side] for side in expected[:2])
    assert (snapshot.bids, snapshot.asks) == (bids, asks)
    assert (snapshot.bid_count, snapshot.ask_count) == (len(bids), len(asks))
    assert [snapshot.update_id, snapshot.timestamp] == expected[2:]
    packed = snapshot.pack()
    assert packed == msgpack.packb(expected)
    assert (packed is data) == (packed == data)


@given(
    levels(24), levels(24), st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1), st.data()
)
def test_packing_equals_msgpack_and_both_forms_come_back(
    bids: tuple[Level, ...],
    asks: tuple[Level, ...],
    update_id: int,
    timestamp: int,
    data: st.DataObject,
) -> None:
    snapshot = Snapshot("X", update_id, timestamp, bids, asks)
    values = [list(bids), list(asks), update_id, timestamp]
    packed = snapshot.pack()
    assert packed == msgpack.packb(values)
    assert (snapshot.bids, snapshot.asks) == (values[0], values[1])
    assert Snapshot.unpack(packed, "X") == snapshot
    keys = data.draw(st.permutations(FIELDS))
    by_name = dict(zip(FIELDS, values, strict=True))
    assert Snapshot.unpack(msgpack.packb({key: by_name[key] for key in keys}), "X") == snapshot


def test_row_50_damaged_rows_are_judged_as_a_strict_reader_does() -> None:
    rng = random.Random(1737158400)
    base = [[["100.50", "1.5"], ["99", "0.25"]], [["100.60", "2.0"]], 12345, 1737158400]
    samples = [
        msgpack.packb(base),
        msgpack.packb(dict(zip(FIELDS, base, strict=True))),
        msgpack.packb([[["1", "1"]] * 20, [], 2**64 - 1, -5]),
    ]
    heads = bytes([0x90, 0x94, 0x84, 0xC0, 0xC4, 0xCC, 0xD0, 0xD9, 0xDC, 0xDD, 0xDE, 0xDF, 0xA1])
    for sample in samples:
        assert judge(sample) is not None
        for _ in range(8000):
            damaged = bytearray(sample)
            for _ in range(rng.choice((1, 1, 2, 3))):
                at = rng.randrange(len(damaged))
                kind = rng.randrange(5)
                if kind == 0:
                    damaged[at] = rng.randrange(256)
                elif kind == 1:
                    damaged[at] = rng.choice(heads)
                elif kind == 2:
                    damaged.insert(at, rng.randrange(256))
                elif kind == 3:
                    damaged[at] ^= 1 << rng.randrange(8)
                elif len(damaged) > 1:
                    del damaged[at]
            assert_judged_alike(bytes(damaged))


# Rows like those that are recorded, the first with three levels a side and shorter texts.
SHORT = msgpack.packb(
    [
        [["61837.63000000", "3.14159000"], ["61837.6", "0.00100000"], ["61837", "12"]],
        [["61837.64000000", "0.9"], ["61838.00000000", "123456789.00000000"], ["61840.1", "5.001"]],
        50_123_456_789,
        1737158400,
    ]
)
LONG = msgpack.packb(
    [
        [[f"{61837 - i}.{i:02d}000000", f"{i * i}.{i:08d}"] for i in range(20)],
        [[f"{61838 + i}.{i:02d}000000", f"{i}.00000000"] for i in range(20)],
        50_123_456_789,
        1737158400,
    ]
)


def test_row_50_every_other_byte_in_every_place_is_judged_as_a_strict_reader_does() -> None:
    for at in range(len(SHORT)):
        for byte in range(256):
            assert_judged_alike(SHORT[:at] + bytes([byte]) + SHORT[at + 1 :])
    for at in range(len(LONG)):
        for byte in b"/09:.\x90\x92\xa0\xae\xc0\xcc\xdc" + bytes([LONG[at] ^ 1, LONG[at] ^ 0x80]):
            assert_judged_alike(LONG[:at] + bytes([byte]) + LONG[at + 1 :])


def test_row_50_every_row_that_is_cut_short_or_goes_on_is_judged_as_a_strict_reader_does() -> None:
    for row in (SHORT, LONG):
        assert_judged_alike(row)
        for end in range(len(row)):
            assert_judged_alike(row[:end])
            assert_judged_alike(row[end:])
        for byte in range(256):
            assert_judged_alike(row + bytes([byte]))


def test_texts_of_every_length_with_a_point_anywhere_and_any_number_of_bytes_behind() -> None:
    """Many characters are looked at at once where the row has as many left."""
    for size in range(1, 34):
        for point in range(size + 1):
            text = ("1234567890" * 4)[:size]
            if point < size:
                text = text[:point] + "." + text[point + 1 :]
            for update_id, timestamp in ((0, 0), (50_123_456_789, 1737158400), (2**64 - 1, 2**62)):
                assert_judged_alike(msgpack.packb([[["1", text]], [], update_id, timestamp]))
                assert_judged_alike(msgpack.packb([[], [[text, "1.5"]], update_id, timestamp]))


@given(st.binary(max_size=40))
def test_row_50_arbitrary_bytes_never_crash(data: bytes) -> None:
    assert_judged_alike(data)
