"""Windows: stored rows as columns of NumPy arrays, with what is missing and how far to trust."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from obframe.frames import Levels, arrow_table, pandas_frame, require
from obframe.query import Coverage, Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LEVELS: Final = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
"""The columns of shape ``(n, depth)``."""

_EXACT: Final = 2**53  # what a double holds of whole numbers without rounding


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Window:
    """The stored rows of a range as columns; row ``i`` of each column is the same row.

    Arrays are read-only. Levels stand best first; where a row has fewer than the depth, the rest
    is 0, and ``bid_count`` or ``ask_count`` tells where it begins.

    Attributes:
        symbol: Whose rows.
        coverage: Which seconds of the range are stored, which are not, and why. A second without a
            row has none here either.
        timestamp: int64 of shape ``(n,)``: Unix seconds, each later than the one before.
        update_id: uint64 of shape ``(n,)``: the venue's id of the last update in the row.
        bid_prices: Shape ``(n, depth)``: int64 in units of ``10**-price_scale``, or float64.
        bid_quantities: Likewise, in units of ``10**-quantity_scale``, or float64.
        ask_prices: As the bids'.
        ask_quantities: As the bids'.
        bid_count: uint16 of shape ``(n,)``: bids that the row has; that may be more than the depth.
        ask_count: The same of the asks.
        trust: uint8 of shape ``(n,)``: flags of ``Trust``; 0 is live.
        price_scale: Decimals of the integer prices, as few as hold all of them; None of float64.
        quantity_scale: Decimals of the integer quantities, likewise.
        refused: Rows that are stored and were left out because they cannot be decoded, with their
            errors. Always empty without ``skip_damaged``.
    """

    symbol: str
    coverage: Coverage
    timestamp: npt.NDArray[np.int64]
    update_id: npt.NDArray[np.uint64]
    bid_prices: npt.NDArray[Any]
    bid_quantities: npt.NDArray[Any]
    ask_prices: npt.NDArray[Any]
    ask_quantities: npt.NDArray[Any]
    bid_count: npt.NDArray[np.uint16]
    ask_count: npt.NDArray[np.uint16]
    trust: npt.NDArray[np.uint8]
    price_scale: int | None
    quantity_scale: int | None
    refused: tuple[Row, ...] = ()

    def __len__(self) -> int:
        return len(self.timestamp)

    def __repr__(self) -> str:
        first, last = (
            f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
            for second in (self.coverage.start, self.coverage.end)
        )
        return (
            f"<Window {self.symbol} {first} to {last}: {len(self)} rows, "
            f"{self.coverage.missing_seconds} seconds missing>"
        )

    @property
    def depth(self) -> int:
        """Levels a side at most."""
        return int(self.bid_prices.shape[1])

    def to_float64(self) -> Window:
        """Return the window with prices and quantities as the doubles nearest to the decimals."""
        if self.price_scale is None or self.quantity_scale is None:
            return self
        return replace(
            self,
            bid_prices=_to_doubles(self.bid_prices, self.price_scale),
            bid_quantities=_to_doubles(self.bid_quantities, self.quantity_scale),
            ask_prices=_to_doubles(self.ask_prices, self.price_scale),
            ask_quantities=_to_doubles(self.ask_quantities, self.quantity_scale),
            price_scale=None,
            quantity_scale=None,
        )

    def to_arrow(self, *, decimals: bool = False) -> Any:
        """Return a ``pyarrow.Table``: a row a second, levels as fixed-size lists, best first.

        Prices and quantities stay what they are here, without a copy: of integers, the metadata of
        field and schema tells the scale. Where a row has fewer levels the rest of its lists is
        null. ``timestamp`` is in UTC. The schema's metadata tells symbol, range and coverage.

        Args:
            decimals: Give integers as decimal128 of their scale, exact too; that copies them.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        return arrow_table(self._plain(), self._levels(), self._metadata(), decimals=decimals)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Export as an Arrow stream, so that polars, DuckDB and others take the window itself."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_polars(self, *, decimals: bool = False) -> Any:
        """Return a ``polars.DataFrame`` of the columns of ``to_arrow``.

        Raises:
            MissingExtra: polars or pyarrow is not installed.
        """
        polars = require("polars", "polars", "a polars frame")
        return polars.from_arrow(self.to_arrow(decimals=decimals))

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` by time (UTC), with a column a level: ``bid1_price``, ….

        Prices and quantities stay what they are here; ``frame.attrs`` tells the scales of integers.
        ``to_float64().to_pandas()`` is what most calculations want.

        Raises:
            MissingExtra: pandas is not installed.
        """
        attributes = {
            "symbol": self.symbol,
            "price_scale": self.price_scale,
            "quantity_scale": self.quantity_scale,
        }
        return pandas_frame(self._plain(), self._levels(), attributes)

    def _plain(self) -> dict[str, npt.NDArray[Any]]:
        names = ("timestamp", "update_id", "trust", "bid_count", "ask_count")
        return {name: getattr(self, name) for name in names}

    def _levels(self) -> list[Levels]:
        counts = (self.bid_count, self.bid_count, self.ask_count, self.ask_count)
        scales = (self.price_scale, self.quantity_scale) * 2
        return [
            Levels(name, getattr(self, name), count, scale)
            for name, count, scale in zip(LEVELS, counts, scales, strict=True)
        ]

    def _metadata(self) -> dict[str, str]:
        told = {
            "symbol": self.symbol,
            "start": self.coverage.start,
            "end": self.coverage.end,
            "expected": self.coverage.expected,
            "stored": self.coverage.stored,
            "missing": self.coverage.missing_seconds,
            "refused": len(self.refused),
        }
        if self.price_scale is not None:
            told |= {"price_scale": self.price_scale, "quantity_scale": self.quantity_scale}
        return {name: str(value) for name, value in told.items()}


def _to_doubles(units: npt.NDArray[np.int64], scale: int) -> npt.NDArray[np.float64]:
    """Return the doubles nearest to counts of units of ``10**-scale``."""
    # Both are exact as doubles, so the one rounding is that of the quotient.
    doubles: npt.NDArray[np.float64] = units / float(10**scale)
    for index in zip(*(units > _EXACT).nonzero(), strict=True):
        doubles[index] = int(units[index]) / 10**scale
    doubles.flags.writeable = False
    return doubles
