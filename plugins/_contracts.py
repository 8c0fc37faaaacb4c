"""How the contracts of ``obframe.testing`` test our feeds, storages and sinks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

from obframe import Instrument, Storage
from obframe.testing import contracts
from obframe_plugins._writing import RocksSettings, RocksStorage
from obframe_plugins.binance import BinanceFeed, BinanceSettings
from obframe_plugins.memory import MemoryStorage
from obframe_plugins.rocksdb import open_reader


class MemoryContract(contracts.StorageContract):
    """Tests the storage ``memory``."""

    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        """Give an empty storage."""
        storage = MemoryStorage()
        yield storage
        storage.close()


class RocksContract(contracts.StorageContract):
    """Tests the storage ``rocksdb``."""

    persistent = True
    supports_reader = True
    is_exclusive = True
    can_damage = True

    def make_storage(self, tmp_path: Path) -> contextlib.AbstractContextManager[Storage]:
        """Open the storage that writes."""
        return contextlib.closing(RocksStorage(RocksSettings(path=str(tmp_path / "rows"))))

    def make_reader(self, tmp_path: Path) -> contextlib.AbstractContextManager[Storage]:
        """Open one that reads beside it."""
        return open_reader(RocksSettings(path=str(tmp_path / "rows")))

    def settle(self, storage: Storage) -> None:
        """Write rows from memory to files."""
        assert isinstance(storage, RocksStorage)
        storage.flush()

    def damage(self, tmp_path: Path) -> None:
        """Turn bytes in the middle of every file of rows."""
        for path in (tmp_path / "rows").glob("*.sst"):
            data = bytearray(path.read_bytes())
            middle = len(data) // 2
            data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
            path.write_bytes(data)


class BinanceContract(contracts.FeedContract):
    """Tests the feed ``binance`` against its wire on loopback."""

    can_drop = True
    can_lose = True
    can_garble = True
    can_refuse = True
    market: Literal["spot", "usdm", "coinm"] = "spot"
    transport: Literal["auto", "picows", "websockets"] = "auto"
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT")

    @contextlib.asynccontextmanager
    async def make_feed(self, tmp_path: Path) -> AsyncIterator[contracts.FeedRig]:
        """Open a venue, and a feed that speaks to it."""
        async with contracts.LoopbackVenue(self.symbols, self.market) as venue:
            settings = BinanceSettings(
                market=self.market,
                transport=self.transport,
                rest_url=venue.exchange.rest_url,
                ws_url=venue.exchange.ws_url,
                backoff_max=0.1,
                control_interval=0.01,
                rest_weight_per_minute=100_000,
            )
            instruments = [Instrument(symbol) for symbol in self.symbols]
            unknown = Instrument("NOSUCHUSDT")
            yield contracts.FeedRig(BinanceFeed(settings), instruments, venue, unknown)
