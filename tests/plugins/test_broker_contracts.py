"""The sinks to brokers against the contract of sinks, with real servers that go down and up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import confluent_kafka
import nats
import pytest
import redis.asyncio
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from obframe import Sink, Snapshot, snapshot_from_json
from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer
from obframe.testing.contracts import SinkContract
from obframe_plugins import kafka
from obframe_plugins import nats as nats_plugin
from obframe_plugins import redis as redis_plugin


class TestRedis(SinkContract):
    can_break = True

    @pytest.fixture(autouse=True)
    def _server(self, valkey: ValkeyServer) -> None:
        self.server = valkey

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        settings = redis_plugin.RedisSettings(url=self.server.url)
        async with redis_plugin.open_sink(settings) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        found: list[Snapshot] = []
        async with redis.asyncio.Redis.from_url(self.server.url) as client:
            async for key in client.scan_iter("obframe:*"):
                entries = await client.xrange(key)  # a hash of late rows would be an error
                found += [snapshot_from_json(fields[b"json"]) for _, fields in entries]
        return found

    async def break_(self, tmp_path: Path) -> None:
        self.server.kill()

    async def mend(self, tmp_path: Path) -> None:
        await asyncio.to_thread(self.server.start)


class TestNats(SinkContract):
    can_break = True

    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self.server = nats_server

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        # So short a window that what is there must be looked up.
        settings = nats_plugin.NatsSettings(servers=(self.server.url,), duplicate_window=0.2)  # type: ignore[arg-type]
        async with nats_plugin.open_sink(settings) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
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
        self.server.kill()

    async def mend(self, tmp_path: Path) -> None:
        await asyncio.to_thread(self.server.start)


class TestKafka(SinkContract):
    can_break = True

    @pytest.fixture(autouse=True)
    def _cluster(self, kafka_cluster: KafkaCluster) -> None:
        self.cluster = kafka_cluster
        kafka_cluster.create_topic("obframe")

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        servers = tuple(self.cluster.servers.split(","))
        async with kafka.open_sink(kafka.KafkaSettings(servers=servers)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
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
                found += [snapshot_from_json(message.value()) for message in messages]
            return found

    async def break_(self, tmp_path: Path) -> None:
        self.cluster.down()

    async def mend(self, tmp_path: Path) -> None:
        self.cluster.up()
