"""Between the sampler and a sink: a bounded queue, a time-out and a breaker.

A sink never stalls a book.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Sequence

from obframe._core import Snapshot
from obframe.protocols import Sink

logger = logging.getLogger("obframe.sinks")

_BREAK_AFTER = 5
"""Failures in a row after which a sink is left alone for a while."""
_PAUSE_FIRST = 1.0
_PAUSE_MAX = 60.0


class SinkRunner:
    """Feeds one sink from a queue of its own.

    Args:
        name: For logs.
        sink: The plugin's object.
        queue_seconds: Sampled seconds held; past it the oldest is dropped and counted.
        timeout: Seconds one ``write`` may take.

    Attributes:
        counters: ``written`` and ``dropped`` snapshots, ``failures`` of ``write``, and ``breaks``:
            how often the sink was left alone for a while.
    """

    def __init__(self, name: str, sink: Sink, *, queue_seconds: int, timeout: float) -> None:
        self.name = name
        self._sink = sink
        self._timeout = timeout
        self._queue_seconds = queue_seconds
        self._queue: deque[Sequence[Snapshot]] = deque()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._failing = 0  # failures since the last success
        self.counters: Counter[str] = Counter()

    def submit(self, snapshots: Sequence[Snapshot]) -> None:
        """Hand over one second's snapshots. Never blocks; drops the oldest when full."""
        if len(self._queue) >= self._queue_seconds:
            self.counters["dropped"] += len(self._queue.popleft())
        self._queue.append(snapshots)
        self._wake.set()

    async def run(self) -> None:
        """Write what is handed over until ``close``, then what is left."""
        pause = _PAUSE_FIRST
        while True:
            if not self._queue:
                if self._closing.is_set():
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if await self._write(self._queue.popleft()):
                pause = _PAUSE_FIRST
            elif self._failing >= _BREAK_AFTER:
                await self._stay_away(pause)
                pause = min(pause * 2, _PAUSE_MAX)

    async def _write(self, snapshots: Sequence[Snapshot]) -> bool:
        try:
            await asyncio.wait_for(self._sink.write(snapshots), self._timeout)
        except Exception as error:
            self.counters["failures"] += 1
            self.counters["dropped"] += len(snapshots)
            if not self._failing:
                late = f"no answer within {self._timeout:g} s (recorder.sink_timeout)"
                why = late if isinstance(error, TimeoutError) else repr(error)
                logger.error("sink %s failed; its snapshots are dropped: %s", self.name, why)
            self._failing += 1
            return False
        self.counters["written"] += len(snapshots)
        if self._failing >= _BREAK_AFTER:
            logger.warning("sink %s works again", self.name)
        self._failing = 0
        return True

    async def _stay_away(self, pause: float) -> None:
        """Leave the sink alone; after it one attempt decides. The end does not wait for it."""
        self.counters["breaks"] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), pause)
            while self._queue:
                self.counters["dropped"] += len(self._queue.popleft())

    def close(self) -> None:
        """Let ``run`` end once the queue is empty."""
        self._closing.set()
        self._wake.set()
