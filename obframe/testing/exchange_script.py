"""A market that a test moves, change by change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from obframe.testing.exchange_market import Depth, Event, Levels, Listing, Market
from obframe.testing.reference import ReferenceBook

_STEP = "0.00000001"
_FIRST_ID = 10**9


class ScriptedSource:
    """Books that begin empty and stand still between one ``change`` and the next.

    Args:
        market: Which.
        symbols: Their names.
    """

    waits = False
    paced = True

    def __init__(self, market: Market, symbols: Sequence[str]) -> None:
        self.market = market
        self.listings: Mapping[str, Listing] = {
            symbol: Listing(symbol, _STEP, _STEP) for symbol in symbols
        }
        self._books = {symbol: ReferenceBook() for symbol in symbols}
        for book in self._books.values():
            book.update_id = _FIRST_ID
        self._time_ms = _now_ms()

    def due(self) -> None:
        """Return None: nothing happens by itself."""

    def advance(self) -> None:
        """Return None: nothing happens by itself."""

    def change(self, symbol: str, bids: Levels, asks: Levels) -> Event:
        """Change a book and return the event that tells of it.

        Args:
            symbol: Whose.
            bids: ``(price, quantity)`` texts: absolute quantities by price; zero deletes.
            asks: The same for asks.

        Raises:
            KeyError: The symbol is not listed.
        """
        book, futures = self._books[symbol], self.market.futures
        previous = book.update_id
        # Ids of futures jump, those of spot do not.
        first = previous + (50 if futures else 1)
        book.apply(first + len(bids) + len(asks), bids, asks)
        self._time_ms = now = _now_ms()
        event = {"e": "depthUpdate", "E": now, **({"T": now} if futures else {}), "s": symbol}
        if self.market.name == "coinm":
            event["ps"] = symbol.partition("_")[0]
        ids = {"U": first, "u": book.update_id, **({"pu": previous} if futures else {})}
        return Event(
            symbol=symbol,
            stream=f"{symbol.lower()}@{self.market.base}",
            data=msgspec.json.encode({**event, **ids, "b": bids, "a": asks}),
            depth=True,
            first=first,
            last=book.update_id,
            prev=previous if futures else 0,
            time_ms=now,
            bids=bids,
            asks=asks,
        )

    def depth(self, symbol: str, limit: int | None = None) -> Depth:
        """Return the symbol's book now."""
        book = self._books[symbol]
        return Depth(book.update_id, book.bids(limit), book.asks(limit), self._time_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
