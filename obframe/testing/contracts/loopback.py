"""The venue on loopback as the feed contract drives it."""

from __future__ import annotations

from collections.abc import Sequence

from obframe._core import Level
from obframe.testing.contracts.venue import FeedVenue
from obframe.testing.exchange import Exchange, ExchangeOptions
from obframe.testing.exchange_market import MARKETS
from obframe.testing.exchange_script import ScriptedSource
from obframe.types import Instrument


class LoopbackVenue(FeedVenue):
    """Binance's wire on loopback, with every capability of ``FeedVenue``; an async context manager.

    Args:
        symbols: Those that it lists.
        market: ``spot``, ``usdm`` or ``coinm``.

    Attributes:
        exchange: The venue; ``rest_url`` and ``ws_url`` say where it listens.
    """

    def __init__(self, symbols: Sequence[str], market: str = "spot") -> None:
        options = ExchangeOptions(market=market, symbols=tuple(symbols))
        self.exchange = Exchange(options, ScriptedSource(MARKETS[market], symbols))

    async def __aenter__(self) -> LoopbackVenue:
        await self.exchange.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.exchange.__aexit__(*exc_info)

    async def change(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change the book and send the event."""
        self.exchange.change(instrument.symbol, bids, asks)

    async def drop(self) -> None:
        """Reset every connection."""
        self.exchange.reset_connections()

    async def lose(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change the book and lose the event."""
        self.exchange.inject(f"drop:symbol={instrument.symbol}")
        await self.change(instrument, bids, asks)

    async def garble(self, instrument: Instrument) -> None:
        """Send a frame that is not JSON instead of an event."""
        self.exchange.inject(f"garbage:symbol={instrument.symbol}")
        await self.change(instrument, [], [])

    async def refuse_snapshots(self, refused: bool) -> None:
        """Answer every depth request with status 500, or no longer."""
        if refused:
            self.exchange.inject("500:every=1")
        else:
            self.exchange.heal("500")
