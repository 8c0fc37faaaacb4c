"""Rows with their errors and trust, and what coverage tells."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from obframe import (
    Gap,
    GapReason,
    Mark,
    MarkKind,
    QueryError,
    Record,
    RowBatch,
    Snapshot,
    StoreCorrupt,
    SymbolError,
    Trust,
    UnknownSymbol,
)
from obframe.query import Coverage, Span, batches, check_stored, coverage, latest, rows
from obframe.trust import judge
from obframe_plugins.memory import MemoryStorage

T = 1_737_158_400
GOLDEN = bytes.fromhex(
    "94 91 92 a6 31 30 30 2e 35 30 a3 31 2e 35 91 92 a6 31 30 30 2e 36 30 a3 32 2e 30"
    "cd 30 39 ce 67 8a ef 00"
)


def _row(timestamp: int) -> Record:
    snapshot = Snapshot("BTCUSDT", 7, timestamp, [("1.50", "2")], [("1.60", "3")])
    return Record("BTCUSDT", timestamp, snapshot.pack())


def test_row_63_a_range_upside_down_is_refused() -> None:
    storage = MemoryStorage()
    with pytest.raises(QueryError, match="starts 1 s after it ends"):
        rows(storage, "BTCUSDT", T + 1, T)
    with pytest.raises(QueryError, match="milliseconds"):
        rows(storage, "BTCUSDT", T, T * 1000)
    with pytest.raises(QueryError, match="is not Unix seconds"):
        coverage(storage, "BTCUSDT", -1, T)
    with pytest.raises(SymbolError):
        rows(storage, "BTC:USDT", T, T)


def test_rows_are_decoded_to_the_last_digit() -> None:
    storage = MemoryStorage()
    storage.append([Record("BTCUSDT", T, GOLDEN)])
    (row,) = rows(storage, "BTCUSDT", T, T)
    assert row.error is None
    assert row.snapshot is not None
    assert row.snapshot.symbol == "BTCUSDT"
    assert row.snapshot.bids == [("100.50", "1.5")]
    assert row.snapshot.asks == [("100.60", "2.0")]
    assert row.snapshot.update_id == 12345
    assert row.snapshot.pack() == GOLDEN


def test_row_50_what_cannot_be_decoded_is_an_explicit_entry() -> None:
    """Row 50: damaged values are told, not left out, and the rest comes all the same."""
    storage = MemoryStorage()
    values = [GOLDEN, b"", b"\xff" * 20, GOLDEN[:-3], b"\x80", _row(T).value, GOLDEN + b"x"]
    storage.append([Record("BTCUSDT", T + n, value) for n, value in enumerate(values)])
    found = list(rows(storage, "BTCUSDT", T, T + 60))
    assert [row.timestamp for row in found] == [T + n for n in range(len(values))]
    assert [row.error is None for row in found] == [True] + [False] * 6
    assert all((row.snapshot is None) != (row.error is None) for row in found)
    assert f"of second {T}, its key of {T + 5}" in str(found[5].error)


def test_an_unreadable_part_ends_with_its_error() -> None:
    """Row 46: rows and coverage never give a short answer."""

    class Broken(MemoryStorage):
        def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
            yield _row(T)
            raise StoreCorrupt("block 3 is damaged")

    found = rows(Broken(), "BTCUSDT", T, T + 5)
    assert next(found).timestamp == T
    with pytest.raises(StoreCorrupt):
        next(found)
    with pytest.raises(StoreCorrupt):
        coverage(Broken(), "BTCUSDT", T, T + 5)


def test_closing_the_rows_closes_the_scan() -> None:
    closed = []

    class Watched(MemoryStorage):
        def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
            try:
                yield from super().scan(symbol, start, end)
            finally:
                closed.append(symbol)

    storage = Watched()
    storage.append([_row(T), _row(T + 1)])
    found = rows(storage, "BTCUSDT", T, T + 5)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert closed == ["BTCUSDT"]


def test_coverage_tells_stored_missing_and_unexplained() -> None:
    storage = MemoryStorage()
    storage.append([_row(T + n) for n in (0, 1, 2, 6, 7, 15)])
    gaps = [
        Gap("BTCUSDT", T - 10, T - 1, GapReason.PROCESS_DOWN),
        Gap("BTCUSDT", T + 3, T + 4, GapReason.DISK),
        Gap("BTCUSDT", T + 8, T + 30, GapReason.SILENT),
    ]
    storage.append_gaps(gaps)
    answer = coverage(storage, "BTCUSDT", T, T + 19)
    assert answer == Coverage(
        "BTCUSDT",
        T,
        T + 19,
        6,
        (Span(T + 3, T + 5), Span(T + 8, T + 14), Span(T + 16, T + 19)),
        tuple(gaps[1:]),
        (Span(T + 5, T + 5),),
    )
    assert (answer.expected, answer.missing_seconds, answer.unexplained_seconds) == (20, 14, 1)


def test_coverage_of_nothing_and_of_everything() -> None:
    storage = MemoryStorage()
    nothing = coverage(storage, "BTCUSDT", T, T + 9)
    assert nothing.missing == nothing.unexplained == (Span(T, T + 9),)
    storage.append([_row(T + n) for n in range(10)])
    everything = coverage(storage, "BTCUSDT", T, T + 9)
    assert (everything.stored, everything.missing, everything.unexplained) == (10, (), ())


def test_coverage_agrees_with_sets_of_seconds() -> None:
    """Any mixture of rows and overlapping gaps, against plain sets."""
    draw = random.Random(20250118)
    reasons = list(GapReason)
    for _ in range(300):
        storage = MemoryStorage()
        stored = {T + n for n in range(60) if draw.random() < draw.choice([0.1, 0.5, 0.9])}
        storage.append([Record("BTCUSDT", second, b"") for second in stored])
        told: set[int] = set()
        for _ in range(draw.randrange(6)):
            start = T + draw.randrange(-10, 65)
            end = start + draw.randrange(25)
            storage.append_gaps([Gap("BTCUSDT", start, end, draw.choice(reasons))])
            told.update(range(start, end + 1))
        first = T + draw.randrange(30)
        last = first + draw.randrange(30)
        answer = coverage(storage, "BTCUSDT", first, last)
        window = set(range(first, last + 1))
        assert _seconds(answer.missing) == window - stored
        assert _seconds(answer.unexplained) == window - stored - told
        assert answer.stored == len(window & stored)


def _seconds(spans: tuple[Span, ...]) -> set[int]:
    seconds = [second for span in spans for second in range(span.start, span.end + 1)]
    assert seconds == sorted(set(seconds))
    return set(seconds)


def test_rows_bear_the_trust_that_their_marks_tell() -> None:
    storage = MemoryStorage()
    storage.append([_row(T + n) for n in (0, 1, 2, 5, 6)])
    storage.append_marks(
        [
            Mark("BTCUSDT", T - 9, T + 1, MarkKind.UNCERTAIN),
            Mark("BTCUSDT", T + 1, T + 5, MarkKind.EPOCH),
            Mark("BTCUSDT", T + 3, T + 4, MarkKind.STALE),
            Mark("BTCUSDT", T + 6, T + 9, MarkKind.RELIVED),
        ]
    )
    uncertain, epoch = Trust.UNCERTAIN, Trust.EPOCH
    told = [uncertain, uncertain | epoch, epoch, epoch, Trust.RELIVED]
    assert [row.trust for row in rows(storage, "BTCUSDT", T, T + 60)] == told
    assert [row.trust for row in rows(storage, "BTCUSDT", T + 2, T + 5)] == told[2:4]
    newest = latest(storage, "BTCUSDT")
    assert newest is not None
    assert (newest.timestamp, newest.trust) == (T + 6, Trust.RELIVED)
    assert latest(storage, "ETHUSDT") is None
    texts = [str(each) for each in (Trust.LIVE, epoch, uncertain | epoch)]
    assert texts == ["live", "epoch", "uncertain+epoch"]


def test_trust_tells_of_every_kind_of_mark() -> None:
    for kind in MarkKind:
        (trust,) = judge([T], [Mark("A", T, T, kind)])
        assert trust.names == [str(kind)]
    assert judge([T, T + 1], []) == [Trust.LIVE, Trust.LIVE]


def test_batches_come_from_the_faster_way_where_there_is_one() -> None:
    class Batched(MemoryStorage):
        def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
            raise AssertionError("the slower way")

        def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
            yield RowBatch(range(T, T + 2), [_row(T).value, _row(T + 1).value])
            yield RowBatch([T + 4], [_row(T + 4).value])

    found = list(rows(Batched(), "BTCUSDT", T, T + 9))
    assert [row.timestamp for row in found] == [T, T + 1, T + 4]
    assert all(row.error is None for row in found)
    assert coverage(Batched(), "BTCUSDT", T, T + 4).missing == (Span(T + 2, T + 3),)


def test_batches_of_a_plain_scan_are_all_of_it() -> None:
    storage = MemoryStorage()
    for count in (0, 1, 511, 512, 513, 1024, 1500):
        storage.append([Record("BTCUSDT", T + n, b"%d" % n) for n in range(count)])
        found = list(batches(storage, "BTCUSDT", T, T + 9999))
        assert all(batch.timestamps for batch in found)
        assert [second for batch in found for second in batch.timestamps] == [
            T + n for n in range(count)
        ]
        assert [value for batch in found for value in batch.values] == [
            b"%d" % n for n in range(count)
        ]


def test_coverage_counts_the_seconds_of_each_cause() -> None:
    storage = MemoryStorage()
    gaps = [(-5, 1, GapReason.DISK), (2, 3, GapReason.SILENT), (8, 99, GapReason.SILENT)]
    storage.append_gaps([Gap("BTCUSDT", T + a, T + b, reason) for a, b, reason in gaps])
    storage.append([_row(T + n) for n in range(4, 8)])
    answer = coverage(storage, "BTCUSDT", T, T + 9)
    assert answer.causes == {GapReason.SILENT: 4, GapReason.DISK: 2}


def test_a_symbol_that_is_not_stored_is_named_with_what_comes_close() -> None:
    storage = MemoryStorage()
    with pytest.raises(UnknownSymbol, match="stored: nothing"):
        check_stored(storage, "BTCUSDT")
    storage.append([_row(T)])
    check_stored(storage, "BTCUSDT")
    with pytest.raises(UnknownSymbol, match="did you mean BTCUSDT") as caught:
        check_stored(storage, "btcusd")
    assert (caught.value.symbol, caught.value.stored) == ("btcusd", ("BTCUSDT",))
