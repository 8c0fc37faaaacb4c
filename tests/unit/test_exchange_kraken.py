"""The Kraken on loopback says what Kraken's documents say, to a client that knows only these."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import websockets

from obframe.testing.exchange import ExchangeOptions, KrakenExchange
from obframe.testing.oracle import truth_by_time


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[KrakenExchange]:
    chosen: dict[str, Any] = {"symbols": ("BTC/USD", "ETH/USD"), "rate": 50.0, "levels": 60}
    async with KrakenExchange(ExchangeOptions(venue="kraken", **(chosen | options))) as venue:
        yield venue


class Client:
    """A client after the documents: numbers as decimals, a book cut to its depth, the checksum."""

    def __init__(self, socket: websockets.ClientConnection, depth: int = 10) -> None:
        self.socket = socket
        self.depth = depth
        self.sides: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}
        self.checked = 0

    async def receive(self) -> Any:
        async with asyncio.timeout(5):
            return json.loads(await self.socket.recv(), parse_float=Decimal)

    async def ask(self, method: str, *symbols: str, **params: Any) -> list[Any]:
        """Send a request; return its answers, of which there is one for each symbol."""
        request = {"method": method, "req_id": 7}
        if params or symbols:
            request["params"] = {"symbol": list(symbols), **params}  # type: ignore[assignment]
        await self.socket.send(json.dumps(request))
        answers: list[Any] = []
        while len(answers) < max(len(symbols), 1):
            message = await self.receive()
            if "method" in message or "error" in message:
                answers.append(message)
            else:
                self.take(message)
        return answers

    def take(self, message: Any) -> None:
        if message.get("channel") != "book":
            return
        (data,) = message["data"]
        if message["type"] == "snapshot":
            self.sides = {"bids": {}, "asks": {}}
        for name, side in self.sides.items():
            for level in data[name]:
                if level["qty"]:
                    side[level["price"]] = level["qty"]
                else:
                    side.pop(level["price"], None)
            ordered = sorted(side, reverse=name == "bids")
            for price in ordered[self.depth :]:
                del side[price]
        assert self.checksum() == data["checksum"]
        self.checked += 1

    def checksum(self) -> int:
        text = ""
        for name in ("asks", "bids"):
            side = self.sides[name]
            for price in sorted(side, reverse=name == "bids")[:10]:
                for number in (price, side[price]):
                    text += str(number).replace(".", "").lstrip("0")
        return zlib.crc32(text.encode())


@asynccontextmanager
async def connected(venue: KrakenExchange, depth: int = 10) -> AsyncIterator[Client]:
    async with websockets.connect(venue.ws_url, compression=None) as socket:
        yield Client(socket, depth)


@pytest.mark.parametrize("depth", [10, 25, 100])
async def test_every_checksum_is_that_of_a_book_kept_by_the_documents(depth: int) -> None:
    async with running(rate=200.0) as venue, connected(venue, depth) as client:
        (answer,) = await client.ask("subscribe", "BTC/USD", channel="book", depth=depth)
        assert answer["success"]
        assert answer["result"] == {
            "channel": "book",
            "symbol": "BTC/USD",
            "depth": depth,
            "snapshot": True,
        }
        while client.checked < 150:
            client.take(await client.receive())
        assert max(len(side) for side in client.sides.values()) == min(depth, 60) or depth > 60


async def test_it_greets_with_its_status_and_beats_when_there_is_nothing_else() -> None:
    async with running() as venue, connected(venue) as client:
        status = await client.receive()
        assert status["channel"] == "status"
        assert status["data"][0]["system"] == "online"
        assert await client.receive() == {"channel": "heartbeat"}


async def test_pairs_are_told_with_their_decimals() -> None:
    async with running() as venue, connected(venue) as client:
        await client.receive()
        await client.ask("subscribe", channel="instrument")
        message = await client.receive()
        assert (message["channel"], message["type"]) == ("instrument", "snapshot")
        pairs = {pair["symbol"]: pair for pair in message["data"]["pairs"]}
        assert set(pairs) == {"BTC/USD", "ETH/USD"}
        assert pairs["BTC/USD"]["price_precision"] == 2
        assert pairs["BTC/USD"]["qty_precision"] == 3
        assert pairs["BTC/USD"]["status"] == "online"


async def test_requests_are_answered_symbol_by_symbol() -> None:
    async with running(rate=0.1) as venue, connected(venue) as client:
        first, second = await client.ask(
            "subscribe", "BTC/USD", "XBT/USD", channel="book", depth=10
        )
        assert (first["success"], second["success"]) == (True, False)
        assert second["symbol"] == "XBT/USD"
        assert second["error"] == "Currency pair not supported XBT/USD"
        assert second["req_id"] == 7
        for method, symbol, depth, error in (
            ("subscribe", "BTC/USD", 10, "Already subscribed"),
            ("subscribe", "ETH/USD", 11, "Subscription depth not supported"),
            ("unsubscribe", "ETH/USD", 10, "Subscription Not Found"),
            ("unsubscribe", "BTC/USD", 10, None),
        ):
            (answer,) = await client.ask(method, symbol, channel="book", depth=depth)
            assert answer.get("error") == error, (method, symbol)
        (pong,) = await client.ask("ping")
        assert pong == {"method": "pong", "req_id": 7}
        (answer,) = await client.ask("subscribe", "BTC/USD", channel="level3")
        assert not answer["success"]


async def test_the_journal_tells_every_book_by_its_time(tmp_path: Path) -> None:
    async with running(record=tmp_path / "j") as venue, connected(venue, 25) as client:
        await client.ask("subscribe", "BTC/USD", channel="book", depth=25)
        while client.checked < 30:
            client.take(await client.receive())
        moment = venue.moments["BTC/USD"]
        depth = venue.depth("BTC/USD")
    truth = truth_by_time(tmp_path / "j" / "btc%2Fusd.gz")
    assert truth(moment) == (depth.bids[:20], depth.asks[:20])
    assert truth(moment + 1) == truth(moment)
    assert truth(1) is None
    assert truth(2**62) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faults": ("reorder@3",)}, "no fault 'reorder' of kraken"),
        ({"market": "usdm"}, "market"),
        ({"loop": 5}, "loop"),
        ({"venue": "mtgox"}, "give one of binance, kraken"),
    ],
)
def test_what_it_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExchangeOptions(**({"venue": "kraken", "symbols": ("BTC/USD",)} | options))


def test_binance_has_no_faults_of_kraken() -> None:
    with pytest.raises(ValueError, match="no fault 'checksum' of binance"):
        ExchangeOptions(faults=("checksum",))
    with pytest.raises(ValueError, match="no symbol 'XRP/USD'"):
        KrakenExchange(ExchangeOptions(venue="kraken", faults=("drop:symbol=XRP/USD",)))
