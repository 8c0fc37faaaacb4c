"""How the contract of ``obframe.testing`` tests the sink ``nats``, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from obframe import Duration, Sink, Snapshot, snapshot_from_json
from obframe.testing import contracts
from obframe.testing.brokers import NatsServer, ServerMissing
from obframe_plugins.nats import NatsSettings, open_sink


class NatsContract(contracts.SinkContract):
    """Tests the sink ``nats`` against a server that goes down and up."""

    can_break = True

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        self.server = NatsServer(tmp_path / "server")
        try:
            self.server.start()
        except ServerMissing as error:
            pytest.skip(str(error))
        yield
        self.server.kill()

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        # So short a window that what is there must be looked up.
        settings = NatsSettings(servers=(self.server.url,), duplicate_window=Duration(0.2))
        async with open_sink(settings) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return what a consumer reads, each row as often as it is there."""
        client = await nats.connect(self.server.url)
        found: list[Snapshot] = []
        try:
            wanted = ConsumerConfig(ack_policy=AckPolicy.NONE)
            stream = client.jetstream()
            consumer = await stream.pull_subscribe(">", stream="OBFRAME", config=wanted)
            left = (await consumer.consumer_info()).num_pending or 0
            while len(found) < left:
                messages = await consumer.fetch(left - len(found), timeout=5)
                found += [snapshot_from_json(message.data) for message in messages]
        except NotFoundError:
            pass  # nothing was written yet
        finally:
            await client.close()
        return found

    async def break_(self, tmp_path: Path) -> None:
        """Take the server away."""
        self.server.kill()

    async def mend(self, tmp_path: Path) -> None:
        """Start it again, with its data."""
        await asyncio.to_thread(self.server.start)
