"""A server in memory and a sink that keeps the contract; subclasses break one rule each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from obframe import Snapshot


class Server:
    """The other end: keeps each row once, by an id; it can be down."""

    def __init__(self) -> None:
        self.rows: dict[object, Snapshot] = {}
        self.down = False

    async def put(self, key: object, row: Snapshot) -> None:
        """Accept a row, unless its id is known."""
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError("the server is down")
        self.rows.setdefault(key, row)


class MemorySink:
    """Keeps every rule."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @classmethod
    @asynccontextmanager
    async def open(cls, server: Server) -> AsyncIterator[Self]:
        sink = cls(server)
        try:
            yield sink
        finally:
            await sink.close()

    async def close(self) -> None:
        """End everything."""

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        for row in snapshots:
            await self.put(row)

    async def put(self, row: Snapshot) -> None:
        await self.server.put((row.symbol, row.timestamp), row)
