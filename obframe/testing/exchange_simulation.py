"""A market that never was: seeded order flow, the same for a seed whatever the timing."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Mapping, Sequence
from math import log
from random import Random

from obframe.testing.exchange_market import Depth, Event, Listing, Market

_NEAR = 12.0
"""Mean distance from the touch, in levels, of what happens near it."""


class SimulatedBook:
    """One symbol: a book of ticks and lots, and the flow that changes it.

    A side is an ascending list of keys whose best is at the end: ticks for bids, negative ticks for
    asks. Bids lie at or below ``_mid``, asks above it, so the book cannot cross.

    Args:
        symbol: Its name goes into the seed.
        market: Decides the number format and how ids run.
        seed: Of the whole simulation.
        levels: A side, about; the book starts with exactly that many.
    """

    def __init__(self, symbol: str, market: Market, seed: int, levels: int) -> None:
        self.symbol = symbol
        self.stream = f"{symbol.lower()}@{market.base}"
        self._random = Random(f"{seed}/{market.name}/{symbol}")
        self._market = market
        self._levels = levels
        self._set_formats()
        self._origin = self._mid
        self.last = self._random.randrange(10**9, 5 * 10**10)
        self.time_ms = time.time_ns() // 1_000_000
        self._bids = self._side(self._mid)
        self._asks = self._side(-self._mid - 1)
        self._bid_lots = {key: self._lots() for key in self._bids}
        self._ask_lots = {key: self._lots() for key in self._asks}

    def _set_formats(self) -> None:
        known = {"BTC": (2, 5, 6_000_000), "ETH": (2, 4, 250_000)}.get(self.symbol[:3])
        random = self._random
        if known is None:
            decimals, lot_decimals = random.randrange(1, 6), random.randrange(0, 4)
            known = decimals, lot_decimals, random.randrange(30_000, 900_000)
        decimals, lot_decimals, self._mid = known
        if self._market.futures:
            self._decimals = decimals
            self._lot_decimals = 0 if self._market.name == "coinm" else min(lot_decimals, 3)
        else:
            self._decimals = self._lot_decimals = 8
        self._tick = 10 ** (self._decimals - decimals)
        self._lot = 1 if self._market.futures else 10 ** (8 - lot_decimals)
        self.listing = Listing(self.symbol, self._price(1), self._quantity(1))

    def _side(self, best: int) -> list[int]:
        keys = []
        key = best - int(self._random.random() * 2)
        for _ in range(self._levels):
            keys.append(key)
            key -= 1 + int(self._random.expovariate(0.5))
        return keys[::-1]

    def _lots(self) -> int:
        return int(10 ** (4 * self._random.random()))

    def _price(self, ticks: int) -> str:
        return _fixed(ticks * self._tick, self._decimals)

    def _quantity(self, lots: int) -> str:
        return _fixed(lots * self._lot, self._lot_decimals)

    def depth(self, limit: int | None = None) -> Depth:
        """Return the book now, best first."""
        bids = self._bids[::-1] if limit is None else self._bids[: -limit - 1 : -1]
        asks = self._asks[::-1] if limit is None else self._asks[: -limit - 1 : -1]
        return Depth(
            self.last,
            [(self._price(key), self._quantity(self._bid_lots[key])) for key in bids],
            [(self._price(-key), self._quantity(self._ask_lots[key])) for key in asks],
            self.time_ms,
        )

    def advance(self) -> Event:
        """Change the book and return the event that tells of it."""
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        self._walk(bids, asks)
        for _ in range(14 + int(self._random.random() * 28)):
            if self._random.random() < 0.5:
                self._change(self._bids, self._bid_lots, bids, self._mid)
            else:
                self._change(self._asks, self._ask_lots, asks, -self._mid - 1)
        return self._event(bids, asks)

    def _walk(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Move the mid, and take away what it runs over."""
        step = int(self._random.gauss(0.0, 2.0))
        if abs(self._mid + step - self._origin) < self._origin // 4:
            self._mid += step
        for keys, lots, changes, limit in (
            (self._bids, self._bid_lots, bids, self._mid),
            (self._asks, self._ask_lots, asks, -self._mid - 1),
        ):
            while len(keys) > 1 and keys[-1] > limit:
                key = keys.pop()
                del lots[key]
                changes[key] = 0
            if keys[-1] > limit:
                # The last level of a side gives way to one inside, so that no side runs dry.
                changes[keys[-1]] = 0
                del lots[keys.pop()]
                keys.append(limit)
                lots[limit] = changes[limit] = self._lots()

    def _change(
        self, keys: list[int], lots: dict[int, int], changes: dict[int, int], limit: int
    ) -> None:
        random = self._random.random
        size = len(keys)
        kind, spread, place = random(), random(), random()
        index = int(-log(1.0 - place) * _NEAR) if spread < 0.9 else int(place * size)
        if kind < 0.02:
            # A level that the book does not hold: venues delete such too.
            key = keys[0] - 1 - index
            if key * limit > 0:
                changes[key] = 0
        elif kind < 0.34 + 0.5 * (size - self._levels) / self._levels and size > 2:
            key = keys.pop(max(size - 1 - index, 0))
            del lots[key]
            changes[key] = 0
        elif kind < 0.67:
            key = keys[max(size - 1 - index, 0)]
            lots[key] = changes[key] = self._lots()
        else:
            key = limit - (index if spread < 0.9 else int(place * self._levels * 3))
            if key * limit > 0:
                if key not in lots:
                    insort(keys, key)
                lots[key] = changes[key] = self._lots()

    def _event(self, bids: dict[int, int], asks: dict[int, int]) -> Event:
        previous, changed = self.last, len(bids) + len(asks)
        futures = self._market.futures
        if futures:
            first = previous + 1 + int(self._random.random() * 500)
            self.last = first + changed + int(self._random.random() * 5000)
        else:
            first = previous + 1
            self.last = previous + changed + int(self._random.random() * 4)
        self.time_ms = now = time.time_ns() // 1_000_000
        # Spot lists both sides from the touch outwards, futures from low to high.
        bid_levels = self._texts(sorted(bids, reverse=not futures), bids, 1)
        ask_levels = self._texts(sorted(asks, reverse=True), asks, -1)
        ids = f'"U":{first},"u":{self.last}' + (f',"pu":{previous}' if futures else "")
        matched = f'"T":{now},' if futures else ""
        pair = f'"ps":"{self.symbol.partition("_")[0]}",' if self._market.name == "coinm" else ""
        data = (
            f'{{"e":"depthUpdate","E":{now},{matched}"s":"{self.symbol}",{pair}{ids},'
            f'"b":[{_array(bid_levels)}],"a":[{_array(ask_levels)}]}}'
        )
        return Event(
            symbol=self.symbol,
            stream=self.stream,
            data=data.encode(),
            depth=True,
            first=first,
            last=self.last,
            prev=previous if futures else 0,
            time_ms=now,
            bids=bid_levels,
            asks=ask_levels,
        )

    def _texts(self, keys: list[int], lots: dict[int, int], sign: int) -> list[tuple[str, str]]:
        return [(self._price(sign * key), self._quantity(lots[key])) for key in keys]


class SimulationSource:
    """Simulates several symbols, one event of each in turn, evenly spread over the time.

    Args:
        market: Which.
        symbols: How many, or their names.
        seed: The same seed gives the same events, symbol by symbol.
        rate: Events a second and symbol.
        levels: A side, about.
    """

    waits = False
    paced = True

    def __init__(
        self, market: Market, symbols: int | Sequence[str], seed: int, rate: float, levels: int
    ) -> None:
        names = name_symbols(symbols, market) if isinstance(symbols, int) else tuple(symbols)
        self.market = market
        self._books = [SimulatedBook(name, market, seed, levels) for name in names]
        self._by_name: Mapping[str, SimulatedBook] = {book.symbol: book for book in self._books}
        self.listings: Mapping[str, Listing] = {book.symbol: book.listing for book in self._books}
        self._interval = 1.0 / (rate * len(names))
        self._count = 0

    def due(self) -> float:
        """Return the seconds from the start to the next event."""
        return self._count * self._interval

    def advance(self) -> Event:
        """Have the next symbol's book change."""
        book = self._books[self._count % len(self._books)]
        self._count += 1
        return book.advance()

    def depth(self, symbol: str, limit: int | None = None) -> Depth:
        """Return the symbol's book now."""
        return self._by_name[symbol].depth(limit)


def name_symbols(count: int, market: Market) -> tuple[str, ...]:
    """Return the names of ``count`` simulated symbols."""
    quote = "USD_PERP" if market.name == "coinm" else "USDT"
    made = (f"SIM{number:04d}{quote}" for number in range(1, count + 1))
    return (f"BTC{quote}", f"ETH{quote}", *made)[:count]


def _fixed(value: int, decimals: int) -> str:
    if not decimals:
        return str(value)
    digits = str(value).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def _array(levels: Sequence[tuple[str, str]]) -> str:
    return ",".join([f'["{price}","{quantity}"]' for price, quantity in levels])
