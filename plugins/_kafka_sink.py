"""Rows to Kafka, each once: what is under way is waited for, what was sent before is looked up.

An idempotent producer sends nothing twice while it lives, and here it never gives up a row: a row
that comes again is waited for, not sent again. What a producer that died has sent is read back
from the topic before the first row of the next one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from obframe import SinkError, Snapshot
from obframe_plugins._brokers import ENCODERS, SYMBOL, hide
from obframe_plugins._kafka_history import SECOND_HEADER, History

logger = logging.getLogger("obframe_plugins.kafka")

_SLICE = 0.2
"""Seconds in the library at a time: so long a cancelled write goes on in its thread."""
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def topic_of(template: str, symbol: str) -> str:
    """Return the topic of a symbol; what a topic cannot hold, and the dot, become ``.XX``."""
    if SYMBOL not in template:
        return template
    escaped = "".join(
        each if each in _PLAIN else "".join(f".{byte:02X}" for byte in each.encode())
        for each in symbol
    )
    return template.replace(SYMBOL, escaped)


class _RowId(NamedTuple):
    symbol: str
    second: int


class KafkaSink:
    """Produces rows and waits until all replicas in sync have them.

    Args:
        access: librdkafka's properties for reaching the brokers.
        topic: Template of the topic.
        format: Of the messages.
        compression: Of batches.
        timeout: Seconds that one call may wait.
        secrets: What no message may show.

    Attributes:
        counters: Rows by what became of them.
    """

    def __init__(
        self,
        access: Mapping[str, Any],
        *,
        topic: str,
        format: str,  # noqa: A002 - as the setting is called
        compression: str,
        timeout: float,
        secrets: Sequence[str],
    ) -> None:
        self._access = dict(access)
        self._topic = topic
        self._format = format
        self._encode = ENCODERS[format]
        self._compression = compression
        self._timeout = timeout
        self._secrets = secrets
        self._producer: Any = None
        self._pending: set[_RowId] = set()
        self._failed: Any = None  # of the first report that says so
        self._trouble = ""  # what the library said last
        self._history = History(self._access, {})
        self._reading: asyncio.Future[None] | None = None
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Make a producer; brokers are reached for in the background."""
        from confluent_kafka import Producer  # noqa: PLC0415

        self._producer = Producer(
            {
                "linger.ms": 5,
                **self._access,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # a row given up may be there or not: never give up
                "compression.type": self._compression,
                "partitioner": "murmur2_random",  # as the Java clients have it
                "error_cb": self._note,
            },
            logger=logger,
        )

    def _note(self, error: Any) -> None:
        self._trouble = hide(error, self._secrets)

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Produce rows; return when the brokers have all of them.

        Raises:
            SinkError: That is not sure yet; the same rows, given again, are waited for.
        """
        from confluent_kafka import KafkaException  # noqa: PLC0415

        if not snapshots:
            return
        deadline = time.monotonic() + self._timeout
        try:
            if self._producer is None:
                self.start()
            topics = [topic_of(self._topic, each.symbol) for each in snapshots]
            await self._look_back(snapshots, topics, deadline)
            wanted = await self._produce(snapshots, topics, deadline)
            await self._wait(wanted, deadline)
        except KafkaException as error:
            raise self._failure(error.args[0] if error.args else error) from error

    async def _look_back(
        self, snapshots: Sequence[Snapshot], topics: Sequence[str], deadline: float
    ) -> None:
        """Learn which rows the topics have, from the oldest row that is given on."""
        since: dict[str, int] = {}
        for snapshot, topic in zip(snapshots, topics, strict=True):
            since[topic] = min(snapshot.timestamp, since.get(topic, snapshot.timestamp))
        if self._reading is not None:  # of a call that was cancelled
            await asyncio.wait([self._reading])
        if not self._history.covers(since):
            self._history = self._history.renew(since)
        if not self._history.is_complete:
            reading = asyncio.to_thread(self._history.read, deadline)
            self._reading = asyncio.ensure_future(reading)
            try:
                await asyncio.shield(self._reading)
            finally:
                if self._reading.done():
                    self._reading = None

    async def _produce(
        self, snapshots: Sequence[Snapshot], topics: Sequence[str], deadline: float
    ) -> set[_RowId]:
        wanted: set[_RowId] = set()
        for snapshot, topic in zip(snapshots, topics, strict=True):
            row = _RowId(snapshot.symbol, snapshot.timestamp)
            if self._history.rows.has(*row):
                self.counters["duplicates"] += 1
                continue
            wanted.add(row)
            if row in self._pending:
                continue
            while not self._try_produce(topic, snapshot, row):
                if time.monotonic() > deadline:
                    raise self._late(len(self._pending))
                await asyncio.to_thread(self._producer.poll, _SLICE)
        return wanted

    def _try_produce(self, topic: str, snapshot: Snapshot, row: _RowId) -> bool:
        """Hand a row to the library; False when its queue is full."""
        headers = [(SECOND_HEADER, b"%d" % row.second), ("format", self._format.encode())]
        try:
            self._producer.produce(
                topic,
                key=row.symbol.encode(),
                value=self._encode(snapshot),
                headers=headers,
                timestamp=row.second * 1000,
                on_delivery=functools.partial(self._report, row),
            )
        except BufferError:
            return False
        self._pending.add(row)
        return True

    def _report(self, row: _RowId, error: Any, _: Any) -> None:
        self._pending.discard(row)
        if error is None:
            self._history.rows.add(*row)
            self.counters["written"] += 1
        elif self._failed is None:
            self._failed = error

    async def _wait(self, wanted: set[_RowId], deadline: float) -> None:
        while not wanted.isdisjoint(self._pending) and self._failed is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late(len(wanted & self._pending))
            await asyncio.to_thread(self._producer.flush, min(left, _SLICE))
        if self._failed is not None:
            raise self._failure(self._failed)

    def _late(self, count: int) -> SinkError:
        told = f"; {self._trouble}" if self._trouble else ""
        return SinkError(
            f"kafka: {count} rows were not acknowledged within {self._timeout:g} s{told}; "
            "they go on being tried. See kafka.servers and kafka.timeout, and whether the topic "
            "exists and has enough replicas in sync"
        )

    def _failure(self, error: Any) -> SinkError:
        """Drop the producer: whether a row that failed is there is found out by looking."""
        self._drop()
        text = hide(error, self._secrets)
        name = error.name() if hasattr(error, "name") else ""
        return SinkError(f"kafka: {text}{_MENDS.get(name, '')}")

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(_SLICE)
        self._pending.clear()
        self._failed = None
        if self._history.is_complete:
            self._history = History(self._access, {})

    async def close(self) -> bool:
        """Give the library a moment for what is under way, and end it when nothing is.

        Returns:
            Whether it has ended. A request that is under way to brokers that hang, or are cut off,
            may be taken long after: only its own producer can tell, and goes on with it.
        """
        if self._reading is not None:
            await asyncio.wait([self._reading])
            self._reading = None
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, 1.0)
        if self._pending:
            return False
        self.end()
        return True

    def end(self) -> None:
        """End it with what is under way, which may be taken or not."""
        self._drop()


_MENDS = {
    "UNKNOWN_TOPIC_OR_PART": "; create the topic, or let the brokers create topics",
    "_UNKNOWN_TOPIC": "; create the topic, or let the brokers create topics",
    "TOPIC_AUTHORIZATION_FAILED": "; the user must be allowed to write and to read the topic",
    "CLUSTER_AUTHORIZATION_FAILED": "; the user must be allowed IDEMPOTENT_WRITE",
    "SASL_AUTHENTICATION_FAILED": "; check kafka.username and kafka.password",
    "_AUTHENTICATION": "; check kafka.username and kafka.password",
    "MSG_SIZE_TOO_LARGE": "; raise message.max.bytes of the topic",
    "_ALL_BROKERS_DOWN": "; check kafka.servers",
    "_TRANSPORT": "; check kafka.servers and kafka.security",
    "_TIMED_OUT": "; check kafka.servers, and see kafka.timeout",
}
