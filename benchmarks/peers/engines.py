"""The books inside trading engines, compiled all of them."""

from __future__ import annotations

import importlib
from itertools import islice
from typing import Any

from base import DEPTH, TIMESTAMP, FloatPeer, Peer


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

    def best(self) -> Any:
        return self.book.get_price(False), self.book.get_price(True)

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

    def best(self) -> Any:
        return self.book.best_bid_price(), self.book.best_ask_price()

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
        sorted_dict = importlib.import_module("sortedcontainers").SortedDict
        self.is_traced = True
        self.passed_on = 0
        self.bids, self.asks = sorted_dict(), sorted_dict()

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
        events = self.book.fused_events
        bids, asks = self.bids, self.asks
        for event in events[self.passed_on :]:
            is_bid = bool(int(event["ev"]) & self.buy)
            price, quantity = float(event["px"]), float(event["qty"])
            side = bids if is_bid else asks
            if quantity == 0:
                side.pop(price, None)
                continue
            side[price] = quantity
            # What a new level crosses is gone, without a word of it.
            while bids and asks and bids.peekitem(-1)[0] >= asks.peekitem(0)[0]:
                if is_bid:
                    asks.popitem(0)
                else:
                    bids.popitem(-1)
        self.passed_on = len(events)
        return list(islice(reversed(bids.items()), DEPTH)), list(islice(asks.items(), DEPTH))
