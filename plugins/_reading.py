"""Reading a store: what writer and reader have in common, and the reader of other processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn, TypeVar

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Gap,
    Mark,
    Record,
    StorageError,
    StoreFormatError,
    check_symbol,
)
from obframe_plugins._checks import clamp
from obframe_plugins._layout import Layout, ReaderClaim
from obframe_plugins._ledger import Ledger, read_format
from obframe_plugins._rocks import Cursor, HandleClosed, RowDatabase

_T = TypeVar("_T")

_CHUNK: Final = 512
_CATCH_UP_TRIES: Final = 5


def row_key(symbol: str, timestamp: int) -> bytes:
    """Return the stored key of a row."""
    return b"%s:%010d" % (symbol.encode(), timestamp)


class RowReads:
    """What writer and reader have in common."""

    _layout: Layout
    _ledger: Ledger

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
        check_symbol(symbol)
        if end < start or end < MIN_TIMESTAMP or start > MAX_TIMESTAMP:
            return iter(())
        lower = row_key(symbol, clamp(start))
        upper = row_key(symbol, clamp(end)) + b"\0"
        cursor = self.read(lambda database: database.cursor(lower, upper))
        return self._rows(cursor, symbol, len(lower))

    def _rows(self, cursor: Cursor, symbol: str, length: int) -> Iterator[Record]:
        try:
            while rows := cursor.read(_CHUNK):
                for key, value in rows:
                    yield Record(symbol, self._timestamp(key, length), value)
        except HandleClosed:
            raise StorageError(
                f"{self._layout}: the storage was closed or opened anew during the scan; "
                f"scan again",
                str(self._layout),
            ) from None
        finally:
            cursor.close()

    def _timestamp(self, key: bytes, length: int) -> int:
        digits = key[-10:]
        if len(key) != length or not digits.isdigit():
            raise StoreFormatError(
                f"{self._layout}: holds the key {key[:80]!r}, which is not 'symbol:seconds'",
                str(self._layout),
            )
        return int(digits)

    def latest(self, symbol: str) -> Record | None:
        """Return the newest row of the symbol."""
        check_symbol(symbol)
        bound = row_key(symbol, MAX_TIMESTAMP)
        found = self.read(lambda database: database.last_until(bound))
        # The last key before may be another symbol's.
        if found is None or not found[0].startswith(bound[:-10]):
            return None
        return Record(symbol, self._timestamp(found[0], len(bound)), found[1])

    def symbols(self) -> list[str]:
        """Return all symbols that have rows or gaps, sorted."""
        return sorted({*self.read(self.stored_symbols), *self._ledger.symbols()})

    def stored_symbols(self, database: RowDatabase) -> list[str]:
        found = []
        key = database.first_from(b"")
        while key is not None:
            symbol, colon, _ = key.partition(b":")
            try:
                found.append(symbol.decode())
            except UnicodeDecodeError:
                colon = b""
            if not colon:
                raise StoreFormatError(
                    f"{self._layout}: holds the key {key[:80]!r}, which is not 'symbol:seconds'",
                    str(self._layout),
                )
            key = database.first_from(symbol + b";")  # the character after ':'
        return found

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        """Return the gaps that have a second in ``start..end``, oldest first, uncut."""
        return self._ledger.gaps(symbol, clamp(start), clamp(end)) if start <= end else []

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:
        """Return the marks that have a second in ``start..end``, oldest first, uncut."""
        return self._ledger.marks(symbol, clamp(start), clamp(end)) if start <= end else []


class RocksReader(RowReads):
    """Rows that another process writes, or none: each read sees all that was acknowledged before.

    Made by ``open_reader``. Its methods that write raise ``StorageError``.
    """

    def __init__(self, path: str) -> None:
        self._layout = layout = Layout(path)
        if not layout.examine():
            raise StorageError(
                f"{layout}: no database there; `obframe run` creates one, rocksdb.path tells where",
                str(layout),
            )
        if read_format(layout.ledger) is None:
            raise StoreFormatError(
                f"{layout}: was never opened by obframe for writing, so it has no {layout.side}; "
                f"start `obframe run` on it once. Nothing was touched",
                str(layout),
            )
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

    def _refuse(self) -> NoReturn:
        raise StorageError(f"{self._layout}: opened for reading only", str(self._layout))

    def append(self, records: Sequence[Record]) -> Sequence[Record]:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def delete_before(self, symbol: str, timestamp: int) -> None:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def append_gaps(self, gaps: Sequence[Gap]) -> None:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def append_marks(self, marks: Sequence[Mark]) -> None:  # noqa: ARG002
        """Raise ``StorageError``: this storage is for reading."""
        self._refuse()

    def close(self) -> None:
        """Release everything. May be called twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._close_rows()
            self._ledger.close()
            self._claim.release()
