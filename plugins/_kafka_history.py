"""Reads back which rows topics hold: the memory of a producer that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from obframe import SinkError
from obframe_plugins._delivered import Delivered

SECOND_HEADER = "second"
"""Header of a message with the Unix second of its row; the key is the symbol."""

_CLOCK_ALLOWANCE = 30
"""Seconds that a broker's clock may be behind, where it stamps messages itself."""
_READ_AT_ONCE = 1000
OFFSET_END, OFFSET_BEGINNING = -1, -2
"""As moments: of the protocol, and of the library's own names for them."""


Place: TypeAlias = tuple[str, int]
"""Topic and partition."""


class History:
    """What topics hold from some second on: read once, in as many calls as it takes.

    Args:
        access: librdkafka's properties for reaching the brokers.
        since: By topic, the second from which on rows are wanted; older ones may come too.

    Attributes:
        rows: Symbol and second of what was found so far.
        is_complete: Whether all was read that was there when reading began.
    """

    def __init__(self, access: Mapping[str, Any], since: Mapping[str, int]) -> None:
        self._access = access
        self._since = dict(since)
        self._next: dict[Place, int] = {}  # offsets to go on at, where reading was broken off
        self.rows = Delivered()
        self.is_complete = False

    def covers(self, since: Mapping[str, int]) -> bool:
        """Tell whether it is of these topics from these seconds on."""
        return all(second >= self._since.get(topic, second + 1) for topic, second in since.items())

    def renew(self, since: Mapping[str, int]) -> History:
        """Return one of these topics from these seconds on, and of its own besides."""
        lowest = min(since.values())
        return History(self._access, {**dict.fromkeys(self._since, lowest), **since})

    def read(self, deadline: float) -> None:
        """Read up to the end, or until a moment of monotonic time. Blocks.

        Raises:
            SinkError: It takes longer; the next call goes on.
            KafkaException: The brokers cannot be reached, or refuse.
        """
        from confluent_kafka import Consumer  # noqa: PLC0415

        consumer = Consumer(
            {
                **self._access,
                "group.id": "obframe-history",  # wanted by the library; never joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_uncommitted",  # up to the very end
            }
        )
        try:
            _Reader(consumer, self._since, deadline, self._next, self.rows).read()
        finally:
            consumer.close()
        self.is_complete = True


class _Reader:
    """One call's reading."""

    def __init__(
        self,
        consumer: Any,
        since: Mapping[str, int],
        deadline: float,
        following: dict[Place, int],
        rows: Delivered,
    ) -> None:
        self._consumer = consumer
        self._since = since
        self._deadline = deadline
        self._next = following
        self._rows = rows

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            names = ", ".join(sorted(self._since)[:3])
            raise SinkError(
                f"kafka: what the topic {names} has is still being read back, {len(self._rows)} "
                "rows so far, before others can be sent; it goes on with the next call (to give "
                "it more time: kafka.timeout and recorder.sink_timeout)"
            )
        return left

    def read(self) -> None:
        places = self._places()
        ends = self._ask(dict.fromkeys(places, OFFSET_END))
        lows = self._ask(dict.fromkeys(places, OFFSET_BEGINNING))
        full = {place: end for place, end in ends.items() if end > lows.get(place, end)}
        moments = {place: self._since[place[0]] - _CLOCK_ALLOWANCE for place in full}
        starts = self._ask({place: moment * 1000 for place, moment in moments.items()})
        # A broker that cannot search by time says the same as one that has nothing so new.
        unsure = {place: end for place, end in full.items() if place not in starts}
        for place, newest in self._newest(unsure).items():
            if newest >= self._since[place[0]]:
                starts[place] = lows[place]
        self._consume({place: self._next.get(place, at) for place, at in starts.items()}, full)

    def _places(self) -> list[Place]:
        """Return the partitions of the topics; a topic that is not there has none."""
        names = list(self._since)
        one = names[0] if len(names) == 1 else None
        listed = self._consumer.list_topics(one, timeout=self._left()).topics
        return [
            (name, number)
            for name in names
            if name in listed and listed[name].error is None
            for number in listed[name].partitions
        ]

    def _ask(self, wanted: Mapping[Place, int]) -> dict[Place, int]:
        """Return offsets for moments in milliseconds; nothing for a partition that has none."""
        from confluent_kafka import KafkaException, TopicPartition  # noqa: PLC0415

        if not wanted:
            return {}
        asked = [TopicPartition(*place, moment) for place, moment in wanted.items()]
        answers = self._consumer.offsets_for_times(asked, timeout=self._left())
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {(each.topic, each.partition): each.offset for each in answers if each.offset >= 0}

    def _newest(self, ends: Mapping[Place, int]) -> dict[Place, int]:
        """Return the second of the last message by partition."""
        return {
            (message.topic(), message.partition()): row[1]
            for message in self._messages({place: end - 1 for place, end in ends.items()}, ends)
            if (row := _row_of(message)) is not None
        }

    def _consume(self, starts: Mapping[Place, int], ends: Mapping[Place, int]) -> None:
        for message in self._messages(starts, ends):
            row = _row_of(message)
            if row is not None:
                self._rows.add(*row)
            self._next[message.topic(), message.partition()] = message.offset() + 1

    def _messages(self, starts: Mapping[Place, int], ends: Mapping[Place, int]) -> Iterator[Any]:
        from confluent_kafka import KafkaError, KafkaException, TopicPartition  # noqa: PLC0415

        reading = {place for place, start in starts.items() if start < ends[place]}
        if not reading:
            return
        self._consumer.assign([TopicPartition(*place, starts[place]) for place in sorted(reading)])
        left = sum(ends[place] - starts[place] for place in reading)
        while reading:
            # It waits for as many as are asked for: no more than there are.
            count = min(max(left, 1), _READ_AT_ONCE)
            messages = self._consumer.consume(count, timeout=min(self._left(), 0.2))
            left -= len(messages)
            for message in messages:
                place = (message.topic(), message.partition())
                if (error := message.error()) is None:
                    yield message
                    if message.offset() + 1 >= ends[place]:
                        reading.discard(place)
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.discard(place)
                else:
                    raise KafkaException(error)
        self._consumer.unassign()


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
