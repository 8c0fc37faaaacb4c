"""Writes tables line by line, as rows come: nothing is held back but the first few hundred rows.

A number, a time or an id is never cut; a line may overflow the terminal instead. Only prose, the
last column, gives way to a narrow terminal.
"""

from __future__ import annotations

import itertools
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

_SAMPLE = 256
"""Rows that decide how the columns are laid out."""

_ROOM = 24
"""Characters that prose needs beside the other columns; with less it gets a line of its own."""

_BETWEEN = "  "
_INDENT = "    "

PROSE = frozenset({"detail", "summary", "what happens", "why"})
"""Headings of columns of prose. Such a column stands last."""


def terminal_width() -> int | None:
    """Return the width to write for: ``COLUMNS``, else the terminal's, else None for no bound."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):  # no terminal, or no file behind it
        return None


def write_table(
    write: Callable[[str], object],
    columns: Sequence[str],
    rows: Iterable[Sequence[object] | None],
    *,
    flush: Callable[[], object] = lambda: None,
    title: str = "",
    width: int | None = None,
) -> None:
    """Write a table; without rows nothing.

    Args:
        write: Takes the text, line by line.
        columns: Headings; those in ``PROSE`` may be shortened.
        rows: The cells of each row, as many as columns. None: more may be long in coming, so what
            came is written and flushed.
        flush: Hands on what was written.
        title: Stands over the table.
        width: Characters of a line; None: nothing is shortened.
    """
    coming = iter(rows)
    sample: list[Sequence[object]] = []
    for row in coming:
        if row is not None:
            sample.append(row)
        if len(sample) == _SAMPLE or (row is None and sample):
            break
    if not sample:
        return
    layout = _Layout(columns, sample, width)
    if title:
        write(clean(title) + "\n")
    for line in layout.head():
        write(line + "\n")
    for row in itertools.chain(sample, [None], coming):
        if row is None:
            flush()
        else:
            write(layout.line(row))


class _Layout:
    """Where each column of a table stands. A value wider than its column widens what follows."""

    def __init__(
        self, columns: Sequence[str], sample: Sequence[Sequence[object]], width: int | None
    ) -> None:
        self._columns = columns
        across = [[_text(cell) for cell in cells] for cells in zip(*sample, strict=True)]
        self._numeric = [
            any(cells) and all(not cell or is_number(cell) for cell in cells) for cells in across
        ]
        self._spare = [
            _spare(cells) if numeric else 0
            for cells, numeric in zip(across, self._numeric, strict=True)
        ]
        self._trimmed = [
            (index, spare, "0" * spare) for index, spare in enumerate(self._spare) if spare
        ]
        self._template: str | None = None
        self._length = 0
        has_prose = columns[-1] in PROSE
        self._plain = len(columns) - has_prose
        self._widths = [
            max(len(column), *(width_of(self._trim(index, cell)) for cell in cells))
            for index, (column, cells) in enumerate(
                zip(columns[: self._plain], across, strict=False)
            )
        ]
        self._width = width
        used = sum(self._widths) + len(_BETWEEN) * self._plain
        longest = max(map(width_of, across[-1]))
        self._own_line = has_prose and width is not None and width - used < min(longest, _ROOM)

    def head(self) -> Iterator[str]:
        yield from self._lines(self._columns)
        prose = 0 if self._own_line or self._plain == len(self._columns) else 1
        shown = self._widths + [len(self._columns[-1])] * prose
        yield _BETWEEN.join("─" * each for each in shown)

    def line(self, row: Sequence[object]) -> str:
        if self._plain == len(row):
            line = self._usual_line(row)
            if line is not None:
                return line
        cells = [self._trim(index, _text(cell)) for index, cell in enumerate(row)]
        return "\n".join(self._lines(cells)) + "\n"

    def _usual_line(self, row: Sequence[object]) -> str | None:
        """Make the line of a row that needs no widening and no escaping; else None. Quick."""
        cells = list(row)
        for index, spare, zeros in self._trimmed:
            cell = cells[index]
            if not (type(cell) is str and cell.endswith(zeros)):
                return None
            cells[index] = cell[:-spare].removesuffix(".")
        if self._template is None:
            self._template = _BETWEEN.join(
                f"{{!s:{'>' if numeric else '<'}{width}}}"
                for numeric, width in zip(self._numeric, self._widths, strict=True)
            )
            self._length = sum(self._widths) + len(_BETWEEN) * (self._plain - 1)
        line = self._template.format(*cells)
        if len(line) == self._length and line.isascii() and line.isprintable():
            return line.rstrip() + "\n"
        return None

    def _lines(self, cells: Sequence[str]) -> Iterator[str]:
        parts = []
        widths = self._widths
        for index in range(self._plain):
            cell = cells[index]
            size = width_of(cell)
            if size > widths[index]:
                widths[index] = size
                self._template = None
            pad = " " * (widths[index] - size)
            parts.append(pad + cell if self._numeric[index] else cell + pad)
        line = _BETWEEN.join(parts)
        if self._plain == len(cells):
            yield line.rstrip()
            return
        prose = cells[-1]
        if self._own_line:
            yield line.rstrip()
            if prose:
                yield _INDENT + self._fit(prose, len(_INDENT))
        else:
            yield (line + _BETWEEN + self._fit(prose, width_of(line) + len(_BETWEEN))).rstrip()

    def _fit(self, prose: str, used: int) -> str:
        return prose if self._width is None else shorten(prose, max(self._width - used, 1))

    def _trim(self, index: int, cell: str) -> str:
        """Drop the zeros that every number of the column ends in; none that tells a digit."""
        spare = self._spare[index]
        if not spare or "." not in cell:
            return cell
        zeros = min(spare, len(cell) - len(cell.rstrip("0")))
        return cell[: len(cell) - zeros].removesuffix(".")


def _text(cell: object) -> str:
    text = cell if type(cell) is str else str(cell)
    return text if text.isprintable() else clean(text)


def clean(text: str) -> str:
    """Escape control characters, so that a text stays one line and moves no cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def is_number(cell: str) -> bool:
    """Tell whether a text is a plain decimal number."""
    return cell.isascii() and cell.removeprefix("-").replace(".", "", 1).isdecimal()


def _spare(numbers: Sequence[str]) -> int:
    """Count the trailing zeros that all decimals of a column share."""
    decimals = [number.partition(".")[2] for number in numbers if number]
    return min((len(each) - len(each.rstrip("0")) for each in decimals), default=0)


def width_of(text: str) -> int:
    """Return the columns that a text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_width_of_one, text))


def _width_of_one(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """Cut a text to a width, the last character then being an ellipsis."""
    if width_of(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += _width_of_one(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"
