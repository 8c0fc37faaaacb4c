"""What a message of Kraken costs until its book is updated, cut and checked."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sortedcontainers import SortedDict

from obframe._core import OrderBook, parse_depth_update
from obframe.testing.exchange_kraken_wire import DepthView, book_message, checksum
from obframe.testing.exchange_market import MARKETS
from obframe.testing.exchange_simulation import SimulatedBook
from obframe_plugins._kraken_book import KrakenBook
from obframe_plugins._kraken_wire import Book, Pair, read

pytestmark = pytest.mark.benchmark(timer=time.thread_time)

DEPTH = 100
MESSAGES = 2_000
CHUNK = 100


@dataclass(frozen=True, slots=True)
class Stream:
    """The same changes as Kraken and as Binance say them."""

    pair: Pair
    snapshot: bytes
    kraken: list[bytes]
    binance: list[bytes]


@pytest.fixture(scope="module")
def stream() -> Stream:
    """A simulated market, as those see it who subscribed to 100 levels."""
    market = SimulatedBook("BTC/USD", MARKETS["usdm"], 1, 1000)
    pair = Pair("BTC/USD", price_precision=2, qty_precision=3)
    first = market.depth(DEPTH)
    view = DepthView(DEPTH, first)
    check = checksum(first)
    snapshot = book_message("snapshot", "BTC/USD", first.bids, first.asks, check, 1)
    kraken, binance = [], []
    while len(kraken) < MESSAGES:
        market.advance()
        now = market.depth(DEPTH)
        bids, asks = view.follow(now)
        # A message of Kraken tells of a few levels, an event of the simulation of many.
        bids, asks = bids[:3], asks[:2]
        number = len(kraken) + 1
        moment = 1_700_000_000_000_000 + number
        kraken.append(book_message("update", "BTC/USD", bids, asks, 1, moment))
        data = {"e": "depthUpdate", "E": number, "s": "BTC/USD", "U": number, "u": number}
        data |= {"b": bids, "a": asks}
        binance.append(json.dumps({"stream": "s", "data": data}, separators=(",", ":")).encode())
    return Stream(pair, snapshot, kraken, binance)


class Plain:
    """The same done with what Python has: exact texts, a sorted book, the documents' checksum."""

    def __init__(self, snapshot: bytes) -> None:
        self.sides: tuple[SortedDict[float, tuple[str, str]], ...] = (SortedDict(), SortedDict())
        self.take(snapshot)

    def take(self, raw: bytes) -> int:
        (data,) = json.loads(raw, parse_float=str, parse_int=str)["data"]
        for side, name, sign in zip(self.sides, ("bids", "asks"), (-1, 1), strict=True):
            for level in data[name]:
                price, quantity = level["price"], level["qty"]
                key = sign * float(price)
                if float(quantity):
                    side[key] = price, quantity
                else:
                    side.pop(key, None)
            while len(side) > DEPTH:
                side.popitem()
        text = ""
        for side in self.sides[::-1]:
            for level in side.values()[:10]:
                for number in level:
                    text += number.replace(".", "").lstrip("0")
        return zlib.crc32(text.encode())


def chunks(messages: list[bytes]) -> Iterator[list[bytes]]:
    while True:
        for start in range(0, len(messages), CHUNK):
            yield messages[start : start + CHUNK]


def make_work(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> tuple[KrakenBook, Any]:
    """Return a book and a function that takes the next chunk, as the feed does."""
    book = KrakenBook("BTC/USD", DEPTH)
    first = read(stream.snapshot)
    assert isinstance(first, Book)
    book.load(first.data[0], stream.pair)
    ours = chunks(stream.kraken)
    # The checksum is made and compared; that the made-up messages have a wrong one is no matter.
    verify = KrakenBook._verify

    def compare(self: KrakenBook, *arguments: Any) -> None:
        try:
            verify(self, *arguments)
        except Exception:
            return

    monkeypatch.setattr(KrakenBook, "_verify", compare)

    def work() -> None:
        for raw in next(ours):
            message = read(raw)
            assert isinstance(message, Book)
            book.apply(message.data[0], stream.pair)

    return book, work


def test_a_message(race: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw bytes to the checked book, beside plain Python to the same end."""
    book, work = make_work(stream, monkeypatch)
    plain = Plain(stream.snapshot)
    theirs = chunks(stream.kraken)

    def reference() -> None:
        for raw in next(theirs):
            plain.take(raw)

    race("kraken_message", work=work, reference=reference, units=CHUNK, rounds=60)
    assert book._book.bids() == list(plain.sides[0].values())


def test_beside_binance(race: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw bytes to the checked book, beside the same changes as Binance says them, unchecked."""
    _, work = make_work(stream, monkeypatch)
    book = OrderBook("BTC/USD")
    theirs = chunks(stream.binance)

    def reference() -> None:
        for raw in next(theirs):
            update = parse_depth_update(raw)
            assert update is not None
            book.apply(update)

    race("kraken_beside_binance", work=work, reference=reference, units=CHUNK, rounds=60)
