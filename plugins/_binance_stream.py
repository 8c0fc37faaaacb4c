"""One connection to Binance's combined stream, from its opening to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NoReturn, Protocol

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
from obframe_plugins._binance_control import Stream, Subscriptions
from obframe_plugins._binance_plan import Tuning
from obframe_plugins._binance_wire import Reply, Shutdown, read_notice
from obframe_plugins._venue import StreamLost, clip, race
from obframe_plugins._websocket import Socket

_SAMPLES_LOGGED = 10


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
        self._futures = context.settings.futures
        self._loop = loop
        self._control = Subscriptions(
            context, tuning, self.streams, self._announce, partial(owner.refused, self)
        )
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
        self._control.wake()

    def remove(self, symbols: Collection[str]) -> None:
        """Want these streams no longer; nothing of them is delivered from now on."""
        for symbol in symbols:
            self.streams.pop(symbol, None)
        self._control.wake()

    # -- its life --------------------------------------------------------------------------------

    async def _run(self) -> StreamLost:
        lost = await self._context.hold(self._settings.stream_url, self._receive, self._live)
        self._control.blame(lost)
        return lost

    async def _live(self, socket: Socket) -> NoReturn:
        self._quiet_since = self._loop.time()
        await race(socket.wait(), self._control.run(socket), self._watch())

    # -- what comes in ---------------------------------------------------------------------------

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
            self._control.receive(notice)
        elif isinstance(notice, Shutdown):
            logger.info("the venue is about to close a connection; a new one takes over")
            if not self.retiring.done():
                self.retiring.set_result(None)
        else:
            self._context.log_unknown(notice.kind)

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

    # -- silence ---------------------------------------------------------------------------------

    async def _watch(self) -> NoReturn:
        settings = self._settings
        tick = min(settings.stale_after, settings.idle_timeout, settings.first_data_timeout) / 4
        while True:
            before = self._loop.time()
            await asyncio.sleep(tick)
            now = self._loop.time()
            self._control.retry_refused(now)
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
                self._control.renew(stream.name)
