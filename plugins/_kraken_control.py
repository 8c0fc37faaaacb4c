"""Requests of one connection: what is subscribed follows what is wanted, paced and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NoReturn

from obframe import GapReason, Instrument
from obframe_plugins._kraken_book import KrakenBook
from obframe_plugins._kraken_context import Context, logger
from obframe_plugins._kraken_wire import Reply, encode_instruments, encode_request
from obframe_plugins._pacing import Backoff
from obframe_plugins._venue import StreamLost, clip
from obframe_plugins._websocket import Socket

MOST_SYMBOLS = 50
"""Symbols in one request."""

_MOST_INTERVAL = 10.0
_ATTEMPTS = 3


class Stream:
    """One symbol on one connection.

    Attributes:
        instrument: Whose.
        open: Whether it was told that the stream is open.
        told: Whether whoever listens has the book that stands in ``book``.
        book: The book, proven by its checksums; None until its snapshot has come.
        waits: Whether a snapshot is to come, after a subscription.
        wanted: Whether somebody asked for a snapshot while there was a book.
        asked_at: When it was subscribed, in seconds of the monotonic clock.
        last_at: When its last message came, likewise.
        renew_at: When it is to be subscribed anew, or None.
        retry_at: Not to be subscribed before.
    """

    __slots__ = (
        "asked_at", "backoff", "book", "instrument", "last_at", "mended_at", "open", "renew_at",
        "retry_at", "told", "waits", "wanted",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, backoff: Backoff) -> None:
        self.instrument = instrument
        self.backoff = backoff
        self.open = False
        self.told = False
        self.book: KrakenBook | None = None
        self.waits = False
        self.wanted = False
        self.asked_at = 0.0
        self.last_at = 0.0
        self.mended_at = 0.0
        self.renew_at: float | None = None
        self.retry_at = 0.0


class _Request:
    def __init__(self, method: str, symbols: Collection[str]) -> None:
        self.method = method
        self.left = set(symbols)
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def settle(self, error: str = "") -> None:
        if not self.done.done():
            self.done.set_result(error)


class Control:
    """Sends one request at a time and sees to its answers.

    Args:
        context: The feed's run.
        streams: What is wanted, by the venue's name; changed by the connection.
        opened: Told of a stream that the venue took.
        refused: Told of a stream that the venue refused, and its words.
    """

    def __init__(
        self,
        context: Context,
        streams: Mapping[str, Stream],
        opened: Callable[[Stream], None],
        refused: Callable[[Stream, str], None],
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._streams = streams
        self._opened = opened
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._on_wire: set[str] = set()
        self._requests: dict[int, _Request] = {}
        self._number = 0
        self._interval = context.settings.control_interval
        self._sent_at = 0.0
        self._unanswered = 0
        self.paused = True
        """While the pairs are not known, or the venue is closed."""

    def wake(self) -> None:
        """Look again at what is wanted."""
        self._changed.set()

    def next_number(self) -> int:
        """Return a number for a request."""
        self._number += 1
        return self._number

    async def run(self, socket: Socket) -> NoReturn:
        """Bring what is subscribed in line with what is wanted, until cancelled.

        Raises:
            StreamLost: The venue does not answer.
        """
        await self._ask_for_pairs(socket)
        while True:
            self._changed.clear()
            now = self._loop.time()
            if leaving := [each for each in self._on_wire if not self._stays(each, now)]:
                await self._request(socket, "unsubscribe", sorted(leaving)[:MOST_SYMBOLS])
            elif asked := [each for each in self._streams if self._is_due(each, now)]:
                await self._request(socket, "subscribe", asked[:MOST_SYMBOLS])
            else:
                await self._wait(now)

    def _stays(self, name: str, now: float) -> bool:
        stream = self._streams.get(name)
        if stream is None or self.paused or not self._is_open(name):
            return False
        if stream.renew_at is None:
            return stream.waits or stream.told  # or nothing would ever come: it was wanted anew
        return stream.renew_at > now

    def _is_due(self, name: str, now: float) -> bool:
        if self.paused or name in self._on_wire or not self._is_open(name):
            return False
        return self._streams[name].retry_at <= now

    def _is_open(self, name: str) -> bool:
        return self._context.is_open(name)

    async def _wait(self, now: float) -> None:
        """Wait for a change, or for what is due by time alone."""
        moments = [
            moment
            for name, stream in self._streams.items()
            for moment in ((stream.renew_at if name in self._on_wire else stream.retry_at),)
            if moment is not None and moment > now
        ]
        try:
            async with asyncio.timeout(min(moments) - now if moments else None):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _ask_for_pairs(self, socket: Socket) -> None:
        number = self.next_number()
        await self._pace()
        await socket.send(encode_instruments(number))
        try:
            async with asyncio.timeout(self._settings.ack_timeout):
                while self.paused:
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            why = f"the venue did not tell its pairs within {self._settings.ack_timeout:g} s"
            raise StreamLost(GapReason.SILENT, why) from None

    async def _request(self, socket: Socket, method: str, names: Sequence[str]) -> None:
        await self._pace()
        now = self._loop.time()
        number = self.next_number()
        request = self._requests[number] = _Request(method, names)
        begins = method == "subscribe"
        for name in names:
            (self._on_wire.add if begins else self._on_wire.discard)(name)
            if (stream := self._streams.get(name)) is not None:
                stream.waits, stream.asked_at, stream.renew_at = begins, now, None
        await socket.send(encode_request(method, names, self._settings.depth, number))
        await asyncio.wait({request.done}, timeout=self._settings.ack_timeout)
        del self._requests[number]
        if request.done.done():
            self._unanswered = 0
            return
        self._unanswered += 1
        if self._unanswered >= _ATTEMPTS:
            raise StreamLost(
                GapReason.SILENT,
                f"no answer to {method} within {self._settings.ack_timeout:g} s, "
                f"{_ATTEMPTS} times in a row",
            )
        for name in request.left & self._streams.keys():
            # Whether it was done is not known: end it, and ask anew.
            self._streams[name].renew_at = self._loop.time()
            self._on_wire.add(name)

    async def _pace(self) -> None:
        pause = self._sent_at + self._interval - self._loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        self._sent_at = self._loop.time()

    # -- answers ---------------------------------------------------------------------------------

    def receive(self, reply: Reply) -> None:
        """Take an answer of the venue."""
        request = self._requests.get(reply.req_id or 0)
        if reply.req_id is None and self._requests:
            request = next(iter(self._requests.values()))  # errors may come without a number
        if request is None or reply.method not in ("", request.method):
            if reply.error:
                logger.warning("the venue complains: %s", clip(reply.error))
            return
        error = reply.error or ("refused" if reply.success is False else "")
        names = [reply.about] if reply.about else sorted(request.left)
        for name in names:
            request.left.discard(name)
            stream = self._streams.get(name)
            if stream is not None and request.method == "subscribe":
                self._settle(name, stream, error)
        if not request.left:
            request.settle()

    def _settle(self, name: str, stream: Stream, error: str) -> None:
        now = self._loop.time()
        lower = error.lower()
        if not error:
            self._interval = self._settings.control_interval
            self._opened(stream)
        elif "already subscribed" in lower:
            stream.renew_at = now
        elif "rate" in lower.split() or "rate limit" in lower:
            self._context.counters.rate_limited += 1
            self._interval = min(self._interval * 2, _MOST_INTERVAL)
            logger.warning("the venue says %s: a request every %.1f s", error, self._interval)
            self._leave(name, stream, now + self._interval)
        else:
            self._context.counters.refused += 1
            self._leave(name, stream, now + self._settings.blocked_retry)
            self._refused(stream, clip(error))

    def _leave(self, name: str, stream: Stream, retry_at: float) -> None:
        self._on_wire.discard(name)
        stream.waits = False
        stream.retry_at = retry_at
