"""Symbol source ``runtime``: a set that other programs change while a recorder runs.

``_symbol_set`` keeps it, in a file that outlives every process. From Python::

    from obframe_plugins.runtime import SymbolSet

    SymbolSet("obframe-symbols.db").add(["SOLUSDT"])
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from obframe import Duration, Instrument, Provider, SymbolSource, hookimpl
from obframe_plugins._symbol_lists import Sleep, follow
from obframe_plugins._symbol_set import SymbolSet

__all__ = ["RuntimeSettings", "RuntimeSymbols", "SymbolSet", "obframe_symbol_sources"]

OBFRAME_API = 1

logger = logging.getLogger("obframe.runtime")


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Settings of the symbol source ``runtime``.

    Raises:
        ValueError: The path is empty or the interval 0.
    """

    path: str = field(
        default="obframe-symbols.db",
        metadata={"help": "File that keeps the set; `obframe symbols add` changes it."},
    )
    interval: Duration = field(
        default=Duration(0.5), metadata={"help": "Time between two looks at it."}
    )

    def __post_init__(self) -> None:
        if not self.path or "\0" in self.path:
            raise ValueError(f"path {self.path!r} is no path of a file")
        if self.interval <= 0:
            raise ValueError("interval must be more than 0")


class RuntimeSymbols(SymbolSet):
    """Yields the set, and again whenever somebody changes it; it may be empty.

    Args:
        path: The file that keeps it.
        interval: Seconds between two looks.
        sleep: Waits for them.
    """

    def __init__(self, path: str, interval: float = 0.5, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__(path)
        self._interval = interval
        self._sleep = sleep
        self._listed: list[str] = []
        self._instruments: frozenset[Instrument] = frozenset()

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield the set, and again whenever it changes."""
        held = await asyncio.to_thread(self._read)
        if not held:
            logger.warning("%s names no symbols yet: obframe symbols add NAME", self.path)
        interval = self._interval
        async for now in follow(self.path, held, self._read, interval, self._sleep, logger):
            yield now

    def _read(self) -> frozenset[Instrument]:
        listed = self.symbols()
        if listed != self._listed:  # to parse thousands every time would hold up the books
            self._instruments = frozenset(map(Instrument.parse, listed))
            self._listed = listed
        return self._instruments


@asynccontextmanager
async def open_runtime(settings: RuntimeSettings) -> AsyncIterator[SymbolSource]:
    """Open the source, and make its file when there is none."""
    symbols = RuntimeSymbols(settings.path, float(settings.interval))
    await asyncio.to_thread(symbols.create)
    yield symbols


@hookimpl
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:
    """Offer ``runtime``."""
    summary = "a set that `obframe symbols add` and other programs change meanwhile"
    contract = "obframe_plugins._contracts_symbols:RuntimeContract"
    return [Provider("runtime", summary, RuntimeSettings, open_runtime, contract=contract)]
