"""The real recorder and real brokers, both killed in the middle: all rows are there, each once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import confluent_kafka
import nats
import pytest
import redis
from nats.js.api import AckPolicy, ConsumerConfig

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, Record, snapshot_from_json
from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer

Rows: TypeAlias = list[Record]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SIM0001USDT")


def record(message: bytes) -> Record:
    snapshot = snapshot_from_json(message)
    return Record(snapshot.symbol, snapshot.timestamp, snapshot.pack())


class Broker(Protocol):
    name: str
    settings: tuple[str, ...]

    def kill(self) -> None: ...
    def start(self) -> object: ...
    def rows(self) -> Rows:
        """Everything that a consumer gets, in the order in which it gets it."""
        ...


class Redis:
    name = "redis"

    def __init__(self, server: ValkeyServer) -> None:
        self.server = server
        self.settings = (f"redis.url={server.url}",)
        self.kill, self.start = server.kill, server.start

    def rows(self) -> Rows:
        with redis.Redis.from_url(self.server.url) as client:
            streams: Any = [client.xrange(f"obframe:{symbol}") for symbol in SYMBOLS]
            assert not any(client.exists(f"obframe:{symbol}:late") for symbol in SYMBOLS)
        return [record(fields[b"json"]) for stream in streams for _, fields in stream]


class Nats:
    name = "nats"

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        # Shorter than an outage: what the stream has forgotten must not come twice all the same.
        self.settings = (f"nats.servers={server.url}", "nats.duplicate_window=1")
        self.kill, self.start = server.kill, server.start

    def rows(self) -> Rows:
        return asyncio.run(self._read())

    async def _read(self) -> Rows:
        client = await nats.connect(self.server.url)
        wanted = ConsumerConfig(ack_policy=AckPolicy.NONE)
        consumer = await client.jetstream().pull_subscribe(">", stream="OBFRAME", config=wanted)
        left = (await consumer.consumer_info()).num_pending or 0
        found: Rows = []
        while len(found) < left:
            messages = await consumer.fetch(left - len(found), timeout=5)
            found += [record(message.data) for message in messages]
        await client.close()
        return found


class Kafka:
    name = "kafka"

    def __init__(self, cluster: KafkaCluster) -> None:
        self.cluster = cluster
        self.settings = (f"kafka.servers={cluster.servers}",)
        self.kill, self.start = cluster.down, cluster.up

    def rows(self) -> Rows:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.cluster.servers, "group.id": "test", "log_level": 0}
        )
        with contextlib.closing(consumer):
            topic = consumer.list_topics("obframe", timeout=10).topics["obframe"]
            places = [
                confluent_kafka.TopicPartition("obframe", number, confluent_kafka.OFFSET_BEGINNING)
                for number in topic.partitions
            ]
            count = sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
            consumer.assign(places)
            found: Rows = []
            while len(found) < count:
                messages = consumer.consume(count - len(found), timeout=0.5)
                found += [record(message.value()) for message in messages]
            return found


@pytest.fixture(params=["redis", "nats", "kafka"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    match request.param:
        case "redis":
            yield Redis(request.getfixturevalue("valkey"))
        case "nats":
            yield Nats(request.getfixturevalue("nats_server"))
        case _:
            yield Kafka(request.getfixturevalue("kafka_cluster"))


def stored(desk: Any) -> Rows:
    with desk.store() as storage:
        return [
            row for symbol in SYMBOLS for row in storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP)
        ]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_rows_43_and_54_kill_9_of_broker_and_recorder_lose_nothing_and_send_nothing_twice(
    desk: Any, broker: Broker
) -> None:
    venue = desk.venue("--symbols", ",".join(SYMBOLS), "--rate", 5, "--levels", 100)
    arguments = ["--symbols", ",".join(SYMBOLS), "--plugins", broker.name]
    settings = (*broker.settings, "recorder.sink_backoff_max=0.5", "binance.snapshot_limit=100")
    arguments += [part for setting in settings for part in ("--set", setting)]

    def start() -> Any:
        process = desk.recorder(venue, *arguments)
        process.until_logged("live")
        return process

    def has_caught_up() -> bool:
        # The newest second may be under way.
        return len(broker.rows()) >= len(stored(desk)) - len(SYMBOLS)

    recorder = start()
    desk.until(lambda: len(stored(desk)) >= 6, 30)
    desk.until(has_caught_up, 30)
    broker.kill()
    recorder.until_logged(f"sink {broker.name} failed", 30)
    recorder.pause(2.5)
    broker.start()
    desk.until(has_caught_up, 30)
    # The recorder dies while it has rows that the broker lacks, and the broker while it gets them.
    broker.kill()
    recorder.pause(2.2)
    recorder.kill()
    broker.start()
    for _ in range(2):
        recorder = start()
        recorder.pause(1.3)
        recorder.kill()
    recorder = start()
    recorder.pause(1.1)
    broker.kill()
    recorder.pause(1.1)
    broker.start()
    desk.until(has_caught_up, 30)
    assert recorder.terminate() == 0, recorder.log
    assert venue.terminate() == 0, venue.log

    expected, found = stored(desk), broker.rows()
    assert len(expected) >= 30
    for symbol in SYMBOLS:
        seen = [row for row in found if row.symbol == symbol]
        assert seen == [row for row in expected if row.symbol == symbol], recorder.log
