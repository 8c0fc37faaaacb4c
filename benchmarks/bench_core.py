"""The core's functions, each in turns with a plain way to do the same."""

from __future__ import annotations

import gc
import json
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from data import Stream, make_stream

from obframe._core import ColumnDecoder, DepthSnapshot, OrderBook, Snapshot, parse_depth_update

# CPU time: who else wants the processor meanwhile is no matter of ours.
pytestmark = pytest.mark.benchmark(timer=time.thread_time)

CHUNK = 100
ROWS = 1_000  # a round; of one as short as the machine's own stalls the worst tells of these alone
HOUR = 3_600  # rows
SECOND = 1_737_158_400


@pytest.fixture(scope="module")
def stream() -> Stream:
    return make_stream()


def load_book(stream: Stream) -> OrderBook:
    book = OrderBook("BTCUSDT")
    book.load(DepthSnapshot("BTCUSDT", 0, stream.bids, stream.asks))
    return book


class Turns:
    """A stream in chunks: the book follows them, and when they end starts anew."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.chunks = [
            stream.messages[start : start + CHUNK]
            for start in range(0, len(stream.messages), CHUNK)
        ]
        self.rounds = len(self.chunks)

    def each(self) -> Any:
        """Return a function that gives the next chunk and its number."""
        numbers = iter(range(10**9))

        def take() -> tuple[int, tuple[bytes, ...]]:
            number = next(numbers) % self.rounds
            return number, self.chunks[number]

        return take


def test_parse(race: Any, stream: Stream) -> None:
    """Raw bytes to an event, beside the standard library's JSON."""
    turns = Turns(stream)
    ours, theirs = turns.each(), turns.each()

    def work() -> None:
        for raw in ours()[1]:
            parse_depth_update(raw)

    def reference() -> None:
        for raw in theirs()[1]:
            json.loads(raw)

    race("core_parse", work=work, reference=reference, units=CHUNK, rounds=5 * turns.rounds)


def test_raw_to_book(race: Any, stream: Stream) -> None:
    """Raw bytes to the updated book, beside JSON into plain dictionaries that sort nothing."""
    turns = Turns(stream)
    ours, theirs = turns.each(), turns.each()
    book = load_book(stream)
    plain = [dict(stream.bids), dict(stream.asks)]

    def work() -> None:
        for raw in ours()[1]:
            update = parse_depth_update(raw)
            assert update is not None
            book.apply(update)

    def reference() -> None:
        for raw in theirs()[1]:
            event = json.loads(raw)["data"]
            for held, changes in zip(plain, (event["b"], event["a"]), strict=True):
                for price, quantity in changes:
                    if float(quantity):
                        held[price] = quantity
                    else:
                        held.pop(price, None)

    race("core_book", work=work, reference=reference, units=CHUNK, rounds=5 * turns.rounds)
    assert book.update_id > 0
    assert {price for price, _ in book.bids()} == set(plain[0])


def test_follow(race: Any, stream: Stream) -> None:
    """Raw bytes to the updated book in one call, beside parsing and applying in two.

    Both begin anew with each pass of the stream, as what is old is not followed.
    """
    turns = Turns(stream)
    ours, theirs = turns.each(), turns.each()
    snapshot = DepthSnapshot("BTCUSDT", 1, stream.bids, stream.asks)
    books = load_book(stream), load_book(stream)

    def work() -> None:
        number, chunk = ours()
        if number == 0:
            books[0].load(snapshot)
        for raw in chunk:
            assert books[0].follow(raw)

    def reference() -> None:
        number, chunk = theirs()
        if number == 0:
            books[1].load(snapshot)
        for raw in chunk:
            update = parse_depth_update(raw)
            assert update is not None
            books[1].apply(update)

    race("core_follow", work=work, reference=reference, units=CHUNK, rounds=5 * turns.rounds)
    assert books[0].bids() == books[1].bids()
    assert books[0].update_id == books[1].update_id


def test_encode(race: Any, stream: Stream) -> None:
    """A standing book to the bytes of its row, beside msgpack with all the strings at hand."""
    book = load_book(stream)
    row = [book.bids(20), book.asks(20), book.update_id, SECOND]
    assert msgpack.packb(row) == book.snapshot(SECOND).pack()

    def work() -> None:
        for _ in range(ROWS):
            book.snapshot(SECOND).pack()

    def reference() -> None:
        for _ in range(ROWS):
            msgpack.packb(row)

    race("encode", "encode_p99", work=work, reference=reference, units=ROWS, rounds=200)


def test_decode(race: Any, stream: Stream) -> None:
    """Bytes of a row to a snapshot, beside msgpack."""
    packed = load_book(stream).snapshot(SECOND).pack()
    assert Snapshot.unpack(packed).bids == [tuple(level) for level in msgpack.unpackb(packed)[0]]

    def work() -> None:
        for _ in range(ROWS):
            Snapshot.unpack(packed)

    def reference() -> None:
        for _ in range(ROWS):
            msgpack.unpackb(packed)

    race("decode", "decode_p99", work=work, reference=reference, units=ROWS, rounds=200)


def follow_to_rows(book: OrderBook, messages: Sequence[bytes]) -> None:
    """Take each message to the book and its row."""
    for raw in messages:
        update = parse_depth_update(raw)
        assert update is not None
        book.apply(update)
        book.snapshot(SECOND).pack()


def test_deep_book(race: Any) -> None:
    """Raw bytes to the row with 50,000 levels a side, beside the same messages with 1,000."""
    deep, shallow = make_stream(levels=50_000), make_stream(levels=1_000)
    ours, theirs = Turns(deep), Turns(deep)
    take, take_theirs = ours.each(), theirs.each()
    books = load_book(deep), load_book(shallow)

    def work() -> None:
        follow_to_rows(books[0], take()[1])

    def reference() -> None:
        follow_to_rows(books[1], take_theirs()[1])

    race("deep_book", work=work, reference=reference, units=CHUNK, rounds=5 * ours.rounds)
    assert books[0].bid_count > 45_000
    assert books[1].bid_count < 5_000


def test_long_messages(race: Any) -> None:
    """Raw bytes to the row, a change of messages with 270 each, beside one of those with 27."""
    long, short = make_stream(200, changes=270), make_stream()
    turns = Turns(long), Turns(short)
    take, take_short = (each.each() for each in turns)
    books = load_book(long), load_book(short)

    def work() -> None:
        follow_to_rows(books[0], take()[1])

    def reference() -> None:
        for _ in range(10):
            follow_to_rows(books[1], take_short()[1])

    race("long_messages", work=work, reference=reference, units=270 * CHUNK, rounds=60)


@pytest.fixture(scope="module")
def hour(stream: Stream) -> list[bytes]:
    """Return the rows of an hour: of the book after one message each, and again."""
    book = load_book(stream)
    rows = []
    for at, raw in enumerate(stream.messages):
        update = parse_depth_update(raw)
        assert update is not None
        book.apply(update)
        rows.append(book.snapshot(SECOND + at).pack())
    return (rows * -(-HOUR // len(rows)))[:HOUR]


class Columns:
    """An hour of rows as columns, beside msgpack's objects of it, kept as a reader keeps them."""

    def __init__(self, rows: list[bytes], kind: str) -> None:
        self.rows = rows
        levels = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
        self.arrays = {name: array(kind, bytes(8 * 20 * HOUR)) for name in levels}
        self.decoder = ColumnDecoder(
            **self.arrays,
            update_ids=array("Q", bytes(8 * HOUR)),
            timestamps=array("q", bytes(8 * HOUR)),
            bid_counts=array("H", bytes(2 * HOUR)),
            ask_counts=array("H", bytes(2 * HOUR)),
        )
        self.kept: list[Any] = []

    def work(self) -> None:
        self.decoder.clear()
        self.decoder.extend(self.rows)

    def reference(self) -> None:
        for row in self.rows:
            self.kept.append(msgpack.unpackb(row))

    def race(self, race: Any, budget: str) -> None:
        """Race, and check the last round's first row; letting go of the objects is not counted."""
        race(
            budget,
            work=self.work,
            reference=self.reference,
            settle=self.kept.clear,
            units=HOUR,
            rounds=40,
        )
        (price, quantity), *_ = Snapshot.unpack(self.rows[0]).bids
        divisors = 10**self.decoder.price_scale, 10**self.decoder.quantity_scale
        assert self.arrays["bid_prices"][0] / divisors[0] == float(price)
        assert self.arrays["bid_quantities"][0] / divisors[1] == float(quantity)


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_columns(race: Any, hour: list[bytes]) -> None:
    """Rows to integer columns, beside msgpack without the garbage collector."""
    with without_collector():
        Columns(hour, "q").race(race, "columns")


def test_columns_of_doubles(race: Any, hour: list[bytes]) -> None:
    """Rows to float64 columns, beside msgpack, which leaves the numbers as text."""
    with without_collector():
        Columns(hour, "d").race(race, "columns_float64")


def test_columns_beside_the_collector(race: Any, hour: list[bytes]) -> None:
    """Rows to integer columns, beside msgpack whose objects the garbage collector goes over."""
    Columns(hour, "q").race(race, "columns_collector")
