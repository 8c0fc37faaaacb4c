"""Rows into a JetStream stream, each once, also after outages longer than it knows message ids."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from obframe import SinkError, Snapshot, snapshot_id
from obframe_plugins._brokers import ENCODERS, hide
from obframe_plugins._delivered import Delivered
from obframe_plugins._nats_link import Access, Link, StreamPlan

logger = logging.getLogger("obframe_plugins.nats")

_AT_ONCE = 1000
"""Rows under way at once."""


@dataclass(slots=True)
class _Look:
    """How far the stream has been looked through since a connection was opened."""

    since: int
    created: object  # when the stream was made: another one of its name begins anew
    place: int | None = None
    is_complete: bool = False


class NatsSink:
    """Publishes rows and waits for the stream's acknowledgement of each.

    A stream knows message ids for a while only. What was sent before a connection was lost is
    therefore looked up on the next one, when none of it is under way any more: the ids that the
    stream holds since the oldest row that is to be sent.

    Args:
        access: How to reach the servers.
        plan: The stream.
        format: Of the messages.

    Attributes:
        counters: Rows by what became of them.
    """

    def __init__(self, access: Access, plan: StreamPlan, *, format: str) -> None:  # noqa: A002
        self._access = access
        self._plan = plan
        self._encode = ENCODERS[format]
        self._link: Link | None = None
        self._known = Delivered()
        self._look: _Look | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.counters: Counter[str] = Counter()

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Publish rows; return when the stream has all of them.

        Raises:
            SinkError: No server can be reached, or did not acknowledge every row.
        """
        if not snapshots:
            return
        is_done = False
        try:
            await self._write(snapshots)
            is_done = True
        except SinkError:
            raise
        except (OSError, TimeoutError) as error:
            raise self._failure(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "nats":
                raise
            raise self._failure(error) from error
        finally:
            if not is_done:
                self._give_up()

    async def _write(self, snapshots: Sequence[Snapshot]) -> None:
        if self._link is not None and self._link.client.is_closed:
            self._give_up()  # lost since the last call
        if self._link is None:
            self._link = await Link.open(self._access, self._plan)
        await self._look_back(self._link, snapshots)
        known = self._known
        new = [each for each in snapshots if not known.has(each.symbol, each.timestamp)]
        self.counters["duplicates"] += len(snapshots) - len(new)
        for start in range(0, len(new), _AT_ONCE):
            rows = new[start : start + _AT_ONCE]
            duplicates = await self._link.publish(
                [(self._plan.subject_of(r.symbol), snapshot_id(r), self._encode(r)) for r in rows]
            )
            self.counters["written"] += len(rows) - duplicates
            self.counters["duplicates"] += duplicates
            for row in rows:
                known.add(row.symbol, row.timestamp)

    async def _look_back(self, link: Link, snapshots: Sequence[Snapshot]) -> None:
        """Learn which rows the stream has, from the oldest row on that is given."""
        since = min(each.timestamp for each in snapshots)
        look = self._look
        if look is None or since < look.since or link.created != look.created:
            look = self._look = _Look(since, link.created)
            self._known = Delivered()
        if look.is_complete:
            return
        sample = self._plan.subject_of(snapshots[0].symbol), self._encode(snapshots[0])
        async for place, message_id in link.read_ids(look.since, look.place, sample):
            look.place = place
            symbol, _, second = message_id.rpartition(":")
            if symbol and second.isascii() and second.isdigit():
                self._known.add(symbol, int(second))
        look.is_complete = True

    def _give_up(self) -> None:
        """Drop the connection with all that is under way on it; the next call begins anew."""
        if self._look is not None and self._look.is_complete:
            self._look = None
        if self._link is not None:
            task = asyncio.create_task(self._link.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._link = None

    async def close(self) -> None:
        """Close the connection."""
        self._give_up()
        if self._closing:
            await asyncio.wait(self._closing)

    def _failure(self, error: Exception) -> SinkError:
        text = getattr(error, "description", None) or str(error) or type(error).__name__
        text = hide(text.removeprefix("nats: "), self._access.secrets)
        return SinkError(f"nats: {text}{_mend(type(error).__name__, text, self._plan)}")


def _mend(kind: str, text: str, plan: StreamPlan) -> str:
    if "maximum" in text or "insufficient" in text:
        return "; look at the limits of the stream and of the account"
    if kind == "NoStreamResponseError":
        return f"; the stream {plan.name} must have the subjects {plan.subjects}"
    if kind in ("ServiceUnavailableError", "NoRespondersError"):
        return "; JetStream must be enabled on the server (nats-server -js) and for the user"
    if "connection was lost" in text or "closed" in text:
        return "; look at the server's log"
    return "; see nats.timeout" if "imeout" in kind else ""
