"""A Kraken on your desk: its WebSocket API v2 on loopback, simulated, with faults on demand.

``KrakenExchange`` has the surface of ``exchange.Exchange``. Its journal holds every event of the
whole books, so that ``oracle.truth_by_time`` can tell what a row had to be.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from obframe.testing import exchange_kraken_wire as wire
from obframe.testing.exchange_faults import Fault, Scope
from obframe.testing.exchange_market import Event
from obframe.testing.exchange_options import ExchangeOptions
from obframe.testing.exchange_simulated import SimulatedExchange
from obframe.testing.exchange_socket import Connection, frame

_HEARTBEAT_SECONDS = 1.0
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
        self.quiet_until = 0.0
        self.halted_until = 0.0
        self.held: list[tuple[int, bytes]] | None = None


class KrakenExchange(SimulatedExchange[_Client]):
    """The venue; see ``SimulatedExchange``. It has no REST interface.

    Args:
        options: Its parameters, with ``venue="kraken"``.
    """

    ws_path = "/v2"

    def __init__(self, options: ExchangeOptions) -> None:
        names = name_pairs(options.symbols)
        super().__init__(options, names, _INCOMING_LIMIT)
        self._pairs = {name: _Pair(name) for name in names}
        self._engine = "online"

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [web.get(path, self.accept) for path in ("/", "/v2")]

    def make_client(self, connection: Connection) -> _Client:
        """Return a client of a new connection."""
        return _Client(connection)

    def welcome(self, client: _Client) -> None:
        """Say how the venue is."""
        client.say(wire.status_message(self._engine))

    # -- the market ------------------------------------------------------------------------------

    def publish(self, event: Event, moment: int) -> None:
        """Tell whoever is subscribed of an event."""
        pair = self._pairs[event.symbol]
        if 0.0 < pair.halted_until <= time.monotonic():
            pair.halted_until = 0.0
            self._tell_pair(event.symbol)
        audience = [client for client in self.clients if event.symbol in client.books]
        if not audience:
            pair.views.clear()
            return
        depth = self.source.depth(event.symbol, max((wire.CHECKED_LEVELS, *pair.views)))
        check = wire.checksum(depth)
        struck = self.faults.due(Scope.MESSAGE, event.symbol, event.symbol)
        links = self.faults.due(Scope.CONNECTION, event.symbol, event.symbol)
        for fault, _ in (*struck, *links):
            self.note(fault, f"{event.symbol} at {moment}")
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
            self.spawn(self._maintain(links["maintenance"].number("seconds")))

    async def _maintain(self, seconds: float) -> None:
        for engine, wait in (("maintenance", seconds), ("online", 0.0)):
            self._engine = engine
            for client in self.clients:
                client.say(wire.status_message(engine))
            self.flush()
            await asyncio.sleep(wait)

    def _tell_pair(self, symbol: str) -> None:
        data = wire.instrument_message("update", [self._describe(symbol)])
        for client in self.clients:
            if client.instruments:
                client.say(data)

    def _describe(self, symbol: str) -> dict[str, Any]:
        listing = self.source.listings[symbol]
        status = "cancel_only" if self._pairs[symbol].halted_until else "online"
        return wire.describe_pair(symbol, listing.tick, listing.step, status)

    async def beat(self) -> None:
        """Say something to those who have heard nothing for a second."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS / 2)
            now = time.monotonic()
            for client in self.clients:
                if now - client.spoke_at >= _HEARTBEAT_SECONDS:
                    client.say(wire.HEARTBEAT)
            self.flush()

    # -- clients ---------------------------------------------------------------------------------

    def obey(self, client: _Client, text: str) -> None:
        """Do what a client asks for."""
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
            self.note(fault, str(params)[:200])
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
        client.say(wire.book_message("snapshot", symbol, bids, asks, check, self.moments[symbol]))
