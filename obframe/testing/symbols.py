"""What a symbol source tells, and a sleep for it that a test holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from obframe.errors import ObframeError
from obframe.protocols import SymbolSource
from obframe.testing.waiting import until


class HeldSleep:
    """Stands for ``asyncio.sleep``: whoever sleeps goes on when the test says so.

    Attributes:
        asked: The seconds of each sleep so far.
    """

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._goes_on = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        """Sleep."""
        self.asked.append(seconds)
        await self._goes_on.acquire()

    async def end(self, count: int = 1) -> None:
        """End so many sleeps one after the other, and wait until the next one has begun.

        Raises:
            TimeoutError: Nobody sleeps again.
        """
        for _ in range(count):
            expected = len(self.asked) + 1
            self._goes_on.release()
            await until(lambda expected=expected: len(self.asked) >= expected)  # type: ignore[misc]


class Watch:
    """One ``watch()`` under way.

    Attributes:
        told: Each set that was yielded, as sorted symbols with commas between.
        task: Follows the source.
    """

    def __init__(self, source: SymbolSource) -> None:
        self.told: list[str] = []
        self.task = asyncio.create_task(self._follow(source), name="watch")

    async def _follow(self, source: SymbolSource) -> None:
        async for wanted in source.watch():
            self.told.append(",".join(sorted(each.symbol for each in wanted)))

    async def until(self, *sets: str) -> None:
        """Wait until exactly these sets were told.

        Raises:
            TimeoutError: They were not.
        """
        await until(lambda: self.told == list(sets) or self.task.done())
        assert self.told == list(sets), f"it told {self.told}"


@asynccontextmanager
async def watching(source: SymbolSource) -> AsyncIterator[Watch]:
    """Watch a source; end that on leaving."""
    watch = Watch(source)
    try:
        yield watch
    finally:
        watch.task.cancel()
        with suppress(asyncio.CancelledError, ObframeError):
            await watch.task
