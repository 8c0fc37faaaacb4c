"""The feeds of ours keep the contract, against venues on loopback."""

from __future__ import annotations

from obframe_plugins._contracts import BinanceContract


class TestBinance(BinanceContract):
    transport = "websockets"


class TestBinanceByPicows(TestBinance):
    transport = "picows"


class TestBinanceFutures(TestBinance):
    market = "usdm"


class TestBinanceCoinFutures(TestBinance):
    market = "coinm"
    symbols = ("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSD_260327")
