"""Storage ``myplugin``: rows, gaps and marks in one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    Provider,
    Record,
    Storage,
    StorageError,
    StoreCorrupt,
    StoreUnavailable,
    check_symbol,
    hookimpl,
)

OBFRAME_API = 1  # the version of obframe's hooks and protocols that this is written for

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS rows (
        symbol TEXT, second INTEGER, value BLOB NOT NULL, PRIMARY KEY (symbol, second)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS runs (
        what TEXT, symbol TEXT, label TEXT, detail TEXT, start INTEGER, "end" INTEGER
    );
    CREATE INDEX IF NOT EXISTS runs_by_symbol ON runs (symbol, what, start);
"""

# Jumps from symbol to symbol along the key, where DISTINCT would read every row.
_SYMBOLS = """
    WITH RECURSIVE found (symbol) AS (
        SELECT min(symbol) FROM rows
        UNION ALL
        SELECT (SELECT min(symbol) FROM rows WHERE symbol > found.symbol)
        FROM found WHERE symbol IS NOT NULL
    )
    SELECT symbol FROM found WHERE symbol IS NOT NULL
    UNION
    SELECT symbol FROM runs WHERE what = 'gap'
    ORDER BY symbol
"""


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Settings of the storage: the section ``[myplugin]``.

    Raises:
        ValueError: A value cannot be used.
    """

    path: str = field(default="rows.sqlite", metadata={"help": "The database's file."})

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is empty; name a file")


class SqliteStorage:
    """Keeps everything in one file. Safe to call from several threads.

    Args:
        path: The file.
        writable: Whether it may be written, and made where it is missing.

    Raises:
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        self._path = path
        self._writable = writable
        self._closed = False
        self._lock = threading.Lock()
        with self._told():
            self._connection = self._connect("rwc" if writable else "rw")
            if writable:
                self._connection.execute("PRAGMA journal_mode = WAL")  # readers wait for nobody
                self._connection.execute("PRAGMA synchronous = FULL")  # acknowledged is on disk
                self._connection.executescript(_SCHEMA)

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,  # transactions begin and end where this code says so
            check_same_thread=False,
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the library's errors into obframe's."""
        try:
            yield
        except sqlite3.OperationalError as error:  # disk full, locked, missing: may pass
            raise StoreUnavailable(f"{self._path}: {error}", str(self._path)) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorrupt(f"{self._path}: {error}", str(self._path)) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            if self._closed:
                raise StorageError(f"{self._path}: the storage is closed", str(self._path))
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: what is written here is committed at the end, or undone."""
        with self._reading() as connection:
            if not self._writable:
                raise StorageError(f"{self._path}: it is open for reading only", str(self._path))
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        """Store the records in one transaction; return those whose second was stored already."""
        for record in records:
            check_symbol(record.symbol)
            _check_second(record.symbol, record.timestamp)
        with self._writing() as connection:
            insert = "INSERT OR IGNORE INTO rows VALUES (?, ?, ?)"
            return [
                record for record in records if connection.execute(insert, record).rowcount == 0
            ]

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        """Iterate over the rows of ``start..end``, as they stand now."""
        check_symbol(symbol)
        with self._reading():
            rows = self._scan(symbol, max(start, MIN_TIMESTAMP), min(end, MAX_TIMESTAMP))
            next(rows)  # goes as far as the query: from here on it sees one state
        return rows

    def _scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        query = "SELECT second, value FROM rows WHERE symbol = ? AND second BETWEEN ? AND ?"
        with self._told(), closing(self._connect("rw")) as connection:
            found = connection.execute(query + " ORDER BY second", (symbol, start, end))
            yield Record(symbol, start, b"")  # taken by scan
            for second, value in found:
                yield Record(symbol, second, value)

    def latest(self, symbol: str) -> Record | None:
        """Return the newest row of the symbol."""
        check_symbol(symbol)
        query = "SELECT second, value FROM rows WHERE symbol = ? ORDER BY second DESC LIMIT 1"
        with self._reading() as connection:
            row = connection.execute(query, (symbol,)).fetchone()
        return None if row is None else Record(symbol, *row)

    def symbols(self) -> list[str]:
        """Return all symbols that have rows or gaps, sorted."""
        with self._reading() as connection:
            return [symbol for (symbol,) in connection.execute(_SYMBOLS)]

    def delete_before(self, symbol: str, timestamp: int) -> None:
        """Delete rows, gaps and marks before ``timestamp``; what straddles it is cut there."""
        check_symbol(symbol)
        given = {"symbol": symbol, "line": timestamp}
        with self._writing() as connection:
            for statement in (
                "DELETE FROM rows WHERE symbol = :symbol AND second < :line",
                'DELETE FROM runs WHERE symbol = :symbol AND "end" < :line',
                "UPDATE runs SET start = :line WHERE symbol = :symbol AND start < :line",
            ):
                connection.execute(statement, given)

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        """Record gaps; those that touch one of the same symbol, reason and detail extend it."""
        self._append_runs("gap", gaps)

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        """Return the gaps that have a second in ``start..end``, oldest first, uncut."""
        return [
            Gap(symbol, first, last, GapReason(label), detail)
            for first, last, label, detail in self._runs("gap", symbol, start, end)
        ]

    def append_marks(self, marks: Sequence[Mark]) -> None:
        """Record marks; those that touch one of the same symbol and kind extend it."""
        self._append_runs("mark", marks)

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:
        """Return the marks that have a second in ``start..end``, oldest first, uncut."""
        return [
            Mark(symbol, first, last, MarkKind(label))
            for first, last, label, _ in self._runs("mark", symbol, start, end)
        ]

    def _append_runs(self, what: str, runs: Sequence[Gap] | Sequence[Mark]) -> None:
        for run in runs:
            check_symbol(run.symbol)
            _check_second(run.symbol, run.start)
            _check_second(run.symbol, run.end)
            if run.end < run.start:
                raise ValueError(f"{run.symbol}: {run.start}..{run.end} ends before it starts")
        touching = (
            "FROM runs WHERE what = ? AND symbol = ? AND label = ? AND detail = ?"
            ' AND start <= ? AND "end" >= ?'
        )
        with self._writing() as connection:
            for run in runs:
                label, detail = (run.reason, run.detail) if isinstance(run, Gap) else (run.kind, "")
                key = (what, run.symbol, str(label), detail)
                reach = (*key, run.end + 1, run.start - 1)
                (first, last) = connection.execute(
                    f'SELECT min(start), max("end") {touching}', reach
                ).fetchone()
                connection.execute(f"DELETE {touching}", reach)
                start = run.start if first is None else min(first, run.start)
                end = run.end if last is None else max(last, run.end)
                connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", (*key, start, end))

    def _runs(
        self, what: str, symbol: str, start: int, end: int
    ) -> list[tuple[int, int, str, str]]:
        check_symbol(symbol)
        query = (
            'SELECT start, "end", label, detail FROM runs WHERE symbol = ? AND what = ?'
            ' AND start <= ? AND "end" >= ? ORDER BY start, "end", label, detail'
        )
        with self._reading() as connection:
            return connection.execute(query, (symbol, what, end, start)).fetchall()

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock:
            self._closed = True
            self._connection.close()


def _check_second(symbol: str, timestamp: int) -> None:
    if not MIN_TIMESTAMP <= timestamp <= MAX_TIMESTAMP:
        raise ValueError(f"{symbol}: {timestamp} is not a Unix second of ten digits")


@asynccontextmanager
async def open_storage(settings: StorageSettings) -> AsyncIterator[Storage]:
    """Open the storage of a recorder."""
    storage = SqliteStorage(Path(settings.path))
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def open_reader(settings: StorageSettings) -> Iterator[Storage]:
    """Open the storage for reading, beside a recorder that writes it or without one."""
    storage = SqliteStorage(Path(settings.path), writable=False)
    try:
        yield storage
    finally:
        storage.close()


@hookimpl
def obframe_storages() -> Sequence[Provider[Storage]]:
    """Offer the storage."""
    return [
        Provider(
            "myplugin",
            "rows, gaps and marks in one SQLite file",
            StorageSettings,
            open_storage,
            open_reader,
            contract="obframe_myplugin.contract:SqliteContract",
        )
    ]
