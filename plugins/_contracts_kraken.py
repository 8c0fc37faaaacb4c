"""How the contract of ``obframe.testing`` tests the feed ``kraken``, with its wire on loopback."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from obframe import Instrument, Level
from obframe.testing import contracts
from obframe.testing import exchange_kraken_wire as wire
from obframe.testing.exchange_market import Depth
from obframe.testing.reference import ReferenceBook
from obframe_plugins.kraken import KrakenFeed, KrakenSettings

SYMBOLS = ("BTC/USD", "ETH/USD", "XRP/USD")


class Venue(contracts.FeedVenue):
    """As much of Kraken's WebSocket v2 as a feed needs, its books in the contract's hands."""

    def __init__(self) -> None:
        self.url = ""
        self.books = {symbol: ReferenceBook() for symbol in SYMBOLS}
        self.clients: dict[ServerConnection, set[str]] = {}
        self.refused = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Venue]:
        """Listen inside of it."""
        async with serve(self._serve, "127.0.0.1", 0, ping_interval=None) as server:
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    def message(self, kind: str, symbol: str, bids: Any, asks: Any) -> str:
        """Write a message of the book channel, with the checksum of the book as it is."""
        book = self.books[symbol]
        check = wire.checksum(Depth(0, book.bids(), book.asks(), 0))
        moment = time.time_ns() // 1000
        return wire.book_message(kind, symbol, bids, asks, check, moment).decode()

    async def say(self, symbol: str, text: str) -> None:
        """Send a text to whoever is subscribed to the symbol."""
        for client, wanted in list(self.clients.items()):
            if symbol in wanted:
                with suppress(ConnectionClosed):
                    await client.send(text)

    async def change(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change a book, and tell of it."""
        symbol = instrument.native
        self.books[symbol].apply(0, bids, asks)
        await self.say(symbol, self.message("update", symbol, bids, asks))

    async def lose(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change a book, and tell nobody."""
        self.books[instrument.native].apply(0, bids, asks)

    async def garble(self, instrument: Instrument) -> None:
        """Send half a message."""
        await self.say(instrument.native, '{"channel":"book","type":"update","data":[{"symbol":')

    async def drop(self) -> None:
        """Break every connection."""
        for client in list(self.clients):
            client.transport.abort()

    async def refuse_snapshots(self, refused: bool) -> None:
        """Refuse snapshots, or no longer."""
        self.refused = refused

    async def _serve(self, client: ServerConnection) -> None:
        self.clients[client] = set()
        try:
            await client.send(wire.status_message("online").decode())
            async for text in client:
                await self._obey(client, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            del self.clients[client]

    async def _obey(self, client: ServerConnection, request: dict[str, Any]) -> None:
        if request["params"]["channel"] == "instrument":
            pairs = [wire.describe_pair(each, "0.01", "0.00000001", "online") for each in SYMBOLS]
            await client.send(wire.answer(request).decode())
            await client.send(wire.instrument_message("snapshot", pairs).decode())
            return
        for symbol in request["params"]["symbol"]:
            await client.send(wire.answer(request, symbol=symbol).decode())
            if request["method"] == "unsubscribe":
                self.clients[client].discard(symbol)
            else:
                self.clients[client].add(symbol)
                book = self.books[symbol]
                if not self.refused:
                    await client.send(self.message("snapshot", symbol, book.bids(), book.asks()))


class KrakenContract(contracts.FeedContract):
    """Tests the feed ``kraken``."""

    can_drop = True
    can_lose = True
    can_garble = True
    can_refuse = True

    @asynccontextmanager
    async def make_feed(self, tmp_path: Path) -> AsyncIterator[contracts.FeedRig]:
        """Open a venue, and a feed that speaks to it."""
        async with Venue().listening() as venue:
            settings = KrakenSettings(
                ws_url=venue.url,
                backoff_max=0.05,
                control_interval=0.01,
                ack_timeout=1.0,
                snapshot_timeout=0.5,
            )
            feed = KrakenFeed(settings, random.Random(7))
            unknown = Instrument("NO/PE")
            yield contracts.FeedRig(
                feed, [Instrument(symbol) for symbol in SYMBOLS], venue, unknown
            )
            await asyncio.sleep(0)
