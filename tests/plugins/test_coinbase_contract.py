"""The Coinbase feed keeps every rule of the feed contract."""

from __future__ import annotations

from obframe_plugins._contracts_coinbase import CoinbaseContract


class TestCoinbase(CoinbaseContract):
    pass
