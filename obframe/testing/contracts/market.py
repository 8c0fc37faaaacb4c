"""What the feed contract makes happen at a venue, and the truth about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import TypeAlias

from obframe._core import Level
from obframe.testing.reference import ReferenceBook
from obframe.types import Instrument

_FIRST_LEVELS = 5
_REACH = 40
_LEAST = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a book; its quantities were never used before.

    Attributes:
        bids: ``(price, quantity)`` texts.
        asks: The same for asks.
    """

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


Tell: TypeAlias = Callable[[Instrument, Sequence[Level], Sequence[Level]], Awaitable[None]]
"""Takes an instrument, bids and asks: what a venue's ``change`` is."""


class Market:
    """Makes up changes, the same each time, and keeps the books that result.

    Bids stay below 100, asks above it; a side never runs empty and never grows past
    ``most_levels``.

    Args:
        price_decimals: Decimals of every price.
        quantity_decimals: Decimals of every quantity.
        most_levels: Levels a side.
    """

    def __init__(self, price_decimals: int, quantity_decimals: int, most_levels: int) -> None:
        self._price_decimals = price_decimals
        self._quantity_decimals = quantity_decimals
        self._most_levels = most_levels
        self._random = Random(1)
        self._books: dict[str, ReferenceBook] = {}
        self._made = 0

    async def open(self, tell: Tell, instruments: Sequence[Instrument]) -> None:
        """Give each instrument its first levels."""
        for instrument in instruments:
            sides = [
                tuple((self._price(side, step), self._quantity()) for step in range(_FIRST_LEVELS))
                for side in (-1, 1)
            ]
            await self._happen(tell, instrument, Change(sides[0], sides[1]))

    async def change(self, tell: Tell, instrument: Instrument) -> Change:
        """Change one or more levels of an instrument; return what changed."""
        book = self._books[instrument.symbol]
        sides = []
        for side, levels in ((-1, book.bids()), (1, book.asks())):
            held = [price for price, _ in levels]
            wanted = self._price(side, self._random.randrange(_REACH))
            if wanted not in held and len(held) >= self._most_levels:
                wanted = held[-1]
            changed = [(wanted, self._quantity())]
            if len(held) > _LEAST and self._random.random() < 0.4:
                gone = held[self._random.randrange(len(held))]
                if gone != wanted:
                    changed.append((gone, self._text(0, self._quantity_decimals)))
            sides.append(tuple(changed))
        change = Change(sides[0], sides[1])
        await self._happen(tell, instrument, change)
        return change

    def truth(self, instrument: Instrument) -> tuple[list[Level], list[Level]]:
        """Return both sides of the book as it is at the venue, best first."""
        book = self._books[instrument.symbol]
        return book.bids(), book.asks()

    async def _happen(self, tell: Tell, instrument: Instrument, change: Change) -> None:
        book = self._books.setdefault(instrument.symbol, ReferenceBook())
        book.apply(book.update_id + 1, change.bids, change.asks)
        await tell(instrument, change.bids, change.asks)

    def _price(self, side: int, step: int) -> str:
        unit = Decimal(1).scaleb(-self._price_decimals)
        return f"{100 + side * (step + 1) * max(unit, Decimal('0.1')):.{self._price_decimals}f}"

    def _quantity(self) -> str:
        # Ends in a zero where there are decimals, so that lost digits are seen.
        self._made += 1
        if self._quantity_decimals == 0:
            return str(self._made)
        return self._text(self._made * 10, self._quantity_decimals)

    @staticmethod
    def _text(units: int, decimals: int) -> str:
        return f"{Decimal(units).scaleb(-decimals):.{decimals}f}"
