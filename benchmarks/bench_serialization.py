"""Taking a top-20 row from a book, and reading one back."""

from __future__ import annotations

from typing import Any

import pytest
from data import make_stream

from obframe._core import DepthSnapshot, OrderBook, Snapshot


@pytest.fixture(scope="module")
def book() -> OrderBook:
    stream = make_stream()
    book = OrderBook("BTCUSDT")
    book.load(DepthSnapshot("BTCUSDT", 1, stream.bids, stream.asks))
    return book


def test_pack(benchmark: Any, hold: Any, book: OrderBook) -> None:
    packed = benchmark(lambda: book.snapshot(1737158400).pack())
    assert Snapshot.unpack(packed).bid_count == 20
    hold("pack")


def test_unpack(benchmark: Any, hold: Any, book: OrderBook) -> None:
    packed = book.snapshot(1737158400).pack()
    snapshot = benchmark(Snapshot.unpack, packed, "BTCUSDT")
    assert snapshot == book.snapshot(1737158400)
    hold("unpack")
