"""A small client of the venue, written after Binance's documents and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import websockets

from obframe.testing.exchange import Exchange, ExchangeOptions
from obframe.testing.reference import ReferenceBook

PATIENCE = 10.0

FAST: dict[str, Any] = {"symbols": 2, "rate": 200.0, "levels": 60}
"""Simulation parameters for tests of the wire: quick, and with small books."""


@asynccontextmanager
async def running(**parameters: Any) -> AsyncIterator[Exchange]:
    """Run a venue with these options."""
    async with Exchange(ExchangeOptions(**parameters)) as venue:
        yield venue


@asynccontextmanager
async def connected(venue: Exchange, path: str) -> AsyncIterator[websockets.ClientConnection]:
    """Connect to a path of the venue's websocket side."""
    async with websockets.connect(
        venue.ws_url + path, compression=None, max_queue=None, max_size=None, close_timeout=1
    ) as socket:
        yield socket


async def receive(socket: websockets.ClientConnection) -> Any:
    """Return the next message, decoded."""
    async with asyncio.timeout(PATIENCE):
        return json.loads(await socket.recv())


async def collect(socket: websockets.ClientConnection, count: int) -> list[str]:
    """Return the next messages as they came."""
    async with asyncio.timeout(PATIENCE):
        return [str(await socket.recv()) for _ in range(count)]


async def ask(socket: websockets.ClientConnection, request: object) -> Any:
    """Send a request and return its answer, passing over events."""
    await socket.send(request if isinstance(request, str) else json.dumps(request))
    while True:
        message = await receive(socket)
        if "result" in message or "error" in message:
            return message


async def get(venue: Exchange, path: str) -> tuple[int, Any, Any]:
    """Return status, decoded body (or its text) and headers of a REST answer."""
    async with aiohttp.ClientSession() as session, session.get(venue.rest_url + path) as answer:
        text = await answer.text()
        try:
            return answer.status, json.loads(text), answer.headers
        except ValueError:
            return answer.status, text, answer.headers


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (the condition may be anything)
            await asyncio.sleep(0.005)


class LocalBook:
    """A book kept by the documented rules: buffer, snapshot, first event, contiguity."""

    def __init__(self, *, futures: bool) -> None:
        self.futures = futures
        self.book = ReferenceBook()
        self.synced = False
        self.applied = 0
        self._buffer: list[dict[str, Any]] = []

    def event(self, event: dict[str, Any]) -> None:
        """Take one event of the stream."""
        if not self.synced:
            self._buffer.append(event)
            return
        before = event["pu"] if self.futures else event["U"] - 1
        assert before == self.book.update_id, f"a gap before {event['u']}"
        self._apply(event)

    def snapshot(self, snapshot: dict[str, Any]) -> bool:
        """Take a snapshot; False: it is older than the buffer, or the buffer is not there yet."""
        last = snapshot["lastUpdateId"]
        keep = [
            event
            for event in self._buffer
            if (event["u"] >= last if self.futures else event["u"] > last)
        ]
        if not keep:
            return False
        reach = last if self.futures else last + 1
        if keep[0]["U"] > reach:
            return False
        assert keep[0]["u"] >= reach
        self.book.load(last, snapshot["bids"], snapshot["asks"])
        self._apply(keep[0])
        self.synced = True
        for event in keep[1:]:
            self.event(event)
        return True

    def _apply(self, event: dict[str, Any]) -> None:
        self.book.apply(event["u"], event["b"], event["a"])
        self.applied += 1
