"""The feeds of ours keep the contract, against venues on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from obframe import Instrument
from obframe.testing.contracts import FeedContract, FeedRig, LoopbackVenue
from obframe_plugins.binance import BinanceFeed, BinanceSettings


class TestBinance(FeedContract):
    can_drop = can_lose = can_garble = can_refuse = True
    market = "spot"
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    transport = "websockets"

    @asynccontextmanager
    async def make_feed(self, tmp_path: Path) -> AsyncIterator[FeedRig]:
        async with LoopbackVenue(self.symbols, self.market) as venue:
            settings = BinanceSettings(
                market=self.market,
                transport=self.transport,
                rest_url=venue.exchange.rest_url,
                ws_url=venue.exchange.ws_url,
                backoff_max=0.1,
                control_interval=0.01,
                rest_weight_per_minute=100_000,
            )
            instruments = [Instrument(symbol) for symbol in self.symbols]
            yield FeedRig(BinanceFeed(settings), instruments, venue, Instrument("NOSUCHUSDT"))


class TestBinanceByPicows(TestBinance):
    transport = "picows"


class TestBinanceFutures(TestBinance):
    market = "usdm"


class TestBinanceCoinFutures(TestBinance):
    market = "coinm"
    symbols = ("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSD_260327")
