"""What a peer is: one book of one library, behind the same few calls.

A peer's own libraries are imported in ``require`` only: what is not installed is told by name and
reason, and the rest goes on.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, ClassVar

Levels = list[tuple[str, str]]
DEPTH = 20
TIMESTAMP = 1_737_158_400


class Peer:
    """One book of one library, from raw messages to its best levels.

    Attributes:
        title: What the table calls it.
        package: The distribution whose version the table shows.
        numbers: ``text`` and ``decimal`` hold every digit, ``float`` does not.
        tolerance: The relative difference a number may have from the truth.
        works: What is measured of it: ``b`` raw to book, ``t`` raw to book to best bid and ask on
            every message, ``c`` top 20, ``d`` top 20 to bytes, ``e`` raw to book to bytes on every
            message.
        note: What a reader of the table has to know.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    numbers: ClassVar[str] = "float"
    tolerance: ClassVar[float] = 0.0
    works: ClassVar[str] = "btcde"
    note: ClassVar[str] = ""

    # Set by require(): shared by all books of a worker.
    loads: ClassVar[Callable[[bytes], Any]]
    pack: ClassVar[Callable[[Any], bytes]]
    library: ClassVar[Any]

    @classmethod
    def require(cls) -> None:
        """Import what the peer needs.

        Raises:
            Exception: Whatever its import raises; the table shows it as the reason.
        """
        cls.loads = staticmethod(importlib.import_module("orjson").loads)
        cls.pack = staticmethod(importlib.import_module("msgspec.msgpack").Encoder().encode)

    def __init__(
        self,
        *,
        futures: bool = False,
        price_decimals: int = 8,
        quantity_decimals: int = 8,
        step: float = 0.01,
    ) -> None:
        """Make an empty book.

        Args:
            futures: Whether the messages are a futures market's.
            price_decimals: Decimals that prices are written with, as the venue's rules tell.
            quantity_decimals: Decimals that quantities are written with.
            step: The distance of prices.
        """
        self.futures = futures
        self.formats = f"%.{price_decimals}f", f"%.{quantity_decimals}f"
        self.decimals = price_decimals, quantity_decimals
        self.step = step
        self.update_id = 0
        self.open()

    def open(self) -> None:
        """Make the library's book."""

    def load(self, snapshot: bytes) -> None:
        """Take a raw REST answer."""
        raise NotImplementedError

    def apply(self, raw: bytes) -> None:
        """Take a raw message of a combined stream."""
        raise NotImplementedError

    def best(self) -> Any:
        """Return the best bid and ask."""
        raise NotImplementedError

    def top(self) -> Any:
        """Return the best 20 of both sides as Python objects, or in the peer's own form."""
        raise NotImplementedError

    def levels(self) -> tuple[Iterable[tuple[Any, Any]], Iterable[tuple[Any, Any]]]:
        """Return ``top`` as pairs of numbers or texts."""
        return self.top()  # type: ignore[no-any-return]

    def row(self) -> bytes:
        """Return the best 20 as a MessagePack row, numbers written out with all decimals."""
        price_format, quantity_format = self.formats
        bids, asks = self.levels()
        return self.pack(
            [
                [(price_format % price, quantity_format % quantity) for price, quantity in bids],
                [(price_format % price, quantity_format % quantity) for price, quantity in asks],
                self.update_id,
                TIMESTAMP,
            ]
        )


class FloatPeer(Peer):
    """A book that maps float prices to float quantities, as most programs do."""

    def read_snapshot(self, snapshot: bytes) -> tuple[dict[Any, Any], dict[Any, Any]]:
        data = self.loads(snapshot)
        self.update_id = data["lastUpdateId"]
        bids = {float(price): float(quantity) for price, quantity in data["bids"]}
        asks = {float(price): float(quantity) for price, quantity in data["asks"]}
        return bids, asks


def same_number(found: Any, expected: str, numbers: str, tolerance: float = 0.0) -> bool:
    """Tell whether a peer's number is the true one, as closely as its kind of number can say.

    Args:
        found: The peer's value: a text, a number or something that prints as one.
        expected: The digits that are true.
        numbers: ``text`` has to be the same digit for digit, ``decimal`` the same exact value,
            ``float`` the float nearest to the truth.
        tolerance: The relative difference a float may have.
    """
    if numbers == "text":
        return bool(found == expected)
    if numbers == "decimal":
        return Decimal(str(found)) == Decimal(expected)
    return math.isclose(float(found), float(expected), rel_tol=tolerance, abs_tol=0.0)
