"""A store opened for reading, in a script or a notebook, beside the process that records it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeAlias

from obframe.columns import Windows, read_window
from obframe.errors import ConfigError, PluginError, Problem, QueryError
from obframe.following import follow
from obframe.protocols import Provider, Storage
from obframe.query import Coverage, Row, check_stored, coverage, latest, rows
from obframe.registry import load
from obframe.times import TIMES, check_range, check_second, parse_time
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, SNAPSHOT_DEPTH, Gap
from obframe.vetting import STORAGE, check_protocol
from obframe.window import Window

Time: TypeAlias = float | str | datetime
"""A point in time: Unix seconds, a text as on the command line, or a datetime (UTC if naive)."""

_MINUTE = 60


@contextmanager
def open_reader(provider: Provider[Storage], settings: Any) -> Iterator[Storage]:
    """Open a provider's storage for reading, beside a process that may be writing it.

    Raises:
        ObframeError: It cannot be opened, or cannot be read by another process.
    """
    if provider.open_reader is None:
        raise PluginError(
            provider.name,
            "this storage cannot be read by another process than its recorder",
            "record into one that can, such as --storage rocksdb",
        )
    with provider.open_reader(settings) as storage:
        check_protocol(storage, STORAGE, provider.name)
        yield storage


def open(path: str | os.PathLike[str], *, storage: str = "rocksdb", **settings: Any) -> Reader:  # noqa: A001
    """Open a store for reading, while a recorder writes it or without one.

    Every answer sees all that the recorder had acknowledged before. Close it, or use it in a
    ``with`` statement.

    Args:
        path: Where the store is: the setting ``path`` of its storage.
        storage: The plugin that keeps it.
        settings: Further settings of that storage.

    Raises:
        PluginError: The plugin cannot be loaded, or its storage not be read beside a recorder.
        ConfigError: The path is none, or the storage has no such settings.
        StorageError: Nothing lies there, or it cannot be read.
    """
    if not isinstance(path, str | os.PathLike):
        wanted = "expected text or a path, such as 'obframe-data'"
        raise ConfigError([Problem("obframe.open", "path", f"{wanted}, got {path!r}")])
    provider = load([storage], [STORAGE]).choose(STORAGE)
    keys = [item.name for item in fields(provider.settings)]
    if unknown := [key for key in ("path", *settings) if key not in keys]:
        known = f"unknown key; keys here: {', '.join(keys) or 'none'}"
        raise ConfigError(
            [Problem("obframe.open", f"{provider.name}.{key}", known) for key in unknown]
        )
    try:
        chosen = provider.settings(path=os.fspath(path), **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError([Problem("obframe.open", provider.name, str(error))]) from error
    with ExitStack() as stack:
        opened = stack.enter_context(open_reader(provider, chosen))
        return Reader(opened, stack.pop_all())


class Reader:
    """What is stored, by symbol and time. Made by ``obframe.open``; safe to use from threads.

    Times are Unix seconds, texts as on the command line (``-1h``, ``2025-01-18T12:00``, ``now``) or
    datetimes, in UTC where they name no zone. Both ends of a range are inside. Without an end it is
    the newest row, without a start the minute up to the end.

    Attributes:
        storage: What it reads.
    """

    def __init__(self, storage: Storage, closing: ExitStack | None = None) -> None:
        self.storage = storage
        self._closing = closing or ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the store. May be called twice."""
        self._closing.close()

    def symbols(self) -> list[str]:
        """Return all symbols that have rows or gaps, sorted."""
        return self.storage.symbols()

    def latest(self, symbol: str) -> Row | None:
        """Return the newest row of a symbol with its trust; None when it only has gaps.

        Raises:
            UnknownSymbol: Nothing is stored of it.
        """
        row = latest(self.storage, symbol)
        if row is None:
            check_stored(self.storage, symbol)
        return row

    def rows(
        self, symbol: str, start: Time | None = None, end: Time | None = None
    ) -> Iterator[Row]:
        """Iterate over rows, oldest first: prices and quantities as the venue wrote them.

        A stored value that cannot be decoded is a ``Row`` with its error. ``coverage`` tells what
        is missing.

        Raises:
            QueryError: The range cannot be asked for.
            UnknownSymbol: Nothing is stored of the symbol.
            StorageError: A part cannot be read.
        """
        self.latest(symbol)
        return rows(self.storage, symbol, *self._range(symbol, start, end))

    def window(
        self,
        symbol: str,
        start: Time | None = None,
        end: Time | None = None,
        *,
        depth: int = SNAPSHOT_DEPTH,
        floats: bool = False,
        skip_damaged: bool = False,
    ) -> Window:
        """Read a range into columns of NumPy arrays; ``window.coverage`` tells what is missing.

        Args:
            symbol: Whose rows.
            start: First second.
            end: Last second.
            depth: Levels a side, the best ones.
            floats: Decode prices and quantities to float64, each the nearest to its decimal,
                instead of exact integers with a scale.
            skip_damaged: Leave rows that cannot be decoded out and list them in
                ``window.refused``, instead of raising.

        Raises:
            QueryError: The range cannot be asked for.
            UnknownSymbol: Nothing is stored of the symbol.
            DecodeError: A row is stored and cannot be decoded.
            CapacityError: Integers of 64 bits do not hold a value exactly; floats do not mind.
            StorageError: A part cannot be read.
            MissingExtra: NumPy is not installed.
        """
        first, last = self._range(symbol, start, end)
        window = read_window(
            self.storage, symbol, first, last, depth=depth, floats=floats, skip_damaged=skip_damaged
        )
        if not window.coverage.stored:
            check_stored(self.storage, symbol)
        return window

    def windows(
        self,
        symbol: str,
        start: Time,
        end: Time | None = None,
        *,
        seconds: int = 3600,
        depth: int = SNAPSHOT_DEPTH,
        floats: bool = False,
        skip_damaged: bool = False,
    ) -> Windows:
        """Read a long range as windows that follow each other, in the memory of one.

        The answer has a length, the number of windows, so that a progress bar knows the end::

            for window in rich.progress.track(store.windows("BTCUSDT", "-7d")):
                ...

        Args:
            symbol: Whose rows.
            start: First second.
            end: Last second.
            seconds: Of one window; the last may be shorter.
            depth: As in ``window``.
            floats: As in ``window``.
            skip_damaged: As in ``window``.

        Raises:
            QueryError: The range cannot be asked for.
            UnknownSymbol: Nothing is stored of the symbol.
        """
        self.latest(symbol)
        first, last = self._range(symbol, start, end)
        return Windows(
            self.storage,
            symbol,
            first,
            last,
            seconds,
            depth=depth,
            floats=floats,
            skip_damaged=skip_damaged,
        )

    def coverage(self, symbol: str, start: Time | None = None, end: Time | None = None) -> Coverage:
        """Tell which seconds of a range are stored, and what is known of the others.

        Raises:
            QueryError: The range cannot be asked for.
            UnknownSymbol: Nothing is stored of the symbol.
            StorageError: A part cannot be read.
        """
        self.latest(symbol)
        return coverage(self.storage, symbol, *self._range(symbol, start, end))

    def gaps(self, symbol: str, start: Time | None = None, end: Time | None = None) -> list[Gap]:
        """Return the recorded gaps that have a second in the range, uncut; all by default.

        Raises:
            QueryError: The range cannot be asked for.
            UnknownSymbol: Nothing is stored of the symbol.
        """
        now = time.time()
        first = MIN_TIMESTAMP if start is None else to_second(start, now)
        last = MAX_TIMESTAMP if end is None else to_second(end, now)
        check_range(symbol, first, last)
        found = self.storage.gaps(symbol, first, last)
        if not found:
            check_stored(self.storage, symbol)
        return found

    def follow(
        self, symbol: str, start: Time | None = None, *, timeout: float | None = None
    ) -> Iterator[Row]:
        """Iterate over the rows from ``start`` on, then over each that comes, as it comes.

        No row comes twice, and none that is stored in order is missed. A new row is seen some 20 ms
        after the second began, when it is stored by then. Break off, or interrupt, to end it.

        Args:
            symbol: Whose rows.
            start: First second.
            timeout: End after so many seconds without a new row; None: wait for ever.

        Raises:
            QueryError: The start or the time-out cannot be asked for.
            UnknownSymbol: Nothing is stored of the symbol.
            StorageError: A part cannot be read.
        """
        self.latest(symbol)
        first, _ = self._range(symbol, start, None)
        _check_timeout(timeout)
        return _until_silent(follow(self.storage, symbol, first), timeout)

    def _range(self, symbol: str, start: Time | None, end: Time | None) -> tuple[int, int]:
        now = time.time()
        first = None if start is None else to_second(start, now)
        if end is not None:
            last = to_second(end, now)
        else:
            newest = self.storage.latest(symbol)
            last = int(now) if newest is None else newest.timestamp
            last = last if first is None else max(first, last)
        if first is None:
            first = max(last - _MINUTE + 1, MIN_TIMESTAMP)
        check_range(symbol, first, last)
        return first, last


def to_second(time: Time, now: float) -> int:
    """Return Unix seconds, fractions cut off.

    Args:
        time: A point in time.
        now: Unix seconds of the present.

    Raises:
        QueryError: It is none, or out of range.
    """
    if isinstance(time, str):
        return parse_time(time, now)
    if isinstance(time, datetime):
        aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        time = aware.timestamp()
    try:
        known = math.isfinite(time)
    except (TypeError, OverflowError):
        known = False
    if not known:
        raise QueryError("time", str(time), f"is no time; {TIMES}")
    second = math.floor(time)
    check_second("time", second)
    return second


def _check_timeout(timeout: float | None) -> None:
    try:
        good = timeout is None or timeout >= 0
    except TypeError:
        good = False
    if not good:
        mend = "give 0 or more, or None to wait for ever"
        raise QueryError("timeout", str(timeout), f"is no number of seconds; {mend}")


def _until_silent(found: Iterator[Row | None], timeout: float | None) -> Iterator[Row]:
    heard = time.monotonic()
    for row in found:
        if row is not None:
            yield row
            heard = time.monotonic()
        elif timeout is not None and time.monotonic() - heard >= timeout:
            return
