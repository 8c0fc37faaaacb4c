"""How the contract of ``obframe.testing`` tests the sink ``redis``, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from obframe import Sink, Snapshot, snapshot_from_json
from obframe.testing import contracts
from obframe.testing.brokers import ServerMissing, ValkeyServer
from obframe_plugins.redis import RedisSettings, open_sink


class RedisContract(contracts.SinkContract):
    """Tests the sink ``redis`` against a server that goes down and up."""

    can_break = True

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        self.server = ValkeyServer(tmp_path / "server")
        try:
            self.server.start()
        except ServerMissing as error:
            pytest.skip(str(error))
        yield
        self.server.kill()

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        settings = RedisSettings(url=self.server.url)
        async with open_sink(settings) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return what a consumer reads, each row as often as it is there."""
        found: list[Snapshot] = []
        async with redis.asyncio.Redis.from_url(self.server.url) as client:
            async for key in client.scan_iter("obframe:*"):
                # A hash of late rows would be an error. The library's types allow for texts.
                entries: Any = await client.xrange(key)
                found += [snapshot_from_json(fields[b"json"]) for _, fields in entries]
        return found

    async def break_(self, tmp_path: Path) -> None:
        """Take the server away."""
        self.server.kill()

    async def mend(self, tmp_path: Path) -> None:
        """Start it again, with its data."""
        await asyncio.to_thread(self.server.start)
