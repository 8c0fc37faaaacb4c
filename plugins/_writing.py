"""Writing a store: the settings, and the storage of the one process that writes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Gap,
    Mark,
    Record,
    StorageError,
    StoreUnavailable,
    check_symbol,
)
from obframe_plugins._checks import check_records, check_runs
from obframe_plugins._keys import Strays, newest_row, row_key
from obframe_plugins._layout import Layout
from obframe_plugins._ledger import Acknowledged, Ledger, read_format
from obframe_plugins._pins import sweep_pins
from obframe_plugins._reading import RowReads
from obframe_plugins._rocks import WRITE_BUFFER, HandleClosed, RowDatabase

log = logging.getLogger("obframe.rocksdb")

_ROOM: Final = 2 * WRITE_BUFFER
_REOPEN_EVERY: Final = 0.5
_DOUBTFUL_LIMIT: Final = 200_000


@dataclass(frozen=True, slots=True)
class RocksSettings:
    """Where rows are kept and how surely."""

    path: str = field(
        default="obframe-data",
        metadata={
            "help": "Directory of the row database. Gaps and locks stand beside it in PATH.obframe."
        },
    )
    durability: Literal["power", "process"] = field(
        default="power",
        metadata={
            "help": "What an acknowledged row survives: 'power' a power cut (the log is synced, "
            "about 0.3 ms a second more), 'process' only the death of the process."
        },
    )
    compression_level: int = field(
        default=3,
        metadata={"help": "Level of zstd, 1 to 19. 9 saves about a tenth of the disk."},
    )
    adopt: bool = field(
        default=False,
        metadata={
            "help": "Record into a database with rows but without PATH.obframe: another program's, "
            "or one whose PATH.obframe was lost. retention.max_age then holds for its rows too. "
            "Reading needs no adoption."
        },
    )

    def __post_init__(self) -> None:
        if not self.path or "\0" in self.path:
            raise ValueError(f"path must be a directory's name, got {self.path!r}")
        if Path(self.path).name in ("", ".."):
            raise ValueError(
                f"path must end with a name, for files beside it are named after it; got "
                f"{self.path!r}"
            )
        if self.durability not in ("power", "process"):
            raise ValueError(f"durability must be power or process, got {self.durability!r}")
        if not 1 <= self.compression_level <= 19:
            raise ValueError(f"compression_level must be 1 to 19, got {self.compression_level}")


def free_space(path: Path) -> int:
    """Return the bytes that may still be written to the disk that holds ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


class RocksStorage(RowReads):
    """Rows in RocksDB, written by this process alone. Made by ``open``.

    Args:
        settings: Where and how surely.
        room: Tells the free bytes of a disk.
        monotonic: Tells seconds that only pass.
    """

    _ledger: Ledger

    def __init__(
        self,
        settings: RocksSettings,
        *,
        room: Callable[[Path], int] = free_space,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._layout = Layout(settings.path)
        self._room = room
        self._monotonic = monotonic
        self._lock = threading.RLock()  # one writer at a time; reads do without
        self._newest: dict[str, int] = {}
        self._doubtful: dict[bytes, None] = {}
        self._deleted: dict[str, int] = {}  # not given back yet, by symbol: before which second
        self._fault: StorageError | None = None
        self._next_try = 0.0
        self._is_closed = False
        self._handle: RowDatabase | None = None
        with contextlib.ExitStack() as undo:
            self._open(undo)
            undo.pop_all()

    @property
    def state_directory(self) -> Path:
        """Where files that belong with the rows may be kept."""
        return self._layout.side

    @classmethod
    def open(cls, settings: RocksSettings) -> RocksStorage:
        """Open or create the store. Blocks.

        Raises:
            StoreLocked: Another process writes it.
            StoreFormatError: Something else lies at the path, or rows that are not to be adopted;
                nothing was touched.
            StoreCorrupt: Its files are damaged; the message names the mend.
            StoreUnavailable: The disk is full or fails.
        """
        return cls(settings)

    def _open(self, undo: contextlib.ExitStack) -> None:
        layout = self._layout
        lock = layout.lock_writer(create=False)
        if lock is not None:
            undo.callback(os.close, lock)
        exists = layout.examine()
        ours = read_format(layout.ledger) is not None
        if exists:
            layout.check_unlocked()
            layout.inspect(ours=ours, adopt=self._settings.adopt)
        elif not layout.rows.parent.is_dir():
            raise StorageError(
                f"{layout}: the directory {layout.rows.parent} does not exist; create it, or "
                f"choose another rocksdb.path",
                str(layout),
            )
        if lock is None:
            lock = layout.lock_writer(create=True)
            assert lock is not None
            undo.callback(os.close, lock)
        self._lock_file = lock
        sweep_pins(layout)
        self._ledger = Ledger(layout.ledger, writable=True)
        undo.callback(self._ledger.close)
        started = time.perf_counter()
        self._handle = self._open_rows(create=not exists)
        undo.callback(self._handle.close)
        try:
            self._acknowledged = Acknowledged(layout.acknowledged)
        except OSError as error:
            raise StorageError(f"{layout.acknowledged}: {error}", str(layout)) from error
        undo.callback(self._acknowledged.close)
        newest = self._report_loss()
        if newest and not ours:
            self._ledger.note_adoption(newest)
        log.debug("%s: opened in %.3f s", layout, time.perf_counter() - started)

    def _open_rows(self, *, create: bool) -> RowDatabase:
        return RowDatabase.open_writer(
            str(self._layout.rows), create=create, level=self._settings.compression_level
        )

    def _report_loss(self) -> int:
        """Tell of rows that were acknowledged and are gone; return the newest second stored."""
        newest = 0
        for symbol in self.read(self.stored_symbols):
            record = self.latest(symbol)
            newest = max(newest, record.timestamp if record else 0)
        acknowledged = self._acknowledged.newest
        if acknowledged > newest:
            log.warning(
                "%s: the log was cut: the newest row is of %d, yet rows up to %d (%d s more) were "
                "acknowledged; they are lost",
                self._layout, newest, acknowledged, acknowledged - newest,
            )  # fmt: skip
            self._acknowledged.forget()
        self._acknowledged.advance(newest)
        return newest

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        """Store the records in one atomic batch, durable at the configured level on return.

        After ``StoreUnavailable`` nothing of the batch is acknowledged, yet it may have landed.
        Retry the same records: those that did land, byte for byte, then count as stored.

        Returns:
            The records that were refused because their second was stored already.

        Raises:
            StoreUnavailable: The disk is full or fails; try again.
            SymbolError: A symbol cannot be part of a key; nothing was stored.
            ValueError: A timestamp is not Unix seconds of ten digits; nothing was stored.
        """
        check_records(records)
        with self._lock:
            database = self._writable()
            try:
                fresh, refused = self._sift(database, records)
            except HandleClosed:
                raise self.closed_error() from None
            if fresh:
                self._write(database, fresh)
            return refused

    def _sift(
        self, database: RowDatabase, records: Sequence[Record]
    ) -> tuple[dict[bytes, Record], list[Record]]:
        """Part the records into those to write and those whose second is stored already."""
        keys = [row_key(record.symbol, record.timestamp) for record in records]
        # The normal case, a second newer than all of its symbol, needs no look at the disk.
        looked_up = [
            key
            for key, record in zip(keys, records, strict=True)
            if record.timestamp <= self._newest_second(database, record.symbol)
        ]
        stored = (
            dict(zip(looked_up, database.get_many(looked_up), strict=True)) if looked_up else {}
        )
        fresh: dict[bytes, Record] = {}
        refused = []
        landed = set()
        for key, record in zip(keys, records, strict=True):
            value = stored.get(key)
            if value is None and key not in fresh:
                fresh[key] = record
            elif key in self._doubtful and value == record.value and key not in landed:
                landed.add(key)  # written by the attempt that failed; safe since the reopening
            else:
                refused.append(record)
        for key in landed:
            del self._doubtful[key]
        return fresh, refused

    def _newest_second(self, database: RowDatabase, symbol: str) -> int:
        newest = self._newest.get(symbol)
        if newest is None:
            found = newest_row(database, symbol, Strays())
            newest = self._newest[symbol] = found[0] if found else 0
        return newest

    def _write(self, database: RowDatabase, fresh: dict[bytes, Record]) -> None:
        items = [(key, record.value) for key, record in fresh.items()]
        try:
            database.write(items, sync=self._settings.durability == "power")
        except HandleClosed:
            raise self.closed_error() from None
        except StorageError as error:
            self._suspect(error)
            for key in fresh:
                self._doubtful[key] = None
            while len(self._doubtful) > _DOUBTFUL_LIMIT:
                del self._doubtful[next(iter(self._doubtful))]
            raise
        newest = self._newest
        for record in fresh.values():
            newest[record.symbol] = max(newest.get(record.symbol, 0), record.timestamp)
        self._acknowledged.advance(max(record.timestamp for record in fresh.values()))
        if self._doubtful:
            for key in fresh:
                self._doubtful.pop(key, None)

    def _suspect(self, error: StorageError) -> None:
        # After a failed write or sync the library's handle refuses all further ones, or worse,
        # takes them and tells that pages are on the disk which the kernel has dropped. A reopening
        # reads the log again and writes it to a file of its own.
        self._fault = error
        self._newest.clear()
        log.error("%s: a write failed, the database will be opened anew: %s", self._layout, error)

    def _writable(self) -> RowDatabase:
        if self._is_closed:
            raise self.closed_error()
        if self._fault is not None or self._handle is None:
            self._reopen()
        assert self._handle is not None
        return self._handle

    def _reopen(self) -> None:
        now = self._monotonic()
        try:
            room = self._room(self._layout.rows)
        except OSError as error:  # a row that no backend could take would be given up
            raise StoreUnavailable(f"{self._layout}: {error}", str(self._layout)) from error
        if room < _ROOM:
            raise StoreUnavailable(
                f"{self._layout}: the disk is full: {room >> 10} KiB free, {_ROOM >> 10} KiB "
                f"needed to go on; free some space, writing then resumes by itself",
                str(self._layout),
            )
        if now < self._next_try:
            raise StoreUnavailable(f"{self._layout}: waits to be opened anew", str(self._layout))
        self._next_try = now + _REOPEN_EVERY
        old, self._handle = self._handle, None
        if old is not None:
            old.close()  # its flush fails like its writes did; the log has it all
        self._handle = self._open_rows(create=False)
        log.info("%s: opened anew after: %s", self._layout, self._fault)
        self._fault = None

    def _database(self) -> RowDatabase:
        handle = self._handle
        if handle is not None and not self._is_closed:
            return handle
        with self._lock:
            if self._is_closed:
                raise self.closed_error()
            if self._handle is None:
                self._reopen()
            assert self._handle is not None
            return self._handle

    def delete_before(self, symbol: str, timestamp: int) -> None:
        """Delete rows, gaps and marks of the symbol before ``timestamp``, at the cost of one write.

        A gap or mark that straddles the line is cut. The space comes back within minutes.
        """
        check_symbol(symbol)
        line = min(timestamp, MAX_TIMESTAMP + 1)
        if line <= MIN_TIMESTAMP:
            return
        begin = row_key(symbol, MIN_TIMESTAMP)
        end = row_key(symbol, line) if line <= MAX_TIMESTAMP else symbol.encode() + b";"
        with self._lock:
            database = self._writable()
            try:
                first = database.first_from(begin)
                if first is not None and first < end:
                    if timestamp > self._acknowledged.newest:
                        self._acknowledged.forget()
                    database.delete_range(begin, end)
            except HandleClosed:
                raise self.closed_error() from None
            except StoreUnavailable as error:
                self._suspect(error)
                raise
            self._ledger.delete_before(symbol, line)
            if line > self._deleted.get(symbol, 0):
                self._deleted[symbol] = line

    def reclaim(self) -> None:
        """Give back now what ``delete_before`` freed since the last call; rewrites what it must.

        Without it the space comes back by itself, but only when the database gets round to it.
        """
        with self._lock:
            deleted = dict(self._deleted)
            self._writable()
        self.read(lambda database: database.flush())
        for symbol, line in deleted.items():
            begin, end = row_key(symbol, MIN_TIMESTAMP), row_key(symbol, min(line, MAX_TIMESTAMP))
            self.read(lambda database, b=begin, e=end: database.compact_range(b, e))  # type: ignore[misc]
            with self._lock:
                if self._deleted.get(symbol) == line:  # nothing more of it was deleted meanwhile
                    del self._deleted[symbol]

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        """Record gaps durably; one that touches another of the same cause extends it."""
        check_runs(gaps)
        self._ledger.append_gaps(gaps)

    def append_marks(self, marks: Sequence[Mark]) -> None:
        """Record marks durably; touching ones of the same kind become one."""
        check_runs(marks)
        self._ledger.append_marks(marks)

    def flush(self) -> None:
        """Write the rows in memory to a file: for tests and measurements."""
        self.read(lambda database: database.flush())

    def close(self) -> None:
        """Flush and release everything. Scans under way end with an error. May be called twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            failure = self._handle.close() if self._handle is not None else ""
            self._ledger.close()
            self._acknowledged.close()
            os.close(self._lock_file)
        if failure:
            log.warning(
                "%s: closed without a flush, the log keeps the rows: %s", self._layout, failure
            )
