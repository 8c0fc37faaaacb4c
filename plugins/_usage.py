"""What a store takes up on the disk, and whose it is."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Final

from obframe import Usage
from obframe_plugins._keys import find_symbols, newest_row, parse_key
from obframe_plugins._layout import Layout
from obframe_plugins._rocks import RowDatabase

_ROW_BYTES: Final = 250
"""About what a row takes up, as long as no file of rows tells."""


def reckon_usage(layout: Layout, database: RowDatabase) -> Usage:
    """Return what a store takes up, by looking at its files and the ends of each symbol's rows.

    A file that holds rows of several symbols is shared out by how many seconds of each it can hold.
    """
    spans: dict[str, tuple[int, int]] = {}
    holding = find_symbols(database)
    for symbol, oldest in holding.symbols.items():
        newest = newest_row(database, symbol, holding.strays)
        spans[symbol] = (oldest, newest[0] if newest is not None else oldest)
    keys = {symbol: symbol.encode() + b":" for symbol in spans}  # their order is that of the rows
    shares: Counter[str] = Counter()
    rows = 0
    for file in database.files():
        rows += file.rows
        first, last = parse_key(file.first), parse_key(file.last)
        if first is None or last is None:
            continue
        begin, beyond = first[0].encode() + b":", last[0].encode() + b":"
        weights = {}
        for symbol, (start, end) in spans.items():
            if not begin <= keys[symbol] <= beyond:
                continue
            begins = max(start, first[1]) if symbol == first[0] else start
            ends = min(end, last[1]) if symbol == last[0] else end
            weights[symbol] = max(ends - begins + 1, 0)
        whole = sum(weights.values())
        for symbol, weight in weights.items():
            shares[symbol] += round(file.size * weight / whole) if whole else 0
    sizes = _sizes(layout.rows)
    logs = sum(size for name, size in sizes.items() if name.endswith(".log"))
    side = sum(_sizes(layout.side).values())
    # Rows that are in memory only are in a log, which is as long as they are without compression.
    for symbol, (start, end) in spans.items():
        shares[symbol] = shares[symbol] or _ROW_BYTES * (end - start + 1)
    return Usage(
        bytes=sum(sizes.values()) + side,
        rows=rows,
        by_symbol=dict(shares),
        log_bytes=logs,
        foreign_keys=holding.strays.count,
    )


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_blocks * 512
    return sizes
