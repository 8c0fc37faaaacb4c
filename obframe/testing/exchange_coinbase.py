"""A Coinbase on your desk: Advanced Trade's level2 channel on loopback, simulated, with faults.

``CoinbaseExchange`` has the surface of ``exchange.Exchange``. Messages are numbered as the venue
numbers them: by connection, over all of its channels. Shares no code with the feed that reads it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from obframe.testing.exchange_faults import Fault, Scope
from obframe.testing.exchange_kraken_wire import write_time
from obframe.testing.exchange_market import Event, Levels, Listing
from obframe.testing.exchange_options import ExchangeOptions
from obframe.testing.exchange_simulated import SimulatedExchange
from obframe.testing.exchange_socket import Connection, frame

_HEARTBEAT_SECONDS = 1.0
_SILENT_SECONDS = 5.0
_INCOMING_LIMIT = 8
_MOST_PRODUCTS = 30
_NEVER = float("inf")
_FIRST_TIME = "1970-01-01T00:00:00Z"


def name_products(symbols: int | tuple[str, ...]) -> tuple[str, ...]:
    """Return the products to simulate: their names, or so many."""
    if not isinstance(symbols, int):
        return symbols
    made = (f"SIM{number:04d}-USD" for number in range(1, symbols + 1))
    return ("BTC-USD", "ETH-USD", *made)[:symbols]


def encode_event(kind: str, product: str, bids: Levels, asks: Levels, at: str) -> bytes:
    """Return an event of ``l2_data``."""
    updates = ",".join(
        [
            f'{{"side":"{side}","event_time":"{at}","price_level":"{price}",'
            f'"new_quantity":"{quantity}"}}'
            for side, levels in (("bid", bids), ("offer", asks))
            for price, quantity in levels
        ]
    )
    return f'{{"type":"{kind}","product_id":"{product}","updates":[{updates}]}}'.encode()


class _Client:
    """One connection: what it is subscribed to, and the number of its next message."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.products: set[str] = set()
        self.heartbeats = False
        self.number = 0
        self.began = time.monotonic()

    def say(self, channel: str, event: bytes, at: str, copies: int = 1, cut: bool = False) -> None:
        """Number a message and send it so many times, whole or cut in half."""
        data = (
            f'{{"channel":"{channel}","client_id":"","timestamp":"{at}",'
            f'"sequence_num":{self.number},"events":['
        ).encode() + event + b"]}"  # fmt: skip
        self.number += 1
        for _ in range(copies):
            self.connection.send(frame(data[: len(data) // 2] if cut else data))

    def complain(self, message: str) -> None:
        """Send an error, which has no number."""
        text = json.dumps({"type": "error", "message": message}, separators=(",", ":"))
        self.connection.send(frame(text.encode()))


class _Product:
    """What faults do to one product."""

    def __init__(self) -> None:
        self.quiet_until = 0.0
        self.halted_until = 0.0


class CoinbaseExchange(SimulatedExchange[_Client]):
    """The venue; see ``SimulatedExchange``.

    Args:
        options: Its parameters, with ``venue="coinbase"``.
    """

    def __init__(self, options: ExchangeOptions) -> None:
        names = name_products(options.symbols)
        super().__init__(options, names, _INCOMING_LIMIT)
        self._products = {name: _Product() for name in names}

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        path = "/api/v3/brokerage/market/products"
        return [web.get("/", self.accept), web.get(path, self._list_products)]

    def make_client(self, connection: Connection) -> _Client:
        """Return a client of a new connection."""
        return _Client(connection)

    async def beat(self) -> None:
        """Send heartbeats, and part from those who have not subscribed in time."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            now = _now()
            event = f'{{"current_time":"{now}","heartbeat_counter":"{int(time.monotonic())}"}}'
            for client in self.clients:
                if client.heartbeats:
                    client.say("heartbeats", event.encode(), now)
                elif not client.products and time.monotonic() - client.began > _SILENT_SECONDS:
                    client.connection.drop(1000, "no subscribe message within 5 seconds")
            self.flush()

    # -- the market ------------------------------------------------------------------------------

    def publish(self, event: Event, moment: int) -> None:
        """Tell whoever is subscribed of an event."""
        product = self._products[event.symbol]
        audience = [client for client in self.clients if event.symbol in client.products]
        if not audience:
            return
        struck = self.faults.due(Scope.MESSAGE, event.symbol, event.symbol)
        links = self.faults.due(Scope.CONNECTION, event.symbol, event.symbol)
        for fault, _ in (*struck, *links):
            self.note(fault, f"{event.symbol} at {moment}")
        self._strike(product, (fault for fault, _ in struck))
        now = time.monotonic()
        if now < max(product.quiet_until, product.halted_until):
            return
        names = {fault.name: fault for fault, _ in (*struck, *links)}
        at = write_time(moment)
        bids = list(event.bids)
        if "nan" in names:
            level = (names["nan"].text("value"), "1")
            bids.insert(0, level if names["nan"].text("field") == "price" else level[::-1])
        data = encode_event("update", event.symbol, bids, event.asks, at)
        copies = 0 if {"drop", "garbage"} & names.keys() else 2 if "dup" in names else 1
        for client in audience:
            self._send(client, names, data, at, copies)

    def _strike(self, product: _Product, faults: Iterable[Fault]) -> None:
        now = time.monotonic()
        for fault in faults:
            if fault.name == "silence":
                product.quiet_until = now + fault.number("seconds")
            elif fault.name == "halt":
                product.halted_until = now + (fault.number("seconds") or _NEVER)

    def _send(
        self, client: _Client, faults: dict[str, Fault], data: bytes, at: str, copies: int
    ) -> None:
        connection = client.connection
        if "black-hole" in faults:
            connection.flush()
            connection.hole = True
        elif "abort" in faults:
            connection.reset()
        if "error" in faults:
            client.complain(faults["error"].text("message"))
        if "unknown-event" in faults:
            client.say("novelty", b'{"type":"snapshot"}', at)
        if "stray" in faults:
            level = [("1", "1")]
            client.say("l2_data", encode_event("update", "STRAY-USD", level, level, at), at)
        if "garbage" in faults:
            connection.send(frame(b"<garbage, not JSON \xe2\x9c\x82>"))
            copies = 1 if faults["garbage"].text("mode") == "before" else 0
        client.say("l2_data", data, at, copies, "truncate" in faults)
        self.stats.messages += copies
        if "close" in faults:
            connection.drop(1001, "Going away")

    # -- clients ---------------------------------------------------------------------------------

    def obey(self, client: _Client, text: str) -> None:
        """Do what a client asks for."""
        try:
            request = json.loads(text)
            kind, channel = request["type"], request["channel"]
            products = request.get("product_ids", [])
            if kind not in ("subscribe", "unsubscribe") or not isinstance(products, list):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            client.complain("malformed subscription request")
            return
        if channel == "heartbeats":
            client.heartbeats = kind == "subscribe"
        elif channel != "level2":
            client.complain(f"{channel} is not a channel")
            return
        elif complaint := self._refusal(client, kind, products):
            client.complain(complaint)
            return
        elif kind == "unsubscribe":
            client.products.difference_update(products or set(client.products))
        else:
            for product in products:
                if product not in client.products:
                    client.products.add(product)
                    self._say_book(client, product)
        told = {"level2": sorted(client.products)} if client.products else {}
        told |= {"heartbeats": ["heartbeats"]} if client.heartbeats else {}
        client.say("subscriptions", json.dumps({"subscriptions": told}).encode(), _now())

    def _refusal(self, client: _Client, kind: str, products: list[str]) -> str:
        if kind == "unsubscribe":
            return ""
        if struck := self.faults.due(Scope.SUBSCRIBE):
            fault = struck[0][0]
            self.note(fault, str(products)[:200])
            return "rate limit exceeded" if fault.name == "msg-rate" else "internal error"
        unknown = [product for product in products if product not in self._products]
        if unknown:
            return f"{unknown[0]} is not a valid product"
        if len(client.products | set(products)) > _MOST_PRODUCTS:
            return "too many L2 streams requested in a single session"
        return ""

    def _say_book(self, client: _Client, product: str) -> None:
        now = time.monotonic()
        if now < max(self._products[product].quiet_until, self._products[product].halted_until):
            return
        depth = self.source.depth(product)
        at = write_time(self.moments[product])
        data = encode_event("snapshot", product, depth.bids, depth.asks, _FIRST_TIME)
        client.say("l2_data", data, at)

    # -- REST ------------------------------------------------------------------------------------

    async def _list_products(self, request: web.Request) -> web.Response:
        self.stats.rest_requests += 1
        listings = self.source.listings
        wanted = request.query.getall("product_ids", list(listings))
        found = [self._describe(listings[name]) for name in wanted if name in listings]
        return web.json_response({"products": found, "num_products": len(found)})

    def _describe(self, listing: Listing) -> dict[str, Any]:
        name = listing.symbol
        base, _, quote = name.rpartition("-")
        halted = time.monotonic() < self._products[name].halted_until
        return {
            "product_id": name,
            "price": listing.tick,
            "base_increment": listing.step,
            "price_increment": listing.tick,
            "base_currency_id": base,
            "quote_currency_id": quote,
            "status": "online",
            "is_disabled": False,
            "trading_disabled": halted,
            "cancel_only": False,
            "view_only": False,
            "product_type": "SPOT",
            "alias": "",
            "alias_to": [],
        }


def _now() -> str:
    return write_time(time.time_ns() // 1000)
