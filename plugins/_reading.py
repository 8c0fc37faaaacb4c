"""Reading a store: what writer and reader have in common, and the reader of other processes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import compress
from operator import not_
from typing import Final, NoReturn, TypeVar

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Gap,
    Mark,
    Record,
    RowBatch,
    StorageError,
    StoreCorrupt,
    Usage,
    check_symbol,
)
from obframe_plugins._checks import clamp
from obframe_plugins._keys import Strays, find_symbols, newest_row, row_key
from obframe_plugins._layout import Layout, ReaderClaim
from obframe_plugins._ledger import Ledger, NoLedger
from obframe_plugins._rocks import Cursor, HandleClosed, RowDatabase
from obframe_plugins._usage import reckon_usage

log = logging.getLogger("obframe.rocksdb")

_T = TypeVar("_T")

_FIRST_CHUNK: Final = 8
_CHUNK: Final = 512
_CATCH_UP_TRIES: Final = 5


class RowReads:
    """What writer and reader have in common."""

    _layout: Layout
    _ledger: Ledger | NoLedger
    _told: bytes | None = None  # the stray key that was warned of last

    def _database(self) -> RowDatabase:
        raise NotImplementedError

    def closed_error(self) -> StorageError:
        return StorageError(f"{self._layout}: the storage is closed", str(self._layout))

    def read(self, work: Callable[[RowDatabase], _T]) -> _T:
        for _ in range(3):
            try:
                return work(self._database())
            except HandleClosed:
                continue  # opened anew meanwhile, or closed: then _database says so
        raise self.closed_error()

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        """Iterate over the rows of ``start <= timestamp <= end``, oldest first.

        The state is that of this call. Close the iterator or exhaust it: it pins files.

        Raises:
            StoreCorrupt: While iterating: a part cannot be read.
            StorageError: While iterating: the storage was closed or opened anew.
        """
        return _records(symbol, self.scan_batches(symbol, start, end))

    def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
        """Iterate over the same rows by the same rules, many at a time."""
        check_symbol(symbol)
        if end < start or end < MIN_TIMESTAMP or start > MAX_TIMESTAMP:
            return iter(())
        lower = row_key(symbol, clamp(start))
        upper = row_key(symbol, clamp(end)) + b"\0"
        cursor = self.read(lambda database: database.cursor(lower, upper))
        return self._batches(cursor, symbol, len(lower), (clamp(start), clamp(end)))

    def _batches(
        self, cursor: Cursor, symbol: str, length: int, bounds: tuple[int, int]
    ) -> Iterator[RowBatch]:
        strays = Strays()
        count = _FIRST_CHUNK  # who wants the first row alone does not pay for many
        unread, last = bounds
        try:
            while True:
                keys, values = cursor.take(count)
                if not keys:
                    return
                count = min(2 * count, _CHUNK)
                batch = _batch(keys, values, length, strays)
                if batch.timestamps:
                    unread = batch.timestamps[-1] + 1
                    yield batch
        except StoreCorrupt as error:
            raise StoreCorrupt(
                f"{error}; rows of {symbol} from {unread} on, up to {last}, were not read",
                str(self._layout),
            ) from error
        except HandleClosed:
            raise StorageError(
                f"{self._layout}: the storage was closed or opened anew during the scan; "
                f"scan again",
                str(self._layout),
            ) from None
        finally:
            cursor.close()
            self._warn_of(strays)

    def _warn_of(self, strays: Strays) -> None:
        if strays.count and strays.first != self._told:
            self._told = strays.first
            log.warning(
                "%s: passed over %d key(s) that are not 'symbol:seconds', the first is %r; "
                "another program writes into this database",
                self._layout, strays.count, strays.first[:80],
            )  # fmt: skip

    def latest(self, symbol: str) -> Record | None:
        """Return the newest row of the symbol."""
        check_symbol(symbol)
        strays = Strays()
        found = self.read(lambda database: newest_row(database, symbol, strays))
        self._warn_of(strays)
        return None if found is None else Record(symbol, *found)

    def symbols(self) -> list[str]:
        """Return all symbols that have rows or gaps, sorted."""
        return sorted({*self.read(self.stored_symbols), *self._ledger.symbols()})

    def stored_symbols(self, database: RowDatabase) -> list[str]:
        holding = find_symbols(database)
        self._warn_of(holding.strays)
        return list(holding.symbols)

    def usage(self) -> Usage:
        """Return what the store takes up now; the share of each symbol is an estimate."""

        def reckon(database: RowDatabase) -> Usage:
            return reckon_usage(self._layout, database)

        return self.read(reckon)

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        """Return the gaps that have a second in ``start..end``, oldest first, uncut."""
        return self._ledger.gaps(symbol, clamp(start), clamp(end)) if start <= end else []

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:
        """Return the marks that have a second in ``start..end``, oldest first, uncut."""
        return self._ledger.marks(symbol, clamp(start), clamp(end)) if start <= end else []


def _records(symbol: str, batches: Iterator[RowBatch]) -> Iterator[Record]:
    try:
        for timestamps, values in batches:
            for timestamp, value in zip(timestamps, values, strict=True):
                yield Record(symbol, timestamp, value)
    finally:
        if isinstance(batches, Generator):
            batches.close()


def _batch(keys: list[bytes], values: list[bytes], length: int, strays: Strays) -> RowBatch:
    """Make a batch of keys and values, counting the keys that are no row's.

    Args:
        keys: In order; all begin with the symbol and ``:``.
        values: Of each.
        length: Of the key of a row.
        strays: Counts the others.
    """
    digits = b"".join([key[-10:] for key in keys])
    # One that is shorter has the ':' among its last ten: if none is, none is longer either.
    if not digits.isdigit() or sum(map(len, keys)) != length * len(keys):
        rows = [len(key) == length and key[-10:].isdigit() for key in keys]
        for key in compress(keys, map(not_, rows)):
            strays.add(key)
        kept = list(compress(keys, rows)), list(compress(values, rows))
        return _batch(*kept, length, strays) if kept[0] else RowBatch([], [])
    first, last = int(digits[:10]), int(digits[-10:])
    if last - first + 1 == len(keys):  # they ascend, so these are all there can be
        return RowBatch(range(first, last + 1), values)
    return RowBatch([int(digits[at : at + 10]) for at in range(0, len(digits), 10)], values)


class ReadOnly(RowReads):
    """What readers have in common: their methods that write raise ``StorageError``."""

    def _refuse(self) -> NoReturn:
        raise StorageError(f"{self._layout}: opened for reading only", str(self._layout))

    def append(self, records: Sequence[Record]) -> Sequence[Record]:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def delete_before(self, symbol: str, timestamp: int) -> None:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def reclaim(self) -> None:
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def append_gaps(self, gaps: Sequence[Gap]) -> None:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def append_marks(self, marks: Sequence[Mark]) -> None:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()


class RocksReader(ReadOnly):
    """Rows that another process writes, or none: each read sees all that was acknowledged before.

    Made by ``open_reader``, for stores that bear obframe's marker.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        layout.inspect(ours=True)
        self._lock = threading.Lock()
        self._is_closed = False
        self._claim: ReaderClaim = layout.claim_reader()
        with contextlib.ExitStack() as undo:
            undo.callback(self._claim.release)
            self._ledger = Ledger(layout.ledger, writable=False)
            undo.callback(self._ledger.close)
            self._handle: RowDatabase | None = None
            self._database()
            undo.pop_all()

    def _database(self) -> RowDatabase:
        with self._lock:
            if self._is_closed:
                raise self.closed_error()
            for _ in range(_CATCH_UP_TRIES - 1):
                # The writer may remove a file between our reading its name and opening it.
                with contextlib.suppress(StorageError):
                    return self._catch_up()
            return self._catch_up()

    def _catch_up(self) -> RowDatabase:
        if self._handle is None:
            rows, own = str(self._layout.rows), str(self._claim.directory)
            self._handle = RowDatabase.open_secondary(rows, own)
        try:
            self._handle.catch_up()
        except StorageError:
            self._close_rows()
            raise
        return self._handle

    def _close_rows(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def close(self) -> None:
        """Release everything. May be called twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._close_rows()
            self._ledger.close()
            self._claim.release()
