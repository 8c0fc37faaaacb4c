"""How the contract of storages tests this one; ``obframe plugins check`` runs it too."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from pathlib import Path

from obframe import Storage
from obframe.testing import contracts

from .plugin import SqliteStorage, StorageSettings, open_reader


class SqliteContract(contracts.StorageContract):
    """Opens the storage below a folder of the contract's."""

    persistent = True
    supports_reader = True

    def make_storage(self, tmp_path: Path) -> AbstractContextManager[Storage]:
        """Open the storage that writes."""
        return closing(SqliteStorage(tmp_path / "rows.sqlite"))

    def make_reader(self, tmp_path: Path) -> AbstractContextManager[Storage]:
        """Open one that reads beside it."""
        return open_reader(StorageSettings(path=str(tmp_path / "rows.sqlite")))
