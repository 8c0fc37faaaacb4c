"""A market for load: events made beforehand, served for ever, forwards and back again.

To simulate each event anew costs more than to record it. Here a few books are simulated once; every
symbol walks through the events of one of them and then through their inverses, which lead back to
where it began. Each symbol has update ids of its own, from which its true book follows exactly.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from itertools import accumulate

from obframe.testing.exchange_mangle import write_zero
from obframe.testing.exchange_market import Depth, Event, Levels, Listing, Market
from obframe.testing.exchange_simulation import SimulatedBook, name_symbols

_BOOKS = 16
_FIRST_ID = 10**9
_IDS_APART = 10**8


class _Walk:
    """The events of one simulated book, there and back, and the book after each."""

    def __init__(self, book: SimulatedBook, count: int) -> None:
        self.listing = book.listing
        start = book.depth()
        self._start = dict(start.bids), dict(start.asks)
        there = [(event.bids, event.asks) for event in (book.advance() for _ in range(count))]
        self._there = there
        self.changes = [*there, *self._invert()]
        self.bodies = [_encode(bids, asks) for bids, asks in self.changes]
        sizes = (max(1, len(bids) + len(asks)) for bids, asks in self.changes)
        self.ids = [0, *accumulate(sizes)]
        self.depth = cache(self._depth)

    def _invert(self) -> list[tuple[Levels, Levels]]:
        sides = tuple(dict(side) for side in self._start)
        back: list[tuple[Levels, Levels]] = []
        for changes in self._there:
            before = tuple(
                [(price, held.get(price) or write_zero(quantity)) for price, quantity in levels]
                for held, levels in zip(sides, changes, strict=True)
            )
            for held, levels in zip(sides, changes, strict=True):
                _apply(held, levels)
            back.append((before[0], before[1]))
        return back[::-1]

    def _depth(self, step: int) -> tuple[Levels, Levels]:
        """Return both sides after so many events, best first."""
        bids, asks = (dict(side) for side in self._start)
        for changes in self._there[: min(step, len(self.changes) - step)]:
            _apply(bids, changes[0])
            _apply(asks, changes[1])
        return _sort(bids, reverse=True), _sort(asks, reverse=False)


class _Place:
    """Where a symbol is on its walk."""

    __slots__ = ("base", "head", "last", "listing", "step", "stream", "time_ms", "walk")

    def __init__(self, symbol: str, number: int, walk: _Walk, market: Market) -> None:
        self.walk = walk
        self.listing = Listing(symbol, walk.listing.tick, walk.listing.step)
        self.stream = f"{symbol.lower()}@{market.base}"
        self.base = _FIRST_ID + number * _IDS_APART
        self.step = number * 7 % len(walk.changes)  # no two that are neighbours do the same
        self.last = self.base + walk.ids[self.step]
        self.time_ms = time.time_ns() // 1_000_000
        pair = f'"ps":"{symbol.partition("_")[0]}",' if market.name == "coinm" else ""
        self.head = f'"s":"{symbol}",{pair}'.encode()


class LoopSource:
    """Serves symbols by the thousand, one event of each in turn, evenly spread over the time.

    Args:
        market: Which.
        symbols: How many, or their names.
        seed: Of the simulated books.
        rate: Events a second and symbol.
        levels: A side, about.
        events: How many are made beforehand of each book.
    """

    waits = False
    paced = True

    def __init__(
        self,
        market: Market,
        symbols: int | Sequence[str],
        seed: int,
        rate: float,
        levels: int,
        events: int,
    ) -> None:
        names = name_symbols(symbols, market) if isinstance(symbols, int) else tuple(symbols)
        self.market = market
        books = (SimulatedBook(name, market, seed, levels) for name in names[:_BOOKS])
        walks = [_Walk(book, events) for book in books]
        self._places = [
            _Place(name, number, walks[number % len(walks)], market)
            for number, name in enumerate(names)
        ]
        self._by_name = {place.listing.symbol: place for place in self._places}
        self.listings: Mapping[str, Listing] = {
            name: place.listing for name, place in self._by_name.items()
        }
        self._interval = 1.0 / (rate * len(names))
        self._count = 0

    def due(self) -> float:
        """Return the seconds from the start to the next event."""
        return self._count * self._interval

    def advance(self) -> Event:
        """Have the next symbol's book change."""
        place = self._places[self._count % len(self._places)]
        self._count += 1
        walk, step, before = place.walk, place.step, place.last
        ids = walk.ids
        last = place.last = before + ids[step + 1] - ids[step]
        place.step = (step + 1) % len(walk.changes)
        place.time_ms = now = time.time_ns() // 1_000_000
        futures = self.market.futures
        data = b'{"e":"depthUpdate","E":%d,%b%b"U":%d,"u":%d,%b%b' % (
            now,
            b'"T":%d,' % now if futures else b"",
            place.head,
            before + 1,
            last,
            b'"pu":%d,' % before if futures else b"",
            walk.bodies[step],
        )
        bids, asks = walk.changes[step]
        return Event(
            symbol=place.listing.symbol,
            stream=place.stream,
            data=data,
            depth=True,
            first=before + 1,
            last=last,
            prev=before if futures else 0,
            time_ms=now,
            bids=bids,
            asks=asks,
        )

    def depth(self, symbol: str, limit: int | None = None) -> Depth:
        """Return the symbol's book now."""
        place = self._by_name[symbol]
        bids, asks = place.walk.depth(place.step)
        return Depth(place.last, bids[:limit], asks[:limit], place.time_ms)

    def count(self, symbol: str, update_id: int) -> int | None:
        """Return how many events lead to an update id, counted from some point of the symbol's own.

        None when no event had the id.
        """
        place = self._by_name[symbol]
        ids = place.walk.ids
        rounds, within = divmod(update_id - place.base, ids[-1])
        step = bisect_left(ids, within)
        return rounds * len(place.walk.changes) + step if ids[step] == within else None

    def truth(self, symbol: str, update_id: int) -> tuple[Levels, Levels] | None:
        """Return both sides as they were at an update id; None when no event had it."""
        walk = self._by_name[symbol].walk
        count = self.count(symbol, update_id)
        return None if count is None else walk.depth(count % len(walk.changes))


def _apply(side: dict[str, str], changes: Iterable[tuple[str, str]]) -> None:
    for price, quantity in changes:
        if quantity.strip("0.") == "":
            side.pop(price, None)
        else:
            side[price] = quantity


def _sort(side: dict[str, str], *, reverse: bool) -> Levels:
    return sorted(side.items(), key=lambda level: Decimal(level[0]), reverse=reverse)


def _encode(bids: Levels, asks: Levels) -> bytes:
    texts = (",".join(f'["{price}","{size}"]' for price, size in side) for side in (bids, asks))
    return '"b":[{}],"a":[{}]}}'.format(*texts).encode()
