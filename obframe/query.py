"""Windows over a ``Storage``: rows, coverage and the times that people type."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from obframe._core import Snapshot
from obframe.errors import DecodeError, QueryError
from obframe.protocols import Storage
from obframe.settings import Duration
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Gap, Record, check_symbol

_RELATIVE = re.compile(r"([+-])(\d[^:-]*[a-z])")
_DAYS_AT_MOST: Final = 36_600
_TIMES: Final = "give Unix seconds, 2025-01-18T00:00:00Z, or -30m, -1h30m, -7d, now"


class Row(NamedTuple):
    """One stored row; either ``snapshot`` or ``error`` is there, never both.

    Attributes:
        symbol: The instrument's symbol.
        timestamp: Unix seconds, from the key.
        snapshot: The book at that second.
        error: Why the stored value is not a row that can be trusted.
    """

    symbol: str
    timestamp: int
    snapshot: Snapshot | None
    error: DecodeError | None


def decode(record: Record) -> Row:
    """Decode one stored record; what cannot be decoded becomes an explicit error."""
    symbol, timestamp, value = record
    try:
        snapshot = Snapshot.unpack(value, symbol)
    except DecodeError as error:
        return Row(symbol, timestamp, None, error)
    if snapshot.timestamp != timestamp:
        reason = f"the value is of second {snapshot.timestamp}, its key of {timestamp}"
        return Row(symbol, timestamp, None, DecodeError(reason))
    return Row(symbol, timestamp, snapshot, None)


def rows(storage: Storage, symbol: str, start: int, end: int) -> Iterator[Row]:
    """Iterate over the rows of ``start <= timestamp <= end``, oldest first.

    A value that cannot be decoded is a ``Row`` with its error: nothing is left out in silence.
    Close the iterator or exhaust it to release what the storage holds for it.

    Raises:
        QueryError: The range is upside down or not of this world.
        StorageError: A part cannot be read.
    """
    check_range(symbol, start, end)
    return _decoded(storage.scan(symbol, start, end))


def _decoded(records: Iterator[Record]) -> Iterator[Row]:
    try:
        for record in records:
            yield decode(record)
    finally:
        _close(records)


def _close(records: Iterator[Record]) -> None:
    close = getattr(records, "close", None)
    if close is not None:
        close()


def start_of_last(storage: Storage, symbol: str, start: int, end: int, count: int) -> int:
    """Return the second from which ``start..end`` holds its last ``count`` rows.

    Goes back from ``end`` in growing steps: it reads little more than those rows.

    Returns:
        The second of the first of those rows; ``start`` when there are fewer.

    Raises:
        QueryError: The range is upside down or not of this world.
        StorageError: A part cannot be read.
    """
    check_range(symbol, start, end)
    missing, step, last = count, count, end
    while last >= start:
        first = max(last - step + 1, start)
        records = storage.scan(symbol, first, last)
        try:
            seconds = deque((record.timestamp for record in records), maxlen=missing)
        finally:
            _close(records)
        missing -= len(seconds)
        if not missing:
            return seconds[0]
        last, step = first - 1, step * 2
    return start


def check_range(symbol: str, start: int, end: int) -> None:
    """Raise unless the range can be asked for.

    Raises:
        SymbolError: The symbol cannot be part of a key.
        QueryError: ``start`` lies after ``end``, or a bound is not Unix seconds.
    """
    check_symbol(symbol)
    check_second("start", start)
    check_second("end", end)
    if start > end:
        raise QueryError(
            "range",
            f"{start}..{end}",
            f"starts {start - end} s after it ends; exchange the two",
        )


def check_second(what: str, second: int) -> None:
    """Raise unless ``second`` is Unix seconds of ten digits.

    Raises:
        QueryError: It is not; the message says when it looks like milliseconds.
    """
    if MIN_TIMESTAMP <= second <= MAX_TIMESTAMP:
        return
    for factor, unit in ((10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")):
        if MIN_TIMESTAMP <= second // factor <= MAX_TIMESTAMP:
            raise QueryError(
                what, str(second), f"looks like {unit}; give Unix seconds, {second // factor}"
            )
    raise QueryError(
        what, str(second), f"is not Unix seconds between {MIN_TIMESTAMP} and {MAX_TIMESTAMP}"
    )


class Span(NamedTuple):
    """A run of seconds; both ends are inside it."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        """Number of seconds in the run."""
        return self.end - self.start + 1


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a range is stored, and why the rest is not.

    Attributes:
        symbol: The instrument's symbol.
        start: First second of the range.
        end: Last second of the range.
        stored: Seconds that have a row.
        missing: Runs without a row, oldest first.
        gaps: The recorded gaps that have a second in the range, uncut, oldest first.
        unexplained: Runs without a row of which no gap tells, oldest first.
    """

    symbol: str
    start: int
    end: int
    stored: int
    missing: tuple[Span, ...]
    gaps: tuple[Gap, ...]
    unexplained: tuple[Span, ...]

    @property
    def expected(self) -> int:
        """Seconds in the range."""
        return self.end - self.start + 1

    @property
    def missing_seconds(self) -> int:
        """Seconds without a row."""
        return self.expected - self.stored

    @property
    def unexplained_seconds(self) -> int:
        """Seconds without a row of which no gap tells."""
        return sum(span.seconds for span in self.unexplained)


def coverage(storage: Storage, symbol: str, start: int, end: int) -> Coverage:
    """Tell which seconds of ``start..end`` are stored, and which of the rest no gap explains.

    Raises:
        QueryError: The range is upside down or not of this world.
        StorageError: A part cannot be read.
    """
    check_range(symbol, start, end)
    missing: list[Span] = []
    stored = 0
    expected = start
    records = storage.scan(symbol, start, end)
    try:
        for _, second, _ in records:
            stored += 1
            if second > expected:
                missing.append(Span(expected, second - 1))
            expected = second + 1
    finally:
        _close(records)
    if expected <= end:
        missing.append(Span(expected, end))
    # After the rows: a gap that was recorded meanwhile explains what was missing before.
    gaps = storage.gaps(symbol, start, end)
    unexplained = tuple(subtract(missing, gaps))
    return Coverage(symbol, start, end, stored, tuple(missing), tuple(gaps), unexplained)


def subtract(spans: Sequence[Span], told: Sequence[Gap | Span]) -> Iterator[Span]:
    """Yield what is left of the spans without what is told of; both come oldest first."""
    index = 0
    reach = 0  # what is told overlaps: how far those that began already go
    for start, end in spans:
        first = start
        while index < len(told) and told[index].start <= end:
            run = told[index]
            if reach >= first:
                first = reach + 1
            if run.start > first:
                yield Span(first, min(run.start - 1, end))
                first = run.start
            reach = max(reach, run.end)
            index += 1
        first = max(first, reach + 1)
        if first <= end:
            yield Span(first, end)


def parse_time(text: str, now: float) -> int:
    """Read a point in time as people type it.

    Args:
        text: Unix seconds; a date or time of ISO 8601, UTC when it names no zone; ``now``; or a
            duration as in settings, with units, seen from now: ``-30s``, ``-1h30m``, ``+7d``.
        now: Unix seconds of the present.

    Returns:
        Unix seconds; fractions are cut off.

    Raises:
        QueryError: It is none of these, or out of range.
    """
    typed = text.strip()
    if typed == "now":
        return int(now)
    relative = _RELATIVE.fullmatch(typed)
    if relative is not None:
        sign, duration = relative.groups()
        try:
            distance = Duration.parse(duration)
        except ValueError as error:
            raise QueryError("time", text, f"is no time; {_TIMES}") from error
        if distance > _DAYS_AT_MOST * 86_400:
            raise QueryError("time", text, "is more than a hundred years away")
        second = math.floor(int(now) + (distance if sign == "+" else -distance))
        check_second("time", second)
        return second
    if re.fullmatch(r"[+-]?[0-9]+", typed):
        if len(typed) > 20:
            raise QueryError("time", text, "is not Unix seconds")
        second = int(typed)
        check_second("time", second)
        return second
    try:
        moment = datetime.fromisoformat(typed)
    except ValueError as error:
        raise QueryError("time", text, f"is no time; {_TIMES}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    second = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1)
    check_second("time", second)
    return second


def parse_range(start: str, end: str, now: float) -> tuple[int, int]:
    """Read the two ends of a range as people type them.

    Raises:
        QueryError: One is no time, or ``start`` lies after ``end``.
    """
    first, last = parse_time(start, now), parse_time(end, now)
    if first > last:
        raise QueryError(
            "range", f"{start} .. {end}", f"starts {first - last} s after it ends; exchange the two"
        )
    return first, last
