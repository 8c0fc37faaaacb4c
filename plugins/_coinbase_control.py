"""Commands of one connection: what is subscribed follows what is wanted, and books begin anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NoReturn

from obframe import GapReason, Instrument
from obframe_plugins._coinbase_context import Context, logger
from obframe_plugins._coinbase_wire import (
    HEARTBEATS,
    LEVEL2,
    Complaint,
    Subscribed,
    encode_command,
)
from obframe_plugins._pacing import Backoff
from obframe_plugins._venue import StreamLost
from obframe_plugins._websocket import Socket

_ATTEMPTS = 3


class Book:
    """One product's stream on one connection.

    Attributes:
        instrument: Whose.
        open: Whether the venue took the subscription.
        last_id: Update id of what was delivered last; None until the whole book has come.
        highest_id: The highest ever made for it, so that none falls.
        asked_at: When the book was asked for, in seconds of the monotonic clock.
        whole_at: When it came.
        wanted_again: Whether a receiver asked for it while it was delivered.
        backoff: Delays before it is asked for again after something was wrong with it.
    """

    __slots__ = (
        "asked_at", "backoff", "highest_id", "instrument", "last_id", "open", "wanted_again",
        "whole_at",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, backoff: Backoff, highest_id: int) -> None:
        self.instrument = instrument
        self.backoff = backoff
        self.open = False
        self.last_id: int | None = None
        self.highest_id = highest_id
        self.asked_at = 0.0
        self.whole_at = 0.0
        self.wanted_again = False


class _Request:
    __slots__ = ("again", "answered", "done", "kind", "products")

    def __init__(self, kind: str, products: frozenset[str]) -> None:
        self.kind = kind
        self.products = products
        self.answered = False
        self.again = False
        self.done: asyncio.Future[Complaint | None] = asyncio.get_running_loop().create_future()


class Subscriptions:
    """Sends one command at a time, within the venue's limit, and sees to its answer.

    The venue answers with all that is subscribed, or with a complaint; neither says to what. A
    whole book is an answer too, and comes first. To have one again, its product is unsubscribed and
    subscribed: all products that are due go together.

    Args:
        context: The feed's run.
        books: What is wanted, by product; changed by the connection.
        opened: Told of books that the venue took.
        refused: Told of instruments that the venue refused, and its words.
    """

    def __init__(
        self,
        context: Context,
        books: Mapping[str, Book],
        opened: Callable[[Sequence[Book]], None],
        refused: Callable[[Sequence[Instrument], str], None],
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._books = books
        self._opened = opened
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._pace = context.new_backoff()
        self._on_wire: set[str] = set()
        self._due: dict[str, float] = {}  # when to ask again for a book
        self._refusals: dict[str, float] = {}  # until when to leave a product alone
        self._request: _Request | None = None

    def wake(self) -> None:
        """Look again at what is wanted."""
        self._changed.set()

    def renew(self, products: Collection[str], delay: float = 0.0) -> None:
        """Have the venue send whole books again, after ``delay`` seconds."""
        due = self._loop.time() + delay
        for product in products:
            self._due[product] = min(due, self._due.get(product, due))
        self._changed.set()

    async def run(self, socket: Socket) -> NoReturn:
        """Bring what is subscribed in line with what is wanted, until cancelled.

        Raises:
            StreamLost: The venue does not answer.
        """
        await self._subscribe_heartbeats(socket)
        while True:
            self._changed.clear()
            now = self._loop.time()
            due = {name for name, at in self._due.items() if at <= now}
            gone = (self._on_wire - self._books.keys()) | (self._on_wire & due)
            if gone:
                await self._unsubscribe(socket, gone)
                continue
            for name in due:
                del self._due[name]
            missing = [name for name in self._books if self._is_missing(name, now)]
            if missing:
                await self._subscribe(socket, missing)
                continue
            await self._wait(now)

    async def _subscribe_heartbeats(self, socket: Socket) -> None:
        """Have the connection kept open, and its losses told, when little happens on it."""
        while True:
            complaint = await self._command(socket, "subscribe", HEARTBEATS)
            if complaint is None:
                return
            if not complaint.is_about_pace:
                logger.warning("the venue refused heartbeats: %s", complaint.text)
                return
            await self._slow_down(complaint)

    async def _slow_down(self, complaint: Complaint) -> None:
        self._context.counters.rate_limited += 1
        delay = self._pace.next()
        logger.info(
            "the venue asks for a slower pace (%s): next try in %.1f s", complaint.text, delay
        )
        await asyncio.sleep(delay)

    def _is_missing(self, name: str, now: float) -> bool:
        waits = max(self._due.get(name, 0.0), self._refusals.get(name, 0.0))
        return name not in self._on_wire and waits <= now

    async def _wait(self, now: float) -> None:
        """Wait for a change, or until the next product is due."""
        refused = [at for name, at in self._refusals.items() if name in self._books]
        later = [at for at in (*self._due.values(), *refused) if at > now]
        try:
            async with asyncio.timeout_at(min(later, default=None)):
                await self._changed.wait()
        except TimeoutError:
            pass

    # -- what the venue answers ------------------------------------------------------------------

    def receive(self, answer: Subscribed) -> None:
        """Take the venue's word on what is subscribed."""
        products = answer.channels.get(LEVEL2, frozenset())
        request = self._request
        if request is None or request.done.done():
            self._on_wire |= products
            return
        request.answered = True
        if request.kind == "unsubscribe":
            self._on_wire |= products - request.products
            done = products.isdisjoint(request.products)
        elif request.products:
            self._on_wire |= products
            done = request.products <= self._on_wire
        else:
            done = HEARTBEATS in answer.channels
        if done:
            request.done.set_result(None)

    def is_ending(self, product: str) -> bool:
        """Whether a product is just being unsubscribed: what comes of it has no future."""
        request = self._request
        return request is not None and request.kind == "unsubscribe" and product in request.products

    def receive_book(self, product: str) -> None:
        """Note that a whole book came: its product is subscribed."""
        request = self._request
        self._on_wire.add(product)
        self._due.pop(product, None)
        if request is not None and request.kind == "subscribe" and product in request.products:
            request.answered = True
            if request.products <= self._on_wire and not request.done.done():
                request.done.set_result(None)

    def repeat(self) -> None:
        """Repeat the command that is under way: its answer may be lost."""
        request = self._request
        if request is not None and not request.done.done():
            request.again = True
            request.done.set_result(None)

    def receive_complaint(self, complaint: Complaint) -> None:
        """Take an error; only one command is ever under way."""
        request = self._request
        if request is None or request.done.done():
            logger.warning("the venue complains: %s", complaint.text)
        else:
            request.done.set_result(complaint)

    # -- what is asked of it ---------------------------------------------------------------------

    async def _unsubscribe(self, socket: Socket, names: Collection[str]) -> None:
        complaint = await self._command(socket, "unsubscribe", LEVEL2, names)
        if complaint is not None:
            logger.warning("the venue refused to end streams: %s", complaint.text)
            if complaint.is_about_pace:
                await self._slow_down(complaint)
                return
        self._on_wire.difference_update(names)
        for name in names:
            self._due.pop(name, None)
            book = self._books.get(name)
            if book is not None:
                book.last_id = None  # what comes before the next whole book is of no use

    async def _subscribe(self, socket: Socket, names: Sequence[str]) -> None:
        now = self._loop.time()
        for name in names:
            if name in self._books:
                self._books[name].asked_at = now
        complaint = await self._command(socket, "subscribe", LEVEL2, names)
        if complaint is not None and complaint.is_about_pace:
            await self._slow_down(complaint)
            return
        self._pace.reset()
        taken = [name for name in names if name in self._on_wire]
        left = [name for name in names if name not in self._on_wire]
        self._opened([self._books[name] for name in taken if name in self._books])
        if not left:
            return
        why = "the venue's answer does not list it" if complaint is None else complaint.text
        if len(names) == 1:
            self._refuse(names[0], why)
        else:
            logger.info("the venue refused some of %d products (%s): split", len(names), why)
            half = (len(left) + 1) // 2
            for part in (left[:half], left[half:]):
                if part:
                    await self._subscribe(socket, part)

    def _refuse(self, name: str, why: str) -> None:
        self._context.counters.refused += 1
        self._refusals[name] = self._loop.time() + self._settings.blocked_retry
        if "too many l2 streams" in why.lower():
            why += "; lower coinbase.products_per_connection"
        logger.error("%s: the venue refused to stream it: %s", name, why)
        book = self._books.get(name)
        if book is not None:
            book.open = False
            self._refused([book.instrument], f"subscription refused: {why}")

    async def _command(
        self, socket: Socket, kind: str, channel: str, names: Collection[str] = ()
    ) -> Complaint | None:
        """Send a command; return the venue's complaint, or None.

        None also says that the venue answered but did not do it all.
        """
        for _ in range(_ATTEMPTS):
            await self._context.permit_command()
            request = self._request = _Request(kind, frozenset(names))
            await socket.send(encode_command(kind, channel, sorted(names)))
            await asyncio.wait({request.done}, timeout=self._settings.ack_timeout)
            self._request = None
            if request.again:
                continue
            if request.done.done():
                return request.done.result()
            if request.answered:
                return None
        raise StreamLost(
            GapReason.SILENT,
            f"no answer to {kind} {channel} within {self._settings.ack_timeout:g} s, "
            f"{_ATTEMPTS} times in a row",
        )
