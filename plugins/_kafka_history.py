"""Reads back which rows topics hold: the memory of a producer that is gone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from obframe import SinkError

SECOND_HEADER = "second"
"""Header of a message with the Unix second of its row; the key is the symbol."""

_CLOCK_ALLOWANCE = 30
"""Seconds that a broker's clock may be behind, where it stamps messages itself."""
_READ_AT_ONCE = 1000


def read_history(
    access: Mapping[str, Any], since: Mapping[str, int], deadline: float
) -> list[tuple[str, int]]:
    """Return symbol and second of the rows in topics. Blocks.

    Args:
        access: librdkafka's properties for reaching the brokers.
        since: By topic, the second from which on rows are wanted; older ones may come too.
        deadline: Monotonic time at which to give up.

    Raises:
        SinkError: It took too long.
        KafkaException: The brokers cannot be reached, or refuse.
    """
    from confluent_kafka import Consumer  # noqa: PLC0415

    consumer = Consumer(
        {
            **access,
            "group.id": "obframe-history",  # wanted by the library; nothing is joined or stored
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        return _History(consumer, since, deadline).read()
    finally:
        consumer.close()


class _History:
    def __init__(self, consumer: Any, since: Mapping[str, int], deadline: float) -> None:
        self._consumer = consumer
        self._since = since
        self._deadline = deadline

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            names = ", ".join(sorted(self._since)[:3])
            raise SinkError(
                f"kafka: which rows the topic {names} has could not be read back in time; "
                "see kafka.timeout"
            )
        return left

    def read(self) -> list[tuple[str, int]]:
        starts, ends = self._find()
        rows = self._consume(starts, ends)
        # A broker that cannot search by time says the same as one that has nothing so new.
        again = [
            place
            for place, newest in self._newest(ends).items()
            if place not in starts and newest >= self._since[place[0]]
        ]
        if again:
            lowest = {place: self._watermarks(place)[0] for place in again}
            rows += self._consume(lowest, ends)
        return rows

    def _find(self) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        """Return first and end offset by topic and partition, of partitions with such rows."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415

        asked = []
        for topic, second in self._since.items():
            found = self._consumer.list_topics(topic, timeout=self._left()).topics[topic]
            if found.error is not None:
                continue  # no such topic yet: there is nothing to read
            moment = (second - _CLOCK_ALLOWANCE) * 1000
            asked += [TopicPartition(topic, number, moment) for number in found.partitions]
        ends = {}
        for place in [(each.topic, each.partition) for each in asked]:
            low, high = self._watermarks(place)
            if high > low:
                ends[place] = high
        asked = [each for each in asked if (each.topic, each.partition) in ends]
        if not asked:
            return {}, {}
        answers = self._consumer.offsets_for_times(asked, timeout=self._left())
        starts = {
            (each.topic, each.partition): each.offset
            for each in answers
            if each.error is None and each.offset >= 0
        }
        return starts, ends

    def _watermarks(self, place: tuple[str, int]) -> tuple[int, int]:
        from confluent_kafka import TopicPartition  # noqa: PLC0415

        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(*place), timeout=self._left()
        )
        return int(low), int(high)

    def _newest(self, ends: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Return the second of the last message by topic and partition."""
        newest: dict[tuple[str, int], int] = {}
        self._consume({place: end - 1 for place, end in ends.items()}, ends, newest)
        return newest

    def _consume(
        self,
        starts: Mapping[tuple[str, int], int],
        ends: Mapping[tuple[str, int], int],
        newest: dict[tuple[str, int], int] | None = None,
    ) -> list[tuple[str, int]]:
        from confluent_kafka import KafkaError, KafkaException, TopicPartition  # noqa: PLC0415

        reading = {place for place, start in starts.items() if start < ends[place]}
        rows: list[tuple[str, int]] = []
        if not reading:
            return rows
        self._consumer.assign([TopicPartition(*place, starts[place]) for place in sorted(reading)])
        left = sum(ends[place] - starts[place] for place in reading)
        while reading:
            # It waits for as many as are asked for: no more than there are.
            count = min(max(left, 1), _READ_AT_ONCE)
            messages = self._consumer.consume(count, timeout=min(self._left(), 0.2))
            left -= len(messages)
            for message in messages:
                place = (message.topic(), message.partition())
                if (error := message.error()) is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    reading.discard(place)
                    continue
                row = _row_of(message)
                if row is not None:
                    rows.append(row)
                    if newest is not None:
                        newest[place] = row[1]
                if message.offset() + 1 >= ends[place]:
                    reading.discard(place)
        self._consumer.unassign()
        return rows


def _row_of(message: Any) -> tuple[str, int] | None:
    """Return symbol and second of a message; None for what is not ours."""
    key = message.key()
    second = dict(message.headers() or ()).get(SECOND_HEADER, b"")
    if not key or not second or not second.isdigit():
        return None
    try:
        return key.decode(), int(second)
    except UnicodeDecodeError:
        return None
