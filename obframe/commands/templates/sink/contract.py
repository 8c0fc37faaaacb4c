"""How the contract of sinks tests this one; ``obframe plugins check`` runs it too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from obframe import Sink, Snapshot
from obframe.testing import contracts

from .plugin import SinkSettings, open_sink


class Consumer:
    """The other end: an HTTP server on loopback that keeps each row by its id."""

    def __init__(self) -> None:
        self.rows: dict[str, Snapshot] = {}
        self.port = 0  # the first start takes a free one, and the next ones the same
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where rows are posted to."""
        return f"http://127.0.0.1:{self.port}/rows"

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_post("/rows", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no longer, and end every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        for line in (await request.text()).splitlines():
            row = json.loads(line)
            symbol, second = row["symbol"], row["timestamp"]
            bids, asks = (
                [(price, quantity) for price, quantity in row[side]] for side in ("bids", "asks")
            )
            self.rows[row["id"]] = Snapshot(symbol, row["update_id"], second, bids, asks)
        return web.Response(status=204)


_CONSUMERS: dict[Path, Consumer] = {}  # by the contract's folder: the same folder, the same end


class PostingContract(contracts.SinkContract):
    """Opens the sink with a consumer of its own at the other end."""

    can_break = True

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink, and the other end with it."""
        consumer = _CONSUMERS.setdefault(tmp_path, Consumer())
        await consumer.start()
        settings = SinkSettings(url=consumer.url, rows_per_post=50, timeout=2.0)
        try:
            async with open_sink(settings) as sink:
                yield sink
        finally:
            await consumer.stop()

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return what the consumer has."""
        rows = _CONSUMERS[tmp_path].rows if tmp_path in _CONSUMERS else {}
        return sorted(rows.values(), key=lambda row: row.timestamp)

    async def break_(self, tmp_path: Path) -> None:
        """Stop the consumer."""
        await _CONSUMERS[tmp_path].stop()

    async def mend(self, tmp_path: Path) -> None:
        """Start it again."""
        await _CONSUMERS[tmp_path].start()
