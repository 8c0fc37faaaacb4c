"""Columns against the rows that ``Snapshot.unpack`` reads, by decimals of any precision."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Any, NamedTuple

import msgpack
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from obframe._core import ColumnDecoder, DepthSnapshot, Level, OrderBook, Snapshot
from obframe.errors import CapacityError, DecodeError
from obframe.testing.strategies import decimals, levels

FIELDS = ("bids", "asks", "update_id", "timestamp")
LARGEST = 2**63 - 1
FINEST = 18
EXACT = Context(prec=10_000)


class Decoded(NamedTuple):
    """What a decoder made of rows.

    Attributes:
        scales: Of prices and quantities.
        columns: Bid prices, bid quantities, ask prices, ask quantities.
        others: Update ids, timestamps, counts of bids and asks.
        refused: The indexes of the rows that are not in, and why.
    """

    scales: tuple[int, int]
    columns: list[Any]
    others: list[list[int]]
    refused: dict[int, DecodeError | CapacityError]


def decode(
    rows: Sequence[bytes], depth: int, kind: str = "int64", batch: int = 10**6, **scales: int
) -> Decoded:
    """Decode rows in batches, going on behind each that is refused."""
    columns = [np.full((len(rows), depth), -1, kind) for _ in range(4)]
    others: list[Any] = [np.empty(len(rows), each) for each in ("u8", "i8", "u2", "u2")]
    names = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
    rest = ("update_ids", "timestamps", "bid_counts", "ask_counts")
    buffers: dict[str, Any] = dict(zip((*names, *rest), (*columns, *others), strict=True))
    decoder = ColumnDecoder(depth, **buffers, **scales)
    refused: dict[int, DecodeError | CapacityError] = {}
    at = 0
    while at < len(rows):
        part = rows[at : at + batch]
        try:
            decoder.extend(part)
            at += len(part)
        except (DecodeError, CapacityError) as error:
            at += error.row or 0
            refused[at] = error
            at += 1
        assert len(decoder) == at - len(refused)
    count = len(decoder)
    return Decoded(
        (decoder.price_scale, decoder.quantity_scale),
        [column[:count].tolist() for column in columns],
        [column[:count].tolist() for column in others],
        refused,
    )


def unpack(row: bytes) -> Snapshot | DecodeError:
    try:
        return Snapshot.unpack(row)
    except DecodeError as error:
        return error


def needed(text: str) -> int:
    """Return how many decimals a value needs."""
    return len(text.partition(".")[2].rstrip("0"))


def count_units(text: str, scale: int) -> Decimal:
    return EXACT.scaleb(EXACT.create_decimal(text), scale)


class Reference:
    """Columns by way of snapshots and decimals, one row after the other."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.scales = [0, 0]
        self.rows: list[Snapshot] = []

    def fits(self, rows: Sequence[Snapshot], scales: Sequence[int]) -> bool:
        return all(
            count_units(text, scale) <= LARGEST
            for row in rows
            for side in (row.bids, row.asks)
            for level in side[: self.depth]
            for text, scale in zip(level, scales, strict=True)
        )

    def add(self, row: Snapshot) -> bool:
        """Take a row if it fits, at the scales that it and those before it need."""
        kept = [level for side in (row.bids, row.asks) for level in side[: self.depth]]
        scales = [
            max([scale, *(needed(level[kind]) for level in kept)])
            for kind, scale in enumerate(self.scales)
        ]
        rows = [row] if scales == self.scales else [*self.rows, row]
        if max(scales) > FINEST or not self.fits(rows, scales):
            return False
        self.scales = scales
        self.rows.append(row)
        return True

    def columns(self) -> list[list[list[int]]]:
        made = []
        for side in (0, 1):
            for kind, scale in enumerate(self.scales):
                column = []
                for row in self.rows:
                    kept = (row.bids, row.asks)[side][: self.depth]
                    values = [int(count_units(level[kind], scale)) for level in kept]
                    column.append(values + [0] * (self.depth - len(kept)))
                made.append(column)
        return made


def assert_judged_alike(rows: Sequence[bytes], depth: int, batch: int = 10**6) -> None:
    """Decode rows to integers and to doubles, and compare with what ``Snapshot.unpack`` reads."""
    found = decode(rows, depth, batch=batch)
    reference = Reference(depth)
    good = []
    for index, row in enumerate(rows):
        snapshot = unpack(row)
        error = found.refused.get(index)
        if isinstance(snapshot, DecodeError):
            assert isinstance(error, DecodeError), f"row {index} is refused: {snapshot}"
            assert (error.reason, error.offset) == (snapshot.reason, snapshot.offset)
            continue
        good.append(snapshot)
        if reference.add(snapshot):
            assert error is None, f"row {index}: {error}"
        else:
            assert isinstance(error, CapacityError), f"row {index}: {error!r}"
            assert_names_a_value(error, snapshot)
    assert list(found.scales) == reference.scales
    assert found.columns == reference.columns()
    assert found.others == list_others(reference.rows)

    rounded = decode(rows, depth, "float64", batch)
    assert all(isinstance(error, DecodeError) for error in rounded.refused.values())
    assert rounded.others == list_others(good)
    for at, column in enumerate(rounded.columns):
        for row, values in zip(good, column, strict=True):
            kept = (row.bids, row.asks)[at // 2][:depth]
            doubles = [float(level[at % 2]) for level in kept] + [0.0] * (depth - len(kept))
            assert list(map(float.hex, values)) == list(map(float.hex, doubles))


def list_others(rows: Sequence[Snapshot]) -> list[list[int]]:
    return [
        [row.update_id for row in rows],
        [row.timestamp for row in rows],
        [row.bid_count for row in rows],
        [row.ask_count for row in rows],
    ]


def assert_names_a_value(error: CapacityError, row: Snapshot) -> None:
    side, _, rest = error.field.partition("[")
    index, _, kind = rest.partition("].")
    level = {"bids": row.bids, "asks": row.asks}[side][int(index)]
    assert error.value == level[("price", "quantity").index(kind)][:80]


def stored_texts() -> st.SearchStrategy[str]:
    """Draw what a row may hold: more than a venue may send."""
    digits = st.text("0123456789", min_size=1, max_size=24)
    plain = st.one_of(decimals(10**5, 8), decimals(10**13, 4), decimals(9, 20))
    odd = st.builds(lambda whole, rest: f"{whole}.{rest}", digits, digits)
    near = st.builds(
        lambda units, places: f"{units // 10**places}.{units % 10**places:0{places}}",
        st.one_of(st.integers(2**53 - 9, 2**53 + 9), st.integers(2**63 - 9, 2**63 + 9)),
        st.integers(1, 18),
    )
    return st.one_of(plain, plain, digits, odd, near, st.just("0." + "0" * 30))


def stored_rows() -> st.SearchStrategy[bytes]:
    """Draw rows in either form, as short as they come or with other heads than needed."""
    side = st.one_of(
        levels(6).map(list), st.lists(st.tuples(stored_texts(), stored_texts()), max_size=5)
    )
    row = st.tuples(side, side, st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1))
    small = st.tuples(side, side, st.integers(0, 200), st.integers(-40, 200))
    form = st.one_of(st.just(tuple(FIELDS)), st.permutations(FIELDS))

    def write(values: tuple[Any, ...], keys: Sequence[str], as_map: bool) -> bytes:
        fields = dict(zip(FIELDS, values, strict=True))
        packed: bytes = msgpack.packb(
            {key: fields[key] for key in keys} if as_map else list(values)
        )
        return packed

    return st.builds(write, st.one_of(row, small), form, st.booleans())


@st.composite
def damaged_rows(draw: st.DrawFn) -> bytes:
    """Draw a row of which a byte or two were changed, put in or lost; by chance it is still one."""
    damaged = bytearray(draw(stored_rows()))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(damaged) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            damaged[at] = draw(st.integers(0, 255))
        elif kind == 1:
            damaged.insert(at, draw(st.sampled_from(b"0123456789.\x90\x91\x92\xa1\xa2\xd9\xdc")))
        elif kind == 2 and len(damaged) > 1:
            del damaged[at]
        elif at:
            del damaged[at:]
    return bytes(damaged)


@given(
    st.lists(st.one_of(stored_rows(), stored_rows(), damaged_rows()), max_size=6),
    st.integers(1, 6),
    st.integers(1, 4),
)
@example([msgpack.packb([[["9223372036854775807", "1"]], [["0.1", "1"]], 0, 0])] * 2, 1, 1)
def test_columns_hold_what_unpack_reads_and_refuse_what_it_refuses(
    rows: list[bytes], depth: int, batch: int
) -> None:
    assert_judged_alike(rows, depth, batch)


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_arbitrary_bytes_never_crash(rows: list[bytes]) -> None:
    assert_judged_alike(rows, 2)


@given(st.lists(st.tuples(levels(8), levels(8)), min_size=1, max_size=5), st.integers(1, 20))
def test_a_book_s_rows_come_back_from_columns(
    sides: list[tuple[Sequence[Level], Sequence[Level]]], depth: int
) -> None:
    rows = []
    for at, (bids, asks) in enumerate(sides):
        book = OrderBook("X")
        book.load(DepthSnapshot("X", at, bids, asks))
        rows.append(book.snapshot(at, depth).pack())
    assert_judged_alike(rows, depth)


@given(stored_rows(), st.integers(0, 18), st.integers(0, 18))
def test_a_given_scale_takes_what_fits_it_and_nothing_else(
    row: bytes, price_scale: int, quantity_scale: int
) -> None:
    scales = (price_scale, quantity_scale)
    found = decode([row], 3, price_scale=price_scale, quantity_scale=quantity_scale)
    snapshot = Snapshot.unpack(row)
    kept = [level for side in (snapshot.bids, snapshot.asks) for level in side[:3]]
    fits = all(
        needed(text) <= scale and count_units(text, scale) <= LARGEST
        for level in kept
        for text, scale in zip(level, scales, strict=True)
    )
    assert found.scales == scales
    assert (not found.refused) == fits
    if fits:
        units = [[int(count_units(level[kind], scales[kind])) for level in kept] for kind in (0, 1)]
        for kind in (0, 1):
            column = found.columns[kind][0][: len(snapshot.bids)]
            column += found.columns[2 + kind][0][: len(snapshot.asks)]
            assert column == units[kind]


def test_row_50_damaged_batches_are_judged_as_single_rows_are() -> None:
    rng = random.Random(1737158400)
    base = [[["100.50", "1.5"], ["99", "0.25"]], [["100.60", "2.0"]], 12345, 1737158400]
    twenty = [["61837.63000000", "0.10000000"], ["7", "12345678901.5"]] * 10
    samples = [
        msgpack.packb(base),
        msgpack.packb(dict(zip(FIELDS, base, strict=True))),
        msgpack.packb([twenty, twenty, 2**40, 1737158400]),
    ]
    heads = bytes([0x30, 0x2E, 0x92, 0x94, 0x84, 0xC0, 0xCC, 0xD0, 0xD9, 0xDC, 0xDD, 0xA1, 0xBF])
    for sample in samples:
        rows = []
        for _ in range(1500):
            damaged = bytearray(sample)
            for _ in range(rng.choice((1, 1, 2))):
                at = rng.randrange(len(damaged))
                match rng.randrange(4):
                    case 0:
                        damaged[at] = rng.randrange(256)
                    case 1:
                        damaged[at] = rng.choice(heads)
                    case 2:
                        damaged.insert(at, rng.choice(heads))
                    case _:
                        del damaged[at]
            rows.append(bytes(damaged))
        for start in range(0, len(rows), 50):
            assert_judged_alike(rows[start : start + 50], 20)
