"""Following a symbol: the rows that are stored, then each as it comes, without a seam."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Final

from obframe.errors import StoreUnavailable
from obframe.protocols import Storage
from obframe.query import Row, close, rows
from obframe.times import check_range
from obframe.types import MAX_TIMESTAMP

_LOOKS: Final = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""When to look for a second's row after that second began; mostly the first finds it."""

_PATIENCE: Final = 10.0
"""Seconds for which every look may fail before it is the caller's trouble."""


def follow(
    storage: Storage,
    symbol: str,
    start: int,
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Row | None]:
    """Iterate over the rows from ``start`` on, oldest first, and on over those yet to come.

    No row comes twice and none that is stored in order is missed: each look goes on behind the
    row seen last. A second without a row is passed over when a later row comes, as in ``rows``;
    what was recorded of it is then in ``storage.gaps``. A mark that is recorded after its row was
    given (``stale``) is not seen here.

    Args:
        storage: Read from; it must see what another process writes.
        symbol: Whose rows.
        start: First second.
        clock: Tells Unix seconds.
        wait: Lets the seconds it is given pass.

    Yields:
        Rows, and None whenever there is no more for now, before waiting. Never ends by itself.

    Raises:
        QueryError: The start cannot be asked for.
        StorageError: A part cannot be read; what may pass is tried for ten seconds.
    """
    check_range(symbol, start, MAX_TIMESTAMP)
    return _follow(storage, symbol, start, clock, wait)


def _follow(
    storage: Storage,
    symbol: str,
    after: int,
    clock: Callable[[], float],
    wait: Callable[[float], object],
) -> Iterator[Row | None]:
    failing = math.inf  # since when
    while after <= MAX_TIMESTAMP:
        found = rows(storage, symbol, after, MAX_TIMESTAMP)
        try:
            for row in found:
                after = row.timestamp + 1
                yield row
            failing = math.inf
        except StoreUnavailable:
            failing = min(failing, clock())
            if clock() - failing > _PATIENCE:
                raise
        finally:
            close(found)
        yield None
        wait(pause(clock(), after))


def pause(now: float, expected: int) -> float:
    """Return how long to wait before another look for the row of a second is worth it.

    Args:
        now: Unix seconds.
        expected: The first second whose row was not seen yet.
    """
    if expected > now:
        return min(expected - now, 1.0) + _LOOKS[0]
    fraction = now % 1
    look = next((each for each in _LOOKS if each > fraction), 1 + _LOOKS[0])
    return max(look - fraction, 0.005)
