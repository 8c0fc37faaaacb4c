"""How the contract of ``obframe.testing`` tests the feed ``coinbase``, on loopback."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from obframe import Instrument, Level
from obframe.testing import contracts
from obframe.testing.reference import ReferenceBook
from obframe_plugins.coinbase import CoinbaseFeed, CoinbaseSettings

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD")
_PRODUCTS = "/api/v3/brokerage/market/products"
_HEARTBEAT = {"current_time": "", "heartbeat_counter": "1"}


class Client:
    """One connection: what it is subscribed to, and the number of its next message."""

    def __init__(self, request: web.Request) -> None:
        self.socket = web.WebSocketResponse()
        self.products: set[str] = set()
        self._request = request
        self._number = 0

    async def say(self, channel: str, event: dict[str, Any], *, lost: bool = False) -> None:
        """Number a message, and send it unless it gets lost on its way."""
        message = {
            "channel": channel,
            "client_id": "",
            "timestamp": _now(),
            "sequence_num": self._number,
            "events": [event],
        }
        self._number += 1
        if not lost:
            await self.send(json.dumps(message))

    async def send(self, text: str) -> None:
        """Send a text; a connection that is broken takes none."""
        with suppress(ConnectionError):
            await self.socket.send_str(text)

    def abort(self) -> None:
        """Break the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()


class Venue(contracts.FeedVenue):
    """As much of Coinbase Advanced as a feed needs, its books in the contract's hands."""

    def __init__(self) -> None:
        self.host = ""
        self._books = {symbol: ReferenceBook() for symbol in SYMBOLS}
        self._clients: list[Client] = []
        self._refuses = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Venue]:
        """Listen inside of it."""
        app = web.Application()
        app.add_routes([web.get("/", self._stream), web.get(_PRODUCTS, self._list)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.host = f"127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await self.drop()
            await runner.cleanup()

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

    async def _change(
        self, product: str, bids: Sequence[Level], asks: Sequence[Level], *, lost: bool
    ) -> None:
        self._books[product].apply(0, bids, asks)
        for client in list(self._clients):
            if product in client.products:
                await client.say("l2_data", _event("update", product, bids, asks), lost=lost)

    async def garble(self, instrument: Instrument) -> None:
        """Send half a message."""
        for client in list(self._clients):
            if instrument.native in client.products:
                await client.send('{"channel":"l2_data","sequence_num":')

    async def drop(self) -> None:
        """Break every connection."""
        for client in self._clients:
            client.abort()

    async def refuse_snapshots(self, refused: bool) -> None:
        """Send no book to whoever subscribes, or send it again."""
        self._refuses = refused

    async def _list(self, request: web.Request) -> web.Response:
        wanted = request.query.getall("product_ids", list(SYMBOLS))
        facts = ("is_disabled", "trading_disabled", "cancel_only", "view_only")
        found = [
            {"product_id": name, "status": "online", "product_type": "SPOT", "alias": ""}
            | dict.fromkeys(facts, False)
            for name in SYMBOLS
            if name in wanted
        ]
        return web.json_response({"products": found, "num_products": len(found)})

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        client = Client(request)
        await client.socket.prepare(request)
        self._clients.append(client)
        try:
            async for message in client.socket:
                if message.type is WSMsgType.TEXT:
                    await self._obey(client, json.loads(message.data))
        finally:
            self._clients.remove(client)
        return client.socket

    async def _obey(self, client: Client, request: dict[str, Any]) -> None:
        if request["channel"] == "heartbeats":
            await client.say("heartbeats", _HEARTBEAT)
        for product in request.get("product_ids", ()):
            if request["type"] == "unsubscribe":
                client.products.discard(product)
            elif product not in client.products:
                client.products.add(product)
                book = self._books[product]
                if not self._refuses:
                    event = _event("snapshot", product, book.bids(), book.asks())
                    await client.say("l2_data", event)
        told = {"level2": sorted(client.products), "heartbeats": ["heartbeats"]}
        await client.say("subscriptions", {"subscriptions": told})


def _event(kind: str, product: str, bids: Sequence[Level], asks: Sequence[Level]) -> dict[str, Any]:
    at = _now()
    updates = [
        {"side": side, "event_time": at, "price_level": price, "new_quantity": quantity}
        for side, levels in (("bid", bids), ("offer", asks))
        for price, quantity in levels
    ]
    return {"type": kind, "product_id": product, "updates": updates}


def _now() -> str:
    moment = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e6):06}Z"


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
                rest_url=f"http://{venue.host}",
                ws_url=f"ws://{venue.host}",
                backoff_max=0.05,
                ack_timeout=1.0,
                snapshot_timeout=0.5,
            )
            instruments = [Instrument(symbol) for symbol in SYMBOLS]
            unknown = Instrument("NO-PE")
            yield contracts.FeedRig(CoinbaseFeed(settings), instruments, venue, unknown)
