"""Feed ``myplugin``: live depth over websockets, whole books over REST.

It speaks the wire of Binance's spot market. For another venue change ``stream_url`` and
``snapshot_url``, ``read_update`` and ``read_snapshot``, and what ``_fetch`` makes of an answer; the
rest, what is wanted and what is told when, stays as it is. An instrument's ``native`` is what the
venue calls it, its ``symbol`` what rows are stored under: with several venues in one run that is
``myplugin/BTCUSDT``.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from obframe import (
    DepthSnapshot,
    DepthUpdate,
    Emit,
    Feed,
    FeedError,
    FeedStatus,
    GapReason,
    Instrument,
    ObframeError,
    Provider,
    StreamEvent,
    hookimpl,
)

OBFRAME_API = 1  # the version of obframe's hooks and protocols that this is written for

_LEVELS = 1000  # of a snapshot, a side
_AT_ONCE = 4  # connections being opened, and snapshots being asked for: venues limit both
_HEARTBEAT = 10.0  # seconds between two pings; without an answer the connection is lost
_TIMEOUT = aiohttp.ClientTimeout(total=10.0)
_CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """Settings of the feed: the section ``[myplugin]``.

    Raises:
        ValueError: A value cannot be used.
    """

    ws_url: str = field(
        default="wss://stream.binance.com:9443", metadata={"help": "Where streams are."}
    )
    rest_url: str = field(
        default="https://api.binance.com", metadata={"help": "Where snapshots are."}
    )
    retry: float = field(
        default=1.0, metadata={"help": "Seconds to wait before what failed is tried again."}
    )

    def __post_init__(self) -> None:
        if not self.ws_url.startswith(("ws://", "wss://")):
            raise ValueError(f"ws_url must begin with ws:// or wss://, got {self.ws_url!r}")
        if not self.rest_url.startswith(("http://", "https://")):
            raise ValueError(f"rest_url must begin with http:// or https://, got {self.rest_url!r}")
        if not (math.isfinite(self.retry) and self.retry > 0):
            raise ValueError(f"retry must be more than 0 and finite, got {self.retry}")


# -- what the venue says -------------------------------------------------------------------------


def stream_url(settings: FeedSettings, instrument: Instrument) -> str:
    """Return where an instrument's updates are streamed."""
    return f"{settings.ws_url}/ws/{instrument.native.lower()}@depth@100ms"


def snapshot_url(settings: FeedSettings, instrument: Instrument) -> str:
    """Return where an instrument's whole book is."""
    return f"{settings.rest_url}/api/v3/depth?symbol={instrument.native}&limit={_LEVELS}"


def read_update(text: str, instrument: Instrument) -> DepthUpdate:
    """Read one message of a stream. Prices and quantities stay the texts that they are.

    Raises:
        ValueError, LookupError, TypeError: It is not such a message.
        ObframeError: It is, but an id, price or quantity cannot be.
    """
    message = json.loads(text)
    first, last = message["U"], message["u"]
    # The last update id of the update before it: here ids go on without a hole. A venue that
    # numbers in another way says it in its documents; this line is where its rule belongs.
    before = first - 1
    return DepthUpdate(
        instrument.symbol, first, last, before, message["b"], message["a"], message["E"]
    )


def read_snapshot(text: str, instrument: Instrument) -> DepthSnapshot:
    """Read an answer with a whole book; raises as ``read_update``."""
    answer = json.loads(text)
    return DepthSnapshot(
        instrument.symbol, answer["lastUpdateId"], answer["bids"], answer["asks"], _LEVELS
    )


_NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, ObframeError)


# -- the feed ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Running:
    """What there is while ``run`` runs."""

    emit: Emit
    session: aiohttp.ClientSession
    tasks: asyncio.TaskGroup
    few: asyncio.Semaphore


class DepthFeed:
    """Opens one connection an instrument, in a task of its own: no trouble of one is another's.

    Args:
        settings: Where the venue is, and how patient to be.
    """

    def __init__(self, settings: FeedSettings) -> None:
        self._settings = settings
        self._running: _Running | None = None
        self._wanted: set[Instrument] = set()
        self._asked: set[Instrument] = set()  # for a snapshot that has not come yet
        self._streams: dict[Instrument, asyncio.Task[None]] = {}
        self._fetches: dict[Instrument, asyncio.Task[None]] = {}
        self._counters = Counter(messages=0, malformed=0, reconnects=0, snapshots=0)

    async def run(self, emit: Emit) -> None:
        """Deliver events until cancelled.

        Raises:
            FeedError: It runs already.
        """
        if self._running is not None:
            raise FeedError("myplugin: the feed runs already")
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                asyncio.TaskGroup() as tasks,
            ):
                self._running = _Running(emit, session, tasks, asyncio.Semaphore(_AT_ONCE))
                for instrument in self._wanted:
                    self._start_stream(self._running, instrument)
                for instrument in self._asked:
                    self._start_fetch(self._running, instrument)
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._running = None
            self._streams.clear()
            self._fetches.clear()

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Want these instruments too."""
        for instrument in instruments:
            if instrument not in self._wanted:
                self._wanted.add(instrument)
                if self._running is not None:
                    self._start_stream(self._running, instrument)

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Want these instruments no longer. What is cancelled emits nothing any more."""
        for instrument in instruments:
            self._wanted.discard(instrument)
            self._asked.discard(instrument)
            for tasks in (self._streams, self._fetches):
                if instrument in tasks:
                    tasks.pop(instrument).cancel()

    def request_snapshot(self, instrument: Instrument) -> None:
        """Ask for a whole book; asking again before it has come changes nothing."""
        if instrument in self._wanted and instrument not in self._asked:
            self._asked.add(instrument)
            if self._running is not None:
                self._start_fetch(self._running, instrument)

    def counters(self) -> Mapping[str, int]:
        """Return what happened so far."""
        return dict(self._counters)

    def _start_stream(self, running: _Running, instrument: Instrument) -> None:
        work = self._stream(running, instrument)
        self._streams[instrument] = running.tasks.create_task(work)

    def _start_fetch(self, running: _Running, instrument: Instrument) -> None:
        work = self._fetch(running, instrument)
        self._fetches[instrument] = running.tasks.create_task(work)

    async def _stream(self, running: _Running, instrument: Instrument) -> None:
        """Keep an instrument's stream open, and say whenever it is lost."""
        only = frozenset([instrument])
        while True:
            try:
                async with running.few:
                    socket = await running.session.ws_connect(
                        stream_url(self._settings, instrument),
                        heartbeat=_HEARTBEAT,
                        timeout=_CLOSING,
                    )
                async with socket:
                    running.emit(FeedStatus(StreamEvent.SUBSCRIBED, only))
                    async for message in socket:
                        self._take(running, instrument, message)
                why = f"the venue closed the connection (code {socket.close_code})"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = f"{type(error).__name__}: {error}"
            self._counters["reconnects"] += 1
            running.emit(FeedStatus(StreamEvent.DISCONNECTED, only, detail=why))
            await asyncio.sleep(self._settings.retry)

    def _take(self, running: _Running, instrument: Instrument, message: aiohttp.WSMessage) -> None:
        self._counters["messages"] += 1
        try:
            update = read_update(message.data, instrument)
        except _NOT_UNDERSTOOD as error:
            # It may have been an update: the book is to be proven anew.
            self._counters["malformed"] += 1
            why = f"{type(error).__name__}: {error}"
            running.emit(FeedStatus(StreamEvent.INVALID, frozenset([instrument]), detail=why))
        else:
            running.emit(update)

    async def _fetch(self, running: _Running, instrument: Instrument) -> None:
        """Ask for a snapshot until it comes, and say whenever it does not."""
        only = frozenset([instrument])
        url = snapshot_url(self._settings, instrument)
        while True:
            reason, wait = GapReason.SNAPSHOT, self._settings.retry
            try:
                async with running.few, running.session.get(url) as answer:
                    text = await answer.text()
                    if answer.status == 200:
                        snapshot = read_snapshot(text, instrument)
                        break
                why = f"the venue answered {answer.status}: {text[:200]}"
                if answer.status == 400 and "-1121" in text:
                    reason = GapReason.UNKNOWN_SYMBOL
                # Whoever is asked to wait and does not, is soon not answered at all.
                wait = max(wait, _seconds(answer.headers.get("Retry-After", "")))
            except (aiohttp.ClientError, OSError, TimeoutError, *_NOT_UNDERSTOOD) as error:
                why = f"{type(error).__name__}: {error}"
            running.emit(FeedStatus(StreamEvent.SNAPSHOT_FAILED, only, reason, why))
            await asyncio.sleep(wait)
        self._counters["snapshots"] += 1
        # Before it is emitted: whoever receives it may ask for another one at once.
        self._asked.discard(instrument)
        del self._fetches[instrument]
        running.emit(snapshot)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0


@asynccontextmanager
async def open_feed(settings: FeedSettings) -> AsyncIterator[Feed]:
    """Open the feed; it connects when it runs."""
    yield DepthFeed(settings)


@hookimpl
def obframe_feeds() -> Sequence[Provider[Feed]]:
    """Offer the feed."""
    return [
        Provider(
            "myplugin",
            "live depth over websockets, whole books over REST",
            FeedSettings,
            open_feed,
            contract="obframe_myplugin.contract:DepthContract",
        )
    ]
