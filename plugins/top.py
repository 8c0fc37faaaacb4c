"""Symbol source ``top``: the symbols of a venue with the highest volume of the last 24 hours.

``TopSymbols`` knows no venue: a ``Listing`` tells it what there is. Here it is Binance's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp

from obframe import Duration, Instrument, ObframeError, Provider, SymbolSource, hookimpl
from obframe_plugins._binance_listing import BinanceListing
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._pacing import Backoff
from obframe_plugins._ranking import Listing, ListingError, Ranking, Ticker
from obframe_plugins._symbol_lists import Sleep

__all__ = [
    "Listing",
    "ListingError",
    "Ranking",
    "Ticker",
    "TopSettings",
    "TopSymbols",
    "obframe_symbol_sources",
]

OBFRAME_API = 1

logger = logging.getLogger("obframe.top")

_FIRST_RETRY = 2.0
_MOST_RETRY = 300.0


@dataclass(frozen=True, slots=True)
class TopSettings:
    """Settings of the symbol source ``top``.

    Raises:
        ValueError: A value is out of its range; the message names all such values.
    """

    count: int = field(default=50, metadata={"help": "How many symbols to record."})
    quote: tuple[str, ...] = field(
        default=("USDT",),
        metadata={"help": "Quote assets; volumes are in them and compared as they are."},
    )
    include: tuple[str, ...] = field(
        default=(), metadata={"help": "Patterns such as `BTC*`: only symbols that match one."}
    )
    exclude: tuple[str, ...] = field(
        default=(), metadata={"help": "Patterns such as `*UPUSDT`: no symbol that matches one."}
    )
    buffer: float = field(
        default=0.2,
        metadata={"help": "Share of count by which a rank must be passed until the set changes."},
    )
    interval: Duration = field(
        default=Duration(3600), metadata={"help": "Time between two looks at the volumes."}
    )
    market: Literal["spot", "usdm", "coinm"] = field(
        default="spot", metadata={"help": "Which of Binance's markets; as `binance.market`."}
    )
    rest_url: str = field(
        default="", metadata={"help": "Base URL of its REST interface; as `binance.rest_url`."}
    )
    proxy: str = field(default="", metadata={"help": "As `binance.proxy`."})
    qualify: bool = field(
        default=False,
        metadata={"help": "Write `binance/BTCUSDT`: for a run whose default venue is another."},
    )

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.count <= 10_000:
            problems.append(f"count is {self.count}; use 1 to 10000")
        if not 0 <= self.buffer <= 1:
            problems.append(f"buffer is {self.buffer}; use a share of count, 0 to 1")
        if self.interval < 1:
            problems.append(f"interval is {self.interval}; use 1 s or more")
        try:
            self.venue()
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))

    def venue(self) -> BinanceSettings:
        """Return how to reach the venue."""
        return BinanceSettings(market=self.market, rest_url=self.rest_url, proxy=self.proxy)

    def ranking(self) -> Ranking:
        """Return which symbols to take."""
        return Ranking(self.count, self.quote, self.include, self.exclude, self.buffer)


class TopSymbols:
    """Yields the top symbols of a venue, and again when they have changed.

    While the venue's list cannot be had, the set stands, and the list is asked for again with
    growing delays.

    Args:
        listing: The venue's symbols and volumes.
        ranking: Which to take.
        interval: Seconds between two looks.
        sleep: Waits for them.
        rng: Source of jitter.
    """

    def __init__(
        self,
        listing: Listing,
        ranking: Ranking,
        interval: float,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._listing = listing
        self._ranking = ranking
        self._interval = interval
        self._sleep = sleep
        self._backoff = Backoff(_MOST_RETRY, rng or random.Random(), _FIRST_RETRY)
        self._held: frozenset[Instrument] = frozenset()

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield the set, and again whenever it changes.

        Raises:
            ObframeError: The venue lists no symbol that the settings allow, at the first look.
        """
        trouble = ""
        has_told = False
        while True:
            try:
                now = self._choose(await self._listing.fetch())
            except ListingError as error:
                delay = max(1.0, self._backoff.next(), error.retry_after)
                if str(error) != trouble:
                    trouble = str(error)
                    logger.error(
                        "the top symbols cannot be looked up: %s; the %d symbols of before stay, "
                        "next try in %.0f s",
                        error,
                        len(self._held),
                        delay,
                    )
                if self._held and not has_told:
                    has_told = True
                    yield self._held
                await self._sleep(delay)
                continue
            trouble = ""
            self._backoff.reset()
            if now != self._held:
                added, removed = len(now - self._held), len(self._held - now)
                logger.info("top symbols: %d added, %d removed", added, removed)
            if now != self._held or not has_told:
                self._held = now
                has_told = True
                yield now
            await self._sleep(self._interval)

    def _choose(self, tickers: Sequence[Ticker]) -> frozenset[Instrument]:
        now = self._ranking.choose(tickers, self._held)
        if now:
            return now
        if self._held or any(map(self._ranking.fits, tickers)):
            raise ListingError("no symbol that the settings allow is traded now")
        quotes = ", ".join(sorted({ticker.quote for ticker in tickers})[:10])
        raise ObframeError(
            f"none of the venue's {len(tickers)} symbols is allowed by top.quote, top.include and "
            f"top.exclude; its quote assets are {quotes or 'none'}"
        )


@asynccontextmanager
async def open_top(settings: TopSettings) -> AsyncIterator[SymbolSource]:
    """Open the source."""
    async with aiohttp.ClientSession(headers={"User-Agent": "obframe"}) as session:
        prefix = "binance/" if settings.qualify else ""
        listing = BinanceListing(settings.venue(), session, "top", prefix)
        yield TopSymbols(listing, settings.ranking(), float(settings.interval))


@hookimpl
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:
    """Offer ``top``."""
    summary = "the symbols of Binance with the highest volume of 24 hours"
    contract = "obframe_plugins._contracts_symbols:TopContract"
    return [Provider("top", summary, TopSettings, open_top, contract=contract)]
