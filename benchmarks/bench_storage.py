"""What storing and reading cost: a put, a tick, an hour's scan, the bytes of a row, retention.

What is measured runs in turns with the least that any storage has to do for it: the same bytes to
a plain file and through to the disk, or out of a plain file.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from obframe import OrderBook, Record, Snapshot, parse_depth_snapshot, parse_depth_update
from obframe.query import Row, rows
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader

HERE = Path(__file__).resolve().parent
T = 1_737_158_400


def _snapshot(symbol: str, second: int) -> Snapshot:
    digits = int.from_bytes(hashlib.blake2b(b"%d" % second, digest_size=6).digest(), "big")
    middle = 6_000_000 + digits % 10_000
    bids = [(f"{(middle - n) / 100:.8f}", f"{(digits >> n) % 9999 / 1e4:.8f}") for n in range(20)]
    asks = [(f"{(middle + 1 + n) / 100:.8f}", f"{digits % (n + 7) / 8:.8f}") for n in range(20)]
    return Snapshot(symbol, 40_000_000_000 + second, second, bids, asks)


def _tick(second: int, count: int = 20) -> list[Record]:
    value = _snapshot("", second).pack()
    return [Record(f"SYM{n}USDT", second, value) for n in range(count)]


class _Log:
    """A plain file that the same bytes are appended to."""

    def __init__(self, path: Path, synced: bool) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._synced = synced

    def append(self, records: list[Record]) -> None:
        os.write(self._file, b"".join(record.value for record in records))
        if self._synced:
            os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


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


@pytest.mark.parametrize(
    ("names", "count", "durability"),
    [
        (("put", "put_p99"), 1, "power"),
        (("append_20", "append_20_p99"), 20, "power"),
        (("append_20_process",), 20, "process"),
        (("append_1500", "append_1500_p99"), 1500, "power"),
    ],
    ids=["put", "tick-of-20", "tick-of-20-unsynced", "tick-of-1500"],
)
def test_append(
    race: Any,
    open_rows: Callable[..., RocksStorage],
    tmp_path: Path,
    names: tuple[str, ...],
    count: int,
    durability: str,
) -> None:
    storage = open_rows(durability=durability)
    plain = _Log(tmp_path / "plain", durability == "power")
    rounds = 100 if count == 1500 else 500
    rows = [_tick(second, count) for second in range(T, T + rounds + 3)]
    ours, theirs = iter(rows), iter(rows)
    try:
        race(
            *names,
            work=lambda: storage.append(next(ours)),
            reference=lambda: plain.append(next(theirs)),
            rounds=rounds,
        )
    finally:
        plain.close()
    newest = storage.latest(f"SYM{count - 1}USDT")
    assert newest is not None
    assert newest.timestamp == T + rounds + 2


def _hour(storage: RocksStorage) -> None:
    for start in range(T, T + 3600, 600):
        storage.append(
            [
                Record("SYM0USDT", second, _snapshot("SYM0USDT", second).pack())
                for second in range(start, start + 600)
            ]
        )
    storage.flush()


def test_read_an_hour(race: Any, open_rows: Callable[..., RocksStorage]) -> None:
    """Read, check and decode 3,600 rows, beside msgpack decoding them with all bytes at hand."""
    storage = open_rows()
    _hour(storage)
    values = [record.value for record in storage.scan("SYM0USDT", T, T + 3599)]
    read: list[Row] = []

    def work() -> None:
        read[:] = rows(storage, "SYM0USDT", T, T + 3599)

    def reference() -> None:
        for value in values:
            msgpack.unpackb(value)

    race("read_hour", work=work, reference=reference, rounds=30)
    assert len(read) == 3600
    assert all(row.snapshot is not None for row in read)


def test_read_the_newest_from_another_process(
    race: Any, open_rows: Callable[..., RocksStorage], tmp_path: Path
) -> None:
    """Catch up with the writer and read, beside reading as many bytes as its log holds."""
    storage = open_rows()
    _hour(storage)
    storage.append(_tick(T + 3600))
    log = tmp_path / "plain"
    log.write_bytes(b"".join(file.read_bytes() for file in (tmp_path / "rows").glob("*.log")))
    with open_reader(RocksSettings(path=str(tmp_path / "rows"))) as reader:
        race(
            "reader_latest",
            work=lambda: reader.latest("SYM0USDT"),
            reference=log.read_bytes,
            rounds=200,
        )
        newest = reader.latest("SYM0USDT")
    assert newest is not None
    assert newest.timestamp == T + 3600


def _captured_rows(gate: Any, market: str) -> list[bytes]:
    setting = os.environ.get("OBFRAME_CAPTURES")
    folder = Path(setting) if setting else HERE.parent.parent / "shared" / "captures"
    file = folder / market / "btcusdt_20240808.gz"
    if not file.exists():
        reason = f"no captures in {folder}; set OBFRAME_CAPTURES to where they lie"
        if os.environ.get("OBFRAME_REQUIRE_CAPTURES") == "1":
            pytest.fail(reason)
        gate.skipped[f"row_bytes_{market}"] = "no captures"
        pytest.skip(reason)
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
    gate: Any, open_rows: Callable[..., RocksStorage], tmp_path: Path, market: str
) -> None:
    """Rows of the captures as they rest in files, beside their bytes uncompressed."""
    values = _captured_rows(gate, market)
    storage = open_rows()
    storage.append([Record("BTCUSDT", T + n, value) for n, value in enumerate(values)])
    storage.flush()
    size = _stored_bytes(tmp_path / "rows") / len(values)
    raw = sum(map(len, values)) / len(values)
    gate.hold(f"row_bytes_{market}", size, raw)


def _stored_bytes(rows: Path) -> int:
    return sum(file.stat().st_size for file in rows.glob("*.sst") if file.exists())


def test_retention_gives_the_space_back(
    gate: Any, open_rows: Callable[..., RocksStorage], tmp_path: Path
) -> None:
    """Deleting a day is one write; the files shrink by themselves soon after the next flush."""
    storage = open_rows(durability="process")
    for start in range(T, T + 86_400, 1200):
        storage.append(
            [Record("SYM0USDT", second, os.urandom(200)) for second in range(start, start + 1200)]
        )
    storage.flush()
    before = _stored_bytes(tmp_path / "rows")
    started = time.perf_counter()
    storage.delete_before("SYM0USDT", T + 86_000)
    deleted = time.perf_counter()
    storage.flush()
    while _stored_bytes(tmp_path / "rows") > before / 10:
        assert time.perf_counter() - deleted < 120, "the space does not come back"
        time.sleep(0.1)
    gate.hold("delete_day", (deleted - started) * 1e3)
    gate.hold("space_back", time.perf_counter() - deleted)
