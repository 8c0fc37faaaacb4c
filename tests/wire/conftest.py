"""A scripted Binance on loopback: every byte it says is under the test's control."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from obframe import DepthSnapshot, DepthUpdate, FeedStatus, GapReason, Instrument, StreamEvent
from obframe_plugins.binance import BinanceFeed, BinanceSettings

DEADLINE = 8.0


class Peer:
    """One connection as the venue sees it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.path = socket.request.path if socket.request is not None else ""
        self.commands: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.streams: set[str] = set()
        self.closed = False

    async def send(self, message: Any) -> None:
        """Send a message: text and bytes as they are, anything else as JSON."""
        raw = message if isinstance(message, str | bytes) else json.dumps(message)
        await self.socket.send(raw, text=True)

    async def acknowledge(self, command: dict[str, Any]) -> None:
        """Do as asked and say so, as Binance does, whatever the streams' names."""
        if command["method"] == "SUBSCRIBE":
            self.streams |= set(command["params"])
        else:
            self.streams -= set(command["params"])
        await self.send({"result": None, "id": command["id"]})


class Venue:
    """Websocket and REST servers on free ports, with behaviour that a test may replace.

    Attributes:
        peers: All connections so far, in their order.
        on_handshake: May refuse a connection with an HTTP response.
        on_connect: Runs when a connection is open, before anything is read from it.
        on_command: Answers a control message.
        depth: Answers ``/depth``.
        info: Answers ``/exchangeInfo``.
        requests: Path and query of every REST request.
    """

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.on_connect: Callable[[Peer], Awaitable[None]] | None = None
        self.on_handshake: Callable[[ServerConnection, Request], Response | None] | None = None
        self.on_command: Callable[[Peer, dict[str, Any]], Awaitable[None]] = Peer.acknowledge
        self.depth: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.give_depth
        self.info: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.give_info
        self.books: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._server: Server | None = None
        self._runner: web.AppRunner | None = None
        self.ws_url = ""
        self.rest_url = ""

    async def start(self) -> None:
        """Listen."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._shake,
            compression=None,
            ping_interval=None,
            close_timeout=0.2,
        )
        self.ws_url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.rest_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._runner is not None:
            await self._runner.cleanup()

    async def peer(self, number: int) -> Peer:
        """Wait for the connection of this number, counted from 0."""
        await eventually(lambda: len(self.peers) > number, f"connection {number}")
        return self.peers[number]

    async def subscribed(self, number: int, streams: int = 1) -> Peer:
        """Wait until so many streams are subscribed on the connection of this number."""
        peer = await self.peer(number)
        await eventually(lambda: len(peer.streams) >= streams, f"{streams} streams on {number}")
        return peer

    async def give_depth(self, request: web.Request) -> web.StreamResponse:
        """Answer with the book of the symbol, or that there is none."""
        book = self.books.get(request.query["symbol"])
        if book is None:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        return web.json_response(book)

    async def give_info(self, request: web.Request) -> web.StreamResponse:
        """Answer with the statuses; one unknown symbol spoils a request that names symbols."""
        asked: Iterable[str] = self.statuses
        if "symbols" in request.query:
            asked = json.loads(request.query["symbols"])
            if set(asked) - set(self.statuses):
                return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        field = "contractStatus" if "dapi" in request.path else "status"
        symbols = [{"symbol": name, field: self.statuses[name]} for name in asked]
        return web.json_response({"timezone": "UTC", "symbols": symbols})

    def _shake(self, socket: ServerConnection, request: Request) -> Response | None:
        return None if self.on_handshake is None else self.on_handshake(socket, request)

    async def _serve(self, socket: ServerConnection) -> None:
        peer = Peer(socket)
        self.peers.append(peer)
        try:
            if self.on_connect is not None:
                await self.on_connect(peer)
            async for message in socket:
                command = json.loads(message)
                peer.commands.append(command)
                peer.times.append(asyncio.get_running_loop().time())
                await self.on_command(peer, command)
        except ConnectionClosed:
            pass
        finally:
            peer.closed = True

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.query)))
        if request.path.endswith("/depth"):
            return await self.depth(request)
        return await self.info(request)

    def asked_depth(self) -> list[str]:
        """Return the symbols whose depth was asked for, in order."""
        return [query["symbol"] for path, query in self.requests if path.endswith("/depth")]


class Sink:
    """Takes what a feed emits, and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[DepthUpdate | DepthSnapshot | FeedStatus] = []
        self.on_event: Callable[[Any], None] | None = None

    def emit(self, event: DepthUpdate | DepthSnapshot | FeedStatus) -> None:
        """Take one event."""
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def statuses(self, symbol: str) -> list[StreamEvent]:
        """Return what was said of a symbol's stream."""
        return [item.event for item in self.told(symbol)]

    def told(self, symbol: str, event: StreamEvent | None = None) -> list[FeedStatus]:
        """Return the statuses of a symbol, all or of one kind."""
        instrument = Instrument(symbol)
        return [
            item
            for item in self.events
            if isinstance(item, FeedStatus)
            and instrument in item.instruments
            and event in (None, item.event)
        ]

    def ids(self, symbol: str) -> list[int]:
        """Return the last ids of a symbol's updates."""
        return [update.last_update_id for update in self.updates(symbol)]

    def updates(self, symbol: str) -> list[DepthUpdate]:
        """Return a symbol's updates."""
        return [x for x in self.events if isinstance(x, DepthUpdate) and x.symbol == symbol]

    def snapshots(self, symbol: str) -> list[DepthSnapshot]:
        """Return a symbol's snapshots."""
        return [x for x in self.events if isinstance(x, DepthSnapshot) and x.symbol == symbol]

    async def until(
        self,
        symbol: str,
        event: StreamEvent,
        count: int = 1,
        reason: GapReason | None = None,
    ) -> FeedStatus:
        """Wait until a status was told so often; return the last one of those."""

        def found() -> list[FeedStatus]:
            return [x for x in self.told(symbol, event) if reason in (None, x.reason)]

        await eventually(lambda: len(found()) >= count, f"{symbol} {event} {count} times")
        return found()[count - 1]

    async def until_id(self, symbol: str, last_id: int) -> None:
        """Wait until the update with this last id was emitted."""
        await eventually(lambda: last_id in self.ids(symbol), f"{symbol} update {last_id}")


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait for a condition, with a deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while not condition():
        if loop.time() > deadline:
            pytest.fail(f"{what} did not come within {DEADLINE:g} s")
        await asyncio.sleep(0.002)


def diff(
    symbol: str,
    first: int,
    last: int,
    bids: Iterable[tuple[str, str]] = (("61736.01000000", "1.50000000"),),
    asks: Iterable[tuple[str, str]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return a depth diff as the combined stream carries it."""
    data = {
        "e": "depthUpdate",
        "E": 1723161255208 + last,
        "s": symbol,
        "U": first,
        "u": last,
        "b": [list(level) for level in bids],
        "a": [list(level) for level in asks],
        **more,
    }
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": data}


def book(last_id: int) -> dict[str, Any]:
    """Return a REST snapshot."""
    return {
        "lastUpdateId": last_id,
        "bids": [["61736.00000000", "2.00000000"], ["61735.50000000", "0.10000000"]],
        "asks": [["61736.01000000", "1.00000000"], ["61737.00000000", "0.30000000"]],
    }


class Wire:
    """A venue, a feed that talks to it and the sink it emits to."""

    def __init__(self, venue: Venue, transport: str) -> None:
        self.venue = venue
        self.transport = transport
        self.sink = Sink()
        self.feed: BinanceFeed

    diff = staticmethod(diff)
    book = staticmethod(book)
    eventually = staticmethod(eventually)

    def settings(self, **changes: Any) -> BinanceSettings:
        """Return settings with short delays that reach the venue."""
        short: dict[str, Any] = {
            "ws_url": self.venue.ws_url,
            "rest_url": self.venue.rest_url,
            "transport": self.transport,
            "backoff_max": 0.05,
            "control_interval": 0.005,
            "ack_timeout": 2.0,
            "open_timeout": 2.0,
            "request_timeout": 2.0,
            "handover_timeout": 3.0,
        }
        return BinanceSettings(**(short | changes))

    @asynccontextmanager
    async def run(
        self, *symbols: str, rng: random.Random | None = None, **changes: Any
    ) -> AsyncIterator[BinanceFeed]:
        """Run a feed with these symbols, all known to the venue unless it has a list already."""
        if not self.venue.statuses:
            self.venue.statuses = dict.fromkeys(symbols, "TRADING")
        self.feed = feed = BinanceFeed(self.settings(**changes), rng or random.Random(7))
        feed.subscribe([Instrument(symbol) for symbol in symbols])
        task = asyncio.create_task(feed.run(self.sink.emit))
        try:
            yield feed
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                async with asyncio.timeout(3.0):
                    await task
            assert task.done()
            assert not plugin_tasks(), "a task of the feed is left behind"


def plugin_tasks() -> list[asyncio.Task[Any]]:
    """Return the tasks that run code of the feed."""
    return [
        task
        for task in asyncio.all_tasks()
        if "/plugins/" in getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", "")
    ]


RunFeed = Callable[..., AbstractAsyncContextManager[BinanceFeed]]


@pytest.fixture(params=["websockets", "picows"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    """Return a listening venue with a sink; the feed reads by each library in turn."""
    venue = Venue()
    await venue.start()
    try:
        yield Wire(venue, request.param)
    finally:
        await venue.stop()
