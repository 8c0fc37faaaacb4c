"""Levels that came as objects of numbers, beside the same levels as pairs of texts."""

from __future__ import annotations

import gc
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import CapacityError, DepthUpdate, InvalidEvent, parse_level_objects
from obframe.testing.strategies import Level, levels

DIGITS = "0123456789"
numbers = st.builds(
    lambda whole, fraction: f"{whole}.{fraction}" if fraction else whole,
    st.text(DIGITS, min_size=1, max_size=30),
    st.text(DIGITS, max_size=20),
)


def write(side: list[Level]) -> bytes:
    written = [f'{{"price":{price},"qty":{quantity}}}' for price, quantity in side]
    return f"[{','.join(written)}]".encode()


def same(one: DepthUpdate, other: DepthUpdate) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in (
            "symbol", "first_update_id", "last_update_id", "prev_update_id", "event_time_ms",
            "bids", "asks",
        )
    )  # fmt: skip


@given(levels(), levels())
def test_an_update_is_that_of_its_texts(bids: list[Level], asks: list[Level]) -> None:
    made = parse_level_objects("X/Y", 5, 7, 4, write(bids), write(asks), 9)
    assert made is not None
    assert same(made, DepthUpdate("X/Y", 5, 7, 4, bids, asks, 9))


@given(st.lists(st.tuples(numbers, numbers), max_size=4))
def test_it_is_none_where_the_texts_are_refused(side: list[Level]) -> None:
    made = parse_level_objects("X/Y", 1, 1, 0, write(side), b"[]")
    try:
        expected = DepthUpdate("X/Y", 1, 1, 0, side, [])
    except (InvalidEvent, CapacityError):
        assert made is None
    else:
        assert made is not None
        assert same(made, expected)


@given(levels(), st.data())
def test_a_byte_more_less_or_other_never_makes_other_numbers(
    side: list[Level], data: st.DataObject
) -> None:
    """What is not of the plain form is None; what is, has the numbers that stand there."""
    whole = write(side)
    at = data.draw(st.integers(0, len(whole)))
    byte = data.draw(st.sampled_from([b"", b" ", b"0", b".", b"e", b"-", b'"', b"]", b"\x00"]))
    cut = data.draw(st.integers(0, 1))
    damaged = whole[:at] + byte + whole[at + cut :]
    made = parse_level_objects("X/Y", 1, 1, 0, damaged, b"[]")
    if made is not None:
        assert write(made.bids) == damaged


@pytest.mark.parametrize(
    "side",
    [b"", b"[", b"]", b"[]x", b"[ ]", b"null", b'[{"price":1,"qty":1}', b'[{"price":1,"qty":1},]',
     b'[{"qty":1,"price":1}]', b'[{"price":"1","qty":1}]', b'[{"price":1e3,"qty":1}]',
     b'[{"price":-1,"qty":1}]', b'[{"price":01,"qty":1}]', b'[{"price":1.,"qty":1}]'],
)  # fmt: skip
def test_what_is_not_of_the_plain_form_is_none(side: bytes) -> None:
    assert parse_level_objects("X", 1, 1, 0, side, b"[]") is None
    assert parse_level_objects("X", 1, 1, 0, b"[]", side) is None


def test_arguments_are_checked_and_nothing_is_kept() -> None:
    for symbol, first, last, prev in (
        ("", 1, 1, 0),
        ("X", -1, 1, 0),
        ("X", 2, 1, 0),
        ("X", 1, 1, -2),
    ):
        with pytest.raises(InvalidEvent):
            parse_level_objects(symbol, first, last, prev, b"[]", b"[]")
    with pytest.raises(TypeError):
        parse_level_objects("X", 1, 1, 0, "[]", b"[]")  # type: ignore[arg-type]
    side = bytearray(b'[{"price":1,"qty":1}]')
    parse_level_objects("X", 1, 1, 0, side, memoryview(side))
    side.clear()  # nobody holds it any more
    before = sys.getrefcount(b"[]")
    for _ in range(1000):
        parse_level_objects("X", 1, 1, 0, b"[", b"[]")
    gc.collect()
    assert sys.getrefcount(b"[]") <= before + 2
