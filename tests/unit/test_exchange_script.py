"""The venue whose market a test moves."""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosedError

from obframe.testing import Exchange, ExchangeOptions, ReferenceBook, ScriptedSource
from obframe.testing.exchange_client import FAST, connected, get, receive, running
from obframe.testing.exchange_market import MARKETS

BIDS, ASKS = [("99.50", "1.500")], [("100.00", "2.000"), ("101.00", "0.100")]


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
async def test_a_change_is_sent_and_stands_in_the_book(market: str) -> None:
    symbol = "BTCUSD_PERP" if market == "coinm" else "BTCUSDT"
    rules = MARKETS[market]
    options = ExchangeOptions(market=market, symbols=(symbol,))
    book = ReferenceBook()
    async with Exchange(options, ScriptedSource(rules, [symbol])) as venue:
        venue.change(symbol, BIDS, ASKS)
        status, body, _ = await get(venue, f"{rules.rest}/depth?symbol={symbol}&limit=100")
        assert status == 200
        book.load(body["lastUpdateId"], body["bids"], body["asks"])
        async with connected(venue, f"/ws/{symbol.lower()}@{rules.base}") as socket:
            for change in ([("99.50", "0.000"), ("99.40", "3.000")], [("99.30", "1.000")]):
                venue.change(symbol, change, [])
                event = await receive(socket)
                assert event["s"] == symbol
                assert event["U"] > book.update_id
                assert event.get("pu", event["U"] - 1) == book.update_id
                assert [tuple(level) for level in event["b"]] == change
                book.apply(event["u"], event["b"], event["a"])
    assert [tuple(level) for level in book.bids()] == [("99.40", "3.000"), ("99.30", "1.000")]
    assert [tuple(level) for level in book.asks()] == ASKS


async def test_a_fault_ends_when_it_is_healed() -> None:
    source = ScriptedSource(MARKETS["spot"], ["BTCUSDT"])
    async with Exchange(ExchangeOptions(symbols=("BTCUSDT",)), source) as venue:
        path = "/api/v3/depth?symbol=BTCUSDT"
        venue.inject("500:every=1")
        assert [(await get(venue, path))[0] for _ in range(2)] == [500, 500]
        venue.heal("500")
        assert (await get(venue, path))[0] == 200


async def test_connections_break_at_once() -> None:
    source = ScriptedSource(MARKETS["spot"], ["BTCUSDT"])
    async with (
        Exchange(ExchangeOptions(symbols=("BTCUSDT",)), source) as venue,
        connected(venue, "/ws/btcusdt@depth@100ms") as socket,
    ):
        venue.reset_connections()
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosedError, match="no close frame"):
                await socket.recv()


async def test_a_market_that_moves_by_itself_takes_no_change() -> None:
    async with running(**FAST) as venue:
        with pytest.raises(ValueError, match="give Exchange a ScriptedSource"):
            venue.change("BTCUSDT", BIDS, ASKS)


async def test_a_symbol_that_is_not_listed_is_refused() -> None:
    source = ScriptedSource(MARKETS["spot"], ["BTCUSDT"])
    async with Exchange(ExchangeOptions(symbols=("BTCUSDT",)), source) as venue:
        with pytest.raises(KeyError, match="NOSUCH"):
            venue.change("NOSUCH", BIDS, ASKS)
