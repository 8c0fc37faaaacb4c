"""Windows against every row read by msgpack and decimals of any precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any
from unittest import mock

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import (
    CapacityError,
    DecodeError,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    Record,
    RowBatch,
    Trust,
)
from obframe.columns import Windows, read_window
from obframe.query import coverage
from obframe.testing.strategies import decimals
from obframe.window import LEVELS, Window
from obframe_plugins.memory import MemoryStorage

T = 1_737_158_400
SPAN = 40
LARGEST = 2**63 - 1
FINEST = 18
EXACT = Context(prec=1000)
Side = list[tuple[str, str]]


class BatchedMemory(MemoryStorage):
    """Gives its rows in batches of one size."""

    size = 1

    def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
        records = list(self.scan(symbol, start, end))
        for at in range(0, len(records), self.size):
            some = records[at : at + self.size]
            yield RowBatch([each.timestamp for each in some], [each.value for each in some])


@dataclass(frozen=True)
class Stored:
    """One row as it was drawn.

    Attributes:
        second: Of its key.
        told: Second in its value; another one than the key's is damage.
        update_id: In its value.
        bids: Best first.
        asks: Best first.
        broken: The value is cut short.
    """

    second: int
    told: int
    update_id: int
    bids: Side
    asks: Side
    broken: bool

    @property
    def good(self) -> bool:
        return not self.broken and self.told == self.second

    def record(self) -> Record:
        value = msgpack.packb([self.bids, self.asks, self.update_id, self.told])
        return Record("BTCUSDT", self.second, value[:-1] if self.broken else value)


def numbers(odd: bool) -> st.SearchStrategy[str]:
    """Draw decimals as venues write them, or such as are hard to hold in 64 bits."""
    usual = st.one_of(decimals(100_000, 8), decimals(9, 2))
    hard = st.one_of(decimals(10**12, 9), decimals(9, 20), st.just(str(LARGEST)))
    return st.one_of(usual, usual, usual, hard) if odd else usual


@st.composite
def stored_rows(draw: st.DrawFn, *, odd: bool, damage: bool) -> list[Stored]:
    """Draw rows of some seconds out of forty, sides empty to deeper than a row should have."""
    side = st.lists(st.tuples(numbers(odd), numbers(odd)), max_size=6)
    rows = []
    for second in sorted(draw(st.sets(st.integers(T, T + SPAN - 1), max_size=12))):
        broken = damage and not draw(st.integers(0, 5))
        told = second + (draw(st.integers(-3, 3)) if damage and not draw(st.integers(0, 5)) else 0)
        update_id = draw(st.one_of(st.integers(0, 200), st.integers(0, 2**64 - 1)))
        rows.append(Stored(second, told, update_id, draw(side), draw(side), broken))
    return rows


def needed(text: str) -> int:
    return len(text.partition(".")[2].rstrip("0"))


def kept(row: Stored, name: str, depth: int) -> list[str]:
    """Return a row's texts of one column."""
    side = row.bids if name.startswith("bid") else row.asks
    return [level[0 if name.endswith("prices") else 1] for level in side[:depth]]


def scale_of(rows: Sequence[Stored], what: str, depth: int) -> int:
    names = [name for name in LEVELS if name.endswith(what)]
    return max([0, *(needed(t) for row in rows for name in names for t in kept(row, name, depth))])


def fits(rows: Sequence[Stored], depth: int) -> bool:
    for what in ("prices", "quantities"):
        scale = scale_of(rows, what, depth)
        texts = [
            text
            for row in rows
            for name in LEVELS
            if name.endswith(what)
            for text in kept(row, name, depth)
        ]
        if scale > FINEST or any(units(text, scale) > LARGEST for text in texts):
            return False
    return True


def units(text: str, scale: int) -> Decimal:
    return EXACT.scaleb(Decimal(text), scale)


def assert_holds(window: Window, rows: Sequence[Stored], depth: int) -> None:
    """The window is these rows to the last digit, and zeros where a row has no level."""
    assert window.timestamp.tolist() == [row.second for row in rows]
    assert window.update_id.tolist() == [row.update_id for row in rows]
    assert window.bid_count.tolist() == [len(row.bids) for row in rows]
    assert window.ask_count.tolist() == [len(row.asks) for row in rows]
    for name in LEVELS:
        column = getattr(window, name)
        scale = window.price_scale if name.endswith("prices") else window.quantity_scale
        assert column.shape == (len(rows), depth)
        assert not column.flags.writeable
        for row, values in zip(rows, column.tolist(), strict=True):
            texts = kept(row, name, depth)
            assert values[len(texts) :] == [0] * (depth - len(texts))
            for text, value in zip(texts, values, strict=False):
                if scale is None:
                    assert value.hex() == float(text).hex()
                else:
                    assert Decimal(value).scaleb(-scale, EXACT) == Decimal(text)


@given(stored_rows(odd=True, damage=True), st.integers(1, 6), st.integers(1, 5), st.integers(1, 13))
def test_a_window_is_its_rows_to_the_last_digit(
    rows: list[Stored], depth: int, room: int, size: int
) -> None:
    """In parts and batches of any size; what 64 bits do not hold is an error, never a rounding."""
    storage = BatchedMemory()
    storage.size = size
    storage.append([row.record() for row in rows])
    good = [row for row in rows if row.good]
    decoded = [row for row in rows if not row.broken]
    bounds = "BTCUSDT", T, T + SPAN - 1
    with mock.patch("obframe.columns._PART_ROWS", room):
        floats = read_window(storage, *bounds, depth=depth, floats=True, skip_damaged=True)
        assert_holds(floats, good, depth)
        assert [row.timestamp for row in floats.refused] == [
            row.second for row in rows if not row.good
        ]
        assert all(row.error is not None for row in floats.refused)
        if not fits(decoded, depth):
            with pytest.raises(CapacityError, match=r"BTCUSDT at \d{10}: .* floats=True"):
                read_window(storage, *bounds, depth=depth, skip_damaged=True)
            return
        window = read_window(storage, *bounds, depth=depth, skip_damaged=True)
        if len(good) < len(rows):
            with pytest.raises(DecodeError, match=r"BTCUSDT at \d{10}: .*skip_damaged"):
                read_window(storage, *bounds, depth=depth)
    assert_holds(window, good, depth)
    assert window.price_scale == scale_of(decoded, "prices", depth)
    assert window.quantity_scale == scale_of(decoded, "quantities", depth)
    rounded = window.to_float64()
    assert_holds(rounded, good, depth)
    assert rounded.to_float64() is rounded


@given(
    stored_rows(odd=False, damage=False),
    st.lists(st.tuples(st.integers(-9, SPAN + 9), st.integers(0, 20), st.sampled_from(MarkKind))),
    st.lists(st.tuples(st.integers(-9, SPAN + 9), st.integers(0, 20), st.sampled_from(GapReason))),
    st.integers(0, SPAN - 1),
    st.integers(1, SPAN),
)
def test_trust_and_coverage_are_those_of_the_marks_gaps_and_rows(
    rows: list[Stored],
    marks: list[tuple[int, int, MarkKind]],
    gaps: list[tuple[int, int, GapReason]],
    first: int,
    length: int,
) -> None:
    storage = MemoryStorage()
    storage.append([row.record() for row in rows])
    storage.append_marks([Mark("BTCUSDT", T + at, T + at + n, kind) for at, n, kind in marks])
    storage.append_gaps([Gap("BTCUSDT", T + at, T + at + n, reason) for at, n, reason in gaps])
    start, end = T + first, T + min(first + length, SPAN) - 1
    window = read_window(storage, "BTCUSDT", start, end)
    expected = []
    for second in window.timestamp.tolist():
        trust = Trust.LIVE
        for at, n, kind in marks:
            if T + at <= second <= T + at + n:
                trust |= Trust[kind.name]
        expected.append(trust)
    assert window.trust.tolist() == expected
    assert window.coverage == coverage(storage, "BTCUSDT", start, end)
    assert len(window) == window.coverage.stored


@given(stored_rows(odd=False, damage=False), st.integers(1, SPAN + 5))
def test_windows_in_a_row_are_the_whole(rows: list[Stored], seconds: int) -> None:
    storage = MemoryStorage()
    storage.append([row.record() for row in rows])
    whole = read_window(storage, "BTCUSDT", T, T + SPAN - 1, floats=True)
    parts = Windows(storage, "BTCUSDT", T, T + SPAN - 1, seconds, floats=True)
    found = list(parts)
    assert len(parts) == len(found) == -(-SPAN // seconds)
    assert [each.coverage.start for each in found] == list(range(T, T + SPAN, seconds))
    assert found[-1].coverage.end == T + SPAN - 1
    assert sum(each.coverage.missing_seconds for each in found) == whole.coverage.missing_seconds
    for name in ("timestamp", "update_id", "bid_count", "trust", *LEVELS):
        joined = np.concatenate([getattr(each, name) for each in found])
        assert joined.tolist() == getattr(whole, name).tolist()


@given(stored_rows(odd=False, damage=False))
def test_frames_hold_what_the_window_holds(rows: list[Stored]) -> None:
    """Arrow, polars and pandas: exact, and null where a row has no level."""
    storage = MemoryStorage()
    storage.append([row.record() for row in rows])
    window = read_window(storage, "BTCUSDT", T, T + SPAN - 1, depth=4)
    good = [row for row in rows if row.good]
    table = window.to_arrow(decimals=True)
    table.validate(full=True)
    frames: list[Any] = [table, window.to_polars(decimals=True)]
    for frame in frames:
        for name in LEVELS:
            column = frame[name].to_pylist() if frame is table else frame[name].to_list()
            assert len(column) == len(good)
            for row, values in zip(good, column, strict=True):
                texts = [Decimal(text) for text in kept(row, name, 4)]
                assert list(values) == texts + [None] * (4 - len(texts))
    plain = window.to_arrow()
    plain.validate(full=True)
    flat, doubles = window.to_pandas(), window.to_float64().to_pandas()
    assert len(flat) == len(doubles) == len(good)
    for name, column in (("bid_prices", "bid{}_price"), ("ask_quantities", "ask{}_quantity")):
        scale = window.price_scale if name == "bid_prices" else window.quantity_scale
        assert scale is not None
        assert plain.schema.field(name).metadata == {b"scale": str(scale).encode()}
        for level in range(4):
            integers = flat[column.format(level + 1)].tolist()
            floats = doubles[column.format(level + 1)].tolist()
            for row, lists, integer, double in zip(
                good, plain[name].to_pylist(), integers, floats, strict=True
            ):
                texts = kept(row, name, 4)
                if level < len(texts):
                    assert integer == lists[level] == units(texts[level], scale)
                    assert double == float(texts[level])
                else:
                    assert lists[level] is None
                    assert str(integer) == "<NA>"
                    assert str(double) == "nan"
