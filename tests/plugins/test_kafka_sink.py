"""The sink ``kafka`` with the cluster inside of librdkafka, which goes down, dawdles and refuses.

That cluster does not look at the sequence numbers by which brokers drop what an idempotent producer
sends again, so that is left out here, by these numbers.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from obframe import PluginError, SinkError, Snapshot, snapshot_from_json
from obframe.testing.brokers import KafkaCluster
from obframe_plugins._kafka_history import History
from obframe_plugins._kafka_sink import topic_of
from obframe_plugins.kafka import KafkaSettings, open_sink

T = 1_737_158_400
PRODUCE = 0  # Kafka's number of the request
NOT_ENOUGH_REPLICAS, MESSAGE_TOO_LARGE, TOPIC_AUTHORIZATION_FAILED = 19, 10, 29


def row(symbol: str, second: int) -> Snapshot:
    return Snapshot(symbol, second, second, [("100.50", "1.5")], [("100.60", f"{second}.0")])


def rows(symbols: Iterable[str], start: int, end: int) -> list[Snapshot]:
    return [row(symbol, second) for second in range(start, end) for symbol in symbols]


@asynccontextmanager
async def opened(cluster: KafkaCluster, **settings: Any) -> AsyncIterator[Any]:
    servers = tuple(cluster.servers.split(","))
    async with open_sink(KafkaSettings(servers=servers, **settings)) as sink:
        yield sink


def messages(cluster: KafkaCluster, topic: str = "obframe") -> list[Any]:
    """Everything in a topic, as a consumer of real brokers gets it: in order within a partition."""
    again = cluster.find_sent_again(topic)
    kept = all_messages(cluster, topic)
    return [each for each in kept if (each.partition(), each.offset()) not in again]


def all_messages(cluster: KafkaCluster, topic: str = "obframe") -> list[Any]:
    """Everything that the cluster here keeps of a topic."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": cluster.servers, "group.id": "test", "log_level": 0}
    )
    try:
        places = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]
        count = sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
        consumer.assign(places)
        found: list[Any] = []
        deadline = time.monotonic() + 20
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} messages"
            found += consumer.consume(count - len(found), timeout=0.2)
        assert not any(message.error() for message in found)
        return found
    finally:
        consumer.close()


def stored(cluster: KafkaCluster, topic: str = "obframe") -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for message in messages(cluster, topic):
        snapshot = snapshot_from_json(message.value())
        assert message.key() == snapshot.symbol.encode()
        assert dict(message.headers()) == {
            "second": str(snapshot.timestamp).encode(), "format": b"json",
        }  # fmt: skip
        assert message.timestamp()[1] == snapshot.timestamp * 1000
        found.setdefault(snapshot.symbol, []).append(snapshot)
    return found


async def write_until_taken(sink: Any, snapshots: list[Snapshot]) -> int:
    """Do what the framework does; return how often it had to come again."""
    tries = 0
    deadline = time.monotonic() + 40
    while True:
        try:
            await sink.write(snapshots)
        except SinkError:
            assert time.monotonic() < deadline
            tries += 1
        else:
            return tries


async def test_rows_have_their_symbol_as_key_and_keep_its_order(
    kafka_cluster: KafkaCluster,
) -> None:
    symbols = ["BTCUSDT", "kraken/BTC/USD", "BRK.B", "币安人生USDT"]
    async with opened(kafka_cluster) as sink:
        await sink.write(rows(symbols, T, T + 30))
    assert stored(kafka_cluster) == {symbol: rows([symbol], T, T + 30) for symbol in symbols}
    places = {(m.key(), m.partition()) for m in messages(kafka_cluster)}
    assert len(places) == len(symbols)


async def test_a_symbol_may_have_a_topic_of_its_own(kafka_cluster: KafkaCluster) -> None:
    symbols = ["BTCUSDT_260327", "kraken/BTC/USD", "BRK.B"]
    async with opened(kafka_cluster, topic="rows.{symbol}") as sink:
        await sink.write(rows(symbols, T, T + 3))
    for symbol, topic in zip(
        symbols, ["BTCUSDT_260327", "kraken.2FBTC.2FUSD", "BRK.2EB"], strict=True
    ):
        assert stored(kafka_cluster, f"rows.{topic}") == {symbol: rows([symbol], T, T + 3)}


async def test_the_other_format_is_the_stored_bytes(kafka_cluster: KafkaCluster) -> None:
    async with opened(kafka_cluster, format="msgpack") as sink:
        await sink.write([row("BTCUSDT", T)])
    (message,) = messages(kafka_cluster)
    assert message.value() == row("BTCUSDT", T).pack()
    assert dict(message.headers()) == {"second": b"%d" % T, "format": b"msgpack"}


async def test_row_54_what_comes_again_is_recognised(kafka_cluster: KafkaCluster) -> None:
    given = rows(["A", "B"], T, T + 4)
    async with opened(kafka_cluster) as sink:
        await sink.write(given[:3])
        await sink.write(given)
        await sink.write(given[2:])
        assert sink.counters == Counter(written=8, duplicates=9)
    async with opened(kafka_cluster) as sink:
        await sink.write(given[4:])
        assert sink.counters == Counter(duplicates=4)
        await sink.write([row("A", T - 1), *given, row("B", T + 5)])
        assert sink.counters == Counter(written=2, duplicates=12)
    assert stored(kafka_cluster) == {
        "A": [*rows(["A"], T, T + 4), row("A", T - 1)],
        "B": [*rows(["B"], T, T + 4), row("B", T + 5)],
    }


async def test_row_54_brokers_that_go_down_lose_nothing_and_get_nothing_twice(
    kafka_cluster: KafkaCluster,
) -> None:
    done = tries = 0
    async with opened(kafka_cluster, timeout=0.5) as sink:
        for _ in range(3):
            await write_until_taken(sink, rows(["A", "B"], T + done, T + done + 2))
            kafka_cluster.down()
            with pytest.raises(SinkError, match=r"2 rows were not acknowledged.*kafka\.servers"):
                await sink.write(rows(["A", "B"], T + done + 2, T + done + 3))
            kafka_cluster.up()
            tries += await write_until_taken(sink, rows(["A", "B"], T + done + 2, T + done + 4))
            done += 4
    assert stored(kafka_cluster) == {symbol: rows([symbol], T, T + done) for symbol in ("A", "B")}


async def test_row_54_a_recorder_that_died_before_it_was_told_sends_nothing_twice(
    kafka_cluster: KafkaCluster,
) -> None:
    given = rows(["A", "B", "C"], T, T + 10)
    async with opened(kafka_cluster) as sink:
        await sink.write(given[:3])
        kafka_cluster.slow(2000)  # the brokers take the rows, but say so late
        writing = asyncio.create_task(sink.write(given))
        await asyncio.sleep(0.5)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        sink._pending.clear()
        sink._producer = None  # it is gone with all that it knows
    gc.collect()
    kafka_cluster.slow(0)
    async with opened(kafka_cluster) as sink:
        await sink.write([*given, *rows(["A"], T + 10, T + 12)])
        assert sink.counters["duplicates"] > 3
        assert sink.counters.total() == 32
    found = stored(kafka_cluster)
    assert found["A"] == rows(["A"], T, T + 12)
    assert found["B"] == rows(["B"], T, T + 10)


async def test_row_54_rows_whose_acknowledgement_is_lost_are_dropped_when_they_come_again(
    kafka_cluster: KafkaCluster,
) -> None:
    """The library itself sends them again, and by their numbers brokers know them."""
    given = rows(["A", "B"], T, T + 30)
    kafka_cluster.create_topic("obframe")
    async with opened(kafka_cluster, timeout=2) as sink:
        await write_until_taken(sink, given[:20])
        kafka_cluster.slow(60_000)  # the brokers take the rows, but say so when it is too late
        with pytest.raises(SinkError, match="20 rows were not acknowledged"):
            await sink.write(given[20:40])
        kafka_cluster.down()
        kafka_cluster.slow(0)
        kafka_cluster.up()
        await write_until_taken(sink, given[20:])
        assert sink.counters["written"] == len(given), "the sink gave each to the library once"
    kept = [snapshot_from_json(message.value()) for message in all_messages(kafka_cluster)]
    assert len(kept) > len(given), "no row was sent again"
    assert stored(kafka_cluster) == {symbol: rows([symbol], T, T + 30) for symbol in ("A", "B")}


async def test_a_cancelled_write_is_gone_on_with_by_the_next(kafka_cluster: KafkaCluster) -> None:
    async with opened(kafka_cluster) as sink:
        await sink.write([row("A", T)])
        kafka_cluster.down()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sink.write(rows(["A"], T + 1, T + 50)), 0.3)
        kafka_cluster.up()
        await write_until_taken(sink, rows(["A"], T + 1, T + 60))
    assert stored(kafka_cluster) == {"A": rows(["A"], T, T + 60)}


async def test_a_sink_that_is_opened_again_goes_on_with_what_is_under_way(
    kafka_cluster: KafkaCluster,
) -> None:
    """So it is closed and opened when it goes on failing; only its producer knows what it sent."""
    given = rows(["A"], T, T + 10)
    async with opened(kafka_cluster, timeout=0.5) as sink:
        await write_until_taken(sink, given[:5])
        kafka_cluster.down()
        with pytest.raises(SinkError, match="were not acknowledged"):
            await sink.write(given)
    for _ in range(2):
        async with opened(kafka_cluster, timeout=0.5) as again:
            assert again is sink
            with pytest.raises(SinkError, match="were not acknowledged"):
                await again.write(given)
    kafka_cluster.up()
    async with opened(kafka_cluster, timeout=0.5) as again:
        await write_until_taken(again, given)
    async with opened(kafka_cluster, timeout=0.5) as other:
        assert other is not sink
    assert stored(kafka_cluster) == {"A": given}


async def test_a_row_that_was_never_delivered_may_come_late(kafka_cluster: KafkaCluster) -> None:
    async with opened(kafka_cluster) as sink:
        await sink.write([row("A", T), row("A", T + 2)])
    async with opened(kafka_cluster) as sink:
        await sink.write([row("A", T + 1), row("A", T + 2)])
        assert sink.counters == Counter(written=1, duplicates=1)
    assert [each.timestamp - T for each in stored(kafka_cluster)["A"]] == [0, 2, 1]


async def test_messages_of_others_in_the_topic_are_passed_over(
    kafka_cluster: KafkaCluster,
) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka_cluster.servers})
    for key, headers in ((None, None), (b"A", [("second", b"x")]), (b"\xff", [("second", b"1")])):
        producer.produce("obframe", key=key, value=b"?", headers=headers)
    assert producer.flush(10) == 0
    del producer
    async with opened(kafka_cluster) as sink:
        await sink.write([row("A", T)])
        assert sink.counters == Counter(written=1)


async def test_a_refusal_that_passes_is_tried_again_and_one_that_stays_is_told(
    kafka_cluster: KafkaCluster,
) -> None:
    async with opened(kafka_cluster) as sink:
        kafka_cluster.fail(PRODUCE, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS)
        await sink.write([row("A", T)])
        kafka_cluster.fail(PRODUCE, TOPIC_AUTHORIZATION_FAILED)
        with pytest.raises(SinkError, match="must be allowed to write and to read the topic"):
            await sink.write([row("A", T + 1)])
        kafka_cluster.fail(PRODUCE, MESSAGE_TOO_LARGE)
        with pytest.raises(SinkError, match=r"raise message\.max\.bytes"):
            await sink.write([row("A", T + 1)])
        await write_until_taken(sink, rows(["A"], T + 1, T + 3))
    assert stored(kafka_cluster) == {"A": rows(["A"], T, T + 3)}


async def test_nobody_there_is_an_error_in_time(kafka_cluster: KafkaCluster) -> None:
    kafka_cluster.down()
    async with opened(kafka_cluster, timeout=0.5) as sink:
        for _ in range(2):
            with pytest.raises(SinkError, match=r"check kafka\.servers|could not be read back"):
                await asyncio.wait_for(sink.write([row("A", T)]), 10)


async def test_a_full_queue_of_the_library_is_waited_for(kafka_cluster: KafkaCluster) -> None:
    options = ("queue.buffering.max.messages=10",)
    async with opened(kafka_cluster, options=options) as sink:
        await sink.write(rows(["A"], T, T + 200))
    assert stored(kafka_cluster) == {"A": rows(["A"], T, T + 200)}


async def test_history_is_found_by_time_where_brokers_can(
    kafka_cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster here cannot, so what it would answer is put into its mouth."""
    asked: list[int] = []

    class Finding(confluent_kafka.Consumer):  # type: ignore[misc]
        def offsets_for_times(self, places: list[Any], timeout: float) -> list[Any]:
            if any(place.offset < 0 for place in places):
                return list(super().offsets_for_times(places, timeout=timeout))
            asked.extend(place.offset for place in places)
            return [TopicPartition(place.topic, place.partition, 6) for place in places]

    kafka_cluster.create_topic("obframe", 1)
    async with opened(kafka_cluster) as sink:
        await sink.write(rows(["A"], T, T + 10))
    monkeypatch.setattr(confluent_kafka, "Consumer", Finding)
    access = {"bootstrap.servers": kafka_cluster.servers, "log_level": 0}
    history = History(access, {"obframe": T + 36})
    history.read(time.monotonic() + 10)
    assert asked == [(T + 6) * 1000], "half a minute is allowed for clocks that are behind"
    assert [history.rows.has("A", second) for second in range(T, T + 10)] == [False] * 6 + [
        True
    ] * 4


async def test_reading_back_goes_on_where_it_was_broken_off(
    kafka_cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    late = 0.0

    class Slow(confluent_kafka.Consumer):  # type: ignore[misc]
        """Gives ten messages at a time; after the tenth time the call's time is over."""

        def consume(self, count: int, timeout: float) -> list[Any]:
            nonlocal late
            found = super().consume(min(count, 10), timeout=timeout)
            read.append(len(found))
            late = 1000.0 if len(read) == 10 else 0.0
            return list(found)

    given = rows(["A", "B", "C"], T, T + 100)
    async with opened(kafka_cluster) as sink:
        await sink.write(given)
    monkeypatch.setattr(confluent_kafka, "Consumer", Slow)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late)
    monkeypatch.setattr("obframe_plugins._kafka_history.time", clock)
    async with opened(kafka_cluster, timeout=30) as sink:
        with pytest.raises(SinkError, match=r"is still being read back, \d+ rows so far"):
            await sink.write([*given, row("A", T + 100)])
        late = 0.0
        await sink.write([*given, row("A", T + 100)])
        assert sink.counters == Counter(duplicates=300, written=1)
    assert sum(read) < 350, "what was read is not read again"


async def test_a_symbol_that_joins_has_its_topic_looked_up(kafka_cluster: KafkaCluster) -> None:
    async with opened(kafka_cluster, topic="x-{symbol}") as sink:
        await sink.write(rows(["A", "B"], T, T + 3))
    async with opened(kafka_cluster, topic="x-{symbol}") as sink:
        for symbols in (["A"], ["A", "B"], ["B", "C"], ["A"]):
            await sink.write(rows(symbols, T + 1, T + 4))
    for symbol, start in (("A", T), ("B", T), ("C", T + 1)):
        assert stored(kafka_cluster, f"x-{symbol}") == {symbol: rows([symbol], start, T + 4)}


# -- secrets, settings ---------------------------------------------------------------------------


def test_passwords_are_not_told_and_settings_reach_the_library() -> None:
    settings = KafkaSettings(
        servers=("a:1", "b:2"), security="sasl_ssl", sasl_mechanism="SCRAM-SHA-512",
        username="recorder", password="geheim", ca_file="ca.pem",
        options=("ssl.key.password=geheim2", "linger.ms=50"),
    )  # fmt: skip
    assert "geheim" not in repr(settings)
    assert settings.access.items() >= {
        "bootstrap.servers": "a:1,b:2", "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "recorder", "sasl.password": "geheim",
        "ssl.ca.location": "ca.pem", "ssl.key.password": "geheim2", "linger.ms": "50",
    }.items()  # fmt: skip
    assert {"geheim", "geheim2"} <= set(settings.secrets)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"options": ("no.such.property=geheim",)}, "no.such.property"),
        ({"security": "ssl", "ca_file": "/nowhere/ca.pem"}, "ssl.ca.location"),
    ],
)
async def test_what_the_library_does_not_take_is_told_at_the_start(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(PluginError, match=r"check the section \[kafka\]") as caught:
        async with open_sink(KafkaSettings(**settings)):
            pass
    assert told in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_mistakes_in_the_settings_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="servers has 'host'") as caught:
        KafkaSettings(
            servers=("host", "host:1"), topic="a b", options=("acks=1", "x"), timeout=0,  # type: ignore[arg-type]
            security="sasl_ssl",
        )  # fmt: skip
    for part in (
        "topic is 'a b'",
        "options has 'acks'",
        "options has 'x'",
        "timeout is",
        "username",
    ):
        assert part in str(caught.value)


async def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(PluginError, match=r"pip install 'obframe\[kafka\]'"):
        async with open_sink(KafkaSettings()):
            pass


SYMBOLS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=":"), min_size=1)


@given(SYMBOLS, SYMBOLS)
def test_topics_of_symbols_are_legal_and_differ(one: str, other: str) -> None:
    topics = [topic_of("x-{symbol}", symbol) for symbol in (one, other)]
    for topic in topics:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", topic)
    assert (topics[0] == topics[1]) == (one == other)
