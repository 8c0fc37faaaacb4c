"""Several symbol sources as one: whatever any of them wants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

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

    A source that is still to tell its first set holds up no other. One that fails afterwards is
    watched anew, with growing delays; its set stands meanwhile.

    Args:
        sources: The sources by name.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        sources: Mapping[str, SymbolSource],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sources = dict(sources)
        self._sleep = sleep

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield what is wanted, and again whenever it changes; end when all sources have ended.

        Raises:
            ObframeError: A source failed before it told its first set.
        """
        sets: dict[str, frozenset[Instrument]] = {}
        changed = asyncio.Event()
        tasks = {
            asyncio.create_task(self._follow(name, source, sets, changed), name=name)
            for name, source in self._sources.items()
        }
        told: frozenset[Instrument] | None = None
        try:
            while True:
                waiter = asyncio.create_task(changed.wait())
                try:
                    running = {task for task in tasks if not task.done()}
                    if running:
                        await asyncio.wait({*running, waiter}, return_when="FIRST_COMPLETED")
                finally:
                    waiter.cancel()
                changed.clear()
                for task in tasks:
                    if task.done():
                        task.result()
                wanted = frozenset[Instrument]().union(*sets.values())
                if sets and wanted != told:
                    told = wanted
                    yield wanted
                elif all(task.done() for task in tasks):
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(
        self,
        name: str,
        source: SymbolSource,
        sets: dict[str, frozenset[Instrument]],
        changed: asyncio.Event,
    ) -> None:
        delay = _AGAIN_FIRST
        while True:
            try:
                async for wanted in source.watch():
                    sets[name] = wanted
                    changed.set()
            except Exception as error:
                if name not in sets:
                    raise ObframeError(f"the symbol source {name} failed: {error}") from error
                logger.exception("the symbol source %s failed, its set of symbols stands", name)
                await self._sleep(delay)
                delay = min(delay * 2, _AGAIN_MOST)
            else:
                if name not in sets:
                    raise ObframeError(f"the symbol source {name} named no instruments")
                return
