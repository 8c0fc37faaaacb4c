"""The Kraken feed keeps every rule of the feed contract."""

from __future__ import annotations

from obframe_plugins._contracts_kraken import KrakenContract


class TestKraken(KrakenContract):
    pass
