"""obframe, what a program can do by itself, and libraries that are a book and nothing else."""

from __future__ import annotations

import importlib
from decimal import Decimal
from itertools import islice
from typing import Any

from base import DEPTH, TIMESTAMP, FloatPeer, Peer


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
        follow = self.book.follow
        self.apply = (lambda raw: follow(raw, True)) if self.futures else follow  # type: ignore[method-assign]

    def load(self, snapshot: bytes) -> None:
        self.book.load(self.library.parse_depth_snapshot(snapshot, "BTCUSDT"))

    def best(self) -> Any:
        return self.book.bids(1)[0], self.book.asks(1)[0]

    def top(self) -> Any:
        return self.book.bids(DEPTH), self.book.asks(DEPTH)

    def row(self) -> bytes:
        return self.book.snapshot(TIMESTAMP).pack()  # type: ignore[no-any-return]


class ObframeTwoCalls(Obframe):
    title = "obframe, in two calls"
    note = "As a recorder does it, which judges in between: `parse_depth_update`, then `apply`."

    def open(self) -> None:
        super().open()
        # Names at hand, as any loop over messages would have them.
        parse, apply, futures = self.parse, self.book.apply, self.futures
        self.apply = lambda raw: apply(parse(raw, futures))  # type: ignore[method-assign]


class ObframeParse(Obframe):
    title = "obframe, parse alone"
    works = "b"
    note = "No book: the part of obframe's time that is parsing."

    def open(self) -> None:
        super().open()
        parse = self.parse
        self.apply = (lambda raw: parse(raw, True)) if self.futures else parse  # type: ignore[method-assign]


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

    def best(self) -> Any:
        return max(self.bids, key=float), min(self.asks, key=float)

    def top(self) -> Any:
        bids, asks = self.bids, self.asks
        return (
            [(price, bids[price]) for price in sorted(bids, key=float, reverse=True)[:DEPTH]],
            [(price, asks[price]) for price in sorted(asks, key=float)[:DEPTH]],
        )

    def row(self) -> bytes:
        return self.pack([*self.top(), self.update_id, TIMESTAMP])


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

    def best(self) -> Any:
        return max(self.bids), min(self.asks)

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

    def best(self) -> Any:
        return self.bids.peekitem(-1), self.asks.peekitem(0)

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

    def best(self) -> Any:
        return self.book.bids.index(0), self.book.asks.index(0)

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
