"""The rule of Kraken's ``book`` channel (WebSocket v2), all of it.

A subscription to a symbol is answered by a ``snapshot``, the best ``depth`` levels of each side,
and from then on by ``update`` messages: absolute quantities by price, in the order in which they
are to be applied; quantity 0 deletes. There are no update ids and no sequence. What holds it:

1. The venue sends no delete for a level that falls out of the best ``depth``. After each update
   every level beyond them is forgotten: when it comes back into reach, the venue says it again.
2. Every message carries the CRC32 of the best 10 levels of both sides as they are after it. A text
   is made of the asks, lowest first, then of the bids, highest first: of each level price, then
   quantity, without the point and without zeros in front. Both have as many decimals as the
   channel ``instrument`` says; the venue writes them so, and where a number should have come
   with fewer, zeros are added here. A checksum of 0, or none, is no checksum.
3. A book whose checksum differs is wrong, from now or from before. It is thrown away, this one
   only, and the symbol is unsubscribed and subscribed anew, which gives a new snapshot.
4. Heartbeats say that the connection lives, not that a symbol does. A book that has been quiet for
   long is subscribed anew and compared with the new snapshot: it is either confirmed, or wrong.

What this proves: the best 10 levels after every message. Of the levels below only that every
message which came was applied; the connection (TCP) loses none on the way.

So that the synchroniser's one rule holds, ids are made here: the venue's time of the message in
Unix microseconds, and at least one more than the id before. A snapshot whose message bears no time
gets the time of its receipt. Numbers are kept as they were written, digit for digit: no float.

Source: docs.kraken.com, Spot WebSocket v2, "Book (Level 2)" and "Book checksum".
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import msgspec

from obframe import (
    DepthSnapshot,
    DepthUpdate,
    InvalidEvent,
    Level,
    OrderBook,
    parse_level_objects,
)
from obframe_plugins._kraken_wire import BookData, Pair, read_levels, read_time

CHECKED_LEVELS = 10
_HOUR_US = 3_600_000_000
_MOST_DIGITS = 40
_PLAIN = re.compile(r"[0-9.]*").fullmatch


class ChecksumMismatch(Exception):
    """The book is not the venue's."""


class KrakenBook:
    """One symbol's book as the venue sees it: only as deep as subscribed, and checked.

    It gives what is to be emitted, so that every other book fed with it is the same.

    Args:
        symbol: What is emitted is called so.
        depth: Levels a side that are subscribed.
        last_id: Ids begin after it.
    """

    def __init__(self, symbol: str, depth: int, last_id: int = 0) -> None:
        self.symbol = symbol
        self.update_id = last_id
        self._depth = depth
        self._book = OrderBook(symbol)

    def same_as(self, other: KrakenBook) -> bool:
        """Tell whether another book has the same levels, to the last digit."""
        mine, its = self._book, other._book
        return mine.bids() == its.bids() and mine.asks() == its.asks()

    def load(
        self, data: BookData, pair: Pair, old: KrakenBook | None = None
    ) -> tuple[DepthSnapshot, DepthUpdate]:
        """Take a snapshot.

        Args:
            data: The message.
            pair: Whose decimals count.
            old: The book that this one goes on from, if there is one; nothing else follows it.

        Returns:
            The snapshot, and an update that proves it. Without an old book it changes nothing: the
            stream begins here. Otherwise it goes on from the old book's id, and holds all that
            differs: for those who have the old book as for those who take the snapshot.

        Raises:
            ChecksumMismatch: It is not what the venue says it is.
            InvalidEvent: A price or quantity is refused.
            CapacityError: A value does not fit the fixed point.
        """
        number = self._next_id(read_time(data.timestamp) or time.time_ns() // 1000)
        bids, asks = self._read(data)
        snapshot = DepthSnapshot(self.symbol, number, bids, asks)
        book = OrderBook(self.symbol)
        book.load(snapshot)
        self._verify(book, data, pair)
        if max(book.bid_count, book.ask_count) > self._depth:
            levels = book.bids(self._depth), book.asks(self._depth)
            snapshot = DepthSnapshot(self.symbol, number, *levels)
            book.load(snapshot)
        self._book, self.update_id = book, number + 1
        if old is None:
            return snapshot, self._make(number + 1, number, [], [], 0)
        bids = _differences(old._book.bids(), book.bids())
        asks = _differences(old._book.asks(), book.asks())
        return snapshot, self._make(number + 1, old.update_id, bids, asks, 0)

    def apply(self, data: BookData, pair: Pair) -> DepthUpdate:
        """Take an update.

        Returns:
            The same, with deletes of the levels that fall out of the subscribed depth.

        Raises:
            ChecksumMismatch: The book is not the venue's.
            InvalidEvent: A price or quantity is refused; nothing of it is applied.
            CapacityError: A value does not fit the fixed point; likewise.
        """
        book, before = self._book, self.update_id
        moment = read_time(data.timestamp)
        number = self._next_id(moment)
        update = parse_level_objects(
            self.symbol, number, number, before, data.bids, data.asks, moment // 1000
        )
        if update is None:  # written in another way, or refused: the long way tells
            update = self._make(number, before, *self._read(data), moment)
        book.apply(update)
        self.update_id = number
        if book.bid_count > self._depth or book.ask_count > self._depth:
            fallen_bids = _deletes(book.bids(start=self._depth))
            fallen_asks = _deletes(book.asks(start=self._depth))
            book.apply(self._make(number, number, fallen_bids, fallen_asks, moment))
            bids, asks = update.bids + fallen_bids, update.asks + fallen_asks
            update = self._make(number, before, bids, asks, moment)
        self._verify(book, data, pair)
        return update

    def _make(
        self, number: int, before: int, bids: Sequence[Level], asks: Sequence[Level], moment: int
    ) -> DepthUpdate:
        return DepthUpdate(self.symbol, number, number, before, bids, asks, moment // 1000)

    def _next_id(self, moment: int) -> int:
        """Return the id of a message of this time; one that cannot be true counts for nothing."""
        least = self.update_id + 1
        # The clock is asked only about a leap.
        if moment > least + _HOUR_US and moment > time.time_ns() // 1000 + _HOUR_US:
            return least
        return max(moment, least)

    def _read(self, data: BookData) -> tuple[list[Level], list[Level]]:
        return self._texts(data.bids, "bids"), self._texts(data.asks, "asks")

    def _texts(self, levels: msgspec.Raw, side: str) -> list[Level]:
        try:
            read = read_levels(levels)
            texts = [(str(each.price, "ascii"), str(each.qty, "ascii")) for each in read]
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            shown = bytes(levels)[:80].decode("ascii", "backslashreplace")
            raise InvalidEvent(self.symbol, side, shown, f"is no list of levels: {error}") from None
        if not _PLAIN("".join([price + qty for price, qty in texts])):
            texts = [(_write_out(price), _write_out(qty)) for price, qty in texts]
        return texts

    def _verify(self, book: OrderBook, data: BookData, pair: Pair) -> None:
        if not data.checksum:
            return
        found = checksum(book, pair)
        if found != data.checksum:
            raise ChecksumMismatch(
                f"the checksum of the book is {found}, the venue says {data.checksum}"
            )


def _deletes(levels: Sequence[Level]) -> list[Level]:
    return [(price, "0") for price, _ in levels]


def _differences(old: Sequence[Level], new: Sequence[Level]) -> list[Level]:
    before, now = dict(old), dict(new)
    changed = [(price, quantity) for price, quantity in new if before.get(price) != quantity]
    return changed + [(price, "0") for price in before if price not in now]


def _write_out(text: str) -> str:
    """Return a number without quotes and exponent, if it has them and is of a sane size."""
    if text[:1] == text[-1:] == '"':
        text = text[1:-1]
    if "e" not in text.lower():
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        return text
    return format(number, "f")


def checksum(book: OrderBook, pair: Pair) -> int:
    """Return the CRC32 of the best 10 levels of both sides, as the venue makes it."""
    return zlib.crc32(book.digits(CHECKED_LEVELS, pair.price_precision, pair.qty_precision))
