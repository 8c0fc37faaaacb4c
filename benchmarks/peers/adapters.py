"""All peers by name, in the order of the tables."""

from __future__ import annotations

from base import Peer
from books import (
    FloatDict,
    Loads,
    Obframe,
    ObframeParse,
    ObframeTwoCalls,
    OrderBookDecimal,
    OrderBookFloat,
    SortedContainers,
    TextDict,
)
from clients import BinanceBook, Ccxt, Cryptofeed, CryptoLobStream, PythonBinance, Unicorn
from engines import HftBacktest, Hummingbot, Nautilus

PEERS: dict[str, type[Peer]] = {
    "obframe": Obframe,
    "two-calls": ObframeTwoCalls,
    "parse": ObframeParse,
    "loads": Loads,
    "dict-text": TextDict,
    "dict-float": FloatDict,
    "sortedcontainers": SortedContainers,
    "order-book": OrderBookFloat,
    "order-book-decimal": OrderBookDecimal,
    "hummingbot": Hummingbot,
    "nautilus": Nautilus,
    "hftbacktest": HftBacktest,
    "python-binance": PythonBinance,
    "binance-book": BinanceBook,
    "crypto-lob-stream": CryptoLobStream,
    "cryptofeed": Cryptofeed,
    "ccxt": Ccxt,
    "unicorn": Unicorn,
}
