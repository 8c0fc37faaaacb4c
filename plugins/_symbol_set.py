"""A set of symbols in an SQLite file: changed by many processes, safe from kill and power loss."""

from __future__ import annotations

import difflib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from obframe import (
    Instrument,
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreUnavailable,
    SymbolError,
)

_APPLICATION = 0x6F627379  # "obsy" in ASCII; SQLite keeps it in the file's head
_VERSION = 1
_PATIENCE = 10.0
"""Seconds to wait for another process that is writing."""


class SymbolSet:
    """A set of symbols that processes share; each change is made whole or not at all.

    Every method blocks, for as long as others write; call it from any thread or process.

    Args:
        path: The file. It is made by ``create`` or the first ``add``.

    Raises:
        StorageError: By every method: the file is not such a set, is damaged, or cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def create(self) -> None:
        """Make an empty set when there is no file."""
        with self._writing():
            pass

    def symbols(self) -> list[str]:
        """Return all symbols, sorted."""
        # Not opened read-only: what a killed writer left half done has to be undone first.
        with self._connected("rw") as connection:
            if not self._check(connection):
                raise StoreFormatError(
                    f"{self.path} is an empty file, no set of symbols", self.path
                )
            return _read(connection)

    def add(self, symbols: Iterable[str]) -> list[str]:
        """Add symbols; those already in it stay.

        Returns:
            What was not in it before, in the order given.

        Raises:
            SymbolError: One cannot be part of a key; nothing was added.
        """
        wanted = list(dict.fromkeys(Instrument.parse(symbol).symbol for symbol in symbols))
        with self._writing() as connection:
            held = set(_read(connection))
            new = [symbol for symbol in wanted if symbol not in held]
            connection.executemany("INSERT INTO symbols VALUES (?)", [(each,) for each in new])
        return new

    def remove(self, symbols: Iterable[str]) -> list[str]:
        """Remove symbols.

        Returns:
            What was removed, in the order given.

        Raises:
            SymbolError: One is not in it; nothing was removed.
        """
        unwanted = list(dict.fromkeys(symbols))
        with self._writing() as connection:
            held = _read(connection)
            for symbol in unwanted:
                if symbol not in held:
                    close = difflib.get_close_matches(symbol, held, n=1)
                    hint = f"; did you mean {close[0]!r}?" if close else ""
                    raise SymbolError(symbol, f"is not in {self.path}{hint}")
            gone = [(symbol,) for symbol in unwanted]
            connection.executemany("DELETE FROM symbols WHERE symbol = ?", gone)
        return unwanted

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction that nobody else writes beside; commit it unless something raises."""
        with self._connected("rwc") as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                if self._check(connection):
                    yield connection
                    return
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
                connection.execute("CREATE TABLE symbols (symbol TEXT PRIMARY KEY) WITHOUT ROWID")
                yield connection

    @contextmanager
    def _connected(self, mode: str) -> Iterator[sqlite3.Connection]:
        uri = f"{Path(self.path).absolute().as_uri()}?mode={mode}"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
            ) as connection:
                yield connection
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _check(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the set has been made; False when the file is empty."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if (application, version) == (_APPLICATION, _VERSION):
            return True
        if application == _APPLICATION:
            message = f"{self.path} is a set of symbols of version {version}, newer than this"
            raise StoreFormatError(f"{message} obframe: upgrade it", self.path)
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
            message = f"{self.path} is a database of another program; name another runtime.path"
            raise StoreFormatError(message, self.path)
        return False

    def _explain(self, error: sqlite3.Error) -> StorageError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            message = f"{self.path} is no set of symbols; name another runtime.path"
            return StoreFormatError(message, self.path)
        if code == sqlite3.SQLITE_CORRUPT:
            message = f"{self.path} is damaged ({error}); remove it and add the symbols again"
            return StoreCorrupt(message, self.path)
        message = f"{self.path} cannot be used: {error}"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            message += f"; another process has been writing it for {_PATIENCE:g} s"
        elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            message += "; check that its folder exists and may be written"
        return StoreUnavailable(message, self.path)


def _read(connection: sqlite3.Connection) -> list[str]:
    return [symbol for (symbol,) in connection.execute("SELECT symbol FROM symbols ORDER BY 1")]
