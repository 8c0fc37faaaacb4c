"""Tables: nothing but prose is cut, rows come out as they come in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest

from obframe.commands.table import shorten, width_of, write_table

GAPS = ("from (UTC)", "seconds", "reason", "detail")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None
) -> list[str]:
    written: list[str] = []
    write_table(written.append, columns, rows, width=width)
    return "".join(written).splitlines()


@pytest.mark.parametrize("width", [None, 1, 10, 40, 80])
def test_numbers_times_and_ids_are_whole_at_every_width(width: int | None) -> None:
    rows = [("2025-01-18 17:20:19", 10_000_000_001, "60000.04", "SHIB1000USDT")]
    (_, _, line) = table(("time", "update id", "bid", "symbol"), rows, width)
    assert line.split("  ") == ["2025-01-18 17:20:19", "10000000001", "60000.04", "SHIB1000USDT"]


def test_zeros_that_a_column_shares_are_dropped_and_no_digit_is() -> None:
    first = [("1.500", 7)] * 300
    lines = table(("bid", "n"), [*first, ("1.504", 7), ("2.0", 7), ("", 7), ("12.250", 7)])
    told = [line.split()[0] for line in lines[2:]]
    assert told[:300] == ["1.5"] * 300
    assert told[300:] == ["1.504", "2", "7", "12.25"]
    assert [line.split()[0] for line in table(("bid", "n"), [("100", 1), ("20", 1)])[2:]] == [
        "100",
        "20",
    ]


def test_a_later_row_that_is_wider_widens_the_column() -> None:
    rows = [("AA", 1)] * 300 + [("LONGER", 1_000_000), ("AA", 1)]
    lines = table(("symbol", "n"), rows)
    assert lines[300] == "AA      1"
    assert lines[302:] == ["LONGER  1000000", "AA            1"]


def test_prose_is_shortened_to_the_room_there_is() -> None:
    rows = [("2025-01-18 00:00:04", 2, "sequence", "word " * 40)]
    (_, _, line) = table(GAPS, rows, 80)
    assert len(line) <= 80
    assert line.startswith("2025-01-18 00:00:04        2  sequence  word word")
    assert line.endswith("…")
    assert table(GAPS, rows, None)[2].endswith(("word " * 40).strip())


def test_prose_without_room_stands_on_a_line_of_its_own() -> None:
    rows = [("2025-01-18 00:00:04", 2, "sequence", "word " * 40), ("2025-01-18", 1, "disk", "")]
    lines = table(GAPS, rows, 50)
    assert lines[1] == "    detail"
    assert lines[3] == "2025-01-18 00:00:04        2  sequence"
    assert lines[4].startswith("    word word")
    assert lines[4].endswith("…")
    assert len(lines[4]) <= 50
    assert lines[5:] == ["2025-01-18                 1  disk"]


def test_only_a_few_hundred_rows_are_held() -> None:
    taken = 0
    ahead = 0

    def rows() -> Iterator[tuple[int]]:
        nonlocal taken
        for taken in range(1, 5001):
            yield (taken,)

    written = itertools.count()

    def take(text: str) -> None:
        nonlocal ahead
        ahead = max(ahead, taken - next(written))

    write_table(take, ("n",), rows())
    assert next(written) == 5002
    assert ahead <= 300


def test_without_rows_there_is_no_table() -> None:
    assert table(("a", "b"), []) == []


def test_control_characters_stay_on_their_line() -> None:
    (_, _, line) = table(("symbol", "detail"), [("A\x1b[2J", "one\ntwo\x07")])
    assert line == r"A\x1b[2J  one\ntwo\x07"


def test_wide_characters_keep_the_columns() -> None:
    lines = table(("symbol", "n"), [("币安", 1), ("AAAAAA", 22), ("e\u0301", 3)])
    assert len({width_of(line) for line in lines[2:]}) == 1
    assert shorten("币安人生", 5) == "币安…"
    assert shorten("币安", 4) == "币安"
