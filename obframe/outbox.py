"""What waits for a sink, and what is waiting for it: snapshots as they are sampled.

``obframe.backfill`` has the other kind: every stored row.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from obframe._core import Snapshot


class Bell:
    """Wakes the loop of another thread; a ring before it listens is not lost."""

    def __init__(self) -> None:
        self._rung = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def bind(self) -> None:
        """Listen in the running loop from now on."""
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Wake who waits. Safe in any thread; many rings in a row cost one."""
        loop = self._loop
        if self._rung or loop is None:
            return
        self._rung = True
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(self._event.set)

    def listen(self) -> None:
        """Forget earlier rings: call it, look whether there is work, and ``wait`` if not."""
        self._event.clear()
        self._rung = False

    async def wait(self, timeout: float | None = None) -> None:
        """Return after the next ring, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout)


class Batch(NamedTuple):
    """What one call of a sink is given.

    Attributes:
        snapshots: Of whole seconds, oldest first.
        second: All rows up to it have been told when this batch is.
        stored: Whether it was read back from the storage.
    """

    snapshots: Sequence[Snapshot]
    second: int
    stored: bool = False


class Outbox(Protocol):
    """What a sink's thread takes from."""

    bell: Bell

    @property
    def lag(self) -> int:
        """Seconds between the newest row and the newest that was told."""
        ...

    async def next(self, rows: int) -> Batch | None:
        """Return what is to be told next, of about so many rows; None when there is nothing.

        The same comes again until it is ``told`` or ``given_up``.
        """
        ...

    def told(self, batch: Batch) -> None:
        """Take note that the sink has it."""
        ...

    def give_up(self, batch: Batch) -> bool:
        """Drop what cannot be told; return whether it is gone."""
        ...

    async def save(self, *, now: bool = False) -> None:
        """Keep the position on disk, at once or when it is time."""
        ...

    def close(self) -> None:
        """Count what is left and will be told to nobody."""
        ...


class LiveOutbox:
    """Snapshots as they were sampled; when full the oldest are dropped, and counted.

    Args:
        rows: Snapshots held at most; one second is always held.
        counters: Counts ``dropped``.
    """

    def __init__(self, rows: int, counters: Counter[str]) -> None:
        self.bell = Bell()
        self._rows = rows
        self._counters = counters
        self._lock = threading.Lock()
        self._queue: deque[Sequence[Snapshot]] = deque()
        self._held = 0
        self._newest = self._told_to = 0

    @property
    def lag(self) -> int:
        """Seconds between the newest snapshot and the newest that was told."""
        return max(self._newest - self._told_to, 0) if self._queue else 0

    def offer(self, snapshots: Sequence[Snapshot]) -> None:
        """Put in one second's snapshots. Never blocks."""
        with self._lock:
            self._queue.append(snapshots)
            self._held += len(snapshots)
            self._newest = snapshots[0].timestamp
            while self._held > self._rows and len(self._queue) > 1:
                self._drop()
        self.bell.ring()

    def _drop(self) -> None:
        gone = self._queue.popleft()
        self._held -= len(gone)
        self._counters["dropped"] += len(gone)

    async def next(self, rows: int) -> Batch | None:  # noqa: ARG002 (each second is told alone)
        """Return the oldest second that is held."""
        with self._lock:
            if not self._queue:
                return None
            return Batch(self._queue[0], self._queue[0][0].timestamp)

    def told(self, batch: Batch) -> None:
        """Forget it."""
        with self._lock:
            self._told_to = batch.second
            if self._queue and self._queue[0] is batch.snapshots:
                self._held -= len(self._queue.popleft())

    def give_up(self, batch: Batch) -> bool:
        """Drop it."""
        with self._lock:
            if self._queue and self._queue[0] is batch.snapshots:
                self._drop()
        return True

    async def save(self, *, now: bool = False) -> None:
        """Do nothing: there is no position."""

    def close(self) -> None:
        """Drop what is held."""
        with self._lock:
            while self._queue:
                self._drop()
