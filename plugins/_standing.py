"""Which symbols a venue knows and trades: looked up at the start, for new ones, and slowly on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from enum import Enum
from typing import Protocol, TypeAlias

from obframe import Instrument
from obframe_plugins._http import RestError
from obframe_plugins._pacing import Backoff


class Standing(Enum):
    """What the venue says of a symbol."""

    UNCHECKED = "unchecked"
    TRADING = "trading"
    HALTED = "halted"
    UNKNOWN = "unknown"


Word: TypeAlias = tuple[Standing, str]
"""Where a symbol stands, and why in words."""


class PollSettings(Protocol):
    """The settings of a feed that say how often to look. Times in seconds."""

    @property
    def status_poll(self) -> float:
        """Between two looks."""
        ...

    @property
    def halted_poll(self) -> float:
        """The same while a symbol is halted or unknown."""
        ...


class SymbolWatch:
    """Compares the wanted symbols with the venue's list.

    A list that cannot be had changes nothing: what is recorded goes on being recorded.

    Args:
        venue: Its name, for people.
        settings: How often to look.
        backoff: Delays after a look-up that failed.
        look_up: Asked for the standings of some symbols, and whether some of them were unknown
            before; may answer for more. A symbol that is not in its answer is unknown. Raises
            ``RestError``.
        moved: Told of every change: the instrument, where it stood, where it stands, the details.
        logger: Takes what fails.
    """

    def __init__(
        self,
        venue: str,
        settings: PollSettings,
        backoff: Backoff,
        look_up: Callable[[Collection[str], bool], Awaitable[Mapping[str, Word]]],
        moved: Callable[[Instrument, Standing, Standing, str], None],
        logger: logging.Logger,
    ) -> None:
        self._venue = venue
        self._settings = settings
        self._backoff = backoff
        self._look_up = look_up
        self._moved = moved
        self._logger = logger
        self._instruments: dict[str, Instrument] = {}
        self._standings: dict[str, Standing] = {}
        self._changed = asyncio.Event()

    def add(self, instruments: Collection[Instrument]) -> None:
        """Look up these too, at once."""
        for instrument in instruments:
            self._instruments[instrument.symbol] = instrument
            self._standings.setdefault(instrument.symbol, Standing.UNCHECKED)
        self._changed.set()

    def remove(self, symbols: Collection[str]) -> None:
        """Forget these."""
        for symbol in symbols:
            self._instruments.pop(symbol, None)
            self._standings.pop(symbol, None)

    def mark_unknown(self, instrument: Instrument, why: str) -> None:
        """Take it from elsewhere that the venue does not know a symbol."""
        self._move(instrument.symbol, Standing.UNKNOWN, why)

    async def run(self) -> None:
        """Look up until cancelled."""
        everything = False
        told = False
        while True:
            self._changed.clear()
            symbols = [
                symbol
                for symbol, standing in self._standings.items()
                if everything or standing is Standing.UNCHECKED
            ]
            try:
                if symbols:
                    await self._check(symbols)
            except RestError as error:
                delay = max(self._backoff.next(), error.retry_after)
                if not told:
                    told = True
                    self._logger.warning(
                        "which symbols trade cannot be looked up: %s; recording goes on, next try "
                        "in %.1f s",
                        error,
                        delay,
                    )
                await asyncio.sleep(delay)
                continue
            told = False
            self._backoff.reset()
            everything = await self._wait()

    async def _wait(self) -> bool:
        """Wait for new symbols or for the next poll; return whether it is the poll."""
        settings = self._settings
        quiet = all(standing is Standing.TRADING for standing in self._standings.values())
        try:
            async with asyncio.timeout(settings.status_poll if quiet else settings.halted_poll):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    async def _check(self, symbols: Collection[str]) -> None:
        unknown = any(self._standings.get(item) is Standing.UNKNOWN for item in symbols)
        words = await self._look_up(symbols, unknown)
        for symbol in symbols:
            if symbol in words:
                self._move(symbol, *words[symbol])
                continue
            hint = ""
            if symbol.upper() != symbol and symbol.upper() in words:
                hint = f"; did you mean {symbol.upper()}?"
            self._move(symbol, Standing.UNKNOWN, f"{self._venue} has no such symbol{hint}")

    def _move(self, symbol: str, new: Standing, detail: str) -> None:
        old = self._standings.get(symbol)
        if old is None or old is new:
            return
        self._standings[symbol] = new
        self._moved(self._instruments[symbol], old, new, detail)
