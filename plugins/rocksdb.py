"""The default storage: a plain RocksDB directory of rows, and a ledger of gaps beside it.

``rocksdb.path`` is the row database itself, which any RocksDB tool opens. Beside it,
``<path>.obframe`` holds the ledger, obframe's lock and a small directory for each reader.
``_writing`` and ``_reading`` hold what is done to it, ``_maintenance`` backups and repairs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

from obframe import Provider, Storage, StorageError, hookimpl
from obframe_plugins._foreign import open_rows_reader
from obframe_plugins._maintenance import RocksMaintenance
from obframe_plugins._writing import RocksSettings, RocksStorage

OBFRAME_API = 1


@contextlib.asynccontextmanager
async def open_storage(settings: RocksSettings) -> AsyncIterator[Storage]:
    """Open the store off the event loop and close it at the end."""
    opening = asyncio.ensure_future(asyncio.to_thread(RocksStorage.open, settings))
    try:
        storage = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread cannot be stopped; what it opens must not stay open and locked.
        with contextlib.suppress(StorageError):
            (await opening).close()
        raise
    try:
        yield storage
    finally:
        await asyncio.shield(asyncio.to_thread(storage.close))


@contextlib.contextmanager
def open_reader(settings: RocksSettings) -> Iterator[Storage]:
    """Open the store for reading, beside a process that writes it or without one."""
    reader = open_rows_reader(settings.path)
    try:
        yield reader
    finally:
        reader.close()


@hookimpl
def obframe_storages() -> Sequence[Provider[Storage]]:
    """Offer the storage ``rocksdb``."""
    return [
        Provider(
            "rocksdb",
            "rows in a plain RocksDB directory, gaps beside it",
            RocksSettings,
            open_storage,
            open_reader,
            RocksMaintenance,
            contract="obframe_plugins._contracts:RocksContract",
        )
    ]
