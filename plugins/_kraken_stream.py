"""One connection to Kraken's WebSocket API v2, from its opening to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NoReturn

from obframe import (
    CapacityError,
    GapReason,
    Instrument,
    InvalidEvent,
    MalformedMessage,
    StreamEvent,
)
from obframe_plugins._kraken_book import ChecksumMismatch, KrakenBook
from obframe_plugins._kraken_context import Context, logger
from obframe_plugins._kraken_control import Control, Stream
from obframe_plugins._kraken_wire import (
    Book,
    BookData,
    Instruments,
    Pair,
    Reply,
    Status,
    Unknown,
    encode_ping,
    read,
)
from obframe_plugins._venue import StreamLost, clip, race
from obframe_plugins._websocket import Socket

_SAMPLES_LOGGED = 10


class Connection:
    """A websocket that subscribes what is wanted, keeps a checked book of each, and tells.

    Args:
        context: The feed's run.
        instruments: Wanted at first.
        moved: Told when what the venue says of its pairs or of itself has changed.
    """

    def __init__(
        self, context: Context, instruments: Collection[Instrument], moved: Callable[[], None]
    ) -> None:
        self.streams: dict[str, Stream] = {}
        self.good_seconds = 0.0
        self._context = context
        self._settings = context.settings
        self._counters = context.counters
        self._moved = moved
        self._loop = asyncio.get_running_loop()
        self._control = Control(context, self.streams, self._announce, self._refuse_stream)
        self._first_at = 0.0
        self._last_at = 0.0
        self._silent = False
        self._samples = 0
        self.add(instruments)
        self.task = self._loop.create_task(self._run(), name="kraken-connection")

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these streams too."""
        for instrument in instruments:
            stream = Stream(instrument, self._context.new_backoff())
            self.streams.setdefault(instrument.native, stream)
        self._control.wake()

    def remove(self, symbols: Collection[str]) -> None:
        """Want these streams no longer; nothing of them is delivered from now on."""
        for symbol in symbols:
            self.streams.pop(symbol, None)
        self._control.wake()

    def renew(self, symbol: str) -> None:
        """Get a new snapshot of a symbol, by subscribing it anew; its book goes on meanwhile."""
        stream = self.streams.get(symbol)
        if stream is None or not stream.told or stream.wanted:
            return  # a snapshot is on its way, or none can be had
        stream.wanted = True
        if not stream.waits and stream.renew_at is None:
            self._counters.resubscribed += 1
            stream.renew_at = self._loop.time()
            self._control.wake()

    def follow_pairs(self) -> None:
        """Act on what the venue says of its pairs and of itself."""
        for symbol, stream in self.streams.items():
            if not self._context.is_open(symbol):
                stream.book = None
                stream.open = stream.told = stream.wanted = False
        self._control.paused = not self._context.pairs
        self._control.wake()

    # -- its life --------------------------------------------------------------------------------

    async def _run(self) -> StreamLost:
        return await self._context.hold(self._settings.url, self._receive, self._live)

    async def _live(self, socket: Socket) -> NoReturn:
        self._last_at = self._loop.time()
        await race(socket.wait(), self._control.run(socket), self._watch(), self._ping(socket))

    async def _ping(self, socket: Socket) -> NoReturn:
        while True:
            await asyncio.sleep(self._settings.ping_interval)
            await socket.send(encode_ping(self._control.next_number()))

    # -- what comes in ---------------------------------------------------------------------------

    def _receive(self, data: bytes, received_ns: int) -> None:
        counters = self._counters
        counters.messages += 1
        counters.bytes += len(data)
        self._last_at = received_ns / 1e9
        if self._silent:
            self._resume()
        try:
            message = read(data)
        except MalformedMessage as error:
            counters.malformed += 1
            self._log_sample(error, data)
            self._spoil(error.symbol, GapReason.INVALID, clip(str(error)))
            return
        if isinstance(message, Book):
            for item in message.data:
                self._take(item, message.type == "snapshot", received_ns, data)
        elif isinstance(message, Reply):
            if message.method == "pong":
                counters.pongs += 1
            else:
                self._control.receive(message)
        elif isinstance(message, Instruments):
            self._take_pairs(message)
        elif isinstance(message, Status):
            for engine in message.data:
                self._context.engine = engine.system
            self._moved()
        elif isinstance(message, Unknown):
            self._context.log_unknown(message.kind)

    def _take(self, item: BookData, whole: bool, received_ns: int, data: bytes) -> None:
        stream = self.streams.get(item.symbol)
        pair = self._context.pairs.get(item.symbol)
        if stream is None or pair is None:
            self._counters.unsubscribed += 1
            return
        book = stream.book
        try:
            if whole and (stream.waits or stream.told):
                self._load(stream, item, pair)
            elif book is None or not stream.told or stream.waits:
                self._counters.unsubscribed += 1  # of a subscription that has ended
                return
            else:
                update = book.apply(item, pair)
                update.received_ns = received_ns
                self._context.last_ids[item.symbol] = book.update_id
                self._context.emit(update)
        except ChecksumMismatch as error:
            self._counters.checksum_mismatches += 1
            self._spoil(item.symbol, GapReason.CHECKSUM, str(error))
            return
        except (InvalidEvent, CapacityError) as error:
            reason = GapReason.INVALID
            if isinstance(error, InvalidEvent):
                self._counters.invalid += 1
            else:
                self._counters.capacity += 1
                reason = GapReason.CAPACITY
            self._log_sample(error, data)
            self._spoil(item.symbol, reason, clip(str(error)))
            return
        if item.checksum:
            self._counters.checksums += 1
        else:
            self._note_unchecked(item.symbol)
        now = received_ns / 1e9
        self._first_at = self._first_at or now
        self.good_seconds = now - self._first_at
        stream.last_at = now
        if stream.mended_at and now - stream.mended_at >= self._settings.stable_after:
            stream.mended_at = 0.0
            stream.backoff.reset()

    def _note_unchecked(self, symbol: str) -> None:
        if not self._counters.unchecked:
            logger.warning("%s: a message came without a checksum, and is taken unchecked", symbol)
        self._counters.unchecked += 1

    def _load(self, stream: Stream, item: BookData, pair: Pair) -> None:
        """Take a snapshot: the first one, a new one, or one that only confirms the book."""
        context = self._context
        old = stream.book if stream.told else None
        wanted, stream.wanted = stream.wanted, False
        name, last_id = stream.instrument.symbol, context.last_ids.get(item.symbol, 0)
        book = KrakenBook(name, self._settings.depth, last_id)
        snapshot, proof = book.load(item, pair, old if wanted else None)
        self._counters.snapshots += 1
        stream.waits = False
        stream.renew_at = None
        if old is not None and not wanted:
            if book.same_as(old):
                return  # nothing was missed; the ids go on where they are
            why = "the venue's new snapshot differs from the book, which had been quiet"
            self._counters.invalid += 1
            context.tell(StreamEvent.INVALID, [stream.instrument], GapReason.SILENT, why)
        self._announce(stream)
        stream.book, stream.told = book, True
        context.last_ids[item.symbol] = book.update_id
        context.emit(snapshot)
        context.emit(proof)

    def _take_pairs(self, message: Instruments) -> None:
        pairs = {pair.symbol: pair for pair in message.data.pairs}
        if message.type == "snapshot" and pairs:
            self._context.pairs = pairs
        else:
            self._context.pairs.update(pairs)
        self._moved()

    def _announce(self, stream: Stream) -> None:
        if not stream.open:
            stream.open = True
            self._context.tell(StreamEvent.SUBSCRIBED, [stream.instrument])

    def _refuse_stream(self, stream: Stream, why: str) -> None:
        symbol = stream.instrument.native
        logger.error("%s: the venue refused the subscription: %s", symbol, why)
        stream.open = stream.told = stream.wanted = False
        stream.book = None
        detail = f"subscription refused: {why}"
        event, reason = StreamEvent.DISCONNECTED, GapReason.DISCONNECTED
        if "not supported" in why:
            event, reason = StreamEvent.HALTED, GapReason.UNKNOWN_SYMBOL
        self._context.tell(event, [stream.instrument], reason, detail)

    def _log_sample(self, error: Exception, data: bytes) -> None:
        if self._samples < _SAMPLES_LOGGED:
            self._samples += 1
            logger.warning("a message was dropped: %s; it begins: %s", clip(str(error)), clip(data))

    def _spoil(self, symbol: str | None, reason: GapReason, why: str) -> None:
        """Throw away the books that a message was wrong about, or may have been."""
        if symbol is None:
            hit = list(self.streams.values())
        elif symbol in self.streams:
            hit = [self.streams[symbol]]
        else:
            self._counters.unsubscribed += 1
            return
        for stream in hit:
            if stream.told:
                self._context.tell(StreamEvent.INVALID, [stream.instrument], reason, why)
            elif stream.waits:
                event = StreamEvent.SNAPSHOT_FAILED
                self._context.tell(event, [stream.instrument], reason, why)
            self._throw_away(stream)

    def _throw_away(self, stream: Stream) -> None:
        """Forget a book and have the symbol subscribed anew; sooner the first time than later."""
        now = self._loop.time()
        stream.book, stream.told, stream.wanted = None, False, False
        if stream.renew_at is None or stream.renew_at <= now:
            delay = stream.backoff.next() if stream.mended_at else 0.0
            stream.mended_at = now
            stream.renew_at = now + delay
            self._counters.resubscribed += 1
        self._control.wake()

    # -- silence ---------------------------------------------------------------------------------

    async def _watch(self) -> NoReturn:
        settings = self._settings
        tick = min(settings.stale_after, settings.probe_after, settings.snapshot_timeout) / 4
        while True:
            before = self._loop.time()
            await asyncio.sleep(tick)
            now = self._loop.time()
            if now - before > 2 * tick + 0.5:
                continue  # this process stood still: what came meanwhile has yet to be read
            self._check_silence(now)
            for symbol, stream in self.streams.items():
                self._check_stream(symbol, stream, now)

    def _check_silence(self, now: float) -> None:
        """Look whether anything comes at all: a heartbeat is due every second."""
        settings = self._settings
        quiet = now - self._last_at
        if quiet >= settings.idle_timeout:
            raise StreamLost(GapReason.SILENT, f"no message for {settings.idle_timeout:g} s")
        if quiet >= settings.stale_after and not self._silent:
            self._silent = True
            self._counters.silences += 1
            why = f"no message, not even a heartbeat, for {settings.stale_after:g} s"
            self._context.tell(StreamEvent.SILENT, self._opened(), GapReason.SILENT, why)

    def _resume(self) -> None:
        self._silent = False
        self._context.tell(StreamEvent.RESUMED, self._opened())

    def _check_stream(self, symbol: str, stream: Stream, now: float) -> None:
        """Look whether a snapshot is overdue, or a book has been quiet for too long to trust it."""
        settings = self._settings
        if stream.waits and now - stream.asked_at >= settings.snapshot_timeout:
            why = f"no snapshot within {settings.snapshot_timeout:g} s after the subscription"
            logger.warning("%s: %s; it is asked for again", symbol, why)
            if stream.told:
                event = StreamEvent.INVALID
                self._context.tell(event, [stream.instrument], GapReason.SILENT, why)
            if stream.wanted or not stream.told:
                event = StreamEvent.SNAPSHOT_FAILED
                self._context.tell(event, [stream.instrument], GapReason.SNAPSHOT, why)
            stream.waits = False
            self._throw_away(stream)
        elif (
            stream.told
            and not stream.waits
            and stream.renew_at is None
            and now - stream.last_at >= settings.probe_after
        ):
            self._counters.probes += 1
            stream.renew_at = now
            self._control.wake()

    def _opened(self) -> list[Instrument]:
        return [stream.instrument for stream in self.streams.values() if stream.open]
