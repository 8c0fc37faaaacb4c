"""How the contract of feeds tests this one; ``obframe plugins check`` runs it too."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import WSCloseCode, web
from obframe import Instrument, Level
from obframe.testing import contracts

from .plugin import DepthFeed, FeedSettings


class Book:
    """One book as the venue has it: texts by price, and the id of the last change."""

    def __init__(self) -> None:
        self.update_id = 0
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}

    def change(self, symbol: str, bids: Sequence[Level], asks: Sequence[Level]) -> str:
        """Change levels; return the message that tells of it."""
        self.update_id += 1
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            for price, quantity in changes:
                if float(quantity):
                    side[price] = quantity
                else:
                    side.pop(price, None)
        now = int(time.time() * 1000)
        ids = {"U": self.update_id, "u": self.update_id}
        return json.dumps({"e": "depthUpdate", "E": now, "s": symbol, **ids, "b": bids, "a": asks})

    def snapshot(self) -> dict[str, object]:
        """Return the whole book as the venue answers it, best first."""
        bids = sorted(self.bids.items(), key=lambda level: -float(level[0]))
        asks = sorted(self.asks.items(), key=lambda level: float(level[0]))
        return {"lastUpdateId": self.update_id, "bids": bids, "asks": asks}


class Venue(contracts.FeedVenue):
    """Speaks the venue's language on loopback: REST and websockets on one port."""

    def __init__(self) -> None:
        self.port = 0
        self._books: defaultdict[str, Book] = defaultdict(Book)
        self._sockets: defaultdict[str, list[web.WebSocketResponse]] = defaultdict(list)
        self._refuses = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen inside of it."""
        app = web.Application()
        app.router.add_get("/ws/{stream}", self._stream)
        app.router.add_get("/api/v3/depth", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            await self.drop()
            await runner.cleanup()

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        symbol = request.match_info["stream"].partition("@")[0].upper()
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets[symbol].append(socket)
        async for _ in socket:  # a client says nothing here; this waits for the end
            pass
        self._sockets[symbol].remove(socket)
        return socket

    async def _answer(self, request: web.Request) -> web.Response:
        if self._refuses:
            return web.json_response({"msg": "too many requests"}, status=429)
        return web.json_response(self._books[request.query["symbol"]].snapshot())

    async def _send(self, symbol: str, text: str) -> None:
        for socket in list(self._sockets[symbol]):
            if not socket.closed:
                await socket.send_str(text)

    async def change(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change a book, and tell of it."""
        symbol = instrument.native
        await self._send(symbol, self._books[symbol].change(symbol, bids, asks))

    async def lose(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change a book, and tell nobody."""
        self._books[instrument.native].change(instrument.native, bids, asks)

    async def garble(self, instrument: Instrument) -> None:
        """Send half a message."""
        await self._send(instrument.native, '{"e": "depthUpdate", "U": 1')

    async def drop(self) -> None:
        """End every connection."""
        for sockets in self._sockets.values():
            for socket in list(sockets):
                await socket.close(code=WSCloseCode.GOING_AWAY)

    async def refuse_snapshots(self, refused: bool) -> None:
        """Refuse snapshots, or no longer."""
        self._refuses = refused


class DepthContract(contracts.FeedContract):
    """Opens the feed with a venue of its own at the other end."""

    can_drop = True
    can_lose = True
    can_garble = True
    can_refuse = True

    @asynccontextmanager
    async def make_feed(self, tmp_path: Path) -> AsyncIterator[contracts.FeedRig]:  # noqa: ARG002
        """Open a venue, and a feed that speaks to it."""
        venue = Venue()
        async with venue.listening():
            host = f"127.0.0.1:{venue.port}"
            settings = FeedSettings(f"ws://{host}", f"http://{host}", retry=0.02)
            instruments = [Instrument(name) for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
            yield contracts.FeedRig(DepthFeed(settings), instruments, venue)
