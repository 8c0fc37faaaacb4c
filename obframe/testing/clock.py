"""A clock that a test owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class FakeClock:
    """Stands still until told otherwise; steps, suspends and stalls on demand.

    Args:
        wall: Unix seconds at the start.
        monotonic: Seconds of the monotonic clock at the start.
        auto: Let ``sleep_until`` move time to its deadline by itself. Otherwise sleepers wait for
            ``advance``.
    """

    def __init__(
        self, wall: float = 1_700_000_000.25, monotonic: float = 5_000.0, *, auto: bool = False
    ) -> None:
        self._monotonic = monotonic
        self._wall_offset = wall - monotonic
        self._asleep = 0.0
        self._auto = auto
        self._script: list[tuple[float, Callable[[], None]]] = []
        self._moved = asyncio.Event()
        self._sleepers = 0

    def time(self) -> float:
        """Return the wall clock in Unix seconds."""
        return self._monotonic + self._wall_offset

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return self._monotonic

    def boottime(self) -> float:
        """Return the monotonic clock plus the time spent in suspend."""
        return self._monotonic + self._asleep

    async def sleep_until(self, deadline: float) -> None:
        """Wait for ``advance`` to reach the deadline, or go there (``auto``)."""
        if self._auto:
            await asyncio.sleep(0)
            while self._script and self._script[0][0] <= deadline:
                at, action = self._script.pop(0)
                self._monotonic = max(self._monotonic, at)
                action()
            self._monotonic = max(self._monotonic, deadline)
        while self._monotonic < deadline:
            self._sleepers += 1
            try:
                await self._moved.wait()
            finally:
                self._sleepers -= 1

    def advance(self, seconds: float) -> None:
        """Let all clocks go on by so many seconds, and wake the sleepers whose time has come."""
        self._monotonic += seconds
        self._moved.set()
        self._moved = asyncio.Event()

    async def run(self, seconds: float, step: float = 0.25) -> None:
        """Advance in small steps, each time until somebody sleeps again."""
        for _ in range(round(seconds / step)):
            await self._asleep_again()
            self.advance(step)
        await self._asleep_again()

    async def _asleep_again(self) -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)
            if self._sleepers:
                return
        raise TimeoutError("nobody sleeps on this clock")

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back when negative."""
        self._wall_offset += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: the wall clock goes on, the monotonic clock does not."""
        self._wall_offset += seconds
        self._asleep += seconds

    def at(self, monotonic: float, action: Callable[[], None]) -> None:
        """Run an action when an automatic sleep passes a moment of the monotonic clock."""
        self._script.append((monotonic, action))
        self._script.sort(key=lambda entry: entry[0])
