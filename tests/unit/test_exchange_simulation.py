"""The simulated market: deterministic, never crossed, and true to its own REST."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

import pytest

from obframe.testing.exchange import ExchangeOptions
from obframe.testing.exchange_client import (
    FAST,
    PATIENCE,
    LocalBook,
    collect,
    connected,
    get,
    receive,
    running,
    until,
)
from obframe.testing.exchange_market import MARKETS
from obframe.testing.exchange_simulation import SimulatedBook, SimulationSource, name_symbols
from obframe.testing.reference import ReferenceBook


def strip(data: bytes) -> dict[str, Any]:
    """Return an event without its times, the only part that the wall clock decides."""
    event = json.loads(data)
    return {key: value for key, value in event.items() if key not in "ET"}


@pytest.mark.parametrize("market", list(MARKETS))
def test_same_seed_same_events_whatever_the_company(market: str) -> None:
    alone = SimulatedBook("SIM0001USDT", MARKETS[market], 7, 100)
    names = ["BTCUSDT", "SIM0001USDT", "ETHUSDT"]
    together = SimulationSource(MARKETS[market], names, 7, 10, 100)
    mixed = [together.advance() for _ in range(300)]
    expected = [strip(alone.advance().data) for _ in range(100)]
    assert [strip(event.data) for event in mixed if event.symbol == "SIM0001USDT"] == expected
    other = SimulatedBook("SIM0001USDT", MARKETS[market], 8, 100)
    assert strip(other.advance().data) != expected[0]


@pytest.mark.parametrize("market", list(MARKETS))
@pytest.mark.parametrize("levels", [5, 200])
def test_events_rebuild_the_book_and_never_cross_it(market: str, levels: int) -> None:
    source = SimulationSource(MARKETS[market], 3, seed=11, rate=10, levels=levels)
    books = {}
    for symbol in source.listings:
        depth = source.depth(symbol)
        assert len(depth.bids) == len(depth.asks) == levels
        books[symbol] = ReferenceBook()
        books[symbol].load(depth.last_update_id, depth.bids, depth.asks)
    for _ in range(1500):
        event = source.advance()
        book = books[event.symbol]
        if MARKETS[market].futures:
            assert event.prev == book.update_id
            assert event.first > book.update_id
        else:
            assert event.first == book.update_id + 1
        assert event.last >= event.first
        book.apply(event.last, event.bids, event.asks)
        assert not book.crossed
        message = json.loads(event.data)
        assert (message["U"], message["u"]) == (event.first, event.last)
        assert [tuple(level) for level in message["b"]] == list(event.bids)
        assert [tuple(level) for level in message["a"]] == list(event.asks)
    for symbol, book in books.items():
        depth = source.depth(symbol)
        assert depth.last_update_id == book.update_id
        assert depth.bids == book.bids()
        assert depth.asks == book.asks()
        assert source.depth(symbol, 3).bids == book.bids(3)
        assert source.depth(symbol, 3).asks == book.asks(3)
        assert levels / 2 <= len(depth.bids) <= levels * 2 + 10


def test_flow_is_like_the_real_one() -> None:
    book = SimulatedBook("BTCUSDT", MARKETS["spot"], 1, 1000)
    known = ReferenceBook()
    start = book.depth()
    known.load(0, start.bids, start.asks)
    events = [book.advance() for _ in range(1000)]
    changes = [level for event in events for level in (*event.bids, *event.asks)]
    assert 20 < len(changes) / len(events) < 32
    deletes = sum(float(quantity) == 0 for _, quantity in changes)
    assert 0.2 < deletes / len(changes) < 0.45
    prices = {price for event in events for price, _ in event.bids[:1]}
    assert len(prices) > 100, "the touch walks"


@pytest.mark.parametrize(
    ("market", "symbol", "price", "quantity"),
    [
        ("spot", "BTCUSDT", "60000.00000000", "0.00001000"),
        ("usdm", "BTCUSDT", "60000.00", "0.001"),
        ("coinm", "BTCUSD_PERP", "60000.00", "1"),
    ],
)
def test_numbers_are_written_as_the_market_writes_them(
    market: str, symbol: str, price: str, quantity: str
) -> None:
    book = SimulatedBook(symbol, MARKETS[market], 1, 50)
    for level in (*book.depth().bids, *book.depth().asks):
        assert len(level[0]) == len(price)
        assert len(level[1].partition(".")[2]) == len(quantity.partition(".")[2])
    assert book.listing.step == quantity


def test_names_of_symbols() -> None:
    assert name_symbols(1, MARKETS["spot"]) == ("BTCUSDT",)
    assert name_symbols(4, MARKETS["usdm"])[2:] == ("SIM0001USDT", "SIM0002USDT")
    assert name_symbols(2, MARKETS["coinm"]) == ("BTCUSD_PERP", "ETHUSD_PERP")


@pytest.mark.parametrize(
    ("market", "stream", "path", "symbol"),
    [
        ("spot", "btcusdt@depth@100ms", "/api/v3/depth?limit=5000&symbol=", "BTCUSDT"),
        ("usdm", "btcusdt@depth@0ms", "/fapi/v1/depth?limit=1000&symbol=", "BTCUSDT"),
        ("coinm", "btcusd_perp@depth@100ms", "/dapi/v1/depth?limit=1000&symbol=", "BTCUSD_PERP"),
    ],
)
async def test_a_client_by_the_book_agrees_with_rest_at_the_same_id(
    market: str, stream: str, path: str, symbol: str
) -> None:
    options = {**FAST, "market": market, "levels": 200, "weight_limit": 10**6}
    async with running(**options) as venue, connected(venue, f"/ws/{stream}") as socket:
        local = LocalBook(futures=market != "spot")
        states: dict[int, tuple[Any, Any]] = {}
        answers: dict[int, Any] = {}

        async def ask_rest() -> None:
            while len(answers) < 12:
                _, body, _ = await get(venue, path + symbol)
                answers[body["lastUpdateId"]] = body
                await asyncio.sleep(0.01)

        local.event(await receive(socket))
        asking = asyncio.create_task(ask_rest())
        async with asyncio.timeout(PATIENCE):
            while not asking.done() or local.book.update_id < max(answers):
                local.event(json.loads(await socket.recv()))
                if answers and not local.synced:
                    local.snapshot(next(iter(answers.values())))
                if local.synced:
                    states[local.book.update_id] = local.book.bids(), local.book.asks()
        await asking
    checked = 0
    for last_update_id, body in answers.items():
        if last_update_id in states:
            bids, asks = states[last_update_id]
            assert bids == [tuple(level) for level in body["bids"]]
            assert asks == [tuple(level) for level in body["asks"]]
            checked += 1
    assert checked >= 5


async def test_slow_stream_merges_what_the_fast_one_tells() -> None:
    async with running(**{**FAST, "market": "usdm"}) as venue:
        path = "/stream?streams=btcusdt@depth@100ms/btcusdt@depth"
        fast, slow = ReferenceBook(), ReferenceBook()
        merged: list[dict[str, Any]] = []
        async with connected(venue, path) as socket:
            while len(merged) < 4:
                message = await receive(socket)
                data = message["data"]
                if message["stream"] == "btcusdt@depth@100ms":
                    fast.apply(data["u"], data["b"], data["a"])
                    continue
                if merged:
                    assert data["pu"] == merged[-1]["u"]
                    assert data["U"] > merged[-1]["u"]
                merged.append(data)
                slow.apply(data["u"], data["b"], data["a"])
                if len(merged) > 1:
                    assert slow.update_id == fast.update_id
                    assert (slow.bids(), slow.asks()) == (fast.bids(), fast.asks())
    assert all(later["E"] - first["E"] >= 150 for first, later in itertools.pairwise(merged[1:]))


async def test_market_moves_at_its_rate_and_evenly() -> None:
    async with running(symbols=4, rate=50.0, levels=50) as venue:
        await until(lambda: venue.stats.events >= 8)
        events, start = venue.stats.events, time.monotonic()
        await asyncio.sleep(0.5)
        expected = 200 * (time.monotonic() - start)
        assert abs(venue.stats.events - events - expected) < 40


async def test_unicode_symbols_are_served() -> None:
    options = {**FAST, "symbols": ("币安USDT", "A/B-USDT")}
    async with running(**options) as venue:
        async with connected(venue, "/stream?streams=币安usdt@depth@100ms") as socket:
            message = json.loads((await collect(socket, 1))[0])
        assert message["stream"] == "币安usdt@depth@100ms"
        assert message["data"]["s"] == "币安USDT"
        status, body, _ = await get(venue, "/api/v3/depth?symbol=币安USDT&limit=5")
        assert (status, len(body["bids"])) == (200, 5)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"port": 70000}, ["port = 70000", "0 (any free port) to 65535"]),
        ({"market": "moon"}, ["market = 'moon'", "spot, usdm, coinm"]),
        ({"speed": -1.0}, ["speed = -1.0"]),
        ({"speed": float("nan")}, ["speed = nan"]),
        ({"at_end": "explode"}, ["at_end = 'explode'", "idle, close, exit"]),
        ({"rate": 0.0}, ["rate = 0.0"]),
        ({"levels": 1}, ["levels = 1"]),
        ({"symbols": 0}, ["symbols = 0"]),
        ({"symbols": ()}, ["symbols = ()"]),
        ({"symbols": ("BTCUSDT", "BTCUSDT")}, ["each name once"]),
        ({"symbols": ("btcusdt",)}, ["'btcusdt'", "capitals"]),
        ({"symbols": ("A:B",)}, ["'A:B'", "separates"]),
        ({"ping_seconds": 0.0}, ["ping_seconds = 0.0"]),
        ({"pong_seconds": float("nan")}, ["pong_seconds = nan"]),
        ({"buffer_mib": 0.0}, ["buffer_mib = 0.0"]),
        ({"connection_limit": 0}, ["connection_limit = 0"]),
        ({"weight_limit": -1}, ["weight_limit = -1"]),
        ({"faults": ("dorp@3",)}, ["'dorp'", "did you mean 'drop'?"]),
        ({"faults": ("xyzzy",)}, ["'xyzzy'", "choose from drop, dup"]),
        ({"rate": 0.0, "levels": 1, "faults": ("x",)}, ["rate", "levels", "'x'"]),
    ],
)
def test_bad_options_are_named_all_at_once(parameters: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match="exchange") as caught:
        ExchangeOptions(**parameters)
    assert all(word in str(caught.value) for word in words)
