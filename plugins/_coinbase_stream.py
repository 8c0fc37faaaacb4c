"""One connection to Coinbase, from its opening to its end: numbers in order, books in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NoReturn, Protocol

from obframe import (
    CapacityError,
    DepthUpdate,
    GapReason,
    Instrument,
    InvalidEvent,
    Level2Event,
    MalformedMessage,
    parse_level2,
)
from obframe_plugins._coinbase_context import Context, logger
from obframe_plugins._coinbase_control import Book, Subscriptions
from obframe_plugins._coinbase_wire import Complaint, Heartbeat, Subscribed, read_notice
from obframe_plugins._venue import StreamLost, clip, race
from obframe_plugins._websocket import Socket

_SAMPLES_LOGGED = 10


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def opened(self, instruments: Sequence[Instrument]) -> None:
        """The venue took the subscription of these."""

    def refused(self, instruments: Sequence[Instrument], why: str) -> None:
        """The venue refused the subscription of these."""

    def spoilt(self, instruments: Sequence[Instrument], reason: GapReason, why: str) -> None:
        """Something of these was refused, or may have been lost: their books begin anew."""

    def delayed(self, instruments: Sequence[Instrument], why: str) -> None:
        """The whole book of these does not come; it is asked for again."""

    def fell_silent(self, why: str) -> None:
        """No data for a while."""

    def resumed(self) -> None:
        """Data again after silence."""


class Connection:
    """A websocket that subscribes what is wanted, reads until its end and watches for silence.

    Args:
        owner: Told of everything but data.
        context: The feed's run.
        instruments: Wanted at first.
    """

    def __init__(self, owner: Owner, context: Context, instruments: Collection[Instrument]) -> None:
        self._owner = owner
        self._context = context
        self._settings = context.settings
        self._counters = context.counters
        self._deliver = context.emit
        self._loop = asyncio.get_running_loop()
        self.books: dict[str, Book] = {}
        self.silent = False
        self._control = Subscriptions(context, self.books, self._announce, owner.refused)
        self._next: int | None = None  # number of the message that is due
        self._hole_at: float | None = None
        self._first_ns = 0
        self._last_ns = 0
        self._whole_at = 0.0
        self._quiet_since = 0.0
        self._samples = 0
        self.add(instruments)
        self.task = self._loop.create_task(self._run(), name="coinbase-connection")

    @property
    def good_seconds(self) -> float:
        """Seconds between the first and the last good data."""
        return (self._last_ns - self._first_ns) / 1e9

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these books too."""
        for item in instruments:
            if item.symbol not in self.books:
                highest = self._context.last_ids.get(item.symbol, 0)
                self.books[item.symbol] = Book(item, self._context.new_backoff(), highest)
                # It may be subscribed still: one that comes back at once has to have a new book.
                self._control.renew([item.symbol])
        self._control.wake()

    def remove(self, products: Collection[str]) -> None:
        """Want these books no longer; nothing of them is delivered from now on."""
        for product in products:
            book = self.books.pop(product, None)
            if book is not None:
                self._context.last_ids[product] = book.highest_id
        self._control.wake()

    def request(self, product: str) -> None:
        """Have a whole book sent again, unless one is on its way."""
        book = self.books.get(product)
        if book is not None and book.last_id is not None and not book.wanted_again:
            book.wanted_again = True
            self._counters.resubscribed += 1
            self._control.renew([product])

    # -- its life --------------------------------------------------------------------------------

    async def _run(self) -> StreamLost:
        try:
            return await self._context.hold(self._settings.stream_url, self._receive, self._live)
        finally:
            ids = {product: book.highest_id for product, book in self.books.items()}
            self._context.last_ids.update(ids)

    async def _live(self, socket: Socket) -> NoReturn:
        self._quiet_since = self._loop.time()
        await race(socket.wait(), self._control.run(socket), self._watch())

    # -- what comes in ---------------------------------------------------------------------------

    def _receive(self, data: bytes, received_ns: int) -> None:
        counters = self._counters
        counters.messages += 1
        counters.bytes += len(data)
        try:
            parsed = parse_level2(data)
            if parsed is None:
                self._receive_notice(data)
                return
        except (MalformedMessage, InvalidEvent) as error:
            # Its number cannot be told, nor which products it was about.
            if isinstance(error, MalformedMessage):
                counters.malformed += 1
            else:
                counters.invalid += 1
            self._log_sample(error, data)
            self._next = None if self._next is None else self._next + 1
            self._lose_track(GapReason.INVALID, clip(str(error)))
            return
        sequence, time_us, events = parsed
        if sequence != self._next and not self._accept_number(sequence):
            return
        self._next = sequence + 1
        for event in events:
            self._receive_event(event, time_us, data, received_ns)

    def _accept_number(self, sequence: int) -> bool:
        """Judge a number that is not the one due; return whether its message is to be read."""
        due = self._next
        if due is None:
            return True
        if sequence < due:
            self._counters.old += 1
            return False
        self._counters.sequence += 1
        self._counters.lost_messages += sequence - due
        missing = f"{due}" if sequence == due + 1 else f"{due} to {sequence - 1}"
        self._next = sequence
        self._lose_track(
            GapReason.SEQUENCE, f"the connection's message {missing} is missing: all its books "
            "begin anew",
        )  # fmt: skip
        return True

    def _receive_event(
        self, event: Level2Event, time_us: int, data: bytes, received_ns: int
    ) -> None:
        book = self.books.get(event.product)
        if book is None:
            if event.product:
                self._counters.unsubscribed += 1
            elif event.error is not None:
                self._counters.invalid += 1
                self._log_sample(event.error, data)
                self._lose_track(GapReason.INVALID, clip(str(event.error)))
            return
        last_id = book.last_id
        update_id = max(time_us, book.highest_id + 1)
        whole = event.kind == "snapshot"
        if event.kind and not whole and event.kind != "update":
            self._context.log_unknown(f"l2_data {clip(event.kind, 80)}")
            return
        if self._control.is_ending(event.product) if whole else last_id is None:
            self._counters.awaiting += 1
            return
        if event.error is not None:
            self._refuse(book, event.error, data)
            return
        book.highest_id = update_id
        if whole:
            self._begin(book, event, update_id)
        else:
            assert last_id is not None
            update = event.to_update(book.instrument.symbol, last_id, update_id)
            update.received_ns = received_ns
            book.last_id = update_id
            self._deliver(update)
        self._last_ns = received_ns
        if not self._first_ns:
            self._first_ns = received_ns
        if self.silent:
            self.silent = False
            self._owner.resumed()

    def _begin(self, book: Book, event: Level2Event, update_id: int) -> None:
        """Deliver a whole book.

        It came in the stream, so that nothing lies between it and the update that follows: the
        empty update behind it says so.
        """
        symbol = book.instrument.symbol
        if not book.open:
            self._announce([book])
        elif book.wanted_again:
            # What came before the subscription was ended does not join what comes now.
            self._owner.opened([book.instrument])
        elif book.last_id is not None:
            why = "the venue began the book anew"
            self._owner.spoilt([book.instrument], GapReason.SEQUENCE, why)
        self._control.receive_book(symbol)
        book.wanted_again = False
        book.last_id = book.highest_id = update_id + 1
        book.whole_at = self._whole_at = self._loop.time()
        self._counters.snapshots += 1
        self._deliver(event.to_snapshot(symbol, update_id))
        proven_id = update_id + 1
        self._deliver(DepthUpdate(symbol, proven_id, proven_id, update_id, (), ()))

    def _receive_notice(self, data: bytes) -> None:
        notice = read_notice(data)
        sequence = notice.sequence
        if sequence is not None:
            if sequence != self._next and not self._accept_number(sequence):
                return
            self._next = sequence + 1
        if isinstance(notice, Heartbeat):
            self._counters.heartbeats += 1
        elif isinstance(notice, Subscribed):
            self._control.receive(notice)
        elif isinstance(notice, Complaint):
            self._control.receive_complaint(notice)
        else:
            self._context.log_unknown(notice.kind)

    def _announce(self, books: Sequence[Book]) -> None:
        new = [book for book in books if not book.open]
        for book in new:
            book.open = True
        if new:
            self._owner.opened([book.instrument for book in new])

    # -- what is wrong with it -------------------------------------------------------------------

    def _log_sample(self, error: Exception, data: bytes) -> None:
        if self._samples < _SAMPLES_LOGGED:
            self._samples += 1
            logger.warning("a message was dropped: %s; it begins: %s", clip(str(error)), clip(data))

    def _lose_track(self, reason: GapReason, why: str) -> None:
        """Have every book of the connection begin anew: any of them may have missed something.

        Raises:
            StreamLost: It is not the first time of late: the connection is of no use.
        """
        now = self._loop.time()
        again = self._hole_at is not None and now - self._hole_at < self._settings.stable_after
        self._hole_at = now
        for book in self.books.values():
            book.last_id = None
            book.wanted_again = False
            book.asked_at = now
        spoilt = [book.instrument for book in self.books.values() if book.open]
        if spoilt:
            self._owner.spoilt(spoilt, reason, why)
        if again:
            raise StreamLost(reason, why)
        self._control.renew(list(self.books))
        self._control.repeat()

    def _refuse(self, book: Book, error: InvalidEvent | CapacityError, data: bytes) -> None:
        """Have one book begin anew, the later the more often this happens."""
        reason = GapReason.INVALID
        if isinstance(error, InvalidEvent):
            self._counters.invalid += 1
        else:
            self._counters.capacity += 1
            reason = GapReason.CAPACITY
        self._log_sample(error, data)
        self._announce([book])
        self._ask_again(book)
        self._owner.spoilt([book.instrument], reason, clip(str(error)))

    def _ask_again(self, book: Book) -> None:
        now = self._loop.time()
        if book.last_id is not None and now - book.whole_at >= self._settings.stable_after:
            book.backoff.reset()
        delay = book.backoff.next()
        book.last_id = None
        book.wanted_again = False
        book.asked_at = now + delay
        self._control.renew([book.instrument.symbol], delay)

    # -- silence ---------------------------------------------------------------------------------

    async def _watch(self) -> NoReturn:
        settings = self._settings
        tick = min(settings.stale_after, settings.idle_timeout, settings.snapshot_timeout) / 4
        while True:
            before = self._loop.time()
            await asyncio.sleep(tick)
            now = self._loop.time()
            if now - before > 2 * tick + 0.5:
                # This process stood still: what came meanwhile has yet to be read.
                continue
            halted = self._context.halted
            active = [
                book for product, book in self.books.items() if book.open and product not in halted
            ]
            if active:
                self._check_silence(now)
                self._check_books(active, now)
            else:
                self._quiet_since = now

    def _check_silence(self, now: float) -> None:
        """Judge how long ago level2 data came, of any product; heartbeats do not count."""
        settings = self._settings
        quiet = now - max(self._quiet_since, self._last_ns / 1e9)
        if quiet >= settings.idle_timeout:
            raise StreamLost(GapReason.SILENT, f"no data for {settings.idle_timeout:g} s")
        if quiet >= settings.stale_after and not self.silent:
            self.silent = True
            self._owner.fell_silent(f"no data for {settings.stale_after:g} s")

    def _check_books(self, books: Sequence[Book], now: float) -> None:
        """Ask again for whole books that do not come, unless others are still coming."""
        limit = self._settings.snapshot_timeout
        late = [
            book
            for book in books
            if book.last_id is None and now - max(book.asked_at, self._whole_at) >= limit
        ]
        for book in late:
            self._counters.snapshot_retries += 1
            logger.warning(
                "%s: it is subscribed but its whole book has not come within %g s; it is asked "
                "for again",
                book.instrument.symbol,
                limit,
            )
            self._ask_again(book)
        if late:
            why = f"the venue has not sent the whole book within {limit:g} s"
            self._owner.delayed([book.instrument for book in late], why)
