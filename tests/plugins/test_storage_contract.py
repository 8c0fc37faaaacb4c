"""The storages of ours keep the contract."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from obframe import Storage, StoreUnavailable
from obframe_plugins._contracts import MemoryContract, RocksContract
from obframe_plugins._rocks import RowDatabase
from obframe_plugins.rocksdb import RocksSettings, RocksStorage


class TestMemory(MemoryContract):
    pass


class TestRocks(RocksContract):
    can_break = True
    durability: Literal["power", "process"] = "power"
    room = 1 << 30
    broken: Any

    def make_storage(self, tmp_path: Path) -> contextlib.AbstractContextManager[Storage]:
        settings = RocksSettings(path=str(tmp_path / "rows"), durability=self.durability)
        return contextlib.closing(RocksStorage(settings, room=lambda path: self.room))

    def break_(self, storage: Storage) -> None:
        fault = StoreUnavailable("No space left on device")
        self.broken = mock.patch.object(RowDatabase, "write", side_effect=fault)
        self.broken.start()
        self.room = 0

    def mend(self, storage: Storage) -> None:
        self.broken.stop()
        self.room = 1 << 30


class TestRocksUnsynced(TestRocks):
    durability = "process"
