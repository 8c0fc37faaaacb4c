"""What a window says of itself, what it refuses, and which libraries it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from obframe import (
    CapacityError,
    DecodeError,
    Gap,
    GapReason,
    MissingExtra,
    QueryError,
    Record,
    Snapshot,
    StoreCorrupt,
    SymbolError,
    Trust,
)
from obframe.columns import Windows, read_window
from obframe_plugins.memory import MemoryStorage

T = 1_737_158_400


def record(second: int, price: str = "100.50", quantity: str = "1.5") -> Record:
    snapshot = Snapshot("BTCUSDT", 7, second, [(price, quantity)], [])
    return Record("BTCUSDT", second, snapshot.pack())


def stored(*records: Record) -> MemoryStorage:
    storage = MemoryStorage()
    storage.append(records)
    return storage


def test_a_window_of_nothing_has_its_shapes_and_its_coverage() -> None:
    storage = MemoryStorage()
    storage.append_gaps([Gap("BTCUSDT", T, T + 9, GapReason.PROCESS_DOWN)])
    window = read_window(storage, "BTCUSDT", T, T + 9)
    assert len(window) == 0
    assert window.bid_prices.shape == (0, 20)
    assert (window.price_scale, window.quantity_scale) == (0, 0)
    assert window.coverage.causes == {GapReason.PROCESS_DOWN: 10}
    assert window.to_arrow().num_rows == window.to_polars().height == len(window.to_pandas()) == 0
    assert repr(window) == (
        "<Window BTCUSDT 2025-01-18T00:00:00Z to 2025-01-18T00:00:09Z: 0 rows, 10 seconds missing>"
    )


def test_a_window_takes_the_memory_of_its_rows_not_of_its_range() -> None:
    storage = stored(record(T), record(T + 10**9))
    window = read_window(storage, "BTCUSDT", 1_000_000_000, 9_999_999_999)
    assert len(window) == 2
    columns = (window.bid_prices, window.timestamp, window.ask_quantities)
    for column in columns:
        kept = column if column.base is None else column.base
        assert kept.nbytes < 10_000
    assert window.coverage.missing_seconds == 9_000_000_000 - 2


def test_an_unreadable_part_is_an_error_never_a_short_window() -> None:
    closed = []

    class Broken(MemoryStorage):
        def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
            try:
                yield record(T)
                raise StoreCorrupt("block 3 of 000012.sst is damaged")
            finally:
                closed.append(True)

    with pytest.raises(StoreCorrupt, match="000012"):
        read_window(Broken(), "BTCUSDT", T, T + 9)
    assert closed == [True]


def test_damaged_rows_are_an_error_or_are_listed() -> None:
    broken = Record("BTCUSDT", T + 1, b"\x94\x90")
    late = Record("BTCUSDT", T + 3, record(T + 4).value)
    storage = stored(record(T), broken, record(T + 2), late)
    with pytest.raises(DecodeError, match=rf"BTCUSDT at {T + 1}: .*skip_damaged=True"):
        read_window(storage, "BTCUSDT", T, T + 9)
    with pytest.raises(DecodeError, match=rf"BTCUSDT at {T + 3}: .*of second {T + 4}, its key"):
        read_window(storage, "BTCUSDT", T + 2, T + 9)
    window = read_window(storage, "BTCUSDT", T, T + 9, skip_damaged=True)
    assert window.timestamp.tolist() == [T, T + 2]
    assert [row.timestamp for row in window.refused] == [T + 1, T + 3]
    assert window.coverage.stored == 4
    assert window.to_arrow().schema.metadata[b"refused"] == b"2"


def test_what_64_bits_do_not_hold_is_an_error_that_names_the_second() -> None:
    wide = str(2**63)
    storage = stored(record(T), record(T + 1, wide), record(T + 2))
    with pytest.raises(CapacityError, match=f"BTCUSDT at {T + 1}: .*{wide}.*floats=True") as caught:
        read_window(storage, "BTCUSDT", T, T + 2)
    assert caught.value.field == "bids[0].price"
    floats = read_window(storage, "BTCUSDT", T, T + 2, floats=True)
    assert floats.bid_prices[:, 0].tolist() == [100.5, float(wide), 100.5]
    assert (floats.price_scale, floats.quantity_scale) == (None, None)


def test_parts_of_different_scales_are_brought_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obframe.columns._PART_ROWS", 2)
    storage = stored(
        record(T, "100", "1.5"),
        record(T + 1, "101", "2"),
        record(T + 2, "0.00000001", "3"),
        record(T + 3, "5", "4.25"),
        record(T + 9, "7", "1"),
    )
    window = read_window(storage, "BTCUSDT", T, T + 9)
    assert (window.price_scale, window.quantity_scale) == (8, 2)
    assert window.bid_prices[:, 0].tolist() == [100 * 10**8, 101 * 10**8, 1, 5 * 10**8, 7 * 10**8]
    assert window.bid_quantities[:, 0].tolist() == [150, 200, 300, 425, 100]
    finest = record(T + 2, "1", "0." + "0" * 17 + "1")
    storage = stored(record(T, "1", "9000"), record(T + 1), finest)
    with pytest.raises(CapacityError, match=f"BTCUSDT at {T}: .*floats=True"):
        read_window(storage, "BTCUSDT", T, T + 9)


def test_arrow_shares_the_window_s_memory() -> None:
    storage = stored(
        *(
            Record(
                "BTCUSDT", T + n, Snapshot("B", n, T + n, [("1", "2")] * 2, [("3", "4")] * 2).pack()
            )
            for n in range(50)
        )
    )
    window = read_window(storage, "BTCUSDT", T, T + 49, depth=2)
    table = window.to_arrow()
    prices = table["bid_prices"].chunk(0).flatten()
    assert prices.buffers()[1].address == window.bid_prices.ctypes.data
    assert table["update_id"].chunk(0).buffers()[1].address == window.update_id.ctypes.data
    metadata = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert metadata == {
        "symbol": "BTCUSDT",
        "start": str(T),
        "end": str(T + 49),
        "expected": "50",
        "stored": "50",
        "missing": "0",
        "refused": "0",
        "price_scale": "0",
        "quantity_scale": "0",
    }


def test_others_take_the_window_itself_as_an_arrow_stream() -> None:
    polars = pytest.importorskip("polars")
    window = read_window(stored(record(T), record(T + 1)), "BTCUSDT", T, T + 1)
    assert polars.DataFrame(window).equals(window.to_polars())


def test_pandas_goes_by_time() -> None:
    frame = read_window(stored(record(T), record(T + 5)), "BTCUSDT", T, T + 9).to_pandas()
    assert [str(each) for each in frame.index] == [
        "2025-01-18 00:00:00+00:00",
        "2025-01-18 00:00:05+00:00",
    ]
    assert frame["bid1_price"].tolist() == [1005, 1005]
    assert frame["trust"].tolist() == [Trust.LIVE, Trust.LIVE]
    assert frame.attrs == {"symbol": "BTCUSDT", "price_scale": 1, "quantity_scale": 1}


def test_doubles_are_the_nearest_beyond_53_bits_too() -> None:
    texts = ["9007199254740993", "123456789012345.678", "4611686018427387.905"]
    storage = stored(*(record(T + n, text, text) for n, text in enumerate(texts)))
    window = read_window(storage, "BTCUSDT", T, T + 9).to_float64()
    assert window.bid_prices[:, 0].tolist() == [float(text) for text in texts]
    assert window.bid_prices.dtype == np.float64


def test_what_cannot_be_asked_for_is_refused() -> None:
    storage = stored(record(T))
    with pytest.raises(QueryError, match="starts 1 s after it ends"):
        read_window(storage, "BTCUSDT", T + 1, T)
    with pytest.raises(QueryError, match="milliseconds"):
        Windows(storage, "BTCUSDT", T, T * 1000)
    with pytest.raises(QueryError, match="is no length of a window"):
        Windows(storage, "BTCUSDT", T, T + 9, 0)
    with pytest.raises(SymbolError):
        read_window(storage, "BTC:USDT", T, T)
    with pytest.raises(ValueError, match="depth"):
        read_window(storage, "BTCUSDT", T, T, depth=0)


@pytest.mark.parametrize(
    ("library", "call", "extra"),
    [
        ("numpy", "read_window(storage, 'B', 1737158400, 1737158401)", "numpy"),
        ("pyarrow", "window.to_arrow()", "arrow"),
        ("polars", "window.to_polars()", "polars"),
        ("pandas", "window.to_pandas()", "pandas"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_what_brings_it(
    library: str, call: str, extra: str
) -> None:
    """Each library is imported only when it is asked for, and told of when it cannot be."""
    code = f"""
import sys
import obframe
from obframe.columns import read_window
from obframe_plugins.memory import MemoryStorage
assert not {{"numpy", "pyarrow", "polars", "pandas"}} & set(sys.modules)
storage = MemoryStorage()
if {library!r} != "numpy":
    window = read_window(storage, "B", 1737158400, 1737158401)
    assert not {{"pyarrow", "polars", "pandas"}} & set(sys.modules)
sys.modules[{library!r}] = None
try:
    {call}
except obframe.MissingExtra as error:
    print(error.library, error.extra, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{library} {extra} ")
    assert f"pip install 'obframe[{extra}]'" in done.stdout
    assert issubclass(MissingExtra, ImportError)
