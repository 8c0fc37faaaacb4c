"""One connection to Binance's combined stream, from its opening to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, NoReturn, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from obframe import (
    CapacityError,
    DepthUpdate,
    GapReason,
    Instrument,
    InvalidEvent,
    MalformedMessage,
    parse_depth_update,
)
from obframe_plugins._binance_context import Context, logger
from obframe_plugins._binance_plan import Tuning, fit
from obframe_plugins._binance_wire import (
    POLICY_VIOLATION,
    Reply,
    Shutdown,
    StreamLost,
    clip,
    describe_close,
    describe_failure,
    encode_command,
    name_stream,
    read_notice,
)

_ACK_ATTEMPTS = 3
_CLOSE_TIMEOUT = 1.0
_SAMPLES_LOGGED = 10


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


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def opened(self, connection: Connection, instruments: Sequence[Instrument]) -> None:
        """The venue took the subscription of these."""

    def refused(self, connection: Connection, instruments: Sequence[Instrument], why: str) -> None:
        """The venue refused the subscription of these."""

    def spoilt(
        self, connection: Connection, instruments: Sequence[Instrument], reason: GapReason, why: str
    ) -> None:
        """Events of these were refused, or may have been lost.

        Raises:
            StreamLost: The connection is of no use any more.
        """

    def fell_silent(self, connection: Connection, why: str) -> None:
        """No data for a while."""

    def resumed(self, connection: Connection) -> None:
        """Data again after silence."""


class _Request:
    __slots__ = ("done", "method", "names", "number")

    def __init__(self, number: int, method: str, names: Sequence[str]) -> None:
        self.number = number
        self.method = method
        self.names = names
        self.done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()


class Connection:
    """A websocket that subscribes what is wanted, reads until its end and watches for silence.

    Args:
        owner: Told of everything but updates.
        context: The feed's run.
        tuning: How to subscribe, learnt from connection to connection.
        instruments: Wanted at first.
        deliver: Takes the updates, in their order. May be replaced at any time.
    """

    def __init__(
        self,
        owner: Owner,
        context: Context,
        tuning: Tuning,
        instruments: Collection[Instrument],
        deliver: Callable[[DepthUpdate], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.streams = {item.symbol: Stream(item) for item in instruments}
        self.deliver = deliver
        self.retiring: asyncio.Future[None] = loop.create_future()
        self.retirement_seen = False
        self.silent = False
        self._owner = owner
        self._context = context
        self._settings = context.settings
        self._counters = context.counters
        self._tuning = tuning
        self._futures = context.settings.futures
        self._loop = loop
        self._changed = asyncio.Event()
        self._on_wire: set[str] = set()
        self._renew: set[str] = set()
        self._request: _Request | None = None
        self._requests = 0
        self._sent_at = 0.0
        self._first_ns = 0
        self._last_ns = 0
        self._quiet_since = 0.0
        self._samples = 0
        self.task = loop.create_task(self._run(), name="binance-connection")

    @property
    def good_seconds(self) -> float:
        """Seconds between the first and the last good data."""
        return (self._last_ns - self._first_ns) / 1e9

    @property
    def has_data(self) -> bool:
        """Whether any update was seen."""
        return self._last_ns > 0

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these streams too."""
        for instrument in instruments:
            self.streams.setdefault(instrument.symbol, Stream(instrument))
        self._changed.set()

    def remove(self, symbols: Collection[str]) -> None:
        """Want these streams no longer; nothing of them is delivered from now on."""
        for symbol in symbols:
            self.streams.pop(symbol, None)
        self._changed.set()

    # -- its life --------------------------------------------------------------------------------

    async def _run(self) -> StreamLost:
        """Open, read, close; return why it ended. Raises nothing but cancellation."""
        socket: ClientConnection | None = None
        try:
            socket = await self._open()
            self._quiet_since = self._loop.time()
            await race(self._read(socket), self._control(socket), self._watch())
        except StreamLost as lost:
            self._blame(lost)
            return lost
        except ConnectionClosed as error:
            lost = describe_close(error, self._settings)
            self._blame(lost)
            return lost
        except Exception as error:
            logger.exception("a connection failed for a fault of ours")
            why = f"{type(error).__name__}: {error}"
            return StreamLost(GapReason.INTERNAL, why)
        finally:
            if socket is not None:
                # In the background: the loss is to be told now, not after the closing handshake.
                self._context.finish(socket.close())

    async def _open(self) -> ClientConnection:
        settings = self._settings
        url = settings.stream_url
        try:
            return await connect(
                url,
                compression=None,
                max_size=settings.max_message_bytes,
                # The reader takes everything that has arrived before it waits again: this bounds
                # what one wake-up may find, and reading is paused for no longer than that.
                max_queue=1024,
                open_timeout=settings.open_timeout,
                close_timeout=_CLOSE_TIMEOUT,
                # The venue's own pings and the idle time-out do this; ours would count as messages.
                ping_interval=None,
                proxy=settings.proxy_for(url),
                user_agent_header="obframe",
            )
        except Exception as error:
            raise describe_failure(error, url, settings) from error

    def _blame(self, lost: StreamLost) -> None:
        """Note what the venue was being asked for when it closed the connection on us."""
        if lost.code != POLICY_VIOLATION:
            return
        request = self._request
        names = request.names if request is not None and request.method == "SUBSCRIBE" else ()
        self._tuning.cut_off(names)
        if len(names) == 1 and len(self.streams) > 1:
            self._refuse(names[0], str(lost))

    # -- what comes in ---------------------------------------------------------------------------

    async def _read(self, socket: ClientConnection) -> NoReturn:
        receive, handle, now = socket.recv, self._receive, time.monotonic_ns
        while True:
            # Returns without a turn of the event loop while messages that arrived are left.
            handle(await receive(decode=False), now())

    def _receive(self, data: bytes, received_ns: int) -> None:
        counters = self._counters
        counters.messages += 1
        counters.bytes += len(data)
        try:
            update = parse_depth_update(data, self._futures)
            if update is None:
                self._receive_notice(data)
                return
        except (MalformedMessage, InvalidEvent, CapacityError) as error:
            self._receive_garbage(error, data)
            return
        stream = self.streams.get(update.symbol)
        if stream is None:
            counters.unsubscribed += 1
            return
        update.received_ns = received_ns
        self._last_ns = received_ns
        if not stream.settled:
            self._settle(stream)
        if self.silent:
            self.silent = False
            self._owner.resumed(self)
        stream.last_id = update.last_update_id
        self.deliver(update)

    def _settle(self, stream: Stream) -> None:
        """Do what the first good update of a stream brings about."""
        stream.settled = True
        stream.spoilt = False
        if not self._first_ns:
            self._first_ns = self._last_ns
        if not stream.open:
            self._announce([stream])

    def _receive_notice(self, data: bytes) -> None:
        notice = read_notice(data)
        if isinstance(notice, Reply):
            self._receive_reply(notice)
        elif isinstance(notice, Shutdown):
            logger.info("the venue is about to close a connection; a new one takes over")
            if not self.retiring.done():
                self.retiring.set_result(None)
        else:
            self._context.log_unknown(notice.kind)

    def _receive_reply(self, reply: Reply) -> None:
        request = self._request
        # Errors may come without an id; only one request is ever under way.
        if request is None or reply.id not in (request.number, None) or request.done.done():
            if reply.error is not None:
                logger.warning("the venue complains: %s", reply.error)
            return
        if reply.error is None:
            self._acknowledge(request)
        request.done.set_result(reply.error)

    def _acknowledge(self, request: _Request) -> None:
        names = set(request.names)
        if request.method == "UNSUBSCRIBE":
            self._on_wire -= names
            return
        self._on_wire |= names
        self._tuning.accept(request.names)
        self._announce([item for item in self.streams.values() if item.name in names])

    def _announce(self, streams: Sequence[Stream]) -> None:
        new = [stream for stream in streams if not stream.open]
        now = self._loop.time()
        for stream in new:
            stream.open = True
            stream.open_since = now
        if new:
            self._owner.opened(self, [stream.instrument for stream in new])

    def _receive_garbage(
        self, error: MalformedMessage | InvalidEvent | CapacityError, data: bytes
    ) -> None:
        symbol = error.symbol
        reason = GapReason.INVALID
        if isinstance(error, MalformedMessage):
            self._counters.malformed += 1
        elif isinstance(error, InvalidEvent):
            self._counters.invalid += 1
        else:
            self._counters.capacity += 1
            reason = GapReason.CAPACITY
        if self._samples < _SAMPLES_LOGGED:
            self._samples += 1
            logger.warning("a message was dropped: %s; it begins: %s", clip(str(error)), clip(data))
        if symbol is None:
            hit = list(self.streams.values())
        elif symbol in self.streams:
            hit = [self.streams[symbol]]
        else:
            self._counters.unsubscribed += 1
            return
        # Told once until good data comes: a lost update is found by its ids in any case.
        fresh = [stream for stream in hit if stream.open and not stream.spoilt]
        for stream in fresh:
            stream.spoilt = True
            stream.settled = False
        if fresh:
            names = [stream.instrument for stream in fresh]
            self._owner.spoilt(self, names, reason, clip(str(error)))

    # -- what goes out ---------------------------------------------------------------------------

    async def _control(self, socket: ClientConnection) -> NoReturn:
        """Bring what is subscribed in line with what is wanted, one message at a time."""
        while True:
            self._changed.clear()
            wanted = {stream.name for stream in self.streams.values()}
            gone = sorted(self._on_wire - wanted) + sorted(self._on_wire & self._renew)
            missing = [
                name
                for name in dict.fromkeys(stream.name for stream in self.streams.values())
                if name not in self._on_wire
            ]
            if gone:
                names = fit(gone, self._tuning.MOST_NAMES)
                error = await self._command(socket, "UNSUBSCRIBE", names)
                if error is not None:
                    logger.warning("the venue refused to end streams: %s", error)
                self._on_wire.difference_update(names)
                self._renew.difference_update(names)
            elif batch := self._tuning.batch(missing, self._loop.time()):
                await self._subscribe(socket, batch)
            else:
                self._announce([s for s in self.streams.values() if s.name in self._on_wire])
                await self._changed.wait()

    async def _subscribe(self, socket: ClientConnection, names: Sequence[str]) -> None:
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
        hit = [s.instrument for s in self.streams.values() if s.name == name]
        for instrument in hit:
            logger.error("%s: the venue refused the stream %s: %s", instrument.symbol, name, why)
        if hit:
            self._owner.refused(self, hit, f"subscription refused: {why}")

    async def _command(
        self, socket: ClientConnection, method: str, names: Sequence[str]
    ) -> str | None:
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

    # -- silence ---------------------------------------------------------------------------------

    async def _watch(self) -> NoReturn:
        settings = self._settings
        tick = min(settings.stale_after, settings.idle_timeout, settings.first_data_timeout) / 4
        while True:
            before = self._loop.time()
            await asyncio.sleep(tick)
            now = self._loop.time()
            retry = self._tuning.next_retry()
            if retry is not None and retry <= now:
                self._changed.set()
            if now - before > 2 * tick + 0.5:
                # This process stood still: what came meanwhile has yet to be read.
                continue
            halted = self._context.halted
            active = [
                s for s in self.streams.values() if s.open and s.instrument.symbol not in halted
            ]
            if active:
                self._check_silence(now)
                self._check_first_data(active, now)
            else:
                self._quiet_since = now

    def _check_silence(self, now: float) -> None:
        settings = self._settings
        quiet = now - max(self._quiet_since, self._last_ns / 1e9)
        if quiet >= settings.idle_timeout:
            raise StreamLost(GapReason.SILENT, f"no data for {settings.idle_timeout:g} s")
        if quiet >= settings.stale_after and not self.silent:
            self.silent = True
            self._owner.fell_silent(self, f"no data for {settings.stale_after:g} s")

    def _check_first_data(self, streams: Sequence[Stream], now: float) -> None:
        limit = self._settings.first_data_timeout
        for stream in streams:
            if (
                stream.last_id is None
                and not stream.asked_again
                and now - stream.open_since >= limit
            ):
                stream.asked_again = True
                self._counters.resubscribed += 1
                logger.warning(
                    "%s: the stream %s was acknowledged but has sent nothing for %g s; "
                    "it is asked for again",
                    stream.instrument.symbol,
                    stream.name,
                    limit,
                )
                self._renew.add(stream.name)
                self._changed.set()


async def race(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run all until the first one ends, cancel the others, and raise what that one raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
