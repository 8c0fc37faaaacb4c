"""Between the sampler and a sink: a bounded queue and a time-out. A sink never stalls a book."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence

from obframe._core import Snapshot
from obframe.protocols import Sink

logger = logging.getLogger("obframe.sinks")


class SinkRunner:
    """Feeds one sink from a queue of its own.

    Args:
        name: For logs.
        sink: The plugin's object.
        queue_seconds: Sampled seconds held; past it the oldest is dropped and counted.
        timeout: Seconds one ``write`` may take.

    Attributes:
        counters: ``written`` and ``dropped`` snapshots, ``failures`` of ``write``.
    """

    def __init__(self, name: str, sink: Sink, *, queue_seconds: int, timeout: float) -> None:
        self.name = name
        self._sink = sink
        self._timeout = timeout
        self._queue_seconds = queue_seconds
        self._queue: deque[Sequence[Snapshot]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._busy = False
        self.counters: Counter[str] = Counter()

    def submit(self, snapshots: Sequence[Snapshot]) -> None:
        """Hand over one second's snapshots. Never blocks; drops the oldest when full."""
        if len(self._queue) >= self._queue_seconds:
            self.counters["dropped"] += len(self._queue.popleft())
        self._queue.append(snapshots)
        self._wake.set()

    async def run(self) -> None:
        """Write what is handed over until ``close``, then what is left."""
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            snapshots = self._queue.popleft()
            try:
                await asyncio.wait_for(self._sink.write(snapshots), self._timeout)
            except Exception as error:
                self.counters["failures"] += 1
                self.counters["dropped"] += len(snapshots)
                if self.counters["failures"] == 1:
                    logger.error("sink %s failed; its snapshots are dropped: %r", self.name, error)
            else:
                self.counters["written"] += len(snapshots)

    def close(self) -> None:
        """Let ``run`` end once the queue is empty."""
        self._closing = True
        self._wake.set()
