"""Writes rows of a result to standard output: a table for people, the rest for machines."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Literal, NoReturn, TypeVar

import msgspec

T = TypeVar("T")

BROKEN_PIPE = 141
"""Exit code when the reader of standard output went away, as the shell tells of SIGPIPE."""

_PATIENCE = 1.0
"""Seconds without a sign of life before progress is shown."""


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End without a word when the reader of standard output goes away."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _leave()


def _leave() -> NoReturn:
    # The interpreter flushes standard output once more at exit: give it a place to write to.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(BROKEN_PIPE)


def write(
    output: Format,
    rows: Iterable[T],
    *,
    columns: Sequence[str],
    cells: Callable[[T], Sequence[object]],
    value: Callable[[T], dict[str, Any]],
    title: str = "",
) -> None:
    """Print rows as they come.

    Args:
        output: The format.
        rows: What to print.
        columns: Headings of table and CSV.
        cells: Gives a row's cells for table and CSV.
        value: Gives a row's object for JSON.
        title: Stands over the table.
    """
    with quiet_pipe():
        match output:
            case Format.TABLE:
                _write_table(columns, (cells(row) for row in rows), title)
            case Format.CSV:
                writer = csv.writer(sys.stdout, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(cells(row) for row in rows)
            case Format.JSONL:
                _write_json(rows, value, "", "\n", "\n")
            case Format.JSON:
                _write_json(rows, value, "[", ",\n ", "]\n")


def _write_json(
    rows: Iterable[T], value: Callable[[T], dict[str, Any]], head: str, between: str, tail: str
) -> None:
    encode = msgspec.json.Encoder().encode
    sys.stdout.write(head)
    written = False
    for row in rows:
        if written:
            sys.stdout.write(between)
        sys.stdout.write(encode(value(row)).decode())
        written = True
    if written or head:
        sys.stdout.write(tail)


def _write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    lines = list(rows)
    if not lines:
        return
    table = Table(
        title=escape(title) or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    texts = []
    for column, cells in zip(columns, zip(*lines, strict=True), strict=True):
        numbers = all(isinstance(cell, int | float) or _is_number(cell) for cell in cells)
        texts.append(_shorten([str(cell) for cell in cells]) if numbers else list(map(str, cells)))
        justify: Literal["right", "left"] = "right" if numbers else "left"
        table.add_column(column, justify=justify, no_wrap=column not in WRAPPED, overflow="fold")
    for line in zip(*texts, strict=True):
        table.add_row(*map(escape, line))

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            _leave()

    PipeConsole().print(table)


WRAPPED = ("detail", "summary", "what happens", "why")
"""Columns of prose, which give way when the terminal is narrow."""


def _is_number(cell: object) -> bool:
    return isinstance(cell, str) and cell.replace(".", "", 1).isdecimal()


def _shorten(numbers: list[str]) -> list[str]:
    """Drop the trailing zeros that a whole column shares; digits stay aligned, none is lost."""
    decimals = [number.partition(".")[2] for number in numbers]
    if not all(decimals):
        return numbers
    spare = min(len(each) - len(each.rstrip("0")) for each in decimals)
    return [number[: len(number) - spare].removesuffix(".") for number in numbers]


def note(text: str) -> None:
    """Tell something beside the result, on standard error."""
    print(f"obframe: {text}", file=sys.stderr)


def counted(rows: Iterable[T], what: str) -> Iterator[T]:
    """Pass rows on, and show on the terminal how many came once it takes more than a second."""
    if not sys.stderr.isatty():
        yield from rows
        return
    from rich.console import Console

    begun = time.monotonic()
    with Console(stderr=True).status(f"{what} …") as status:
        status.stop()
        for count, row in enumerate(rows, 1):
            if count % 256 == 0 and time.monotonic() - begun > _PATIENCE:
                status.update(f"{what}: {count:,} rows")
                status.start()
            yield row


def utc(second: float) -> str:
    """Write a Unix second as date and time in UTC; ``--from`` and ``--to`` read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))


def utc_after(second: float, before: float) -> str:
    """Write a Unix second as time in UTC, with the date only when it is not that of ``before``."""
    text, other = utc(second), utc(before)
    return text[11:] if text[:10] == other[:10] else text
