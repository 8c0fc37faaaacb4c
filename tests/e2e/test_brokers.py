"""The real recorder and real brokers, both killed in the middle: all rows are there, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, Record, Snapshot
from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer
from obframe_plugins._contracts_brokers import read_kafka, read_nats, read_redis

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SIM0001USDT")


@dataclass(frozen=True)
class Broker:
    """A broker, how to reach it, and all that a consumer gets from it."""

    name: str
    settings: tuple[str, ...]
    kill: Callable[[], None]
    start: Callable[[], object]
    read: Callable[[], list[Snapshot]]

    def rows(self) -> list[Record]:
        return [Record(row.symbol, row.timestamp, row.pack()) for row in self.read()]


@pytest.fixture(params=["redis", "nats", "kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "redis":
        valkey: ValkeyServer = request.getfixturevalue("valkey")
        url = valkey.url
        settings: tuple[str, ...] = (f"redis.url={url}",)
        return Broker(
            "redis", settings, valkey.kill, valkey.start, lambda: asyncio.run(read_redis(url))
        )
    if request.param == "nats":
        server: NatsServer = request.getfixturevalue("nats_server")
        url = server.url
        # Shorter than an outage: what the stream has forgotten must not come twice all the same.
        settings = (f"nats.servers={url}", "nats.duplicate_window=1")
        return Broker(
            "nats", settings, server.kill, server.start, lambda: asyncio.run(read_nats(url))
        )
    cluster: KafkaCluster = request.getfixturevalue("kafka_cluster")
    settings = (f"kafka.servers={cluster.servers}",)
    return Broker("kafka", settings, cluster.down, cluster.up, lambda: read_kafka(cluster))


def stored(desk: Any) -> list[Record]:
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
