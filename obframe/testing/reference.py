"""The plain, slow truth to compare the compiled core with."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgpack
from sortedcontainers import SortedDict

Level = tuple[str, str]


class ReferenceBook:
    """A book on sorted dictionaries of ``Decimal`` prices, which keep the texts as they came.

    It shares no code with the compiled core and checks nothing: feed it what is valid.
    """

    def __init__(self) -> None:
        self.update_id = 0
        # Price -> (price, quantity) as written. Both ascend: the best bid is the last.
        self._bids: SortedDict[Decimal, Level] = SortedDict()
        self._asks: SortedDict[Decimal, Level] = SortedDict()

    def load(self, last_update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Replace everything by a snapshot.

        Args:
            last_update_id: The id of the last event that the snapshot contains.
            bids: ``(price, quantity)`` in any order; of the same price the last wins; quantity 0 is
                no level.
            asks: The same for asks.
        """
        self._bids.clear()
        self._asks.clear()
        self.apply(last_update_id, bids, asks)

    def apply(self, last_update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Apply a depth diff: absolute quantities by price, 0 deletes.

        Args:
            last_update_id: The id that the book then has.
            bids: ``(price, quantity)`` in the order they came.
            asks: The same for asks.
        """
        for levels, changes in ((self._bids, bids), (self._asks, asks)):
            for price, quantity in changes:
                key = Decimal(price)
                if Decimal(quantity) == 0:
                    levels.pop(key, None)
                else:
                    levels[key] = (price, quantity)
        self.update_id = last_update_id

    def bids(self, depth: int | None = None) -> list[Level]:
        """Return the best bids, highest first, all when ``depth`` is None."""
        keys = self._bids.keys()
        count = len(keys) if depth is None else min(depth, len(keys))
        return [self._bids[keys[-1 - i]] for i in range(count)]

    def asks(self, depth: int | None = None) -> list[Level]:
        """Return the best asks, lowest first, all when ``depth`` is None."""
        return [self._asks[key] for key in self._asks.keys()[:depth]]

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask."""
        if not self._bids or not self._asks:
            return False
        return bool(self._bids.keys()[-1] >= self._asks.keys()[0])

    def pack(self, timestamp: int, depth: int = 20) -> bytes:
        """Return the row of the best levels, packed by the msgpack library.

        Args:
            timestamp: Unix seconds.
            depth: Levels a side at most.
        """
        row = [self.bids(depth), self.asks(depth), self.update_id, timestamp]
        packed: bytes = msgpack.packb(row)
        return packed
