"""The storages of ours keep the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from obframe import Storage, StoreUnavailable
from obframe.testing.contracts import StorageContract
from obframe_plugins._rocks import RowDatabase
from obframe_plugins.memory import MemoryStorage
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader


class TestMemory(StorageContract):
    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = MemoryStorage()
        yield storage
        storage.close()


class TestRocks(StorageContract):
    persistent = supports_reader = is_exclusive = can_break = can_damage = True
    durability = "power"
    room = 1 << 30
    broken: Any

    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        settings = RocksSettings(path=str(tmp_path / "rows"), durability=self.durability)
        storage = RocksStorage(settings, room=lambda path: self.room)
        try:
            yield storage
        finally:
            storage.close()

    def make_reader(self, tmp_path: Path) -> contextlib.AbstractContextManager[Storage]:
        return open_reader(RocksSettings(path=str(tmp_path / "rows")))

    def settle(self, storage: Storage) -> None:
        assert isinstance(storage, RocksStorage)
        storage.flush()

    def break_(self, storage: Storage) -> None:
        fault = StoreUnavailable("No space left on device")
        self.broken = mock.patch.object(RowDatabase, "write", side_effect=fault)
        self.broken.start()
        self.room = 0

    def mend(self, storage: Storage) -> None:
        self.broken.stop()
        self.room = 1 << 30

    def damage(self, tmp_path: Path) -> None:
        for path in (tmp_path / "rows").glob("*.sst"):
            data = bytearray(path.read_bytes())
            middle = len(data) // 2
            data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
            path.write_bytes(data)


class TestRocksUnsynced(TestRocks):
    durability = "process"
