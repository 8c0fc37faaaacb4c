"""The one wrapper around rocksdict. No other module imports it, and no handle of it gets out.

What it guards against, all of it reproduced: scans that lose rows through the prefix filter, scans
that end early on a damaged block, bounds that are freed while in use, opens that drop the filter
options, unpickling of stored values, and writes that stall with the interpreter's lock held.
"""

from __future__ import annotations

import contextlib
import functools
import re
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    SliceTransform,
    WriteBatch,
    WriteOptions,
)

from obframe import (
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreLocked,
    StoreUnavailable,
)
from obframe_plugins._files import link_files, manifest_state

BLOCK_SIZE = 16384
"""Bytes of rows, before compression, that are read at once; docs/decisions/0009 tells why."""

WRITE_BUFFER: Final = 8 << 20
"""Bytes of rows in memory before a file is written; the log is of about this size."""

_COMPACTIONS: Final = ("rocksdb.compaction-pending", "rocksdb.num-running-compactions")
_STALL_LIMIT: Final = 10.0
_PREFIX_LENGTH: Final = 10
_CATCH_UP_PASSES: Final = 50

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class HandleClosed(Exception):
    """The database was closed or opened anew under the caller; never leaves the plugin."""


def salvage_command(path: str) -> str:
    """Return the command that saves what can be read of a damaged database into a new one."""
    return f"obframe repair {path}-saved --set rocksdb.path={path}"


_LOCKED = re.compile(r"lock hold by current process|While lock file|lock file", re.IGNORECASE)
_UNAVAILABLE = re.compile(
    r"No space left|Disk quota|File too large|Input/output error|Read-only file system"
    r"|Too many open files|stall|Shutdown in progress|max open files|SpaceLimit|Space limit",
    re.IGNORECASE,
)
_FORMAT = re.compile(r"comparator|Column families not opened|Column family not found")


def storage_error(error: BaseException, path: str) -> StorageError:
    """Return the error of ours that says what the library's bare text says."""
    text = str(error)
    if _LOCKED.search(text):
        return StoreLocked(locked_message(path), path)
    if _UNAVAILABLE.search(text):
        return StoreUnavailable(f"{path}: {text}; nothing of it was acknowledged, try again", path)
    if "Permission denied" in text:
        return StorageError(
            f"{path}: {text}; the directory and its files must be readable and writable "
            f"by this user, for readers too",
            path,
        )
    if _FORMAT.search(text):
        return StoreFormatError(f"{path}: not a database of order-book rows: {text}", path)
    if "orruption" in text or "No such file or directory" in text or "checksum" in text:
        return StoreCorrupt(
            f"{path}: damaged: {text}; restore a backup, or save what can be read with "
            f"`{salvage_command(path)}`",
            path,
        )
    if text.startswith("IO error"):
        return StoreUnavailable(f"{path}: {text}", path)
    return StorageError(f"{path}: {text}", path)


def locked_message(path: str) -> str:
    """Return what to tell whoever wants to write a database that another process writes."""
    return (
        f"{path}: another process has it open for writing; stop that recorder or choose another "
        f"rocksdb.path. Reading needs no stop: `obframe query` works while a recorder runs"
    )


def _options(level: int, recovery: DBRecoveryMode | None = None) -> Options:
    table = BlockBasedOptions()
    table.set_block_size(BLOCK_SIZE)
    table.set_bloom_filter(10, False)
    table.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(False)
    options.set_block_based_table_factory(table)
    options.set_prefix_extractor(SliceTransform.create_fixed_prefix(_PREFIX_LENGTH))
    options.set_compression_type(DBCompressionType.zstd())
    options.set_compression_options(-14, level, 0, 0)
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_write_buffer_number(3)
    # Damage in the middle of the log must be an error; the default mode keeps half, silently.
    options.set_wal_recovery_mode(recovery or DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_max_open_files(-1)
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(4 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _read_options(upper: bytes | None = None) -> ReadOptions:
    options = ReadOptions()
    # Without it the 10-byte prefix, which cuts through the digits of the time, loses rows.
    options.set_total_order_seek(True)
    if upper is not None:
        options.set_iterate_upper_bound(upper)
    return options


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of rows.

    Attributes:
        size: Its bytes.
        first: Its first key.
        last: Its last key.
        rows: Keys in it, those that hide others as deleted not counted.
    """

    size: int
    first: bytes
    last: bytes
    rows: int


class Cursor:
    """Reads the keys of ``lower <= key < upper`` of one consistent state, forward, in pieces."""

    def __init__(self, database: Rdict, lower: bytes, upper: bytes, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        # The library keeps pointers to both, and frees nothing for us: they must outlive the scan.
        self._upper = upper
        self._options = _read_options(upper)
        self._rows = database.iter(self._options)
        self._rows.seek(lower)
        self._open = True
        self._error: Exception | None = None

    def read(self, count: int) -> list[tuple[bytes, bytes]]:
        """Return the next ``count`` keys with values, or fewer; none at the end. As ``take``."""
        return list(zip(*self.take(count), strict=True))

    def take(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """Return the next ``count`` keys and, apart, their values, or fewer; none at the end.

        Raises:
            StorageError: What comes next cannot be read.
            HandleClosed: The database was closed meanwhile.
        """
        with self._lock:
            if not self._open:
                raise HandleClosed
            if self._error is not None:
                raise storage_error(self._error, self._path) from self._error
            rows = self._rows
            valid, key, value, advance = rows.valid, rows.key, rows.value, rows.next
            keys: list[bytes] = []
            values: list[bytes] = []
            add_key, add_value = keys.append, values.append
            try:
                for _ in range(count):
                    if not valid():
                        break
                    add_key(key())
                    add_value(value())
                    advance()
                # Invalid means the end or an error, and only this tells which.
                rows.status()
            except Exception as error:
                self._error = error.with_traceback(None)
                del keys[len(values) :]
                if not keys:
                    raise storage_error(error, self._path) from self._error
            finally:
                # A kept traceback must not keep the iterator, which keeps the lock file locked.
                del rows, valid, key, value, advance
            return keys, values

    @property
    def is_open(self) -> bool:
        """Whether it still pins files."""
        return self._open

    def close(self) -> None:
        """Release what the cursor pins. May be called twice, from any thread."""
        with self._lock:
            if self._open:
                self._open = False
                del self._rows


def _using(
    call: Callable[Concatenate[RowDatabase, Rdict, _Given], _Result],
) -> Callable[Concatenate[RowDatabase, _Given], _Result]:
    """Give a method the open handle, which stays open until the method returns.

    Ctrl-C raises wherever the interpreter looks for signals: where a function written in Python
    begins, and after any call. A count of users, or a generator that waits to be finished, could
    then stay behind and have ``close`` wait for ever. CPython looks for none between taking a lock
    that is written in C and the ``with`` that gives it back.
    """

    @functools.wraps(call)
    def use(self: RowDatabase, /, *given: _Given.args, **named: _Given.kwargs) -> _Result:
        with self._turn():
            handle = self._handle
            if self._closing or handle is None:
                raise HandleClosed
            try:
                return call(self, handle, *given, **named)
            except (HandleClosed, StorageError):
                raise
            except DbClosedError as error:
                raise HandleClosed from error
            except Exception as error:
                raise storage_error(error, self._path) from error

    return use


class RowDatabase:
    """One open database of raw keys and values; safe to use from several threads.

    Every method raises ``HandleClosed`` after ``close``, ``StorageError`` when the library fails.
    """

    def __init__(self, handle: Rdict, path: str) -> None:
        self._handle: Rdict | None = handle
        self._path = path
        self._turns: dict[int, threading.RLock] = {}
        self._ending = threading.Lock()
        self._closing = False
        self._cursors: weakref.WeakSet[Cursor] = weakref.WeakSet()
        self._write_options = WriteOptions()
        # A stalled write blocks with the interpreter's lock held: the whole process would freeze.
        self._write_options.no_slowdown = True

    @classmethod
    def open_writer(cls, path: str, *, create: bool, level: int = 3) -> RowDatabase:
        """Open for reading and writing. The caller has checked what lies at the path."""
        options = _options(level)
        options.create_if_missing(create)
        return cls(_open(path, options, AccessType.read_write()), path)

    @classmethod
    def open_secondary(cls, path: str, own: str) -> RowDatabase:
        """Open beside a process that writes; ``own`` is a directory for this handle alone."""
        return cls(_open(path, _options(3), AccessType.secondary(own)), path)

    @classmethod
    @contextlib.contextmanager
    def open_view(cls, path: str, *, tolerant: bool = False) -> Iterator[RowDatabase]:
        """Open a fixed view of a database without writing a single byte into its directory.

        Args:
            path: The database. When a process may be writing it, the view holds together only if
                the first part of ``file_state`` is the same before and after this.
            tolerant: Pass over damaged records of the log instead of refusing them.
        """
        recovery = DBRecoveryMode.skip_any_corrupted_record() if tolerant else None
        with tempfile.TemporaryDirectory(prefix="obframe-view-") as view:
            link_files(path, view)
            database = cls(_open(view, _options(3, recovery), AccessType.read_only(False)), path)
            try:
                yield database
            finally:
                database.close()

    def _turn(self) -> threading.RLock:
        """Return the lock of this thread, which is held while the thread uses the handle."""
        thread = threading.get_ident()
        return self._turns.get(thread) or self._turns.setdefault(thread, threading.RLock())

    @_using
    def get_many(self, handle: Rdict, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where it is absent."""
        return list(handle.get(list(keys)) or ())

    @_using
    def write(self, handle: Rdict, items: Sequence[tuple[bytes, bytes]], *, sync: bool) -> None:
        """Write the items as one atomic batch through the log.

        Args:
            items: Keys and values.
            sync: Return only when the log is on the disk itself.

        Raises:
            StoreUnavailable: The log did not take it, or did not confirm it: it may have landed.
        """

        def fill(batch: WriteBatch) -> None:
            for key, value in items:
                batch.put(key, value)

        self._submit(handle, fill)
        if sync:
            handle.flush_wal(True)  # lets other threads run, unlike a synced write

    @_using
    def delete_range(self, handle: Rdict, begin: bytes, end: bytes) -> None:
        """Delete the keys of ``begin <= key < end`` at the cost of one write."""
        self._submit(handle, lambda batch: batch.delete_range(begin, end))

    def _submit(self, handle: Rdict, fill: Callable[[WriteBatch], None]) -> None:
        """Write what ``fill`` puts into a batch, waiting for the end of a stall."""
        deadline = time.monotonic() + _STALL_LIMIT
        while True:
            batch = WriteBatch(raw_mode=True)
            fill(batch)
            try:
                handle.write(batch, self._write_options)  # uses the batch up, also when it fails
                return
            except Exception as error:
                if "stall" not in str(error).lower() or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    @_using
    def first_from(self, handle: Rdict, key: bytes) -> bytes | None:
        """Return the first key at or after ``key``."""
        options = _read_options()
        rows = handle.iter(options)
        try:
            rows.seek(key)
            if rows.valid():
                found: bytes = rows.key()
                return found
            rows.status()
            return None
        finally:
            del rows

    @_using
    def last_until(
        self, handle: Rdict, key: bytes, wanted: Callable[[bytes], bool] | None = None
    ) -> tuple[bytes, bytes] | None:
        """Return the last key at or before ``key`` that is ``wanted``, with its value."""
        options = _read_options()
        rows = handle.iter(options)
        try:
            rows.seek_for_prev(key)
            while rows.valid():
                if wanted is None or wanted(rows.key()):
                    return rows.key(), rows.value()
                rows.prev()
            rows.status()
            return None
        finally:
            del rows

    @_using
    def walk(self, handle: Rdict, visit: Callable[[bytes], bytes | None]) -> None:
        """Show ``visit`` the first key, then the first at or after what it returned, until None."""
        options = _read_options()
        rows = handle.iter(options)
        try:
            beyond: bytes | None = b""
            while beyond is not None:
                rows.seek(beyond)
                if not rows.valid():
                    rows.status()
                    return
                beyond = visit(rows.key())
        finally:
            del rows

    def is_scanned(self) -> bool:
        """Return whether a cursor of it is still open."""
        return any(cursor.is_open for cursor in list(self._cursors))

    @_using
    def cursor(self, handle: Rdict, lower: bytes, upper: bytes) -> Cursor:
        """Return a cursor over ``lower <= key < upper`` as it stands now."""
        cursor = Cursor(handle, lower, upper, self._path)
        self._cursors.add(cursor)
        return cursor

    @_using
    def catch_up(self, handle: Rdict) -> None:
        """Let a secondary see what the writing process has written until now.

        Raises:
            StoreUnavailable: The writer changed its files all the while.
        """
        for _ in range(_CATCH_UP_PASSES):
            before = manifest_state(self._path)
            handle.try_catch_up_with_primary()
            # The library reads the list of files, then the logs. A log that was flushed and
            # removed in between is in neither: its rows would be missing without an error.
            if manifest_state(self._path) == before:
                return
        raise StoreUnavailable(
            f"{self._path}: the files changed all the while they were read; try again",
            self._path,
        )

    @_using
    def files(self, handle: Rdict) -> list[RowFile]:
        """List the files of rows that count now; what is in memory only is in none."""
        return [
            RowFile(
                file["size"],
                bytes(file["start_key"] or b""),
                bytes(file["end_key"] or b""),
                file["num_entries"] - file["num_deletions"],
            )
            for file in handle.live_files()
        ]

    @_using
    def compact_range(self, handle: Rdict, begin: bytes, end: bytes) -> None:
        """Rewrite what lies in ``begin <= key <= end``, without what is deleted of it."""
        handle.compact_range(begin, end)

    @_using
    def is_compacting(self, handle: Rdict) -> bool:
        """Whether files are being rewritten, or are to be."""
        return any(handle.property_int_value(each) for each in _COMPACTIONS)

    @_using
    def flush(self, handle: Rdict) -> None:
        """Write what is in memory to a file."""
        handle.flush(True)

    @_using
    def compact(self, handle: Rdict) -> None:
        """Rewrite all files. Dear: for tests and measurements."""
        handle.compact_range(None, None)

    def close(self) -> str:
        """Release the database, waiting for calls under way; cursors end with ``HandleClosed``.

        Returns:
            Empty, or why the last flush failed; the handle is released all the same.
        """
        self._closing = True  # whoever takes a turn from now on sees it
        for turn in list(self._turns.values()):
            with turn:
                pass
        with self._ending:
            for cursor in list(self._cursors):
                cursor.close()  # a live iterator would keep the lock file locked
            if self._handle is None:
                return ""
            try:
                self._handle.close()
            except Exception as error:
                return str(error)
            finally:
                self._handle = None
            return ""


def _open(path: str, options: Options, access: AccessType) -> Rdict:
    try:
        # Named a second time, or the library takes default options for the rows on a reopen.
        return Rdict(path, options, column_families={"default": options}, access_type=access)
    except Exception as error:
        raise storage_error(error, path) from error


def column_families(path: str) -> list[str]:
    """Return the column families of a database, by looking only."""
    try:
        return Rdict.list_cf(path)
    except Exception as error:
        raise storage_error(error, path) from error


def repair(path: str) -> None:
    """Rebuild the list of files of a database in place; what is unreadable is put aside."""
    try:
        Rdict.repair(path, _options(3))
    except Exception as error:
        raise storage_error(error, path) from error
