"""Backups of a store: consistent, incremental, taken while a recorder writes it.

A backup folder holds ``files/``, where each file of rows lies once however many backups need it,
and ``backups/``, a JSON file for each backup that names its files with their checksums. Files of
rows never change once they are written, so a backup copies only those that are new.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from obframe import Backup, StorageError, StoreCorrupt, StoreFormatError, StoreUnavailable, Tell
from obframe_plugins._copying import copy_file, digest_of, size_of, sync_folder, write_atomically
from obframe_plugins._keys import find_symbols, newest_row
from obframe_plugins._layout import Layout
from obframe_plugins._ledger import cut_after, read_format
from obframe_plugins._pins import pinned
from obframe_plugins._rocks import RowDatabase

FORMAT: Final = 1

_ANOTHER: Final = "restore another: `obframe backup FOLDER --list` names them, --name takes one"
"""What to do with a backup that is not whole."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a backup: its name in the store, where it lies, and what it must be."""

    name: str
    stored: str
    size: int
    sha256: str


class BackupFolder:
    """A folder of backups of one store.

    Args:
        folder: Made when it is not there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = folder / "files"
        self._backups = folder / "backups"

    def backups(self) -> list[Backup]:
        """Return all backups, oldest first.

        Raises:
            StoreFormatError: The folder holds something else, or is of a newer obframe.
        """
        return [self._read(path)[0] for path in self._paths()]

    def _paths(self) -> list[Path]:
        try:
            names = set(os.listdir(self._folder))
            lists = os.listdir(self._backups) if self._backups.name in names else []
        except FileNotFoundError:
            return []
        except OSError as error:
            mend = "choose an empty folder, or one of backups"
            raise self._failure("is no folder of backups", error, mend) from error
        if names and self._backups.name not in names:
            raise StoreFormatError(
                f"{self._folder}: holds other files, and no backups; choose an empty folder, or "
                f"one of backups",
                str(self._folder),
            )
        return sorted(self._backups / name for name in lists if name.endswith(".json"))

    def _failure(self, what: str, error: OSError, mend: str) -> StorageError:
        return StorageError(f"{self._folder}: {what}: {error}; {mend}", str(self._folder))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other backups out: one removes files that no backup needs, or none yet."""
        file = os.open(self._backups / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"{self._folder}: another backup into it is under way; wait for its end, or "
                    f"choose another folder",
                    str(self._folder),
                ) from error
            yield
        finally:
            os.close(file)

    def _check_store(self, layout: Layout) -> None:
        """Raise when the folder holds backups of another store: it would push out theirs."""
        identity = _identity(layout.rows)
        for path in self._paths():
            for file in self._read(path)[1]:
                if not file.stored.startswith(f"{identity}-"):
                    source = json.loads(path.read_bytes()).get("source")
                    raise StorageError(
                        f"{self._folder}: holds backups of another store, {source}; choose a "
                        f"folder of its own for {layout}",
                        str(self._folder),
                    )

    def _read(self, path: Path) -> tuple[Backup, list[_File]]:
        try:
            told = json.loads(path.read_bytes())
            if told["format"] > FORMAT:
                raise StoreFormatError(
                    f"{path}: a backup of format {told['format']}, this obframe knows formats up "
                    f"to {FORMAT}; install a newer obframe",
                    str(path),
                )
            files = [_File(**each) for each in told["files"]]
            backup = Backup(
                path.stem, told["created"], told["newest"], told["symbols"], told["bytes"], 0
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreCorrupt(
                f"{path}: no list of a backup: {error!r}; move it away, the others need it not",
                str(path),
            ) from error
        return backup, files

    def take(self, layout: Layout, tell: Tell) -> Backup:
        """Add a backup of a store as it is now; the store may be being written.

        Raises:
            StorageError: The store cannot be read, or the folder cannot be written.
        """
        if not layout.examine():
            raise StorageError(
                f"{layout}: nothing is stored there; set rocksdb.path to where a recorder stores",
                str(layout),
            )
        layout.check_logs()
        self._check_store(layout)
        try:
            # In this order: a folder without it, and with something in it, is somebody else's.
            self._backups.mkdir(parents=True, exist_ok=True)
            self._files.mkdir(exist_ok=True)
            sync_folder(self._folder)
            with self._alone(), pinned(layout) as pin:
                return self._copy(layout, pin, tell)
        except OSError as error:
            mend = "make room, or choose a folder that can be written; what is copied stays"
            raise self._failure("the backup failed", error, mend) from error

    def _copy(self, layout: Layout, pin: Path, tell: Tell) -> Backup:
        symbols, newest = _look(pin)
        ledger = pin / "ledger.sqlite"
        if read_format(layout.ledger) is not None:
            _copy_ledger(layout.ledger, ledger)
            # The ledger was copied after the rows: what it tells of later is not theirs.
            cut_after(ledger, newest)
        known = {
            (file.name, file.size, file.stored): file
            for path in self._paths()
            for file in self._read(path)[1]
        }
        identity = _identity(layout.rows)
        names = sorted(pin.iterdir())
        total, done, copied = sum(path.stat().st_size for path in names), 0, 0
        files = []
        for path in names:
            size = path.stat().st_size
            stored = self._stored_name(identity, path)
            file = known.get((path.name, size, stored))
            if file is None or size_of(self._files / stored) != size:
                digest, more = self._put(
                    path,
                    self._files / stored,
                    lambda more, at=done: tell(at + more, total),  # type: ignore[misc]
                )
                file = _File(path.name, stored, size, digest)
                copied += more
            files.append(file)
            done += size
            tell(done, total)
        created, name = self._name()
        told: dict[str, Any] = {
            "format": FORMAT,
            "created": created,
            "source": str(layout.rows.resolve()),
            "newest": newest,
            "symbols": symbols,
            "bytes": total,
            "files": [
                {"name": f.name, "stored": f.stored, "size": f.size, "sha256": f.sha256}
                for f in files
            ],
        }
        sync_folder(self._files)
        write_atomically(self._backups / f"{name}.json", json.dumps(told, indent=1).encode())
        return Backup(name, created, newest, symbols, total, copied)

    def _put(self, path: Path, target: Path, tell: Callable[[int], None]) -> tuple[str, int]:
        """Have a file in the folder; return its SHA-256, and how many bytes were copied for it."""
        size = path.stat().st_size
        if size_of(target) == size:  # copied for a backup that was cut off
            digest = digest_of(path)
            if digest == digest_of(target):
                return digest, 0
        return copy_file(path, target, tell), size

    def _name(self) -> tuple[int, str]:
        """Return the present second, and a name that sorts after those of all other backups."""
        newest = max((path.stem for path in self._paths()), default="")
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z"
        return int(now.timestamp()), name if name > newest else f"{newest}a"  # a clock set back

    @staticmethod
    def _stored_name(identity: str, path: Path) -> str:
        if path.suffix in (".sst", ".blob"):
            return f"{identity}-{path.stat().st_mtime_ns}-{path.name}"
        return f"{identity}-{time.time_ns()}-{path.name}"  # logs and lists grow: each has its own

    def prune(self, keep: int) -> int:
        """Remove all but the newest backups, and the files that only those needed.

        Returns:
            How many backups were removed.
        """
        if not keep or not self._paths():
            return 0
        try:
            with self._alone():
                paths = self._paths()
                gone, left = paths[:-keep], paths[-keep:]
                needed = {file.stored for path in left for file in self._read(path)[1]}
                for path in gone:
                    path.unlink()
                for path in self._files.iterdir():
                    if path.name not in needed:
                        path.unlink()
        except OSError as error:
            mend = "check who may write there"
            raise self._failure("old backups cannot be removed", error, mend) from error
        return len(gone)

    def restore(self, name: str | None, layout: Layout, tell: Tell) -> Backup:
        """Put a backup where no store is; every file is held against its checksum.

        Args:
            name: Which; None for the newest.
            layout: Where to.
            tell: Told how far it is.

        Raises:
            StorageError: There is no such backup, or something lies at the path already.
            StoreCorrupt: A file of the backup is missing or damaged; nothing is left at the path.
        """
        paths = {path.stem: path for path in self._paths()}
        if not paths:
            raise StorageError(
                f"{self._folder}: holds no backups; give the folder that `obframe backup` wrote to",
                str(self._folder),
            )
        if name is None:
            name = max(paths)
        if name not in paths:
            known = ", ".join(paths)
            raise StorageError(
                f"{self._folder}: has no backup {name!r}; it has {known}", str(self._folder)
            )
        if layout.rows.exists() or layout.side.exists():
            raise StorageError(
                f"{layout}: something is there already; move it away, or restore to another "
                f"rocksdb.path",
                str(layout),
            )
        backup, files = self._read(paths[name])
        partial = layout.rows.with_name(f"{layout.rows.name}.restoring")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            (partial / "rows").mkdir(parents=True)
            (partial / "side").mkdir()
            done = 0
            for file in files:
                place = partial / ("side" if file.name == "ledger.sqlite" else "rows") / file.name
                source = self._files / file.stored
                try:
                    digest = copy_file(
                        source,
                        place,
                        lambda more, at=done: tell(at + more, backup.bytes),  # type: ignore[misc]
                    )
                except FileNotFoundError:
                    raise StoreCorrupt(f"{source}: is missing; {_ANOTHER}", str(source)) from None
                if digest != file.sha256:
                    raise StoreCorrupt(
                        f"{source}: damaged: its checksum is not the one it was stored with; "
                        f"{_ANOTHER}",
                        str(source),
                    )
                done += file.size
                tell(done, backup.bytes)
            (partial / "side" / "acknowledged").write_bytes(b"%010d\n" % backup.newest)
            sync_folder(partial / "rows")
            sync_folder(partial / "side")
            (partial / "side").rename(layout.side)
            try:
                (partial / "rows").rename(layout.rows)
            except BaseException:
                layout.side.rename(partial / "side")
                raise
            sync_folder(layout.rows.parent)
        except OSError as error:
            raise StorageError(
                f"{layout}: cannot be restored: {error}; make room, or set rocksdb.path to a place "
                f"that can be written",
                str(layout),
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return backup


def _look(pin: Path) -> tuple[int, int]:
    """Return how many symbols a pinned state has, and its newest second; so it can be opened."""
    with RowDatabase.open_view(str(pin)) as database:
        holding = find_symbols(database)
        newest = 0
        for symbol in holding.symbols:
            found = newest_row(database, symbol, holding.strays)
            newest = max(newest, found[0] if found is not None else 0)
        return len(holding.symbols), newest


def _copy_ledger(source: Path, target: Path) -> None:
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)
            ) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{source}: cannot be copied: {error}", str(source)) from error


def _identity(rows: Path) -> str:
    try:
        text = (rows / "IDENTITY").read_text()
    except OSError:
        text = str(rows.resolve())
    return hashlib.sha256(text.encode()).hexdigest()[:12]
