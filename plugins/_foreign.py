"""Reading a database of rows that was never recorded by obframe, or has lost its ledger.

Nothing is written beside it, nothing into it: it is opened through links in a temporary directory.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from typing import Final

from obframe import StorageError, StoreFormatError, StoreUnavailable
from obframe_plugins._files import file_state
from obframe_plugins._keys import find_symbols
from obframe_plugins._layout import Layout
from obframe_plugins._ledger import NoLedger, read_format
from obframe_plugins._reading import ReadOnly, RocksReader
from obframe_plugins._rocks import RowDatabase

_TRIES: Final = 5


def open_rows_reader(path: str) -> RocksReader | ForeignReader:
    """Open a store for reading, whoever wrote it.

    Raises:
        StoreFormatError: Something else lies at the path.
        StorageError: Nothing lies there, or it cannot be read.
    """
    layout = Layout(path)
    _check_there(layout)
    if read_format(layout.ledger) is None:
        return ForeignReader(layout)
    return RocksReader(layout)


def _check_there(layout: Layout) -> None:
    if not layout.examine():
        raise StorageError(
            f"{layout}: no database there; `obframe run` creates one, rocksdb.path tells where",
            str(layout),
        )


class _View:
    """A fixed view of a database as it stood when this was made."""

    def __init__(self, path: str) -> None:
        self.state = file_state(path)
        with contextlib.ExitStack() as stack:
            try:
                self.database = stack.enter_context(RowDatabase.open_view(path))
            except OSError as error:
                raise StorageError(
                    f"{path}: reading needs a small directory in {tempfile.gettempdir()}: {error}",
                    path,
                ) from error
            # A log that was flushed and removed meanwhile might be in neither log nor file.
            if file_state(path)[0] != self.state[0]:
                raise StoreUnavailable(
                    f"{path}: another program changed the files while they were read; try again",
                    path,
                )
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()


class ForeignReader(ReadOnly):
    """Rows without a ledger. Each read sees what its program had written into the files before."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ledger = NoLedger(layout.ledger)
        self._lock = threading.Lock()
        self._is_closed = False
        self._views: list[_View] = []  # the newest is the last; before it those still scanned
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            holding = self.read(lambda database: find_symbols(database, limit=1))
            if holding.strays.count and not holding.symbols:
                raise layout.stray_error(holding)
            undo.pop_all()

    def _database(self) -> RowDatabase:
        with self._lock:
            if self._is_closed:
                raise self.closed_error()
            if not self._views or file_state(str(self._layout)) != self._views[-1].state:
                self._views.append(self._look())
                for view in self._views[:-1]:
                    if not view.database.is_scanned():
                        self._views.remove(view)
                        view.close()
            return self._views[-1].database

    def _look(self) -> _View:
        for _ in range(_TRIES - 1):
            try:
                return self._look_once()
            except StoreFormatError:
                raise
            except StorageError:
                continue  # its program may have removed a file between our linking and opening it
        return self._look_once()

    def _look_once(self) -> _View:
        _check_there(self._layout)
        self._layout.check_form(ours=False)
        return _View(str(self._layout))

    def close(self) -> None:
        """Release everything. May be called twice."""
        with self._lock:
            self._is_closed = True
            while self._views:
                self._views.pop().close()
