"""The books inside libraries that talk to exchanges, fed without a connection."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from base import DEPTH, FloatPeer
from books import OrderBookDecimal


class PythonBinance(FloatPeer):
    title = "python-binance DepthCache"
    package = "python-binance"

    @classmethod
    def require(cls) -> None:
        super().require()
        cls.library = importlib.import_module("binance.ws.depthcache").DepthCache

    def open(self) -> None:
        self.book = self.library("BTCUSDT")

    def load(self, snapshot: bytes) -> None:
        self.update(self.loads(snapshot), "bids", "asks")

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.update(event, "b", "a")
        self.update_id = event["u"]

    def update(self, event: dict[str, Any], bids: str, asks: str) -> None:
        for bid in event[bids]:
            self.book.add_bid(bid)
        for ask in event[asks]:
            self.book.add_ask(ask)

    def best(self) -> Any:
        return self.book.get_bids()[0], self.book.get_asks()[0]

    def top(self) -> Any:
        return self.book.get_bids()[:DEPTH], self.book.get_asks()[:DEPTH]


class Ccxt(FloatPeer):
    title = "ccxt.pro binance"
    package = "ccxt"
    note = "Its top 20 is a slice of the live book: the levels in it go on changing."

    @classmethod
    def require(cls) -> None:
        super().require()
        pro = importlib.import_module("ccxt.pro")
        cls.library = pro.binance()

    def load(self, snapshot: bytes) -> None:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        for side in ("bids", "asks"):
            data[side] = [[float(price), float(quantity)] for price, quantity in data[side]]
        # Deep enough never to cut what the others keep.
        self.book = self.library.order_book({}, 100_000)
        self.book.reset(data)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.library.handle_order_book_message(None, event, self.book)
        self.update_id = event["u"]

    def best(self) -> Any:
        return self.book["bids"][0], self.book["asks"][0]

    def top(self) -> Any:
        return self.book["bids"][:DEPTH], self.book["asks"][:DEPTH]


class Unicorn(FloatPeer):
    title = "unicorn-binance-local-depth-cache"
    package = "unicorn-binance-local-depth-cache"
    note = "Cuts both sides to 1,000 levels after every message."

    @classmethod
    def require(cls) -> None:
        super().require()
        module = importlib.import_module("unicorn_binance_local_depth_cache.manager")
        cls.library = module.BinanceLocalDepthCacheManager

    def open(self) -> None:
        # Not through __init__: that asks the exchange, and starts threads.
        self.book = book = object.__new__(self.library)
        book.exchange = "binance.com"
        book.dc_streams = {}
        book.depth_caches = {}
        book.threading_lock_ask = {}
        book.threading_lock_bid = {}
        book.default_refresh_interval = None
        book.cluster = None
        book.stop_request = False
        book._add_depthcache("btcusdt")

    def load(self, snapshot: bytes) -> None:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        self.book._apply_updates(data["asks"], data["bids"], "btcusdt")
        self.book.depth_caches["btcusdt"]["is_synchronized"] = True

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.book._apply_updates(event["a"], event["b"], "btcusdt")
        self.update_id = event["u"]

    def best(self) -> Any:
        return self.book.get_bids("btcusdt", 1), self.book.get_asks("btcusdt", 1)

    def top(self) -> Any:
        return self.book.get_bids("btcusdt", DEPTH), self.book.get_asks("btcusdt", DEPTH)


class Cryptofeed(OrderBookDecimal):
    title = "cryptofeed"
    package = "cryptofeed"

    @classmethod
    def require(cls) -> None:
        super().require()
        logging.getLogger("feedhandler").setLevel(logging.CRITICAL)
        exchanges = importlib.import_module("cryptofeed.exchanges")
        cls.library = {False: exchanges.Binance, True: exchanges.BinanceFutures}
        cls.kind = importlib.import_module("cryptofeed.types").OrderBook

    def open(self) -> None:
        async def callback(*_: Any, **__: Any) -> None:
            pass

        # Not through __init__: that asks the exchange for its symbols.
        kind = self.library[self.futures]
        self.feed = feed = object.__new__(kind)
        feed.id = kind.id
        feed._l2_book = {}
        feed.last_update_id = {}
        feed._crossed_run = {}
        feed.max_depth = DEPTH
        feed.cross_check = False
        feed.callback = callback
        feed.exchange_symbol_to_std_symbol = str

    def load(self, snapshot: bytes) -> None:
        bids, asks = self.read_snapshot(snapshot)
        held = self.kind(self.feed.id, "BTCUSDT", max_depth=DEPTH, bids=bids, asks=asks)
        self.feed._l2_book["BTCUSDT"] = held
        self.feed.last_update_id["BTCUSDT"] = self.update_id
        self.book = held.book

    def apply(self, raw: bytes) -> None:
        try:
            self.feed.message_handler(raw, None, 0.0).send(None)
        except StopIteration:
            self.update_id = self.feed.last_update_id["BTCUSDT"]
        else:
            raise RuntimeError("its handler waits")


class BinanceBook(FloatPeer):
    title = "binance-book DepthCache"
    package = "binance-book"

    @classmethod
    def require(cls) -> None:
        super().require()
        cls.library = importlib.import_module("binance_book.book.depth_cache").DepthCache

    def open(self) -> None:
        self.book = self.library("BTCUSDT", None, max_levels=100_000)

    def load(self, snapshot: bytes) -> None:
        bids, asks = self.read_snapshot(snapshot)
        self.book._bids.update(bids)
        self.book._asks.update(asks)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.book._apply_event(event)
        self.update_id = event["u"]

    def best(self) -> Any:
        return self.book.get_best_bid(), self.book.get_best_ask()

    def top(self) -> Any:
        return self.book.get_bids(DEPTH), self.book.get_asks(DEPTH)


class CryptoLobStream(FloatPeer):
    title = "crypto-lob-stream BookReconstructor"
    package = "crypto-lob-stream"

    @classmethod
    def require(cls) -> None:
        super().require()
        module = importlib.import_module("crypto_lob_stream.reconstruct")
        cls.library = module.BookReconstructor

    def open(self) -> None:
        self.book = self.library(max_depth=None)

    def load(self, snapshot: bytes) -> None:
        self.book.bids, self.book.asks = self.read_snapshot(snapshot)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        change = self.book.apply_diff
        for side, changes in (("bid", event["b"]), ("ask", event["a"])):
            for price, quantity in changes:
                change(side, float(price), float(quantity))
        self.update_id = event["u"]

    def best(self) -> Any:
        return self.book.top(1)

    def top(self) -> Any:
        return self.book.top(DEPTH)
