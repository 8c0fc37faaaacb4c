"""What brokers drop as sent again, found in the cluster that keeps it."""

from __future__ import annotations

import confluent_kafka
import pytest

from obframe.testing.brokers import KafkaCluster
from obframe.testing.kafka_batches import Batch, find_sent_again, read_batches

ONE, OTHER, NOBODY = (7, 0), (8, 0), (-1, -1)


def batches(*heads: tuple[tuple[int, int], int, int]) -> list[Batch]:
    """Make batches of (producer, sequence, count), one after another."""
    made = list[Batch]()
    for producer, sequence, count in heads:
        offset = made[-1].offset + made[-1].messages if made else 0
        made.append(Batch(offset, count, producer, sequence))
    return made


def test_what_has_the_numbers_of_a_batch_before_is_sent_again() -> None:
    given = batches((ONE, 0, 5), (OTHER, 0, 5), (ONE, 0, 5), (ONE, 5, 2), (ONE, 5, 2), (ONE, 0, 5))
    assert list(find_sent_again(given)) == [given[2], given[4], given[5]]


def test_the_same_from_another_producer_or_with_other_numbers_is_kept() -> None:
    given = batches((ONE, 0, 5), (ONE, 5, 5), (OTHER, 0, 5), ((7, 1), 0, 5))
    assert list(find_sent_again(given)) == []


def test_a_producer_without_numbers_is_never_known() -> None:
    assert list(find_sent_again(batches((NOBODY, -1, 5), (NOBODY, -1, 5)))) == []


@pytest.mark.parametrize(
    "given",
    [
        [(ONE, 3, 1)],  # the first is 0
        [(ONE, 0, 5), (ONE, 6, 1)],  # 5 is missing
        [(ONE, 0, 5), (ONE, 0, 4)],  # the same first number, and not the same batch
        [(ONE, number, 1) for number in (0, 1, 2, 3, 4, 5, 0)],  # too long ago
    ],
)
def test_what_a_broker_would_refuse_is_an_error(
    given: list[tuple[tuple[int, int], int, int]],
) -> None:
    with pytest.raises(ValueError, match="does not follow"):
        list(find_sent_again(batches(*given)))


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_batches_are_read_as_their_producer_numbered_them(
    kafka_cluster: KafkaCluster, compression: str
) -> None:
    kafka_cluster.create_topic("rows", 1)
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": kafka_cluster.servers,
            "enable.idempotence": True,
            "compression.type": compression,
            "linger.ms": 1000,
        }
    )
    for count in (3, 1, 4):
        for _ in range(count):
            producer.produce("rows", b"the same each time")
        assert producer.flush(20) == 0
    # Each of these is one message of the test that a real broker would keep too.
    assert kafka_cluster.find_sent_again("rows") == set()
    metadata = producer.list_topics("rows", timeout=10)
    leader = metadata.brokers[metadata.topics["rows"].partitions[0].leader]
    read = list(read_batches(leader.host, leader.port, "rows", 0))
    assert [batch.offset for batch in read] == [batch.sequence for batch in read]
    assert sum(batch.messages for batch in read) == 8
    assert len({batch.producer for batch in read}) == 1
    assert read[0].producer[0] >= 0


def test_another_broker_than_the_leader_is_told(kafka_cluster: KafkaCluster) -> None:
    kafka_cluster.create_topic("rows", 1)
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": kafka_cluster.servers, "group.id": "test", "log_level": 0}
    )
    metadata = consumer.list_topics("rows", timeout=10)
    consumer.close()
    leader = metadata.topics["rows"].partitions[0].leader
    other = next(each for each in metadata.brokers.values() if each.id != leader)
    with pytest.raises(ValueError, match="Kafka's error 6"):
        list(read_batches(other.host, other.port, "rows", 0))
