"""How the contract of ``obframe.testing`` tests the sink ``kafka``, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import confluent_kafka
import pytest

from obframe import Sink, Snapshot, snapshot_from_json
from obframe.testing import contracts
from obframe.testing.brokers import KafkaCluster, ServerMissing
from obframe_plugins.kafka import KafkaSettings, open_sink


class KafkaContract(contracts.SinkContract):
    """Tests the sink ``kafka`` against a server that goes down and up."""

    can_break = True

    @pytest.fixture(autouse=True)
    def _cluster(self) -> Iterator[None]:
        try:
            self.cluster = KafkaCluster()
        except ServerMissing as error:
            pytest.skip(str(error))
        with self.cluster:
            self.cluster.create_topic("obframe")
            yield

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        servers = tuple(self.cluster.servers.split(","))
        async with open_sink(KafkaSettings(servers=servers)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return what a consumer reads, each row as often as it is there."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Sequence[Snapshot]:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.cluster.servers, "group.id": "test", "log_level": 0}
        )
        with closing(consumer):
            places = [
                confluent_kafka.TopicPartition("obframe", number, confluent_kafka.OFFSET_BEGINNING)
                for number in range(4)
            ]
            count = sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
            consumer.assign(places)
            found: list[Snapshot] = []
            while len(found) < count:
                messages = consumer.consume(count - len(found), timeout=0.5)
                found += [snapshot_from_json(message.value() or b"") for message in messages]
            return found

    async def break_(self, tmp_path: Path) -> None:
        """Take the server away."""
        self.cluster.down()

    async def mend(self, tmp_path: Path) -> None:
        """Start it again, with its data."""
        self.cluster.up()
