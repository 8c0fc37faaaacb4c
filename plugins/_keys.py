"""The keys of rows, ``symbol:seconds``, and finding out by seeks which symbols have some."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from obframe import MAX_TIMESTAMP, SymbolError, check_symbol
from obframe_plugins._rocks import RowDatabase

_KEY = re.compile(rb"([^:]+):([1-9]\d{9})")


def row_key(symbol: str, timestamp: int) -> bytes:
    """Return the stored key of a row."""
    return b"%s:%010d" % (symbol.encode(), timestamp)


def parse_key(key: bytes) -> tuple[str, int] | None:
    """Return symbol and second of a row's key, None for a key that is no row's."""
    match = _KEY.fullmatch(key)
    if match is not None:
        with contextlib.suppress(UnicodeDecodeError, SymbolError):
            return check_symbol(match[1].decode()), int(match[2])
    return None


@dataclass(slots=True)
class Strays:
    """Keys that were met and are no row's.

    Attributes:
        count: How many.
        first: The first of them, empty when there is none.
    """

    count: int = 0
    first: bytes = b""

    def add(self, key: bytes) -> None:
        """Count one more."""
        self.first = self.first or key
        self.count += 1


@dataclass(slots=True)
class Holding:
    """What a database holds.

    Attributes:
        symbols: The second of the first row of each symbol, in the order of the keys.
        strays: Keys outside the format that lie before, between or after the symbols' rows.
    """

    symbols: dict[str, int] = field(default_factory=dict)
    strays: Strays = field(default_factory=Strays)


def find_symbols(database: RowDatabase, *, limit: int | None = None) -> Holding:
    """Find the symbols, at the cost of two seeks for each and of one for each stray key.

    Args:
        database: Where to look.
        limit: Stop after this many symbols; None: find all.
    """
    holding = Holding()

    def visit(key: bytes) -> bytes | None:
        row = parse_key(key)
        if row is None:
            holding.strays.add(key)
            return key + b"\0"
        symbol, second = row
        holding.symbols[symbol] = second
        if len(holding.symbols) == limit:
            return None
        return symbol.encode() + b"::"  # ':' is the character after '9'

    database.walk(visit)
    return holding


def newest_row(database: RowDatabase, symbol: str, strays: Strays) -> tuple[int, bytes] | None:
    """Return second and value of the newest row of a symbol, counting the strays after it."""
    bound = row_key(symbol, MAX_TIMESTAMP)
    prefix = bound[:-10]

    def wanted(key: bytes) -> bool:
        if not key.startswith(prefix) or parse_key(key) is not None:
            return True
        strays.add(key)
        return False

    found = database.last_until(bound, wanted)
    # The last key before may be another symbol's.
    if found is None or not found[0].startswith(prefix):
        return None
    return int(found[0][-10:]), found[1]
