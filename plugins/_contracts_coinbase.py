"""How the contract of ``obframe.testing`` tests the feed ``coinbase``, on loopback."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from obframe import Instrument, Level
from obframe.testing import contracts
from obframe.testing.exchange_coinbase import encode_event
from obframe.testing.exchange_kraken_wire import write_time
from obframe.testing.reference import ReferenceBook
from obframe_plugins.coinbase import CoinbaseFeed, CoinbaseSettings

PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD")


class Client:
    """One connection: what it is subscribed to, and the number of its next message."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.socket = socket
        self.transport = transport
        self.products: set[str] = set()
        self.number = 0

    async def say(self, channel: str, event: str, lost: bool = False) -> None:
        """Number a message, and send it unless it gets lost on its way."""
        text = (
            f'{{"channel":"{channel}","timestamp":"{write_time(time.time_ns() // 1000)}",'
            f'"sequence_num":{self.number},"events":[{event}]}}'
        )
        self.number += 1
        if not lost:
            with suppress(ConnectionError):
                await self.socket.send_str(text)


class Venue(contracts.FeedVenue):
    """As much of Coinbase as a feed needs, its books in the contract's hands."""

    def __init__(self) -> None:
        self.host = ""
        self.books = {product: ReferenceBook() for product in PRODUCTS}
        self.clients: set[Client] = set()
        self.refused = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Venue]:
        """Listen inside of it."""
        app = web.Application()
        app.router.add_get("/", self._serve)
        app.router.add_get("/api/v3/brokerage/market/products", self._list)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.host = f"127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await self.drop()
            await runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:
        products = [{"product_id": product, "status": "online"} for product in PRODUCTS]
        return web.json_response({"products": products})

    async def change(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change a book, and tell of it."""
        await self._change(instrument.native, bids, asks, lost=False)

    async def lose(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change a book, and have the message lost: its number is missing."""
        await self._change(instrument.native, bids, asks, lost=True)

    async def _change(self, product: str, bids: Any, asks: Any, lost: bool) -> None:
        self.books[product].apply(0, bids, asks)
        event = encode_event("update", product, bids, asks, "").decode()
        for client in list(self.clients):
            if product in client.products:
                await client.say("l2_data", event, lost)

    async def garble(self, instrument: Instrument) -> None:
        """Send half a message."""
        for client in list(self.clients):
            if instrument.native in client.products:
                client.number += 1
                await client.socket.send_str('{"channel":"l2_data","sequence_num":')

    async def drop(self) -> None:
        """Break every connection."""
        for client in list(self.clients):
            client.transport.abort()

    async def refuse_snapshots(self, refused: bool) -> None:
        """Send no book to whoever subscribes, or send it again."""
        self.refused = refused

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        client = Client(socket, request.transport)
        self.clients.add(client)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._obey(client, json.loads(message.data))
        finally:
            self.clients.discard(client)
        return socket

    async def _obey(self, client: Client, command: dict[str, Any]) -> None:
        products = command.get("product_ids", [])
        if unknown := set(products) - set(PRODUCTS):
            text = f"{min(unknown)} is not a valid product"
            await client.socket.send_str(json.dumps({"type": "error", "message": text}))
            return
        new = [product for product in products if product not in client.products]
        if command["type"] == "unsubscribe":
            client.products -= set(products)
            new = []
        else:
            client.products |= set(products)
        for product in new:
            book = self.books[product]
            if not self.refused:
                event = encode_event("snapshot", product, book.bids(), book.asks(), "")
                await client.say("l2_data", event.decode())
        told = {"level2": sorted(client.products), "heartbeats": ["heartbeats"]}
        await client.say("subscriptions", json.dumps({"subscriptions": told}))


class CoinbaseContract(contracts.FeedContract):
    """Tests the feed ``coinbase``."""

    can_drop = True
    can_lose = True
    can_garble = True
    can_refuse = True

    @asynccontextmanager
    async def make_feed(self, tmp_path: Path) -> AsyncIterator[contracts.FeedRig]:
        """Open a venue, and a feed that speaks to it."""
        async with Venue().listening() as venue:
            settings = CoinbaseSettings(
                ws_url=f"ws://{venue.host}",
                rest_url=f"http://{venue.host}",
                backoff_max=0.05,
                ack_timeout=1.0,
                snapshot_timeout=0.5,
                stable_after=0.2,
            )
            feed = CoinbaseFeed(settings, random.Random(7))
            unknown = Instrument("NO-PE")
            instruments = [Instrument(product) for product in PRODUCTS]
            yield contracts.FeedRig(feed, instruments, venue, unknown)
            await asyncio.sleep(0)
