"""Every peer behind the same few calls, each driven the way it asks to be.

A peer's own libraries are imported in ``require`` only: what is not installed is told by name and
reason, and the rest goes on.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import islice
from typing import Any, ClassVar

Levels = list[tuple[str, str]]
DEPTH = 20
TIMESTAMP = 1_737_158_400


class Peer:
    """One book of one library, from raw messages to its best levels.

    Attributes:
        title: What the table calls it.
        package: The distribution whose version the table shows.
        numbers: ``text`` and ``decimal`` hold every digit, ``float`` does not.
        tolerance: The relative difference a number may have from the truth.
        works: What is measured of it: ``b`` raw to book, ``c`` top 20, ``d`` top 20 to bytes, ``e``
            all of it on every message.
        note: What a reader of the table has to know.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    numbers: ClassVar[str] = "float"
    tolerance: ClassVar[float] = 0.0
    works: ClassVar[str] = "bcde"
    note: ClassVar[str] = ""

    # Set by require(): shared by all books of a worker.
    loads: ClassVar[Callable[[bytes], Any]]
    pack: ClassVar[Callable[[Any], bytes]]
    library: ClassVar[Any]

    @classmethod
    def require(cls) -> None:
        """Import what the peer needs.

        Raises:
            Exception: Whatever its import raises; the table shows it as the reason.
        """
        cls.loads = staticmethod(importlib.import_module("orjson").loads)
        cls.pack = staticmethod(importlib.import_module("msgspec.msgpack").Encoder().encode)

    def __init__(
        self,
        *,
        futures: bool = False,
        price_decimals: int = 8,
        quantity_decimals: int = 8,
        step: float = 0.01,
    ) -> None:
        """Make an empty book.

        Args:
            futures: Whether the messages are a futures market's.
            price_decimals: Decimals that prices are written with, as the venue's rules tell.
            quantity_decimals: Decimals that quantities are written with.
            step: The distance of prices.
        """
        self.futures = futures
        self.formats = f"%.{price_decimals}f", f"%.{quantity_decimals}f"
        self.decimals = price_decimals, quantity_decimals
        self.step = step
        self.update_id = 0
        self.open()

    def open(self) -> None:
        """Make the library's book."""

    def load(self, snapshot: bytes) -> None:
        """Take a raw REST answer."""
        raise NotImplementedError

    def apply(self, raw: bytes) -> None:
        """Take a raw message of a combined stream."""
        raise NotImplementedError

    def top(self) -> Any:
        """Return the best 20 of both sides as Python objects, or in the peer's own form."""
        raise NotImplementedError

    def levels(self) -> tuple[Iterable[tuple[Any, Any]], Iterable[tuple[Any, Any]]]:
        """Return ``top`` as pairs of numbers or texts."""
        return self.top()  # type: ignore[no-any-return]

    def row(self) -> bytes:
        """Return the best 20 as a MessagePack row, numbers written out with all decimals."""
        price_format, quantity_format = self.formats
        bids, asks = self.levels()
        return self.pack(
            [
                [(price_format % price, quantity_format % quantity) for price, quantity in bids],
                [(price_format % price, quantity_format % quantity) for price, quantity in asks],
                self.update_id,
                TIMESTAMP,
            ]
        )


class Obframe(Peer):
    title = "obframe"
    package = "obframe"
    numbers = "text"

    @classmethod
    def require(cls) -> None:
        cls.library = importlib.import_module("obframe")
        cls.parse = staticmethod(cls.library.parse_depth_update)

    def open(self) -> None:
        self.book = self.library.OrderBook("BTCUSDT")

    def load(self, snapshot: bytes) -> None:
        self.book.load(self.library.parse_depth_snapshot(snapshot, "BTCUSDT"))

    def apply(self, raw: bytes) -> None:
        self.book.apply(self.parse(raw, self.futures))

    def top(self) -> Any:
        return self.book.bids(DEPTH), self.book.asks(DEPTH)

    def row(self) -> bytes:
        return self.book.snapshot(TIMESTAMP).pack()  # type: ignore[no-any-return]


class ObframeParse(Obframe):
    title = "obframe, parse alone"
    works = "b"
    note = "No book: the part of obframe's time that is parsing."

    def apply(self, raw: bytes) -> None:
        self.parse(raw, self.futures)


class Loads(Peer):
    title = "orjson.loads alone"
    package = "orjson"
    works = "b"
    note = "No book: what all that parse with orjson spend before they begin."

    def load(self, snapshot: bytes) -> None:
        pass

    def apply(self, raw: bytes) -> None:
        self.loads(raw)


class TextDict(Peer):
    title = "orjson + dict of texts"
    package = "orjson"
    numbers = "text"
    note = "The least a Python program can do: sorted only when asked."

    def open(self) -> None:
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}

    def load(self, snapshot: bytes) -> None:
        data = self.loads(snapshot)
        self.bids = dict(data["bids"])
        self.asks = dict(data["asks"])

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, quantity in changes:
                if float(quantity):
                    side[price] = quantity
                else:
                    side.pop(price, None)
        self.update_id = event["u"]

    def top(self) -> Any:
        bids, asks = self.bids, self.asks
        return (
            [(price, bids[price]) for price in sorted(bids, key=float, reverse=True)[:DEPTH]],
            [(price, asks[price]) for price in sorted(asks, key=float)[:DEPTH]],
        )

    def row(self) -> bytes:
        return self.pack([*self.top(), self.update_id, TIMESTAMP])


class FloatPeer(Peer):
    """A book that maps float prices to float quantities, as most programs do."""

    def read_snapshot(self, snapshot: bytes) -> tuple[dict[Any, Any], dict[Any, Any]]:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        bids = {float(price): float(quantity) for price, quantity in data["bids"]}
        asks = {float(price): float(quantity) for price, quantity in data["asks"]}
        return bids, asks


class FloatDict(FloatPeer):
    title = "orjson + dict of floats"
    package = "orjson"
    note = "As before, with numbers instead of texts."

    def load(self, snapshot: bytes) -> None:
        self.bids, self.asks = self.read_snapshot(snapshot)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, quantity in changes:
                if size := float(quantity):
                    side[float(price)] = size
                else:
                    side.pop(float(price), None)
        self.update_id = event["u"]

    def top(self) -> Any:
        return (
            sorted(self.bids.items(), reverse=True)[:DEPTH],
            sorted(self.asks.items())[:DEPTH],
        )


class SortedContainers(FloatPeer):
    title = "orjson + sortedcontainers"
    package = "sortedcontainers"

    @classmethod
    def require(cls) -> None:
        super().require()
        cls.library = importlib.import_module("sortedcontainers").SortedDict

    def load(self, snapshot: bytes) -> None:
        bids, asks = self.read_snapshot(snapshot)
        self.bids, self.asks = self.library(bids), self.library(asks)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, quantity in changes:
                if size := float(quantity):
                    side[float(price)] = size
                else:
                    side.pop(float(price), None)
        self.update_id = event["u"]

    def top(self) -> Any:
        bids, asks = self.bids, self.asks
        return (
            [(price, bids[price]) for price in islice(reversed(bids), DEPTH)],
            [(price, asks[price]) for price in islice(asks, DEPTH)],
        )


class OrderBookFloat(FloatPeer):
    title = "orjson + order-book (C), float"
    package = "order-book"

    @classmethod
    def require(cls) -> None:
        super().require()
        cls.library = importlib.import_module("order_book").OrderBook

    def open(self) -> None:
        # What lies deeper is hidden, not dropped: to_list is as short as it has to be.
        self.book = self.library(max_depth=DEPTH)

    def load(self, snapshot: bytes) -> None:
        self.book.bids, self.book.asks = self.read_snapshot(snapshot)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        for side, changes in ((self.book.bids, event["b"]), (self.book.asks, event["a"])):
            for price, quantity in changes:
                if size := float(quantity):
                    side[float(price)] = size
                elif (key := float(price)) in side:
                    del side[key]
        self.update_id = event["u"]

    def top(self) -> Any:
        return self.book.bids.to_list(), self.book.asks.to_list()


class OrderBookDecimal(OrderBookFloat):
    title = "orjson + order-book (C), Decimal"
    numbers = "decimal"

    def read_snapshot(self, snapshot: bytes) -> tuple[dict[Any, Any], dict[Any, Any]]:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        bids = {Decimal(price): Decimal(quantity) for price, quantity in data["bids"]}
        asks = {Decimal(price): Decimal(quantity) for price, quantity in data["asks"]}
        return bids, asks

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        for side, changes in ((self.book.bids, event["b"]), (self.book.asks, event["a"])):
            for price, quantity in changes:
                if size := Decimal(quantity):
                    side[Decimal(price)] = size
                elif (key := Decimal(price)) in side:
                    del side[key]
        self.update_id = event["u"]

    def row(self) -> bytes:
        bids, asks = self.top()
        return self.pack(
            [
                [(str(price), str(quantity)) for price, quantity in bids],
                [(str(price), str(quantity)) for price, quantity in asks],
                self.update_id,
                TIMESTAMP,
            ]
        )


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


class Hummingbot(FloatPeer):
    title = "hummingbot OrderBook (C++)"
    package = "hummingbot"

    @classmethod
    def require(cls) -> None:
        super().require()
        cls.library = importlib.import_module("hummingbot.core.data_type.order_book").OrderBook
        rows = importlib.import_module("hummingbot.core.data_type.order_book_row")
        cls.level = rows.OrderBookRow

    def open(self) -> None:
        self.book = self.library()

    def load(self, snapshot: bytes) -> None:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        rows = self.rows(data["bids"], self.update_id), self.rows(data["asks"], self.update_id)
        self.book.apply_snapshot(*rows, self.update_id)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.update_id = number = event["u"]
        self.book.apply_diffs(self.rows(event["b"], number), self.rows(event["a"], number), number)

    def rows(self, changes: list[list[str]], number: int) -> list[Any]:
        level = self.level
        return [level(float(price), float(quantity), number) for price, quantity in changes]

    def top(self) -> Any:
        return (
            list(islice(self.book.bid_entries(), DEPTH)),
            list(islice(self.book.ask_entries(), DEPTH)),
        )

    def levels(self) -> Any:
        bids, asks = self.top()
        return [row[:2] for row in bids], [row[:2] for row in asks]


class Nautilus(Peer):
    title = "nautilus_trader (Rust book)"
    package = "nautilus_trader"
    numbers = "decimal"

    @classmethod
    def require(cls) -> None:
        super().require()
        cls.library = importlib.import_module("nautilus_trader.core.nautilus_pyo3")

    def open(self) -> None:
        library = self.library
        instrument = library.InstrumentId.from_str("BTCUSDT.BINANCE")
        self.book = library.OrderBook(instrument, library.BookType.L2_MBP)

    def load(self, snapshot: bytes) -> None:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        self.update(self.library.OrderSide.BUY, data["bids"], 0)
        self.update(self.library.OrderSide.SELL, data["asks"], 0)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.update_id = event["u"]
        self.update(self.library.OrderSide.BUY, event["b"], event["E"])
        self.update(self.library.OrderSide.SELL, event["a"], event["E"])

    def update(self, side: Any, changes: list[list[str]], at: int) -> None:
        library = self.library
        order, price_of, size_of = library.BookOrder, library.Price, library.Quantity
        book, number = self.book, self.update_id
        for price, quantity in changes:
            size = size_of.from_str(quantity)
            level = order(side, price_of.from_str(price), size, 0)
            if float(quantity):
                book.update(level, 0, number, at)
            else:
                book.delete(level, 0, number, at)

    def top(self) -> Any:
        return self.book.bids(DEPTH), self.book.asks(DEPTH)

    def levels(self) -> Any:
        return tuple(
            [(str(level.price), str(level.get_orders()[0].size)) for level in side]
            for side in self.top()
        )

    def row(self) -> bytes:
        return self.pack([*self.levels(), self.update_id, TIMESTAMP])


class HftBacktest(Peer):
    title = "hftbacktest FuseMarketDepth (Rust)"
    package = "hftbacktest"
    tolerance = 1e-9  # it holds prices as a count of steps
    works = "b"
    note = "Its levels cannot be read from Python; they are checked by the changes it passes on."

    @classmethod
    def require(cls) -> None:
        super().require()
        binding = importlib.import_module("hftbacktest.binding")
        types = importlib.import_module("hftbacktest.types")
        numpy = importlib.import_module("numpy")
        cls.library = binding.FuseMarketDepth_
        cls.events = staticmethod(lambda count: numpy.zeros(count, types.event_dtype))
        kind = types.DEPTH_EVENT | types.EXCH_EVENT | types.LOCAL_EVENT
        cls.kinds = (kind | types.BUY_EVENT, kind | types.SELL_EVENT)
        cls.buy = types.BUY_EVENT
        numba = importlib.import_module("numba")

        @numba.njit  # type: ignore[untyped-decorator]
        def process(book: Any, events: Any, count: int, add: bool) -> None:
            for index in range(count):
                book.process_event(events, index, add)

        cls.process = staticmethod(process)

    def open(self) -> None:
        lot = 10.0 ** -self.decimals[1]
        self.book = self.library(self.step, lot)
        self.buffer = self.events(1)
        self.is_traced = False

    def trace(self) -> None:
        """Pass changes on from now, so that ``levels`` can follow."""
        self.is_traced = True

    def load(self, snapshot: bytes) -> None:
        data = self.loads(snapshot)
        self.update(data["bids"], data["asks"], 1)

    def apply(self, raw: bytes) -> None:
        event = self.loads(raw)["data"]
        self.update_id = event["u"]
        self.update(event["b"], event["a"], event["E"] * 1_000_000)

    def update(self, bids: list[list[str]], asks: list[list[str]], at: int) -> None:
        buy, sell = self.kinds
        rows = [(buy, at, at, float(p), float(q), 0, 0, 0.0) for p, q in bids]
        rows += [(sell, at, at, float(p), float(q), 0, 0, 0.0) for p, q in asks]
        if len(rows) > len(self.buffer):
            self.buffer = self.events(2 * len(rows))
        self.buffer[: len(rows)] = rows
        self.process(self.book, self.buffer, len(rows), self.is_traced)

    def levels(self) -> Any:
        sides: tuple[dict[float, float], dict[float, float]] = ({}, {})
        for event in self.book.fused_events:
            is_bid = bool(int(event["ev"]) & self.buy)
            price, quantity = float(event["px"]), float(event["qty"])
            side, other = sides if is_bid else sides[::-1]
            if quantity == 0:
                side.pop(price, None)
                continue
            side[price] = quantity
            # What a new level crosses is gone, without a word of it.
            for crossed in [each for each in other if (each <= price) == is_bid or each == price]:
                del other[crossed]
        bids, asks = (sorted(side.items()) for side in sides)
        return bids[::-1][:DEPTH], asks[:DEPTH]


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

    def top(self) -> Any:
        return self.book.top(DEPTH)


PEERS: dict[str, type[Peer]] = {
    "obframe": Obframe,
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


def same_number(found: Any, expected: str, numbers: str, tolerance: float = 0.0) -> bool:
    """Tell whether a peer's number is the true one, as closely as its kind of number can say.

    Args:
        found: The peer's value: a text, a number or something that prints as one.
        expected: The digits that are true.
        numbers: ``text`` has to be the same digit for digit, ``decimal`` the same exact value,
            ``float`` the float nearest to the truth.
        tolerance: The relative difference a float may have.
    """
    if numbers == "text":
        return bool(found == expected)
    if numbers == "decimal":
        return Decimal(str(found)) == Decimal(expected)
    return math.isclose(float(found), float(expected), rel_tol=tolerance, abs_tol=0.0)
