"""What a message of Coinbase costs until its book is updated, and a book of 5 MB."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from data import make_stream

from obframe import (
    DepthSnapshot,
    Emit,
    FeedStatus,
    Instrument,
    OrderBook,
    StreamEvent,
    parse_level2,
)
from obframe.sync import BookSynchronizer
from obframe.testing.exchange_coinbase import encode_event
from obframe_plugins import (
    _binance_context,
    _binance_plan,
    _binance_stream,
    _coinbase_context,
    _coinbase_shard,
    _coinbase_stream,
)
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._coinbase_settings import CoinbaseSettings
from obframe_plugins._pacing import RollingLimit

pytestmark = pytest.mark.benchmark(timer=time.thread_time)

CHUNK = 100
LONG = 8_000
TIME = "2023-02-09T20:32:50.714964855Z"
SYMBOL = "BTC-USD"


def write_message(number: int, event: bytes) -> bytes:
    head = f'{{"channel":"l2_data","client_id":"","timestamp":"{TIME}","sequence_num":{number},'
    return head.encode() + b'"events":[' + event + b"]}"


def make_messages(count: int = 2_000) -> tuple[bytes, list[bytes], list[bytes]]:
    """Return a snapshot and the same changes as Coinbase and as Binance say them."""
    stream = make_stream(count)
    first = write_message(0, encode_event("snapshot", SYMBOL, stream.bids, stream.asks, TIME))
    coinbase, binance = [], []
    for number, raw in enumerate(stream.messages, 1):
        event = json.loads(raw)["data"]
        made = encode_event("update", SYMBOL, event["b"], event["a"], TIME)
        coinbase.append(write_message(number, made))
        binance.append(raw.replace(b'"BTCUSDT"', b'"BTC-USD"'))
    return first, coinbase, binance


def chunks(messages: list[bytes]) -> Iterator[list[bytes]]:
    while True:
        for start in range(0, len(messages), CHUNK):
            yield messages[start : start + CHUNK]


def once(messages: list[bytes]) -> Iterator[list[bytes]]:
    """Give chunks without beginning again: their numbers are looked at."""
    for start in range(0, len(messages), CHUNK):
        yield messages[start : start + CHUNK]


def take_plainly(sides: tuple[dict[str, str], ...], raw: bytes) -> None:
    """Take a message into plain dictionaries that sort nothing."""
    for event in json.loads(raw)["events"]:
        for update in event["updates"]:
            side = sides[update["side"] != "bid"]
            price, quantity = update["price_level"], update["new_quantity"]
            if float(quantity):
                side[price] = quantity
            else:
                side.pop(price, None)


def test_a_message(race: Any) -> None:
    """Raw bytes to the updated book, beside JSON into plain dictionaries that sort nothing."""
    first, messages, _ = make_messages()
    book = OrderBook(SYMBOL)
    ids = iter(range(1, 10**9))
    ours, theirs = chunks(messages), chunks(messages)
    plain: tuple[dict[str, str], ...] = ({}, {})
    parsed = parse_level2(first)
    assert parsed is not None
    book.load(parsed[2][0].to_snapshot(SYMBOL, 0))
    take_plainly(plain, first)

    def work() -> None:
        for raw in next(ours):
            message = parse_level2(raw)
            assert message is not None
            number = next(ids)
            for event in message[2]:
                book.apply(event.to_update(SYMBOL, number - 1, number))

    def reference() -> None:
        for raw in next(theirs):
            take_plainly(plain, raw)

    race("coinbase_message", work=work, reference=reference, units=CHUNK, rounds=60)
    assert {price for price, _ in book.bids()} == set(plain[0])


class Owner:
    """Who is told what happens on a connection of Binance: nothing that matters here."""

    def opened(self, *_: Any) -> None:
        """Streams are open."""

    def spoilt(self, *_: Any) -> NoReturn:
        """Something was lost, which is a mistake here."""
        raise AssertionError

    refused = fell_silent = resumed = spoilt


async def never(*_: Any) -> NoReturn:
    """Open no connection: messages are handed over by hand."""
    await asyncio.Event().wait()
    raise AssertionError


def follow(sync: BookSynchronizer) -> Emit:
    def emit(item: Any) -> None:
        if isinstance(item, FeedStatus):
            sync.receive_status(item)
        elif isinstance(item, DepthSnapshot):
            sync.receive_snapshot(item)
        else:
            sync.receive_update(item)

    return emit


@contextmanager
def both_feeds() -> Iterator[dict[str, tuple[Callable[[bytes, int], None], BookSynchronizer]]]:
    """Give what receives a message of each venue, and the synchroniser behind it."""
    instrument = Instrument(SYMBOL)
    syncs = {name: BookSynchronizer(instrument) for name in ("coinbase", "binance")}
    many = RollingLimit(10**9, 1.0)
    rng = random.Random(1)

    async def make() -> tuple[Any, Any]:
        coinbase = _coinbase_context.Context(
            CoinbaseSettings(), _coinbase_context.Counters(),
            _coinbase_context.Limits(many, many), rng, follow(syncs["coinbase"]), never, {},
        )  # fmt: skip
        binance = _binance_context.Context(
            BinanceSettings(), _binance_context.Counters(), many, rng, follow(syncs["binance"]),
            never,
        )  # fmt: skip
        shard = _coinbase_shard.Shard(coinbase, [instrument])
        tuning = _binance_plan.Tuning(1.0, 1.0)
        return (
            _coinbase_stream.Connection(shard, coinbase, [instrument]),
            _binance_stream.Connection(Owner(), binance, tuning, [instrument], binance.emit),
        )

    with asyncio.Runner() as runner:
        made = dict(zip(syncs, runner.run(make()), strict=True))
        yield {name: (made[name]._receive, sync) for name, sync in syncs.items()}


def test_beside_binance(race: Any) -> None:
    """A message through feed, synchroniser and book, beside the same by the Binance feed."""
    first, messages, binance = make_messages(LONG)
    stream = make_stream(LONG)
    with both_feeds() as feeds:
        receive, sync = feeds["coinbase"]
        receive(first, 1)
        assert sync.book is not None
        hear, other = feeds["binance"]
        other.receive_status(FeedStatus(StreamEvent.SUBSCRIBED, frozenset({other.instrument})))
        hear(binance[0], 1)
        other.receive_snapshot(DepthSnapshot(SYMBOL, 0, stream.bids, stream.asks))
        assert other.book is not None
        receive(messages[0], 1)
        ours, theirs = once(messages[1:]), once(binance[1:])

        def work() -> None:
            for raw in next(ours):
                receive(raw, 1)

        def reference() -> None:
            for raw in next(theirs):
                hear(raw, 1)

        race("coinbase_beside_binance", work=work, reference=reference, units=CHUNK, rounds=60)
        assert (sync.book.bids(), sync.book.asks()) == (other.book.bids(), other.book.asks())


def test_a_whole_book(race: Any) -> None:
    """Raw bytes of a book of over 5 MB until it stands, beside JSON alone, into nothing."""
    stream = make_stream(levels=25_000, count=1)
    raw = write_message(0, encode_event("snapshot", SYMBOL, stream.bids, stream.asks, TIME))
    assert len(raw) > 5_000_000

    def work() -> None:
        parsed = parse_level2(raw)
        assert parsed is not None
        OrderBook(SYMBOL).load(parsed[2][0].to_snapshot(SYMBOL, 1))

    def reference() -> None:
        json.loads(raw)

    race("coinbase_book", work=work, reference=reference, units=1, rounds=10)
