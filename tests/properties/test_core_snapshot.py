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


def assert_judged_alike(data: bytes) -> None:
    expected = judge(data)
    try:
        snapshot = Snapshot.unpack(memoryview(data), "X")
    except DecodeError:
        assert expected is None
        return
    assert expected is not None
    bids, asks = ([tuple(level) for level in side] for side in expected[:2])
    assert (snapshot.bids, snapshot.asks) == (bids, asks)
    assert [snapshot.update_id, snapshot.timestamp] == expected[2:]
    assert snapshot.pack() == msgpack.packb(expected)


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


@given(st.binary(max_size=40))
def test_row_50_arbitrary_bytes_never_crash(data: bytes) -> None:
    assert_judged_alike(data)
