"""Times and ranges as people type them."""

from __future__ import annotations

import pytest

from obframe import QueryError
from obframe.times import parse_range, parse_time

NOW = 1_737_158_400.75  # 2025-01-18T00:00:00.75Z
T = 1_737_158_400


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


def test_row_63_a_range_that_ends_before_it_starts_is_refused() -> None:
    assert parse_range("-1h", "now", NOW) == (T - 3600, T)
    with pytest.raises(QueryError, match="starts 3600 s after it ends"):
        parse_range("now", "-1h", NOW)
