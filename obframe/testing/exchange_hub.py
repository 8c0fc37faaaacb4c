"""The venue's websocket side: who is connected, and who gets what."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiohttp import web

from obframe.testing.exchange_channel import now_ms, wrap
from obframe.testing.exchange_control import (
    MAX_STREAMS,
    Refusal,
    Subscriptions,
    id_of,
    method_of,
    refusal,
)
from obframe.testing.exchange_faults import Fault, FaultPlan, Scope
from obframe.testing.exchange_mangle import server_shutdown
from obframe.testing.exchange_market import Market
from obframe.testing.exchange_options import ExchangeOptions
from obframe.testing.exchange_socket import Connection, frame

_log = logging.getLogger(__name__)

_DRAIN_BYTES = 256 * 1024
_ARRIVAL_SECONDS = 300.0
_HANDSHAKE_SECONDS = 2.0
STALL_SECONDS = 10.0


class Fired(NamedTuple):
    """One strike of a fault: wall-clock seconds, the fault's name, and where it struck."""

    at: float
    fault: str
    where: str


@dataclass(slots=True)
class ExchangeStats:
    """What the venue did so far.

    Attributes:
        clients: Websocket connections now.
        connections: Websocket connections ever.
        events: Depth events that happened, sent or not.
        messages: Depth messages sent, counted once a client.
        rest_requests: REST requests of all kinds.
        slow_clients: Clients disconnected because they did not read.
    """

    clients: int = 0
    connections: int = 0
    events: int = 0
    messages: int = 0
    rest_requests: int = 0
    slow_clients: int = 0


class Sockets:
    """Accepts connections, obeys their requests and keeps the index of streams.

    Args:
        options: The venue's.
        market: Decides the limits.
        faults: Told of every connection and SUBSCRIBE.

    Attributes:
        stats: Counters.
        fired: Every strike of a fault so far.
        wanted: Set when the first depth stream is subscribed.
        depth_streams: Names whose subscription sets ``wanted``.
    """

    def __init__(self, options: ExchangeOptions, market: Market, faults: FaultPlan) -> None:
        self.stats = ExchangeStats()
        self.fired: list[Fired] = []
        self.wanted = asyncio.Event()
        self.depth_streams: set[str] = set()
        self._options = options
        self._market = market
        self._faults = faults
        self._connections: dict[Connection, None] = {}
        self._audiences: dict[str, dict[Connection, None]] = {}
        self._dirty: dict[Connection, None] = {}
        self._arrivals: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deserted = asyncio.Event()
        self._deserted.set()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the market."""
        return [
            web.get(prefix + path, self._accept)
            for prefix in self._market.sockets
            for path in ("/ws", "/ws/{streams:.+}", "/stream")
        ]

    def note(self, fault: Fault, where: str) -> None:
        """Note that a fault struck, and where."""
        _log.warning("fault %s strikes: %s", fault.name, where)
        self.fired.append(Fired(time.time(), fault.name, where))

    def audience(self, name: str) -> Collection[Connection]:
        """Return the connections that are subscribed to a stream."""
        return self._audiences.get(name, {}).keys()

    def touch(self, connection: Connection) -> None:
        """Have the connection flushed with the next pass."""
        self._dirty[connection] = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Keep a task until it ends, or until ``stop``."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close_all(self, reason: str) -> None:
        """Close every connection in the clean way."""
        for connection in list(self._connections):
            connection.drop(1001, reason)

    def reset_all(self) -> None:
        """Break every connection."""
        for connection in list(self._connections):
            connection.reset()

    async def stop(self, release: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Close every connection, call ``release`` and end all tasks."""
        self.close_all("Going away")
        for connection in list(self._connections):
            if connection.hole:
                connection.reset()
        # While the server is being released it reads no more, so no handshake would end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._deserted.wait(), _HANDSHAKE_SECONDS)
        await release()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def shut_down(self, seconds: float) -> None:
        """Announce the end on every connection, and close them all after that."""
        doomed = list(self._connections)
        for connection in doomed:
            combined = connection.subscriptions.combined
            data = wrap("!serverShutdown", server_shutdown(now_ms()), combined)
            connection.send(frame(data))
            self.touch(connection)

        async def close() -> None:
            await asyncio.sleep(seconds)
            for connection in doomed:
                connection.drop(1001, "Server shutdown")

        self.spawn(close())

    def flush(self) -> None:
        """Write out what gathered, and part from clients that do not read."""
        dirty, self._dirty = self._dirty, {}
        for connection in dirty:
            if not connection.flush():
                self.stats.slow_clients += 1
                _log.warning("a client was disconnected: it did not read what it subscribed to")

    async def drain(self) -> None:
        """Wait for the clients, but not for one that has stopped reading for good."""
        deadline = time.monotonic() + STALL_SECONDS
        await asyncio.sleep(0)
        while slow := [one for one in self._connections if one.backlog > _DRAIN_BYTES]:
            if time.monotonic() > deadline:
                for connection in slow:
                    connection.reset()
                    self.stats.slow_clients += 1
                return
            await asyncio.sleep(0.001)

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] <= now - _ARRIVAL_SECONDS:
            self._arrivals.popleft()
        if len(self._arrivals) >= self._options.connection_limit:
            retry = {"Retry-After": str(int(_ARRIVAL_SECONDS))}
            return web.Response(status=429, text="Too many connections", headers=retry)
        self._arrivals.append(now)
        text = request.match_info.get("streams") or request.query.get("streams", "")
        names = [name for name in text.split("/") if name]
        websocket = web.WebSocketResponse(
            timeout=_HANDSHAKE_SECONDS,
            autoping=False,
            autoclose=False,
            compress=False,
            max_msg_size=2**18,
        )
        await websocket.prepare(request)
        transport = request.transport
        if transport is None:
            return websocket
        connection = Connection(
            websocket,
            transport,
            Subscriptions(request.path.endswith("/stream"), names),
            incoming_limit=self._market.incoming_limit,
            buffer_limit=int(self._options.buffer_mib * 2**20),
            spawn=self.spawn,
        )
        self.stats.connections += 1
        self.stats.clients += 1
        self._connections[connection] = None
        self._deserted.clear()
        attendant = self.spawn(self._attend(connection))
        try:
            self._welcome(connection)
            while (text_in := await connection.receive()) is not None:
                self._obey(connection, text_in)
            self._forget(connection)
            await connection.finish()
        finally:
            attendant.cancel()
            self._forget(connection)
            self._connections.pop(connection, None)
            self.stats.clients -= 1
            if not self._connections:
                self._deserted.set()
        return websocket

    def _welcome(self, connection: Connection) -> None:
        refused = self._faults.due(Scope.ACCEPT)
        for fault, _ in refused:
            self.note(fault, f"connection {self.stats.connections}")
        if refused:
            connection.drop(1001, "Going away")
        elif len(connection.subscriptions.streams) > MAX_STREAMS:
            connection.drop(1008, f"Over {MAX_STREAMS} streams")
        else:
            self._index(connection)

    def _obey(self, connection: Connection, text: str) -> None:
        before = set(connection.subscriptions.streams)
        try:
            if method_of(text) == "SUBSCRIBE" and (due := self._faults.due(Scope.SUBSCRIBE)):
                self.note(due[0][0], text[:200])
                raise Refusal(2, "Invalid request: refused on demand", id_of(text))
            reply = connection.subscriptions.answer(text)
        except Refusal as error:
            reply = refusal(error)
        connection.send(frame(reply))
        connection.flush()
        for name in before - connection.subscriptions.streams.keys():
            self._audiences.get(name, {}).pop(connection, None)
        self._index(connection)

    def _index(self, connection: Connection) -> None:
        for name in connection.subscriptions.streams:
            self._audiences.setdefault(name, {})[connection] = None
            if name in self.depth_streams:
                self.wanted.set()

    def _forget(self, connection: Connection) -> None:
        for name in connection.subscriptions.streams:
            self._audiences.get(name, {}).pop(connection, None)
        self._dirty.pop(connection, None)

    async def _attend(self, connection: Connection) -> None:
        """Ping the client and end its connection in time."""
        end = time.monotonic() + self._options.connection_seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(self._options.ping_seconds, left))
            if time.monotonic() < end:
                connection.ping(time.monotonic(), self._options.pong_seconds)
        connection.drop(1001, "Connection lifetime reached")
