"""Gaps, marks and the format marker: an SQLite file beside the rows.

The row database stays a plain one of one column family that any tool opens; all that only obframe
knows of the rows stands here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from obframe import (
    Gap,
    GapReason,
    Mark,
    MarkKind,
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreUnavailable,
)

FORMAT: Final = 1
"""The format of the store, rows and ledger; a store of a higher one is refused."""

_APPLICATION: Final = 0x4F624672  # "ObFr", in SQLite's own field for it

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE gaps (
    symbol TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    start_second INTEGER NOT NULL, end_second INTEGER NOT NULL,
    PRIMARY KEY (symbol, reason, detail, start_second)
) WITHOUT ROWID;
CREATE TABLE marks (
    symbol TEXT NOT NULL, kind TEXT NOT NULL,
    start_second INTEGER NOT NULL, end_second INTEGER NOT NULL,
    PRIMARY KEY (symbol, kind, start_second)
) WITHOUT ROWID;
"""


def read_format(path: Path) -> int | None:
    """Return the format that a ledger file is marked with, by looking at its header only.

    Returns:
        The format; None when there is no file or it was left before it was marked.

    Raises:
        StoreCorrupt: The file is something else.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error}", str(path)) from error
    if not header:
        return None
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise _corrupt(path, "the file is not an SQLite database")
    (version,) = struct.unpack_from(">I", header, 60)
    (application,) = struct.unpack_from(">I", header, 68)
    if application == 0 and version == 0:
        return None
    if application != _APPLICATION:
        raise _corrupt(path, "the file belongs to another application")
    return int(version)


def check_format(version: int | None, path: Path) -> None:
    """Raise when a store is of a newer format than this code knows.

    Raises:
        StoreFormatError: It is.
    """
    if version is not None and version > FORMAT:
        raise StoreFormatError(
            f"{path}: store of format {version}, this obframe knows formats up to {FORMAT}; "
            f"install a newer obframe. Nothing was touched",
            str(path),
        )


def _corrupt(path: Path, what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path}: {what}; restore it from a backup, or move it away: the rows stay whole and "
        f"readable, the gap records in it are lost, and recording on needs rocksdb.adopt=true",
        str(path),
    )


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise StorageError(f"{path}: the storage is closed", str(path)) from error
    except sqlite3.OperationalError as error:
        text = str(error)
        if "no such table" in text:
            raise _corrupt(path, text) from error
        raise StoreUnavailable(
            f"{path}: {text}; nothing of it was recorded, try again", str(path)
        ) from error
    except sqlite3.DatabaseError as error:
        raise _corrupt(path, str(error)) from error


class Ledger:
    """Gaps and marks of one store; safe to use from several threads."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        self._lock = threading.Lock()
        with _mapped(path):
            mode = "rwc" if writable else "ro"
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if writable:
                    self._prepare()
                check_format(self._one("PRAGMA user_version"), path)
            except BaseException:
                self._connection.close()
                raise

    def _one(self, statement: str) -> int:
        (value,) = self._connection.execute(statement).fetchone()
        return int(value)

    def _prepare(self) -> None:
        connection = self._connection
        if self._one("PRAGMA user_version") == 0:
            # Before the write-ahead log is on: the marker then stands in the file's header, where
            # it can be read without opening (and so touching) anything.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("format", str(FORMAT)), ("created", str(int(time.time())))],
            )
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _mapped(self._path):
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _query(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock, _mapped(self._path):
            return self._connection.execute(statement, values).fetchall()

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        """Record gaps durably, each extending what it touches of its symbol, reason and detail."""
        with self._transaction() as connection:
            for gap in gaps:
                labels = {"symbol": gap.symbol, "reason": gap.reason.value, "detail": gap.detail}
                _extend(connection, "gaps", labels, gap.start, gap.end)

    def append_marks(self, marks: Sequence[Mark]) -> None:
        """Record marks durably, each extending what it touches of its symbol and kind."""
        with self._transaction() as connection:
            for mark in marks:
                labels = {"symbol": mark.symbol, "kind": mark.kind.value}
                _extend(connection, "marks", labels, mark.start, mark.end)

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        """Return the gaps with a second in ``start..end``, oldest first."""
        rows = self._query(
            "SELECT start_second, end_second, reason, detail FROM gaps"
            " WHERE symbol = ? AND start_second <= ? AND end_second >= ?"
            " ORDER BY start_second, end_second, reason, detail",
            (symbol, end, start),
        )
        return [
            Gap(symbol, first, last, self._member(GapReason, reason), detail)
            for first, last, reason, detail in rows
        ]

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:
        """Return the marks with a second in ``start..end``, oldest first."""
        rows = self._query(
            "SELECT start_second, end_second, kind FROM marks"
            " WHERE symbol = ? AND start_second <= ? AND end_second >= ?"
            " ORDER BY start_second, end_second, kind",
            (symbol, end, start),
        )
        return [
            Mark(symbol, first, last, self._member(MarkKind, kind)) for first, last, kind in rows
        ]

    def _member(self, kind: Any, value: str) -> Any:
        try:
            return kind(value)
        except ValueError as error:
            raise StoreFormatError(
                f"{self._path}: holds the {kind.__name__} {value!r}, which this obframe does not "
                f"know; install a newer one",
                str(self._path),
            ) from error

    def symbols(self) -> list[str]:
        """Return the symbols that have gaps."""
        return [symbol for (symbol,) in self._query("SELECT DISTINCT symbol FROM gaps", ())]

    @property
    def adopted(self) -> int:
        """Newest second of the rows that another program wrote before; 0 when there were none."""
        found = self._query("SELECT value FROM meta WHERE key = 'adopted'", ())
        return int(found[0][0]) if found else 0

    def note_adoption(self, newest: int) -> None:
        """Note that rows up to this second were there before obframe kept a ledger of them."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('adopted', ?)", (str(newest),))

    def delete_before(self, symbol: str, timestamp: int) -> None:
        """Delete what lies before ``timestamp``; a run that straddles it loses its first part."""
        with self._transaction() as connection:
            for table in ("gaps", "marks"):
                connection.execute(
                    f"DELETE FROM {table} WHERE symbol = ? AND end_second < ?", (symbol, timestamp)
                )
                connection.execute(
                    f"UPDATE {table} SET start_second = ? WHERE symbol = ? AND start_second < ?",
                    (timestamp, symbol, timestamp),
                )

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.close()


def cut_after(path: Path, timestamp: int) -> None:
    """Delete what a ledger file tells of seconds after ``timestamp``; nobody else may use it."""
    with _mapped(path), contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table in ("gaps", "marks"):
            connection.execute(f"DELETE FROM {table} WHERE start_second > ?", (timestamp,))
            connection.execute(
                f"UPDATE {table} SET end_second = ? WHERE end_second > ?", (timestamp, timestamp)
            )


class NoLedger:
    """What is known of the seconds without a row in a store that was never recorded: nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:  # noqa: ARG002
        """Return no gaps, for none are known."""
        self._check()
        return []

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:  # noqa: ARG002
        """Return no marks, for none are known."""
        self._check()
        return []

    def symbols(self) -> list[str]:
        """Return no symbols, for none have gaps."""
        self._check()
        return []

    def close(self) -> None:
        """Do nothing, for nothing is open."""

    def _check(self) -> None:
        if read_format(self._path) is not None:
            raise StoreUnavailable(
                f"{self._path}: a recorder has begun to keep gaps there; open the store again",
                str(self._path),
            )


def _extend(
    connection: sqlite3.Connection, table: str, labels: dict[str, str], start: int, end: int
) -> None:
    where = " AND ".join(f"{name} = ?" for name in labels)
    values = tuple(labels.values())
    # Runs of the same labels never touch, so the newest first is also the last-ending first.
    touched = []
    runs = connection.execute(
        f"SELECT start_second, end_second FROM {table}"
        f" WHERE {where} AND start_second <= ? ORDER BY start_second DESC",
        (*values, end + 1),
    )
    for first, last in runs:
        if last < start - 1:
            break
        touched.append(first)
        start, end = min(start, first), max(end, last)
    runs.close()
    for first in touched:
        connection.execute(
            f"DELETE FROM {table} WHERE {where} AND start_second = ?", (*values, first)
        )
    names = ", ".join([*labels, "start_second", "end_second"])
    marks = ", ".join("?" * (len(labels) + 2))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", (*values, start, end))


class Acknowledged:
    """The newest second that was acknowledged, kept in a file of its own at the cost of one write.

    It is never synced: after a power cut it may be older than the truth, never newer than what
    was acknowledged. That is enough to tell at the next start that rows are missing.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        text = os.pread(self._file, 32, 0).strip()
        self.newest = int(text) if text.isdigit() else 0

    def advance(self, timestamp: int) -> None:
        """Note that a row of this second was acknowledged."""
        if timestamp > self.newest:
            self._put(timestamp)

    def forget(self) -> None:
        """Note that the newest acknowledged row may have been deleted on purpose."""
        self._put(0)

    def _put(self, timestamp: int) -> None:
        self.newest = timestamp
        with contextlib.suppress(OSError):  # a help for the next start, no part of any promise
            os.pwrite(self._file, b"%010d\n" % timestamp, 0)

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def newest_acknowledged(path: Path) -> int:
    """Return the newest second that the store beside this file acknowledged, 0 if unknown."""
    try:
        text = path.read_bytes().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
