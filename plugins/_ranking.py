"""Which symbols are the top ones: by volume, and slow to change their mind. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol

from obframe import FeedError, Instrument


@dataclass(frozen=True, slots=True)
class Ticker:
    """What a venue says of one symbol.

    Args:
        instrument: Which.
        quote: The asset its prices are in, such as ``USDT``.
        volume: What was traded in the last 24 hours, in that asset.
        trading: Whether it is traded now.
    """

    instrument: Instrument
    quote: str
    volume: Decimal
    trading: bool


class ListingError(FeedError):
    """A venue's list cannot be had now.

    Attributes:
        retry_after: Seconds that the venue asks us to wait at least.
    """

    def __init__(self, detail: str, retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(detail)


class Listing(Protocol):
    """One venue's symbols with their volumes: all that ``top`` needs to know of a venue."""

    async def fetch(self) -> Sequence[Ticker]:
        """Return every symbol of the venue.

        Raises:
            ListingError: It cannot be had now; asked again later.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranks symbols by volume and takes the first.

    Args:
        count: How many to take.
        quotes: Quote assets; empty for all. Volumes in different assets are not compared in worth.
        include: Patterns such as ``BTC*`` of which a symbol has to match one; empty for all.
        exclude: Patterns of which it must match none.
        buffer: Share of ``count`` by which a rank must be passed until the set changes.
    """

    count: int
    quotes: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    buffer: float = 0.0

    def fits(self, ticker: Ticker) -> bool:
        """Tell whether a symbol may be taken at all, whatever its volume."""
        symbol = ticker.instrument.native
        return (
            (not self.quotes or ticker.quote in self.quotes)
            and (not self.include or any(fnmatchcase(symbol, each) for each in self.include))
            and not any(fnmatchcase(symbol, each) for each in self.exclude)
        )

    def choose(
        self, tickers: Sequence[Ticker], held: Collection[Instrument]
    ) -> frozenset[Instrument]:
        """Return the top symbols.

        First come those ranked within ``count`` less the buffer, then the held ones ranked within
        ``count`` plus the buffer, then the others by rank. So a symbol at the border stays where it
        is. One that is not traded now may stay, but does not come in.

        Args:
            tickers: All symbols of the venue.
            held: Those taken last time.
        """
        ranked = sorted(
            (
                ticker
                for ticker in tickers
                if self.fits(ticker) and (ticker.trading or ticker.instrument in held)
            ),
            key=lambda ticker: (-ticker.volume, ticker.instrument),
        )
        names = list(dict.fromkeys(ticker.instrument for ticker in ranked))
        margin = math.ceil(self.count * self.buffer)
        sure = names[: max(self.count - margin, 0)]
        kept = [name for name in names[len(sure) : self.count + margin] if name in held]
        taken = dict.fromkeys([*sure, *kept, *names])
        return frozenset(list(taken)[: self.count])
