"""Batches of messages as Kafka's brokers keep them, with what no consumer is told: who sent them.

An idempotent producer sends a batch again when the answer is lost, and numbers it as before; by
that the brokers drop it. librdkafka's own cluster looks at the numbers of transactional producers
only and keeps the batch twice, so what it leaves out is done here.
"""

from __future__ import annotations

import socket
import struct
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_FETCH, _VERSION = 1, 4
_REQUEST: Final = struct.Struct(">hhih")  # kind, version, correlation, no client's name
_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_REMEMBERED: Final = 5
"""Batches of a producer that a broker knows for each partition."""


class Batch(NamedTuple):
    """The head of one batch.

    Attributes:
        offset: Of its first message.
        messages: How many it holds.
        producer: Id and epoch; the id is -1 when it is not idempotent.
        sequence: The producer's number of the first message.
    """

    offset: int
    messages: int
    producer: tuple[int, int]
    sequence: int


def read_batches(host: str, port: int, topic: str, partition: int) -> Iterator[Batch]:
    """Yield the batches of a partition, oldest first, up to its end.

    Args:
        host: Of the broker that leads the partition.
        port: Of that broker.
        topic: The topic.
        partition: Its number.

    Raises:
        OSError: The broker cannot be reached, or closes the connection.
        ValueError: It refuses.
    """
    offset = 0
    with socket.create_connection((host, port), timeout=10) as connection:
        while True:
            connection.sendall(_make_request(topic, partition, offset))
            (size,) = struct.unpack(">i", _receive(connection, 4))
            end, records = _read_answer(_receive(connection, size))
            if offset >= end:
                return
            for batch in _read_records(records):
                yield batch
                offset = batch.offset + batch.messages


def find_sent_again(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of one partition that a broker would have dropped as sent again.

    Raises:
        ValueError: There is one that a broker would have refused: its number is neither the next
            one of its producer nor that of one of its last batches.
    """
    last: dict[tuple[int, int], deque[Batch]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
    for batch in batches:
        if batch.producer[0] < 0:
            continue
        known = last[batch.producer]
        following = known[-1].sequence + known[-1].messages if known else 0
        if batch.sequence == following:
            known.append(batch)
        elif any(each[1:] == batch[1:] for each in known):
            yield batch
        else:
            raise ValueError(f"{batch} does not follow {list(known)}")


def _make_request(topic: str, partition: int, offset: int) -> bytes:
    name = topic.encode()
    body = b"".join(
        (
            _REQUEST.pack(_FETCH, _VERSION, 1, -1),
            struct.pack(">iiiib", -1, 100, 0, 1 << 26, 0),  # as a consumer, at once, uncommitted
            struct.pack(">ih", 1, len(name)), name,
            struct.pack(">iiqi", 1, partition, offset, 1 << 26),
        )
    )  # fmt: skip
    return struct.pack(">i", len(body)) + body


def _receive(connection: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise ConnectionError("the broker closed the connection")
        found += part
    return bytes(found)


def _read_answer(answer: bytes) -> tuple[int, bytes]:
    """Return the end of the partition and the records of an answer about that partition alone."""
    at = 4 + 4 + 4  # correlation, throttle time, number of topics
    (length,) = struct.unpack_from(">h", answer, at)
    at += 2 + length + 4 + 4  # the topic, number of partitions, partition
    error, end, _, aborted = struct.unpack_from(">hqqi", answer, at)
    if error:
        raise ValueError(f"a broker answers a fetch with Kafka's error {error}")
    at += 22 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", answer, at)
    return end, answer[at + 4 : at + 4 + max(size, 0)]


def _read_records(records: bytes) -> Iterator[Batch]:
    at = 0
    while at + _BATCH.size <= len(records):
        head = _BATCH.unpack_from(records, at)
        offset, length, *_, producer, epoch, sequence, count = head
        yield Batch(offset, count, (producer, epoch), sequence)
        at += 12 + length
