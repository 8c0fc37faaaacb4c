"""What every storage of ours refuses before it touches anything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, Gap, Mark, Record, check_symbol

# The same few symbols come every second; only those that pass are remembered.
_check_symbol = lru_cache(4096)(check_symbol)


def check_timestamp(symbol: str, timestamp: int) -> None:
    """Raise unless the timestamp is Unix seconds of ten digits.

    Raises:
        ValueError: It is no whole number of seconds in the range that keys can hold.
    """
    if type(timestamp) is not int:
        raise ValueError(f"{symbol}: timestamp {timestamp!r} is not a whole number of Unix seconds")
    if not MIN_TIMESTAMP <= timestamp <= MAX_TIMESTAMP:
        hint = (
            "; these look like milliseconds"
            if MIN_TIMESTAMP * 1000 <= timestamp <= MAX_TIMESTAMP * 1000
            else ""
        )
        raise ValueError(
            f"{symbol}: timestamp {timestamp} is not Unix seconds of ten digits "
            f"({MIN_TIMESTAMP} to {MAX_TIMESTAMP}){hint}"
        )


def check_records(records: Sequence[Record]) -> None:
    """Raise unless every record can be stored.

    Raises:
        SymbolError: A symbol cannot be part of a key.
        ValueError: A timestamp is not Unix seconds of ten digits.
        TypeError: A value is not bytes.
    """
    for symbol, timestamp, value in records:
        _check_symbol(symbol)
        check_timestamp(symbol, timestamp)
        if type(value) is not bytes:
            raise TypeError(f"{symbol}:{timestamp}: value is {type(value).__name__}, not bytes")


def check_runs(runs: Sequence[Gap] | Sequence[Mark]) -> None:
    """Raise unless every gap or mark names a run of seconds that can be stored.

    Raises:
        SymbolError: A symbol cannot be part of a key.
        ValueError: A bound is not Unix seconds of ten digits, or the run ends before it starts.
    """
    for run in runs:
        check_symbol(run.symbol)
        check_timestamp(run.symbol, run.start)
        check_timestamp(run.symbol, run.end)
        if run.end < run.start:
            raise ValueError(f"{run.symbol}: run {run.start}..{run.end} ends before it starts")


def clamp(timestamp: int) -> int:
    """Return the nearest second that keys can hold."""
    return min(max(timestamp, MIN_TIMESTAMP), MAX_TIMESTAMP)
