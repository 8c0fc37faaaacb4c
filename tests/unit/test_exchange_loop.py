"""The market for load: its stream is one that can be followed, and its truth is what follows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from obframe.testing.exchange import ExchangeOptions, make_source
from obframe.testing.exchange_client import LocalBook, ask, connected, get, receive, running
from obframe.testing.exchange_loop import LoopSource
from obframe.testing.exchange_market import MARKETS
from obframe.testing.reference import ReferenceBook

SYMBOLS, EVENTS = 20, 12


@pytest.mark.parametrize("market", MARKETS)
def test_every_book_follows_from_its_events_for_more_than_one_round(market: str) -> None:
    futures = MARKETS[market].futures
    source = LoopSource(MARKETS[market], SYMBOLS, 3, 10.0, 50, EVENTS)
    books = {}
    for symbol in source.listings:
        start = source.depth(symbol)
        books[symbol] = ReferenceBook()
        books[symbol].load(start.last_update_id, start.bids, start.asks)
    for _ in range(SYMBOLS * EVENTS * 5):
        event = source.advance()
        data = json.loads(event.data)
        book = books[event.symbol]
        assert data["s"] == event.symbol
        assert (data["pu"] if futures else data["U"] - 1) == book.update_id
        assert data["u"] >= data["U"]
        book.apply(data["u"], data["b"], data["a"])
        assert not book.crossed
        bids, asks = source.truth(event.symbol, data["u"]) or ((), ())
        assert (list(bids), list(asks)) == (book.bids(), book.asks())
        now = source.depth(event.symbol, 5)
        assert now.last_update_id == data["u"]
        assert list(now.bids) == book.bids(5)


def test_counts_go_up_by_one_and_ids_between_are_no_ones() -> None:
    source = LoopSource(MARKETS["spot"], 2, 3, 10.0, 50, EVENTS)
    counts, ids = [], []
    for _ in range(EVENTS * 10):
        event = source.advance()
        if event.symbol == "BTCUSDT":
            counts.append(source.count("BTCUSDT", event.last))
            ids.append(event.last)
    assert counts[0] is not None
    assert counts == list(range(counts[0], counts[0] + len(counts)))
    between = next(a + 1 for a, b in itertools.pairwise(ids) if b > a + 1)
    assert source.count("BTCUSDT", between) is None
    assert source.truth("BTCUSDT", between) is None


async def test_the_venue_serves_it_and_a_client_follows() -> None:
    async with (
        running(symbols=3, rate=200.0, levels=60, loop=EVENTS) as venue,
        connected(venue, "/stream") as socket,
    ):
        await ask(socket, {"method": "SUBSCRIBE", "params": ["ethusdt@depth@100ms"], "id": 1})
        book = LocalBook(futures=False)
        book.event((await receive(socket))["data"])
        _, snapshot, _ = await get(venue, "/api/v3/depth?symbol=ETHUSDT&limit=1000")
        while not book.snapshot(snapshot):
            book.event((await receive(socket))["data"])
        while book.applied < 5 * EVENTS:
            book.event((await receive(socket))["data"])
        source = make_source(venue.options)
        assert isinstance(source, LoopSource)
        bids, asks = source.truth("ETHUSDT", book.book.update_id) or ((), ())
        assert (list(bids), list(asks)) == (book.book.bids(), book.book.asks())


def test_options_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    capture = tmp_path / "some.gz"
    capture.touch()
    with pytest.raises(ValueError, match="captures are not looped"):
        ExchangeOptions(loop=5, captures=(capture,))
    with pytest.raises(ValueError, match="tls"):
        ExchangeOptions(tls=tmp_path / "missing.pem")
