"""Real market data: the core's book against the reference book and the venue's own best prices."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest

import obframe
from obframe import Record
from obframe._core import (
    ColumnDecoder,
    OrderBook,
    Snapshot,
    parse_depth_snapshot,
    parse_depth_update,
)
from obframe.testing.reference import ReferenceBook
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

FULL_DEPTH_EVERY = 500


class Capture(NamedTuple):
    """What captures/README.md says of one symbol of one market."""

    market: str
    symbol: str
    days: tuple[str, ...]
    messages: int
    changes: int
    best_checked: int

    @property
    def futures(self) -> bool:
        return self.market == "usdm"


CAPTURES = [
    Capture("spot", "BTCUSDT", ("20240808", "20240809"), 3_451 + 3_044, 124_090 + 174_021, 1072),
    Capture("spot", "ETHUSDT", ("20240808", "20240809"), 3_434 + 3_036, 106_814 + 165_950, 1056),
    Capture("usdm", "BTCUSDT", ("20240808",), 6_551, 443_521, 629),
    Capture("usdm", "ETHUSDT", ("20240808",), 6_586, 428_662, 551),
]


def read_messages(folder: Path, capture: Capture) -> Iterator[bytes]:
    for day in capture.days:
        path = folder / capture.market / f"{capture.symbol.lower()}_{day}.gz"
        with gzip.open(path, "rb") as lines:
            for line in lines:
                yield line.rstrip(b"\n").split(b" ", 1)[1]


def take_levels(pairs: list[list[str]]) -> list[tuple[str, str]]:
    return [(price, quantity) for price, quantity in pairs]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda c: f"{c.market}-{c.symbol}")
def test_rebuilds_the_recorded_book_to_the_last_digit(
    captures: Path, capture: Capture, tmp_path: Path
) -> None:
    book = OrderBook(capture.symbol)
    reference = ReferenceBook()
    waiting: list[bytes] = []
    loaded = False
    messages = changes = applied = crossed = 0
    rows: list[bytes] = []
    best: dict[int, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {}
    tickers: dict[int, dict[str, Any]] = {}

    def follow(raw: bytes) -> None:
        nonlocal applied, crossed
        update = parse_depth_update(raw, capture.futures)
        assert update is not None
        if update.last_update_id < book.update_id + (0 if capture.futures else 1):
            return
        event = json.loads(raw)["data"]
        assert update.symbol == event["s"]
        assert update.event_time_ms == event["E"]
        assert (update.first_update_id, update.last_update_id) == (event["U"], event["u"])
        assert update.prev_update_id == event.get("pu", event["U"] - 1)
        if applied:
            assert update.prev_update_id == book.update_id
        else:
            assert update.prev_update_id <= book.update_id
        bids, asks = take_levels(event["b"]), take_levels(event["a"])
        book.apply(update)
        reference.apply(event["u"], bids, asks)
        applied += 1
        crossed += book.crossed
        rows.append(book.snapshot(applied).pack())
        assert rows[-1] == reference.pack(applied)
        if applied % FULL_DEPTH_EVERY == 0:
            assert update.bids == bids
            assert update.asks == asks
            assert book.bids() == reference.bids()
            assert book.asks() == reference.asks()
        best[book.update_id] = (book.bids(1), book.asks(1))

    for raw in read_messages(captures, capture):
        if raw.startswith(b'{"lastUpdateId"'):
            assert not loaded
            snapshot = parse_depth_snapshot(raw, capture.symbol, 1000)
            assert len(snapshot) == 2000
            body = json.loads(raw)
            book.load(snapshot)
            reference.load(
                body["lastUpdateId"], take_levels(body["bids"]), take_levels(body["asks"])
            )
            assert book.snapshot(0).pack() == reference.pack(0)
            loaded = True
            for early in waiting:
                follow(early)
            continue
        update = parse_depth_update(raw, capture.futures)
        if update is None:
            data = json.loads(raw)["data"]
            if "B" in data:
                tickers[data["u"]] = data
            continue
        messages += 1
        changes += len(update)
        if loaded:
            follow(raw)
        else:
            waiting.append(raw)

    assert book.bids() == reference.bids()
    assert book.asks() == reference.asks()
    assert messages == capture.messages
    assert changes == capture.changes
    assert book.unknown_deletes > 0
    assert crossed == 0
    checked = 0
    for update_id, ticker in tickers.items():
        if update_id in best:
            bids, asks = best[update_id]
            assert bids == [(ticker["b"], ticker["B"])]
            assert asks == [(ticker["a"], ticker["A"])]
            checked += 1
    assert checked == capture.best_checked
    assert_same_in_columns(rows)
    assert_same_in_window(rows, tmp_path)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda c: f"{c.market}-{c.symbol}")
def test_a_book_follows_the_recorded_stream_by_itself(captures: Path, capture: Capture) -> None:
    """From all that was recorded, tickers too, as it came: the book of parsing and applying."""
    book, applied = OrderBook(capture.symbol), OrderBook(capture.symbol)
    waiting: list[bytes] = []
    followed = 0

    def follow(raw: bytes) -> None:
        nonlocal followed
        update = parse_depth_update(raw, capture.futures)
        is_next = update is not None and (
            update.prev_update_id == applied.update_id
            if followed
            else update.prev_update_id <= applied.update_id <= update.last_update_id
        )
        assert book.follow(raw, capture.futures) is is_next
        if update is not None and is_next:
            applied.apply(update)
            followed += 1
            assert book.snapshot(followed).pack() == applied.snapshot(followed).pack()
        if followed % FULL_DEPTH_EVERY == 0:
            assert (book.bids(), book.asks()) == (applied.bids(), applied.asks())

    for raw in read_messages(captures, capture):
        if raw.startswith(b'{"lastUpdateId"'):
            snapshot = parse_depth_snapshot(raw, capture.symbol, 1000)
            for each in (book, applied):
                each.load(snapshot)
            for early in waiting:
                follow(early)
        elif book.update_id:
            follow(raw)
        else:
            waiting.append(raw)

    assert capture.messages - len(waiting) <= followed <= capture.messages
    assert (book.bids(), book.asks()) == (applied.bids(), applied.asks())
    assert book.unknown_deletes == applied.unknown_deletes > 0
    assert (book.update_id, book.nbytes) == (applied.update_id, applied.nbytes)


def assert_same_in_columns(rows: list[bytes]) -> None:
    """Decode the rows to integers and to doubles, and compare both with the rows' decimals."""
    shape = (4, len(rows), 20)
    units, doubles = np.empty(shape, np.int64), np.empty(shape, np.float64)
    names = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
    decoder = ColumnDecoder(20, **dict(zip(names, units, strict=True)))
    decoder.extend(rows)
    ColumnDecoder(20, **dict(zip(names, doubles, strict=True))).extend(rows)
    scales = (decoder.price_scale, decoder.quantity_scale)
    for at, row in enumerate(rows):
        snapshot = Snapshot.unpack(row)
        for side, levels in enumerate((snapshot.bids, snapshot.asks)):
            for kind, scale in enumerate(scales):
                texts = [level[kind] for level in levels]
                expected = [int(Decimal(text).scaleb(scale)) for text in texts]
                assert units[2 * side + kind, at].tolist() == expected
                assert doubles[2 * side + kind, at].tolist() == [float(text) for text in texts]


def assert_same_in_window(rows: list[bytes], folder: Path) -> None:
    """Store the rows, read them as a window from the files, and compare with msgpack's decimals."""
    first = 1_737_158_400
    unpacked = [msgpack.unpackb(row) for row in rows]
    records = [
        Record("BTCUSDT", first + at, msgpack.packb([*row[:3], first + at]))
        for at, row in enumerate(unpacked)
    ]
    settings = RocksSettings(path=str(folder / "rows"), durability="process")
    with closing(RocksStorage.open(settings)) as storage:
        storage.append(records)
        storage.flush()
    with obframe.open(settings.path) as store:
        window = store.window("BTCUSDT", first, first + len(rows) - 1)
    assert len(window) == len(rows)
    assert window.coverage.missing == ()
    assert window.update_id.tolist() == [row[2] for row in unpacked]
    scales = (window.price_scale or 0, window.quantity_scale or 0)
    columns = (window.bid_prices, window.bid_quantities, window.ask_prices, window.ask_quantities)
    for at, row in enumerate(unpacked):
        for place, column in enumerate(columns):
            texts = [level[place % 2] for level in row[place // 2]]
            expected = [int(Decimal(text).scaleb(scales[place % 2])) for text in texts]
            assert column[at].tolist() == expected
