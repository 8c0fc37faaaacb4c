"""Writes rows of a result to standard output: a table for people, the rest for machines."""

from __future__ import annotations

import csv
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from obframe.commands.table import terminal_width, write_table
from obframe.errors import ObframeError

T = TypeVar("T")

BROKEN_PIPE = 141
"""Exit code when the reader of standard output went away, as the shell tells of SIGPIPE."""

_PATIENCE = 1.0
"""Seconds without a sign of life before progress is shown."""


class OutputError(ObframeError):
    """Standard output does not take what is written to it."""


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class _Output:
    """Standard output, with an end of its own for each way in which it can fail."""

    def write(self, text: str) -> None:
        """Write text.

        Raises:
            OutputError: It cannot be written.
            SystemExit: Its reader went away; that needs no words.
        """
        if sys.stdout is None:
            raise OutputError("standard output is closed: nothing can be printed")
        try:
            sys.stdout.write(text)
        except OSError as error:
            _give_up(error)

    def flush(self) -> None:
        """Hand on what is written so far; raises as ``write``."""
        if sys.stdout is None:
            return
        try:
            sys.stdout.flush()
        except OSError as error:
            _give_up(error)


_OUTPUT = _Output()


def _give_up(error: OSError) -> NoReturn:
    # The interpreter flushes standard output once more at exit: give it a place to write to.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        raise SystemExit(BROKEN_PIPE) from None
    raise OutputError(f"standard output: {error.strerror or error}") from error


def flush() -> None:
    """Hand on what was written to standard output so far.

    Raises:
        OutputError: It cannot be written.
    """
    _OUTPUT.flush()


def say(text: str = "", end: str = "\n") -> None:
    """Write a text to standard output at once.

    Raises:
        OutputError: It cannot be written.
    """
    _OUTPUT.write(text + end)
    _OUTPUT.flush()


def write(
    output: Format,
    rows: Iterable[T | None],
    *,
    columns: Sequence[str],
    cells: Callable[[T], Sequence[object]],
    value: Callable[[T], dict[str, Any]],
    title: str = "",
) -> None:
    """Print rows as they come.

    Args:
        output: The format.
        rows: What to print. None: more may be long in coming, so what came is handed on.
        columns: Headings of table and CSV.
        cells: Gives a row's cells for table and CSV.
        value: Gives a row's object for JSON.
        title: Stands over the table.

    Raises:
        OutputError: Standard output does not take it.
    """
    match output:
        case Format.TABLE:
            lines = (None if row is None else cells(row) for row in rows)
            write_table(
                _OUTPUT.write,
                columns,
                lines,
                flush=_OUTPUT.flush,
                title=title,
                width=terminal_width(),
            )
        case Format.CSV:
            writer = csv.writer(_OUTPUT, lineterminator="\n")
            writer.writerow(columns)
            for row in rows:
                if row is None:
                    _OUTPUT.flush()
                else:
                    writer.writerow(cells(row))
        case Format.JSONL:
            _write_json(rows, value, "", "", "")
        case Format.JSON:
            _write_json(rows, value, "[", ",", "]\n")
    flush()


def _write_json(
    rows: Iterable[T | None],
    value: Callable[[T], dict[str, Any]],
    head: str,
    between: str,
    tail: str,
) -> None:
    # Every row ends its line at once: a note may come next on the same terminal.
    encode = msgspec.json.Encoder().encode
    lead = head
    for row in rows:
        if row is None:
            _OUTPUT.flush()
            continue
        _OUTPUT.write(f"{lead}{encode(value(row)).decode()}\n")
        lead = between
    _OUTPUT.write(tail if lead == between else head + tail)


def program_name() -> str:
    """Return how this program is called from anywhere."""
    script = Path(sys.executable).with_name("obframe")
    if str(script.parent) in os.get_exec_path():
        return "obframe"
    if script.exists():
        return shlex.quote(str(script))
    return f"{shlex.quote(sys.executable)} -m obframe"


def note(text: str) -> None:
    """Tell something beside the result, on standard error, after what was printed before it."""
    flush()
    print(f"obframe: {text}", file=sys.stderr)


def counted(rows: Iterable[T], what: str) -> Iterator[T]:
    """Pass rows on; when they go into a file, show on the terminal how many came."""
    if not sys.stderr.isatty() or (sys.stdout is not None and sys.stdout.isatty()):
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
    day, rest = divmod(int(second), 86_400)
    return f"{_date(day)} {_time(rest)}"


def utc_after(second: float, before: float) -> str:
    """Write a Unix second as time in UTC, with the date only when it is not that of ``before``."""
    day, rest = divmod(int(second), 86_400)
    return _time(rest) if day == int(before) // 86_400 else f"{_date(day)} {_time(rest)}"


@lru_cache(16)
def _date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def _time(second: int) -> str:
    minute, second = divmod(second, 60)
    return f"{minute // 60:02}:{minute % 60:02}:{second:02}"
