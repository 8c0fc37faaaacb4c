"""Sink ``myplugin``: posts every row as JSON to a URL of yours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from obframe import ObframeError, Provider, Sink, Snapshot, hookimpl, snapshot_id

OBFRAME_API = 1  # the version of obframe's hooks and protocols that this is written for


class PostError(ObframeError):
    """The other end did not accept rows."""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Settings of the sink: the section ``[myplugin]``.

    Raises:
        ValueError: A value cannot be used.
    """

    url: str = field(
        default="http://127.0.0.1:8000/rows",
        metadata={"help": "Where rows are posted to: JSON, one row a line."},
    )
    rows_per_post: int = field(default=200, metadata={"help": "Most rows of one post."})
    timeout: float = field(default=5.0, metadata={"help": "Seconds that one post may take."})

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url must begin with http:// or https://, got {self.url!r}")
        if self.rows_per_post < 1:
            raise ValueError(f"rows_per_post must be 1 or more, got {self.rows_per_post}")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout must be more than 0 and finite, got {self.timeout}")


class PostingSink:
    """Posts rows, and returns when all of them are accepted.

    A row may be posted again after a failure. Whoever receives it keeps it by its ``id``, and so
    has it once.

    Args:
        session: What posts.
        settings: Where to, and how much at once.
    """

    def __init__(self, session: aiohttp.ClientSession, settings: SinkSettings) -> None:
        self._session = session
        self._settings = settings

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Post the snapshots, in their order.

        Raises:
            PostError: One of the posts was not accepted. obframe calls again, with all of them.
        """
        most = self._settings.rows_per_post
        for start in range(0, len(snapshots), most):
            await self._post(snapshots[start : start + most])

    async def _post(self, snapshots: Sequence[Snapshot]) -> None:
        url = self._settings.url
        body = "".join(f"{json.dumps(row_of(snapshot))}\n" for snapshot in snapshots)
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            async with self._session.post(url, data=body.encode(), headers=headers) as answer:
                if answer.status >= 300:
                    said = (await answer.text(errors="replace"))[:200]
                    raise PostError(f"{url} answered {answer.status}: {said}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PostError(f"{url}: {type(error).__name__}: {error}") from error


def row_of(snapshot: Snapshot) -> dict[str, object]:
    """Return a snapshot as the object that is posted: numbers as the texts that the venue sent."""
    return {
        "id": snapshot_id(snapshot),
        "symbol": snapshot.symbol,
        "timestamp": snapshot.timestamp,
        "update_id": snapshot.update_id,
        "bids": snapshot.bids,
        "asks": snapshot.asks,
    }


@asynccontextmanager
async def open_sink(settings: SinkSettings) -> AsyncIterator[Sink]:
    """Open the sink; connections are made when rows come."""
    timeout = aiohttp.ClientTimeout(total=settings.timeout)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield PostingSink(session, settings)


@hookimpl
def obframe_sinks() -> Sequence[Provider[Sink]]:
    """Offer the sink."""
    return [
        Provider(
            "myplugin",
            "posts every row as JSON to a URL",
            SinkSettings,
            open_sink,
            backfill=True,  # every stored row at least once, those of an outage afterwards
            contract="obframe_myplugin.contract:PostingContract",
        )
    ]
