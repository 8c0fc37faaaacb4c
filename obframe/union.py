"""Several symbol sources as one: whatever any of them wants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from obframe.errors import ObframeError
from obframe.protocols import SymbolSource
from obframe.types import Instrument

logger = logging.getLogger("obframe.union")

_AGAIN_FIRST = 1.0
_AGAIN_MOST = 60.0


def unite(sources: Mapping[str, SymbolSource]) -> SymbolSource:
    """Return a source that wants what any of these wants; a single one as it is."""
    return next(iter(sources.values())) if len(sources) == 1 else Union(sources)


class Union:
    """Wants what any of several sources wants, each watched by itself.

    The first set waits for every source, but not for long: one that is slow to tell what it wants
    holds up no other. One that fails later is watched anew, with growing delays; its set stands.

    Args:
        sources: The sources by name.
        patience: Seconds that the first set waits for every source.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        sources: Mapping[str, SymbolSource],
        patience: float = 1.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sources = dict(sources)
        self._patience = patience
        self._sleep = sleep
        self._sets: dict[str, frozenset[Instrument]] = {}

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield what is wanted, and again whenever it changes; end when all sources have ended.

        Raises:
            ObframeError: A source failed before it told its first set.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        changed = asyncio.Event()
        silent = set(self._sources)
        tasks = [
            asyncio.create_task(self._follow(name, silent, changed), name=name)
            for name in self._sources
        ]
        told: frozenset[Instrument] | None = None
        try:
            while True:
                left = deadline - loop.time() if told is None else 0.0
                await _wait(tasks, changed, left if left > 0 else None)
                for task in tasks:
                    if task.done():
                        task.result()
                if told is None and silent and loop.time() < deadline:
                    continue
                wanted = frozenset[Instrument]().union(*self._sets.values())
                if self._sets and wanted != told:
                    told = wanted
                    yield wanted
                elif all(task.done() for task in tasks):
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str, silent: set[str], changed: asyncio.Event) -> None:
        delay = _AGAIN_FIRST
        while True:
            try:
                async for wanted in self._sources[name].watch():
                    self._sets[name] = wanted
                    silent.discard(name)
                    changed.set()
            except Exception as error:
                if name not in self._sets:
                    raise ObframeError(f"the symbol source {name} failed: {error}") from error
                logger.exception("the symbol source %s failed, its set of symbols stands", name)
                await self._sleep(delay)
                delay = min(delay * 2, _AGAIN_MOST)
            else:
                if name not in self._sets:
                    raise ObframeError(f"the symbol source {name} named no instruments")
                return


async def _wait(
    tasks: Sequence[asyncio.Task[None]], changed: asyncio.Event, timeout: float | None
) -> None:
    """Wait until something has changed or a task has ended since the last call."""
    waiter = asyncio.create_task(changed.wait())
    running = [task for task in tasks if not task.done()]
    try:
        if running:
            await asyncio.wait([*running, waiter], timeout=timeout, return_when="FIRST_COMPLETED")
    finally:
        waiter.cancel()
    changed.clear()
