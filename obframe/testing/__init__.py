"""The kit for plugin authors: contracts, a reference book, strategies and a venue on loopback.

Everything here is loaded when it is first asked for. What needs pytest or Hypothesis says so when
they are missing: ``pip install 'obframe[testing]'`` brings both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obframe.testing import strategies
    from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer
    from obframe.testing.clock import FakeClock
    from obframe.testing.contracts import (
        FeedContract,
        FeedRig,
        FeedVenue,
        LoopbackVenue,
        SinkContract,
        StorageContract,
        SymbolSourceContract,
    )
    from obframe.testing.exchange import CoinbaseExchange, Exchange, ExchangeOptions, KrakenExchange
    from obframe.testing.exchange_script import ScriptedSource
    from obframe.testing.feed import ScriptedFeed
    from obframe.testing.listener import FeedListener
    from obframe.testing.oracle import Verdict, judge, judge_by, read_journal
    from obframe.testing.reference import ReferenceBook
    from obframe.testing.symbols import HeldSleep
    from obframe.testing.waiting import until
    from obframe.testing.watching import Leftovers, LoopWatch

__all__ = [
    "CoinbaseExchange",
    "Exchange",
    "ExchangeOptions",
    "FakeClock",
    "FeedContract",
    "FeedListener",
    "FeedRig",
    "FeedVenue",
    "HeldSleep",
    "KafkaCluster",
    "KrakenExchange",
    "Leftovers",
    "LoopWatch",
    "LoopbackVenue",
    "NatsServer",
    "ReferenceBook",
    "ScriptedFeed",
    "ScriptedSource",
    "SinkContract",
    "StorageContract",
    "SymbolSourceContract",
    "ValkeyServer",
    "Verdict",
    "judge",
    "judge_by",
    "read_journal",
    "strategies",
    "until",
]

_HOMES = {
    "brokers": ("KafkaCluster", "NatsServer", "ValkeyServer"),
    "clock": ("FakeClock",),
    "contracts": (
        "FeedContract", "FeedRig", "FeedVenue", "LoopbackVenue", "SinkContract", "StorageContract",
        "SymbolSourceContract",
    ),
    "exchange": ("CoinbaseExchange", "Exchange", "ExchangeOptions", "KrakenExchange"),
    "exchange_script": ("ScriptedSource",),
    "feed": ("ScriptedFeed",),
    "listener": ("FeedListener",),
    "oracle": ("Verdict", "judge", "judge_by", "read_journal"),
    "reference": ("ReferenceBook",),
    "symbols": ("HeldSleep",),
    "waiting": ("until",),
    "watching": ("Leftovers", "LoopWatch"),
}  # fmt: skip
_NEEDED = ("pytest", "hypothesis")


def __getattr__(name: str) -> object:
    home = next((home for home, names in _HOMES.items() if name in names), "")
    if not home and name != "strategies":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{home or name}")
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        mend = "pip install 'obframe[testing]'"
        raise ImportError(f"{__name__}.{name} needs {error.name}: {mend}") from error
    return getattr(module, name) if home else module


def __dir__() -> list[str]:
    return sorted(__all__)
