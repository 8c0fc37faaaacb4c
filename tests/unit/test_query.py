"""Times as people type them, rows with their errors, and what coverage tells."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from obframe import Gap, GapReason, QueryError, Record, Snapshot, StoreCorrupt, SymbolError
from obframe.query import Coverage, Span, coverage, rows
from obframe.times import parse_range, parse_time
from obframe_plugins.memory import MemoryStorage

NOW = 1_737_158_400.75  # 2025-01-18T00:00:00.75Z
T = 1_737_158_400
GOLDEN = bytes.fromhex(
    "94 91 92 a6 31 30 30 2e 35 30 a3 31 2e 35 91 92 a6 31 30 30 2e 36 30 a3 32 2e 30"
    "cd 30 39 ce 67 8a ef 00"
)


def _row(timestamp: int) -> Record:
    snapshot = Snapshot("BTCUSDT", 7, timestamp, [("1.50", "2")], [("1.60", "3")])
    return Record("BTCUSDT", timestamp, snapshot.pack())


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("now", T),
        (" now ", T),
        ("1737158400", 1_737_158_400),
        ("2025-01-18", T),
        ("2025-01-18T00:00:00Z", T),
        ("2025-01-18T00:00:00.999Z", T),
        ("2025-01-18 00:00:10", T + 10),
        ("2025-01-18T02:00:00+02:00", T),
        ("2025-01-17T19:00:00-05:00", T),
        ("2027-01-15T08:00:00", 1_800_000_000),
        ("-1h", T - 3600),
        ("-30m", T - 1800),
        ("-45s", T - 45),
        ("-7d", T - 604_800),
        ("-2w", T - 1_209_600),
        ("-1h30m", T - 5400),
        ("-1.5h", T - 5400),
        ("+1d2h3m4s", T + 93_784),
        ("+5m", T + 300),
    ],
)
def test_parse_time(text: str, second: int) -> None:
    assert parse_time(text, NOW) == second


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1737158400000", "looks like milliseconds; give Unix seconds, 1737158400"),
        ("1737158400000000", "looks like microseconds; give Unix seconds, 1737158400"),
        ("1737158400000000000", "looks like nanoseconds"),
        ("-5", "is not Unix seconds"),
        ("0", "is not Unix seconds"),
        ("9" * 40, "is not Unix seconds"),
        ("", "is no time"),
        ("yesterday", "is no time"),
        ("1h", "is no time"),
        ("- 1h", "is no time"),
        ("-1y", "is no time"),
        ("-1h30", "is no time"),
        ("-1h 30m", "is no time"),
        ("2025-13-01", "is no time"),
        ("１７３７１５８４００", "is no time"),
        ("-999999999999d", "hundred years"),
        ("-60000d", "hundred years"),
        ("1970-01-01", "is not Unix seconds"),
        ("2300-01-01", "is not Unix seconds"),
    ],
)
def test_row_63_what_is_no_time_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(QueryError, match=hint) as caught:
        parse_time(text, NOW)
    assert isinstance(caught.value, ValueError)
    assert caught.value.what == "time"
    assert caught.value.value == text[:80] or hint.startswith(("looks", "is not Unix"))


def test_row_63_a_range_upside_down_is_refused() -> None:
    assert parse_range("-1h", "now", NOW) == (T - 3600, T)
    with pytest.raises(QueryError, match="starts 3600 s after it ends"):
        parse_range("now", "-1h", NOW)
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
