"""Columns handed to other libraries: Arrow, pandas. Each is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from obframe.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DIGITS = 19  # of the largest int64


class Levels(NamedTuple):
    """One column of all levels of a side.

    Attributes:
        name: Such as ``bid_prices``.
        values: Of shape ``(rows, depth)``, best first.
        counts: Levels that each row has; what stands behind them is no level.
        scale: Decimals of integers, None for float64.
    """

    name: str
    values: npt.NDArray[Any]
    counts: npt.NDArray[np.uint16]
    scale: int | None

    def absent(self) -> npt.NDArray[np.bool_] | None:
        """Return which of the values are no levels, None when all are."""
        depth = self.values.shape[1]
        if not len(self.values) or int(self.counts.min()) >= depth:
            return None
        absent: npt.NDArray[np.bool_] = load_numpy().arange(depth) >= self.counts[:, None]
        return absent


def require(library: str, extra: str, what: str) -> ModuleType:
    """Import a library that an extra brings.

    Raises:
        MissingExtra: It is not installed; the message says how it is.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise MissingExtra(library, extra, what) from error


def load_numpy() -> ModuleType:
    """Import NumPy.

    Raises:
        MissingExtra: It is not installed.
    """
    return require("numpy", "numpy", "a window")


def arrow_table(
    plain: Mapping[str, npt.NDArray[Any]],
    levels: list[Levels],
    metadata: Mapping[str, str],
    *,
    decimals: bool,
) -> Any:
    """Make a ``pyarrow.Table`` that shares the columns' memory.

    Args:
        plain: Columns of one value a row; ``timestamp`` holds Unix seconds.
        levels: Columns of levels; they become fixed-size lists, null where there is no level.
        metadata: Of the schema.
        decimals: Make integers decimal128, which copies them.
    """
    pa = require("pyarrow", "arrow", "an Arrow table")
    np = load_numpy()
    arrays, fields = [], []
    for name, column in plain.items():
        kind = pa.from_numpy_dtype(column.dtype)
        if name == "timestamp":
            kind = pa.timestamp("s", tz="UTC")
        arrays.append(pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)]))
        fields.append(pa.field(name, kind, nullable=False))
    for each in levels:
        flat = each.values.reshape(-1)
        kind = pa.from_numpy_dtype(flat.dtype)
        if decimals and each.scale is not None:
            kind = pa.decimal128(_DIGITS, each.scale)
            wide = np.zeros((len(flat), 2), np.int64)  # none is below zero: the high half is 0
            wide[:, 0] = flat
            flat = wide.reshape(-1)
        absent = each.absent()
        valid = None
        if absent is not None:
            valid = pa.py_buffer(np.packbits(~absent.reshape(-1), bitorder="little"))
        items = pa.Array.from_buffers(kind, each.values.size, [valid, pa.py_buffer(flat)])
        column = pa.FixedSizeListArray.from_arrays(items, each.values.shape[1])
        arrays.append(column)
        scale = {} if each.scale is None else {"scale": str(each.scale)}
        fields.append(pa.field(each.name, column.type, nullable=False, metadata=scale))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=dict(metadata)))


def pandas_frame(
    plain: Mapping[str, npt.NDArray[Any]], levels: list[Levels], attributes: Mapping[str, Any]
) -> Any:
    """Make a ``pandas.DataFrame`` by time, a column a level: ``bid1_price`` and so on.

    Where there is no level stands NaN among float64, and NA among integers, which then are
    ``Int64``.
    """
    pd = require("pandas", "pandas", "a pandas frame")
    np = load_numpy()
    columns: dict[str, Any] = {name: plain[name] for name in plain if name != "timestamp"}
    for each in levels:
        absent = each.absent()
        side, _, what = each.name.partition("_")
        what = {"prices": "price", "quantities": "quantity"}[what]
        for level in range(each.values.shape[1]):
            values = each.values[:, level]
            if absent is not None and absent[:, level].any():
                gone = absent[:, level]
                if each.scale is None:
                    values = np.where(gone, np.nan, values)
                else:
                    values = pd.arrays.IntegerArray(values.copy(), gone.copy())
            columns[f"{side}{level + 1}_{what}"] = values
    index = pd.to_datetime(plain["timestamp"], unit="s", utc=True).rename("timestamp")
    frame = pd.DataFrame(columns, index=index)
    frame.attrs.update(attributes)
    return frame
