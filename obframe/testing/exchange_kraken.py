"""A Kraken on your desk: its WebSocket API v2 on loopback, simulated, with faults on demand.

``KrakenExchange`` has the surface of ``exchange.Exchange``. Its journal holds every event of the
whole books, so that ``oracle.judge_times`` can tell what a row had to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from obframe.testing import exchange_kraken_wire as wire
from obframe.testing.exchange_control import Subscriptions
from obframe.testing.exchange_faults import Fault, FaultPlan, Scope, parse_fault
from obframe.testing.exchange_hub import STALL_SECONDS, ExchangeStats, Fired
from obframe.testing.exchange_journal import Journal
from obframe.testing.exchange_market import MARKETS, Depth, Event
from obframe.testing.exchange_options import ExchangeOptions
from obframe.testing.exchange_simulation import SimulationSource
from obframe.testing.exchange_socket import Connection, frame

_log = logging.getLogger(__name__)

_COALESCE_SECONDS = 0.004
_MOST_AT_ONCE = 32
_JOURNAL_SECONDS = 1.0
_HEARTBEAT_SECONDS = 1.0
_HANDSHAKE_SECONDS = 2.0
_INCOMING_LIMIT = 50
_NEVER = float("inf")


def name_pairs(symbols: int | tuple[str, ...]) -> tuple[str, ...]:
    """Return the pairs to simulate: their names, or so many."""
    if not isinstance(symbols, int):
        return symbols
    made = (f"SIM{number:04d}/USD" for number in range(1, symbols + 1))
    return ("BTC/USD", "ETH/USD", *made)[:symbols]


class _Client:
    """One connection, and what it is subscribed to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.instruments = False
        self.books: dict[str, int] = {}
        self.spoke_at = 0.0

    def say(self, data: bytes) -> None:
        self.connection.send(frame(data))
        self.spoke_at = time.monotonic()


class _Pair:
    """One symbol: the depths at which it is seen, and what faults do to it."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.views: dict[int, wire.DepthView] = {}
        self.moment_us = time.time_ns() // 1000
        self.quiet_until = 0.0
        self.halted_until = 0.0
        self.held: list[tuple[int, bytes]] | None = None

    def next_moment(self) -> int:
        self.moment_us = max(self.moment_us + 1, time.time_ns() // 1000)
        return self.moment_us


class KrakenExchange:
    """The venue. An async context manager: inside, it listens and its market moves.

    Args:
        options: Its parameters, with ``venue="kraken"``.

    Attributes:
        ws_url: Such as ``ws://127.0.0.1:40123/v2``.
        rest_url: The same host; it has no REST interface.
        stats: What it did so far.
        fired: Every strike of a fault so far.
        journal: What truly happened, when ``options.record`` is set.

    Raises:
        ValueError: A fault names a symbol that is not listed, or the journal cannot be used.
    """

    rest_url: str
    ws_url: str

    def __init__(self, options: ExchangeOptions) -> None:
        self.options = options
        self.stats = ExchangeStats()
        self.fired: list[Fired] = []
        self.faults = FaultPlan()
        names = name_pairs(options.symbols)
        # The number formats of a futures market: as many decimals as the tick and the step have.
        self.source = SimulationSource(
            MARKETS["usdm"], names, options.seed, options.rate, options.levels
        )
        self._pairs = {name: _Pair(name) for name in names}
        self._engine = "online"
        for text in options.faults:
            self.inject(text)
        self.journal = Journal(options.record) if options.record else None
        self._clients: dict[_Client, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deserted = asyncio.Event()
        self._deserted.set()

    async def __aenter__(self) -> KrakenExchange:
        app = web.Application()
        app.add_routes([web.get(path, self._accept) for path in ("/", "/v2")])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.options.host, self.options.port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        host = f"[{host}]" if ":" in host else host
        self.rest_url, self.ws_url = f"http://{host}:{port}", f"ws://{host}:{port}/v2"
        if self.journal:
            self._spawn(self._keep_journal(self.journal))
        self._pump_task = self._spawn(self._pump())
        self._spawn(self._beat())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for client in list(self._clients):
            client.connection.drop(1001, "Going away")
            if client.connection.hole:
                client.connection.reset()
        # While the server is being released it reads no more, so no handshake would end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._deserted.wait(), _HANDSHAKE_SECONDS)
        await self._runner.cleanup()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.journal:
            self.journal.flush()

    def inject(self, text: str) -> None:
        """Have a fault strike; its N counts from now, so without one it strikes next.

        Raises:
            ValueError: The fault is not known here, or its symbol not listed.
        """
        fault = parse_fault(text, "kraken")
        if fault.symbol and fault.symbol not in self._pairs:
            listed = ", ".join(self._pairs)
            raise ValueError(f"fault {text!r}: no symbol {fault.symbol!r}: choose from {listed}")
        self.faults.arm(fault)

    async def wait_finished(self) -> None:
        """Wait for the market's end; a simulation has none."""
        await asyncio.shield(self._pump_task)

    def depth(self, symbol: str) -> Depth:
        """Return the whole true book of a symbol."""
        return self.source.depth(symbol)

    # -- the market ------------------------------------------------------------------------------

    async def _pump(self) -> None:
        start, batch = time.monotonic(), 0
        while True:
            late = time.monotonic() - start - self.source.due()
            if late < 0 or batch >= _MOST_AT_ONCE:
                self._flush()
                await asyncio.sleep(max(-late, _COALESCE_SECONDS))
                batch = 0
                continue
            batch += 1
            if late > STALL_SECONDS:
                start += late  # the process stood still: go on from here, not in one burst
            event = self.source.advance()
            try:
                self._publish(event)
            except Exception:
                _log.exception("the venue's market stands still")
                raise

    def _publish(self, event: Event) -> None:
        pair = self._pairs[event.symbol]
        before = pair.moment_us
        moment = pair.next_moment()
        self.stats.events += 1
        if self.journal:
            self._note_event(self.journal, event, before, moment)
        if 0.0 < pair.halted_until <= time.monotonic():
            pair.halted_until = 0.0
            self._tell_pair(event.symbol)
        audience = [client for client in self._clients if event.symbol in client.books]
        if not audience:
            pair.views.clear()
            return
        depth = self.source.depth(event.symbol, max((wire.CHECKED_LEVELS, *pair.views)))
        check = wire.checksum(depth)
        struck = self.faults.due(Scope.MESSAGE, event.symbol, event.symbol)
        links = self.faults.due(Scope.CONNECTION, event.symbol, event.symbol)
        for fault, _ in (*struck, *links):
            self._note(fault, f"{event.symbol} at {moment}")
        messages: dict[int, list[bytes]] = {}
        for levels, view in pair.views.items():
            bids, asks = view.follow(depth)
            if bids or asks:
                message = ("update", event.symbol, bids, asks, check, moment)
                messages[levels] = self._mangle(message, [fault for fault, _ in struck])
        self._silence(pair, [fault for fault, _ in struck])
        self._send(pair, audience, messages, {fault.name: fault for fault, _ in links})

    def _mangle(self, message: tuple[Any, ...], faults: list[Fault]) -> list[bytes]:
        kind, symbol, bids, asks, check, moment = message
        copies, cut, before = 1, False, []
        for fault in faults:
            match fault.name:
                case "drop":
                    copies = 0
                case "dup":
                    copies = 2
                case "truncate":
                    cut = True
                case "garbage":
                    before.append(b"<garbage, not JSON \xe2\x9c\x82>")
                    copies = copies if fault.text("mode") == "before" else 0
                case "nan":
                    level = (fault.text("value"), "1")
                    bids = [level if fault.text("field") == "price" else level[::-1], *bids]
                case "checksum":
                    check = check ^ 1
                case "no-checksum":
                    check = {"zero": 0, "absent": None}[fault.text("kind")]
        data = wire.book_message(kind, symbol, bids, asks, check, moment)
        return before + [data[: len(data) // 2] if cut else data] * copies

    def _silence(self, pair: _Pair, faults: list[Fault]) -> None:
        now = time.monotonic()
        for fault in faults:
            if fault.name == "silence":
                pair.quiet_until = now + fault.number("seconds")
                pair.held = [] if fault.text("mode") == "hold" else None
            elif fault.name == "halt":
                pair.halted_until = now + (fault.number("seconds") or _NEVER)
                self._tell_pair(pair.symbol)

    def _send(
        self,
        pair: _Pair,
        audience: list[_Client],
        messages: Mapping[int, list[bytes]],
        links: Mapping[str, Fault],
    ) -> None:
        now = time.monotonic()
        due = [(levels, data) for levels, many in messages.items() for data in many]
        if now < max(pair.quiet_until, pair.halted_until):
            if pair.held is not None:
                pair.held += due
            return
        due, pair.held = [*(pair.held or ()), *due], None
        for client in audience:
            connection = client.connection
            if "black-hole" in links:
                connection.flush()
                connection.hole = True
            elif "abort" in links:
                connection.reset()
            if "unknown-event" in links:
                client.say(b'{"channel":"ticker","type":"update","data":[{"symbol":"X/Y"}]}')
            if "stray" in links:
                level = [("1", "1")]
                client.say(wire.book_message("update", "STRAY/USD", level, level, 1, 1))
            for levels, data in due:
                if client.books.get(pair.symbol) == levels:
                    client.say(data)
                    self.stats.messages += 1
            if "close" in links:
                connection.drop(1001, "Going away")
        if "maintenance" in links:
            self._spawn(self._maintain(links["maintenance"].number("seconds")))

    async def _maintain(self, seconds: float) -> None:
        for engine, wait in (("maintenance", seconds), ("online", 0.0)):
            self._engine = engine
            for client in self._clients:
                client.say(wire.status_message(engine))
            self._flush()
            await asyncio.sleep(wait)

    def _tell_pair(self, symbol: str) -> None:
        data = wire.instrument_message("update", [self._describe(symbol)])
        for client in self._clients:
            if client.instruments:
                client.say(data)

    def _describe(self, symbol: str) -> dict[str, Any]:
        listing = self.source.listings[symbol]
        status = "cancel_only" if self._pairs[symbol].halted_until else "online"
        return wire.describe_pair(symbol, listing.tick, listing.step, status)

    async def _beat(self) -> None:
        """Say something to those who have heard nothing for a second."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS / 2)
            now = time.monotonic()
            for client in self._clients:
                if now - client.spoke_at >= _HEARTBEAT_SECONDS:
                    client.say(wire.HEARTBEAT)
            self._flush()

    # -- clients ---------------------------------------------------------------------------------

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(
            timeout=_HANDSHAKE_SECONDS, autoping=False, autoclose=False, compress=False
        )
        await websocket.prepare(request)
        transport = request.transport
        if transport is None:
            return websocket
        connection = Connection(
            websocket,
            transport,
            Subscriptions(False, []),
            incoming_limit=_INCOMING_LIMIT,
            buffer_limit=int(self.options.buffer_mib * 2**20),
            spawn=self._spawn,
        )
        client = _Client(connection)
        self.stats.connections += 1
        self.stats.clients += 1
        self._clients[client] = None
        self._deserted.clear()
        try:
            if refused := self.faults.due(Scope.ACCEPT):
                self._note(refused[0][0], f"connection {self.stats.connections}")
                connection.drop(1001, "Going away")
            client.say(wire.status_message(self._engine))
            connection.flush()
            while (text := await connection.receive()) is not None:
                self._obey(client, text)
                connection.flush()
            await connection.finish()
        finally:
            self._clients.pop(client, None)
            self.stats.clients -= 1
            if not self._clients:
                self._deserted.set()
        return websocket

    def _obey(self, client: _Client, text: str) -> None:
        try:
            request = json.loads(text)
            method, params = request["method"], request.get("params", {})
        except (ValueError, TypeError, KeyError):
            client.say(wire.answer({}, error="Invalid request"))
            return
        if method == "ping":
            client.say(wire.pong(request))
        elif method not in ("subscribe", "unsubscribe"):
            client.say(wire.answer(request, error=f"Unknown method {method}"))
        elif params.get("channel") == "instrument":
            client.instruments = method == "subscribe"
            client.say(wire.answer(request))
            if client.instruments:
                pairs = [self._describe(symbol) for symbol in self._pairs]
                client.say(wire.instrument_message("snapshot", pairs))
        elif params.get("channel") == "book":
            self._obey_book(client, request, method, params)
        else:
            client.say(wire.answer(request, error="Channel not found"))

    def _obey_book(
        self, client: _Client, request: dict[str, Any], method: str, params: dict[str, Any]
    ) -> None:
        struck = self.faults.due(Scope.SUBSCRIBE) if method == "subscribe" else []
        if struck:
            fault = struck[0][0]
            self._note(fault, str(params)[:200])
            error = "Exceeded msg rate" if fault.name == "msg-rate" else "Internal error"
            client.say(wire.answer(request, error=error))
            return
        for symbol in params.get("symbol", ()):
            error = self._refusal(client, method, symbol, params.get("depth", 10))
            client.say(wire.answer(request, symbol=symbol, error=error))
            if error:
                continue
            if method == "unsubscribe":
                del client.books[symbol]
            else:
                self._subscribe(client, symbol, params.get("depth", 10))

    def _refusal(self, client: _Client, method: str, symbol: str, depth: object) -> str:
        if symbol not in self._pairs:
            return f"Currency pair not supported {symbol}"
        if depth not in wire.DEPTHS:
            return "Subscription depth not supported"
        if method == "subscribe" and symbol in client.books:
            return "Already subscribed"
        if method == "unsubscribe" and symbol not in client.books:
            return "Subscription Not Found"
        return ""

    def _subscribe(self, client: _Client, symbol: str, levels: int) -> None:
        pair = self._pairs[symbol]
        depth = self.source.depth(symbol, max(levels, wire.CHECKED_LEVELS))
        client.books[symbol] = levels
        if levels not in pair.views:
            pair.views[levels] = wire.DepthView(levels, depth)
        if time.monotonic() < pair.quiet_until:
            return
        bids, asks = depth.bids[:levels], depth.asks[:levels]
        check = wire.checksum(depth)
        client.say(wire.book_message("snapshot", symbol, bids, asks, check, pair.moment_us))

    # -- beside ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        for client in self._clients:
            if not client.connection.flush():
                self.stats.slow_clients += 1

    def _note(self, fault: Fault, where: str) -> None:
        _log.warning("fault %s strikes: %s", fault.name, where)
        self.fired.append(Fired(time.time(), fault.name, where))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _note_event(self, journal: Journal, event: Event, before: int, moment: int) -> None:
        data = {"e": "depthUpdate", "s": event.symbol, "U": before + 1, "u": moment, "pu": before}
        data |= {"b": event.bids, "a": event.asks}
        event = Event(event.symbol, "book", msgspec.json.encode(data), depth=True)
        journal.event(event)

    async def _keep_journal(self, journal: Journal) -> None:
        """Begin each symbol's journal with its whole book, and flush on every second."""
        for symbol, pair in self._pairs.items():
            depth = self.source.depth(symbol)
            body = {"lastUpdateId": pair.moment_us, "bids": depth.bids, "asks": depth.asks}
            journal.snapshot(symbol, msgspec.json.encode(body))
        while True:
            journal.flush()
            await asyncio.sleep(_JOURNAL_SECONDS)
