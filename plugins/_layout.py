"""What lies at a path, found out by looking only; and who holds it.

Opening a database with the library writes into its directory even when it fails, and creates an
empty one over the remains of a damaged one. So all of this comes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

from obframe import (
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreLocked,
)
from obframe_plugins import _ledger, _rocks
from obframe_plugins._files import logs_elsewhere
from obframe_plugins._keys import Holding, find_symbols, newest_row

log = logging.getLogger("obframe.rocksdb")

_ELSEWHERE = "choose a path in a folder that is there and can be written"

_ROWS = re.compile(r"\d+\.(sst|ldb|blob|log)")
_OTHERS = re.compile(
    r"LOCK|LOG|LOG\.old\.\d+|IDENTITY|(MANIFEST|OPTIONS)-\d+(\.dbtmp)?|\d+\.dbtmp"
    r"|rocksdict-config\.json|lost\+found|archive|\..*"
)


class Layout:
    """The paths of one store: the row database and, beside it, what only obframe knows."""

    def __init__(self, path: str) -> None:
        self.rows = Path(path).expanduser()
        self.side = self.rows.with_name(self.rows.name + ".obframe")
        self.ledger = self.side / "ledger.sqlite"
        self.acknowledged = self.side / "acknowledged"
        self.writer_lock = self.side / "writer.lock"
        self.readers = self.side / "readers"

    def __str__(self) -> str:
        return str(self.rows)

    def examine(self) -> bool:
        """Return whether a database lies here; nothing is written.

        Raises:
            StoreFormatError: Something else lies here, or a store of a newer format.
            StoreCorrupt: The remains of a database lie here.
            StorageError: It cannot be looked at.
        """
        marker = _ledger.read_format(self.ledger)
        _ledger.check_format(marker, self.ledger)
        exists = self._examine_rows()
        if not exists and _ledger.newest_acknowledged(self.acknowledged):
            raise StoreCorrupt(
                f"{self}: the rows are gone, yet {self.side} tells that some were stored here; "
                f"bring the directory back (is a disk not mounted?), or move {self.side} away "
                f"to start anew",
                str(self),
            )
        return exists

    def _examine_rows(self) -> bool:
        try:
            names = set(os.listdir(self.rows))
        except FileNotFoundError:
            return False
        except NotADirectoryError as error:
            raise StoreFormatError(
                f"{self}: is a file, not a database directory; choose another rocksdb.path",
                str(self),
            ) from error
        except OSError as error:
            raise StorageError(f"{self}: cannot be read: {error}", str(self)) from error
        if "CURRENT" not in names:
            rows = sorted(name for name in names if _ROWS.fullmatch(name))
            if rows:
                raise self._broken(f"CURRENT is missing, yet {rows[0]} is there")
            foreign = sorted(name for name in names if not _OTHERS.fullmatch(name))
            if foreign:
                raise StoreFormatError(
                    f"{self}: holds {foreign[0]!r}, which is no part of a database; choose "
                    f"another rocksdb.path",
                    str(self),
                )
            return False  # empty, or a creation that was killed before it held anything
        current = self._read_current()
        while True:
            if not re.fullmatch(rb"MANIFEST-\d+\n", current):
                raise self._broken("CURRENT does not name a manifest")
            manifest = current.decode().strip()
            if self._size(manifest):
                return True
            # A writer that starts names a new manifest and removes the old one.
            read, current = current, self._read_current()
            if current == read:
                raise self._broken(f"{manifest}, which CURRENT names, is missing or empty")

    def _read_current(self) -> bytes:
        try:
            return (self.rows / "CURRENT").read_bytes()
        except OSError as error:
            raise StorageError(f"{self}: CURRENT cannot be read: {error}", str(self)) from error

    def _size(self, name: str) -> int:
        try:
            return (self.rows / name).stat().st_size
        except OSError:
            return 0

    def _broken(self, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self}: {what}; nothing was touched. Restore a backup, or save what can be read "
            f"with `{_rocks.salvage_command(str(self))}`",
            str(self),
        )

    def pickling(self) -> bool | None:
        """Return whether the library's own note says that values are pickled; None: no note."""
        try:
            note = json.loads((self.rows / "rocksdict-config.json").read_bytes())
            return not note["raw_mode"]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent, or cut off while it was rewritten: it tells nothing

    def check_form(self, *, ours: bool) -> None:
        """Raise when its values are pickled or not all in this directory and family; write nothing.

        Args:
            ours: The store bears obframe's marker, so that a note of pickling is a mistake.

        Raises:
            StoreFormatError: They are.
            StoreCorrupt: It cannot be read.
        """
        path = str(self.rows)
        if self.pickling() and not ours:
            raise StoreFormatError(
                f"{self}: rocksdict-config.json says that its values are pickled, which is not the "
                f"format of order-book rows; nothing was touched. If the rows are MessagePack "
                f"all the same, remove that file",
                path,
            )
        families = _rocks.column_families(path)
        if families != ["default"]:
            raise StoreFormatError(
                f"{self}: has the column families {', '.join(families)}, where a database of rows "
                f"has only the default one; nothing was touched",
                path,
            )
        self.check_logs()

    def check_logs(self) -> None:
        """Raise when the newest rows lie in logs elsewhere, where they would be missed.

        Raises:
            StoreFormatError: They do.
        """
        logs = logs_elsewhere(str(self.rows))
        if logs is not None:
            raise StoreFormatError(
                f"{self}: its program keeps the newest rows in logs in {logs}, where they would be "
                f"missed; close that program, and link or copy these logs into {self}. Nothing "
                f"was touched",
                str(self),
            )

    def inspect(self, *, ours: bool, adopt: bool = False) -> None:
        """Raise unless an existing database may be written by us; write nothing.

        Args:
            ours: The store bears obframe's marker.
            adopt: Rows that obframe is not known to have written are wanted.

        Raises:
            StoreFormatError: Pickled values, other column families, other keys, or rows that are
                not to be adopted.
            StoreCorrupt: It cannot be read.
        """
        if ours and not self.pickling():
            return
        self.check_form(ours=ours)
        with _rocks.RowDatabase.open_view(str(self.rows)) as database:
            holding = find_symbols(database)
            seconds = list(holding.symbols.values())
            for symbol in holding.symbols:
                newest = newest_row(database, symbol, holding.strays)
                seconds.extend([newest[0]] if newest is not None else [])
        if holding.strays.count:
            raise self.stray_error(holding)
        if ours or not seconds:
            return
        held = (
            f"rows of {_count(len(holding.symbols), 'symbol')} from {_time(min(seconds))} to "
            f"{_time(max(seconds))}"
        )
        if not adopt:
            raise StoreFormatError(
                f"{self}: holds {held}, but {self.side}, where obframe keeps gaps, is missing: "
                f"another program wrote them, or that directory was lost. `obframe query` reads "
                f"them as they are. `--set rocksdb.adopt=true` records into this database; "
                f"retention.max_age (7 days by default) then deletes what is older: set "
                f"retention.max_age=0 to keep all. Nothing was touched",
                str(self),
            )
        log.warning("%s: adopted, with %s; no gaps of that time are known", self, held)

    def stray_error(self, holding: Holding) -> StoreFormatError:
        """Return the error for a database with keys that are no rows'."""
        strays = holding.strays
        what = (
            f"it holds rows of {_count(len(holding.symbols), 'symbol')} too, and they can be read, "
            f"but another program uses it, so nothing is written to it"
            if holding.symbols
            else "this is another program's database"
        )
        return StoreFormatError(
            f"{self}: holds {_count(strays.count, 'key')} such as {strays.first[:80]!r}, which "
            f"is not 'symbol:seconds'; {what}; choose another rocksdb.path. Nothing was touched",
            str(self),
        )

    def check_unlocked(self) -> None:
        """Raise when another process has the row database open for writing; write nothing.

        To be called only when this process has it not open: closing the lock file would free it.

        Raises:
            StoreLocked: Another process holds the lock.
        """
        try:
            file = os.open(self.rows / "LOCK", os.O_RDWR)
        except OSError:
            return
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreLocked(_rocks.locked_message(str(self)), str(self)) from error
        finally:
            os.close(file)

    def lock_writer(self, *, create: bool) -> int | None:
        """Take obframe's own lock, which also keeps two storages of one process apart.

        Returns:
            The file to keep open for as long as the store is, None when there is none to lock yet.

        Raises:
            StoreLocked: Another storage holds it.
            StorageError: The directory cannot be written.
        """
        try:
            if create:
                self.side.mkdir(exist_ok=True)
            file = os.open(self.writer_lock, os.O_RDWR | (os.O_CREAT if create else 0), 0o644)
        except FileNotFoundError as error:
            if not create:
                return None
            raise StorageError(
                f"{self.side}: cannot be created: {error}; {_ELSEWHERE}", str(self)
            ) from error
        except OSError as error:
            raise StorageError(
                f"{self.side}: cannot be written: {error}; {_ELSEWHERE}", str(self)
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise StoreLocked(_rocks.locked_message(str(self)), str(self)) from error
        return file

    def claim_reader(self) -> ReaderClaim:
        """Return a directory for one reader, after removing those of readers that died."""
        try:
            self.readers.mkdir(exist_ok=True)
            for lock in self.readers.glob("*.lock"):
                _remove_if_dead(lock)
            return ReaderClaim(self.readers)
        except OSError as error:
            raise StorageError(
                f"{self.readers}: cannot be written: {error}; a reader needs a small directory "
                f"there",
                str(self),
            ) from error


class ReaderClaim:
    """A directory that one reader uses, marked as alive by a lock on a file beside it."""

    def __init__(self, readers: Path) -> None:
        while True:
            token = uuid.uuid4().hex
            self._lock = readers / f"{token}.lock"
            self._file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            # Another reader may have taken it for a dead one's before it was locked.
            if self._lock.exists():
                break
            os.close(self._file)
        self.directory = readers / token
        try:
            self.directory.mkdir()
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Remove the directory. May be called twice."""
        if self._file >= 0:
            shutil.rmtree(self.directory, ignore_errors=True)
            self._lock.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def _remove_if_dead(lock: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        file = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        else:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(file)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _time(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
