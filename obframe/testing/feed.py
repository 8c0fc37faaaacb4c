"""A feed that a test speaks through."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from obframe.protocols import Emit, FeedEvent
from obframe.types import FeedStatus, GapReason, Instrument, StreamEvent


class ScriptedFeed:
    """Emits what it is told to and notes what is asked of it.

    Attributes:
        wanted: The instruments subscribed now.
        requested: Every snapshot asked for, oldest first.
        starts: How often ``run`` was called.
    """

    def __init__(self) -> None:
        self.wanted: set[Instrument] = set()
        self.requested: list[Instrument] = []
        self.starts = 0
        self._emit: Emit | None = None
        self._running = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None

    async def run(self, emit: Emit) -> None:
        """Let the test speak until cancelled or told to fail."""
        self.starts += 1
        self._emit = emit
        self._failure = asyncio.get_running_loop().create_future()
        self._running.set()
        try:
            await self._failure
        finally:
            self._emit = None
            self._running.clear()

    async def started(self) -> None:
        """Wait until ``run`` was called."""
        await self._running.wait()

    def send(self, *events: FeedEvent) -> None:
        """Emit the events."""
        assert self._emit is not None, "the feed does not run"
        for event in events:
            self._emit(event)

    def say(
        self,
        event: StreamEvent,
        *symbols: str,
        reason: GapReason | None = None,
        detail: str = "",
    ) -> None:
        """Emit a status of the symbols."""
        instruments = frozenset(Instrument(symbol) for symbol in symbols)
        self.send(FeedStatus(event, instruments, reason, detail))

    def fail(self, error: Exception | None) -> None:
        """Let ``run`` raise the error, or return when there is none."""
        assert self._failure is not None
        if error is None:
            self._failure.set_result(None)
        else:
            self._failure.set_exception(error)

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Note what is wanted."""
        self.wanted.update(instruments)

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Note what is wanted no longer."""
        self.wanted.difference_update(instruments)

    def request_snapshot(self, instrument: Instrument) -> None:
        """Note the request."""
        self.requested.append(instrument)

    def counters(self) -> Mapping[str, int]:
        """Return how often ``run`` was called."""
        return Counter(starts=self.starts)
