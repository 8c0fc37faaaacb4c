"""How the contract of sinks tests those to brokers: with real servers that go down and up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from obframe import Duration, Sink, Snapshot, snapshot_from_json
from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer, skipping
from obframe.testing.contracts import SinkContract
from obframe_plugins import kafka, nats, redis


async def read_redis(url: str) -> list[Snapshot]:
    """Return the rows of all streams, each symbol's as they come."""
    from redis.asyncio import Redis  # noqa: PLC0415

    found: list[Snapshot] = []
    async with Redis.from_url(url) as client:
        async for key in client.scan_iter("obframe:*"):
            entries: Any = await client.xrange(key)  # raises where rows are kept as late
            found += [snapshot_from_json(fields[b"json"]) for _, fields in entries]
    return found


async def read_nats(url: str) -> list[Snapshot]:
    """Return the rows of the stream as they come."""
    from nats.aio.client import Client  # noqa: PLC0415
    from nats.js.api import AckPolicy, ConsumerConfig  # noqa: PLC0415
    from nats.js.errors import NotFoundError  # noqa: PLC0415

    client, found = Client(), list[Snapshot]()
    await client.connect(url)
    try:
        wanted = ConsumerConfig(ack_policy=AckPolicy.NONE)
        consumer = await client.jetstream().pull_subscribe(">", stream="OBFRAME", config=wanted)
        left = (await consumer.consumer_info()).num_pending or 0
        while len(found) < left:
            messages = await consumer.fetch(left - len(found), timeout=5)
            found += [snapshot_from_json(message.data) for message in messages]
    except NotFoundError:
        pass  # nothing was written yet
    finally:
        await client.close()
    return found


def read_kafka(cluster: KafkaCluster) -> list[Snapshot]:
    """Return the rows of the topic as brokers would keep them, each partition's as they come."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition  # noqa: PLC0415

    access = {"bootstrap.servers": cluster.servers, "group.id": "test", "log_level": 0}
    with contextlib.closing(Consumer(access)) as consumer:
        topic = consumer.list_topics("obframe", timeout=10).topics["obframe"]
        places = [TopicPartition("obframe", at, OFFSET_BEGINNING) for at in topic.partitions]
        count = sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
        consumer.assign(places)
        messages: list[Any] = []
        while len(messages) < count:
            messages += consumer.consume(count - len(messages), timeout=0.5)
    again = cluster.find_sent_again("obframe")
    return [
        snapshot_from_json(message.value())
        for message in messages
        if (message.partition(), message.offset()) not in again
    ]


class _ServerContract(SinkContract):
    """What is common to servers that are processes."""

    can_break = True
    server: ValkeyServer | NatsServer

    async def break_(self, tmp_path: Path) -> None:
        """Kill the server."""
        self.server.kill()

    async def mend(self, tmp_path: Path) -> None:
        """Start it again."""
        await asyncio.to_thread(self.server.start)


class RedisContract(_ServerContract):
    """Streams of a Valkey of its own for each rule."""

    @pytest.fixture(autouse=True)
    def _start(self, tmp_path: Path) -> Iterator[None]:
        with skipping():
            self.server = ValkeyServer(tmp_path / "valkey").start()
        yield
        self.server.kill()

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        async with redis.open_sink(redis.RedisSettings(url=self.server.url)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return the entries of all streams."""
        return await read_redis(self.server.url)


class NatsContract(_ServerContract):
    """A stream on a server of its own for each rule."""

    @pytest.fixture(autouse=True)
    def _start(self, tmp_path: Path) -> Iterator[None]:
        with skipping():
            self.server = NatsServer(tmp_path / "nats").start()
        yield
        self.server.kill()

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink; the stream soon forgets message ids, so what is there is looked up."""
        settings = nats.NatsSettings(servers=(self.server.url,), duplicate_window=Duration(0.2))
        async with nats.open_sink(settings) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return the messages of the stream."""
        return await read_nats(self.server.url)


class KafkaContract(SinkContract):
    """A topic on librdkafka's own cluster."""

    can_break = True

    @pytest.fixture(autouse=True)
    def _start(self) -> Iterator[None]:
        with skipping():
            self.cluster = KafkaCluster()
        with self.cluster:
            self.cluster.create_topic("obframe")
            yield

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        servers = tuple(self.cluster.servers.split(","))
        async with kafka.open_sink(kafka.KafkaSettings(servers=servers)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return the messages of the topic."""
        return await asyncio.to_thread(read_kafka, self.cluster)

    async def break_(self, tmp_path: Path) -> None:
        """Take all brokers down."""
        self.cluster.down()

    async def mend(self, tmp_path: Path) -> None:
        """Bring them up."""
        self.cluster.up()
