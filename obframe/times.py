"""Times and ranges as people type them, and which of them can be asked for."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

from obframe.errors import QueryError
from obframe.settings import Duration
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, check_symbol

_RELATIVE = re.compile(r"([+-])(\d[^:-]*[a-z])")
_DAYS_AT_MOST: Final = 36_600
TIMES: Final = "give Unix seconds, 2025-01-18T00:00:00Z, or -30m, -1h30m, -7d, now"
"""What can be given for a time."""


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
            raise QueryError("time", text, f"is no time; {TIMES}") from error
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
        raise QueryError("time", text, f"is no time; {TIMES}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    second = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1)
    check_second("time", second)
    return second


def parse_range(start: str | None, end: str | None, now: float) -> tuple[int, int]:
    """Read the two ends of a range as people type them; one that is left out is open.

    Raises:
        QueryError: One is no time, or ``start`` lies after ``end``.
    """
    first = MIN_TIMESTAMP if start is None else parse_time(start, now)
    last = MAX_TIMESTAMP if end is None else parse_time(end, now)
    if first > last:
        raise QueryError(
            "range", f"{start} .. {end}", f"starts {first - last} s after it ends; exchange the two"
        )
    return first, last
