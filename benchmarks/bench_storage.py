"""What storing and reading cost: a tick, an hour's scan, the bytes of a row, retention.

Run with ``pytest benchmarks/bench_storage.py``. The budgets stand in ``budgets.toml``.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from obframe import OrderBook, Record, Snapshot, parse_depth_snapshot, parse_depth_update
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader

HERE = Path(__file__).resolve().parent
BUDGETS: dict[str, float] = tomllib.loads((HERE / "budgets.toml").read_text())["storage"]
T = 1_737_158_400
SYMBOLS = [f"SYM{n}USDT" for n in range(20)]


def _within(benchmark: Any, name: str, scale: float = 1e3) -> None:
    median = benchmark.stats["median"] * scale
    budget = BUDGETS[name]
    assert median <= budget, f"{name}: {median:.3f} measured, {budget} allowed"


def _snapshot(symbol: str, second: int) -> Snapshot:
    digits = int.from_bytes(hashlib.blake2b(b"%d" % second, digest_size=6).digest(), "big")
    middle = 6_000_000 + digits % 10_000
    bids = [(f"{(middle - n) / 100:.8f}", f"{(digits >> n) % 9999 / 1e4:.8f}") for n in range(20)]
    asks = [(f"{(middle + 1 + n) / 100:.8f}", f"{digits % (n + 7) / 8:.8f}") for n in range(20)]
    return Snapshot(symbol, 40_000_000_000 + second, second, bids, asks)


def _tick(second: int) -> list[Record]:
    value = _snapshot("", second).pack()
    return [Record(symbol, second, value) for symbol in SYMBOLS]


@pytest.fixture
def open_rows(tmp_path: Path) -> Iterator[Callable[..., RocksStorage]]:
    opened = []

    def make(**settings: Any) -> RocksStorage:
        storage = RocksStorage.open(RocksSettings(path=str(tmp_path / "rows"), **settings))
        opened.append(storage)
        return storage

    yield make
    for storage in opened:
        storage.close()


@pytest.mark.parametrize("durability", ["power", "process"])
def test_append_a_tick_of_20_rows(
    benchmark: Any, open_rows: Callable[..., RocksStorage], durability: str
) -> None:
    storage = open_rows(durability=durability)
    ticks = iter([_tick(second) for second in range(T, T + 1200)])
    benchmark.pedantic(lambda: storage.append(next(ticks)), rounds=1000, warmup_rounds=100)
    _within(benchmark, f"append_20_{durability}_ms")


def _hour(storage: RocksStorage) -> None:
    for start in range(T, T + 3600, 600):
        storage.append(
            [
                Record("SYM0USDT", second, _snapshot("SYM0USDT", second).pack())
                for second in range(start, start + 600)
            ]
        )
    storage.flush()


def test_scan_an_hour(benchmark: Any, open_rows: Callable[..., RocksStorage]) -> None:
    storage = open_rows()
    _hour(storage)
    rows = benchmark(lambda: list(storage.scan("SYM0USDT", T, T + 3599)))
    assert len(rows) == 3600
    _within(benchmark, "scan_3600_ms")


def test_read_the_newest_from_another_process(
    benchmark: Any, open_rows: Callable[..., RocksStorage], tmp_path: Path
) -> None:
    storage = open_rows()
    _hour(storage)
    with open_reader(RocksSettings(path=str(tmp_path / "rows"))) as reader:
        newest = benchmark(lambda: reader.latest("SYM0USDT"))
        assert newest is not None
        assert newest.timestamp == T + 3599
    _within(benchmark, "reader_latest_ms")


def _captured_rows(market: str) -> list[bytes]:
    setting = os.environ.get("OBFRAME_CAPTURES")
    folder = Path(setting) if setting else HERE.parent.parent / "shared" / "captures"
    file = folder / market / "btcusdt_20240808.gz"
    if not file.exists():
        pytest.skip(f"no captures in {folder}")
    book = OrderBook("BTCUSDT")
    rows: list[bytes] = []
    second = 0
    with gzip.open(file, "rb") as lines:
        for line in lines:
            received, _, message = line.partition(b" ")
            if b'"lastUpdateId"' in message:
                book.load(parse_depth_snapshot(message.strip(), "BTCUSDT", 1000))
                continue
            if b"depthUpdate" not in message:
                continue
            update = parse_depth_update(message.strip(), market == "usdm")
            if not book.update_id or update is None or update.last_update_id <= book.update_id:
                continue
            if second != int(received) // 10**9:
                second = int(received) // 10**9
                rows.append(book.snapshot(second).pack())
            book.apply(update)
    return rows


@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_bytes_of_a_row_on_disk(
    open_rows: Callable[..., RocksStorage], tmp_path: Path, market: str
) -> None:
    """Rows of the captures, compressed as they rest in files."""
    values = _captured_rows(market)
    storage = open_rows()
    storage.append([Record("BTCUSDT", T + n, value) for n, value in enumerate(values)])
    storage.flush()
    size = _stored_bytes(tmp_path / "rows") / len(values)
    raw = sum(map(len, values)) / len(values)
    print(f"{market}: {len(values)} rows, {raw:.0f} bytes raw, {size:.0f} on disk")  # noqa: T201
    assert size <= BUDGETS[f"bytes_a_row_{market}"]


def _stored_bytes(rows: Path) -> int:
    return sum(file.stat().st_size for file in rows.glob("*.sst") if file.exists())


def test_retention_gives_the_space_back(
    benchmark: Any, open_rows: Callable[..., RocksStorage], tmp_path: Path
) -> None:
    """Deleting a day is one write; the files shrink by themselves soon after the next flush."""
    storage = open_rows(durability="process")
    for start in range(T, T + 86_400, 1200):
        storage.append(
            [Record("SYM0USDT", second, os.urandom(200)) for second in range(start, start + 1200)]
        )
    storage.flush()
    before = _stored_bytes(tmp_path / "rows")
    benchmark.pedantic(
        lambda: storage.delete_before("SYM0USDT", T + 86_000), rounds=1, iterations=1
    )
    storage.flush()
    started = time.monotonic()
    allowed = BUDGETS["space_back_s"]
    while _stored_bytes(tmp_path / "rows") > before / 10:
        waited = time.monotonic() - started
        assert waited < allowed, f"{_stored_bytes(tmp_path / 'rows')} of {before} bytes left"
        time.sleep(0.1)
    print(f"space back after {time.monotonic() - started:.1f} s")  # noqa: T201
    _within(benchmark, "delete_day_ms")
