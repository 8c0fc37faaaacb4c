"""Control messages of one connection: what is subscribed follows what is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from obframe import GapReason, Instrument
from obframe_plugins._binance_context import Context, logger
from obframe_plugins._binance_plan import Tuning, fit
from obframe_plugins._binance_wire import POLICY_VIOLATION, Reply, encode_command, name_stream
from obframe_plugins._venue import StreamLost
from obframe_plugins._websocket import Socket

_ACK_ATTEMPTS = 3


class Stream:
    """One instrument's stream on one connection.

    Attributes:
        open: Whether the venue took the subscription.
        open_since: When, in seconds of the monotonic clock.
        last_id: Last update id seen on this connection, or None.
        settled: Whether nothing is to be done when the next update comes.
        spoilt: Whether its events were said to be invalid since the last good one.
        asked_again: Whether it was subscribed a second time for want of data.
    """

    __slots__ = (
        "asked_again", "instrument", "last_id", "name", "open", "open_since", "settled", "spoilt",
    )  # fmt: skip

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.name = name_stream(instrument.symbol)
        self.open = False
        self.open_since = 0.0
        self.last_id: int | None = None
        self.settled = False
        self.spoilt = False
        self.asked_again = False


class _Request:
    __slots__ = ("done", "method", "names", "number")

    def __init__(self, number: int, method: str, names: Sequence[str]) -> None:
        self.number = number
        self.method = method
        self.names = names
        self.done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()


class Subscriptions:
    """Sends one control message at a time, paced, and sees to its answer.

    Args:
        context: The feed's run.
        tuning: How to subscribe, learnt from connection to connection.
        streams: What is wanted, by symbol; changed by the connection.
        opened: Told of streams that the venue took.
        refused: Told of instruments whose stream the venue refused, and its words.
    """

    def __init__(
        self,
        context: Context,
        tuning: Tuning,
        streams: Mapping[str, Stream],
        opened: Callable[[Sequence[Stream]], None],
        refused: Callable[[Sequence[Instrument], str], None],
    ) -> None:
        self._settings = context.settings
        self._counters = context.counters
        self._tuning = tuning
        self._streams = streams
        self._opened = opened
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._on_wire: set[str] = set()
        self._renewed: set[str] = set()
        self._request: _Request | None = None
        self._requests = 0
        self._sent_at = 0.0

    def wake(self) -> None:
        """Look again at what is wanted."""
        self._changed.set()

    def renew(self, name: str) -> None:
        """End a stream and ask for it again."""
        self._renewed.add(name)
        self._changed.set()

    def retry_refused(self, now: float) -> None:
        """Ask again for streams that were refused long enough ago."""
        retry = self._tuning.next_retry()
        if retry is not None and retry <= now:
            self._changed.set()

    async def run(self, socket: Socket) -> NoReturn:
        """Bring what is subscribed in line with what is wanted, until cancelled.

        Raises:
            StreamLost: The venue does not answer.
        """
        while True:
            self._changed.clear()
            streams = self._streams.values()
            wanted = dict.fromkeys(stream.name for stream in streams)
            gone = sorted((self._on_wire - wanted.keys()) | (self._on_wire & self._renewed))
            missing = [name for name in wanted if name not in self._on_wire]
            if gone:
                await self._unsubscribe(socket, fit(gone, self._tuning.MOST_NAMES))
            elif batch := self._tuning.batch(missing, self._loop.time()):
                await self._subscribe(socket, batch)
            else:
                self._opened([stream for stream in streams if stream.name in self._on_wire])
                await self._changed.wait()

    def receive(self, reply: Reply) -> None:
        """Take an answer of the venue."""
        request = self._request
        # Errors may come without an id; only one request is ever under way.
        if request is None or reply.id not in (request.number, None) or request.done.done():
            if reply.error is not None:
                logger.warning("the venue complains: %s", reply.error)
            return
        if reply.error is None and request.method == "SUBSCRIBE":
            names = set(request.names)
            self._on_wire |= names
            self._tuning.accept(request.names)
            self._opened([item for item in self._streams.values() if item.name in names])
        request.done.set_result(reply.error)

    def blame(self, lost: StreamLost) -> None:
        """Note what the venue was being asked for when it closed the connection on us."""
        if lost.code != POLICY_VIOLATION:
            return
        request = self._request
        names = request.names if request is not None and request.method == "SUBSCRIBE" else ()
        self._tuning.cut_off(names)
        if len(names) == 1 and len(self._streams) > 1:
            self._refuse(names[0], str(lost))

    async def _unsubscribe(self, socket: Socket, names: Sequence[str]) -> None:
        error = await self._command(socket, "UNSUBSCRIBE", names)
        if error is not None:
            logger.warning("the venue refused to end streams: %s", error)
        self._on_wire.difference_update(names)
        self._renewed.difference_update(names)

    async def _subscribe(self, socket: Socket, names: Sequence[str]) -> None:
        error = await self._command(socket, "SUBSCRIBE", names)
        if error is None:
            return
        if len(names) == 1:
            self._refuse(names[0], error)
            return
        logger.info("the venue refused %d streams at once (%s): split", len(names), error)
        half = len(names) // 2
        await self._subscribe(socket, names[:half])
        await self._subscribe(socket, names[half:])

    def _refuse(self, name: str, why: str) -> None:
        self._counters.refused += 1
        self._tuning.refuse(name, self._loop.time())
        hit = [item.instrument for item in self._streams.values() if item.name == name]
        for instrument in hit:
            logger.error("%s: the venue refused the stream %s: %s", instrument.symbol, name, why)
        if hit:
            self._refused(hit, f"subscription refused: {why}")

    async def _command(self, socket: Socket, method: str, names: Sequence[str]) -> str | None:
        """Send a control message; return the error of its answer, or None."""
        for _ in range(_ACK_ATTEMPTS):
            pause = self._sent_at + self._tuning.interval - self._loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            self._requests += 1
            request = self._request = _Request(self._requests, method, names)
            self._sent_at = self._loop.time()
            await socket.send(encode_command(method, names, request.number))
            await asyncio.wait({request.done}, timeout=self._settings.ack_timeout)
            if request.done.done():
                self._request = None
                return request.done.result()
        raise StreamLost(
            GapReason.SILENT,
            f"no answer to {method} within {self._settings.ack_timeout:g} s, "
            f"{_ACK_ATTEMPTS} times in a row",
        )
