"""What looking after a store costs: verification, a further backup, retention over a long time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bench_storage import _snapshot

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, Record, Snapshot
from obframe.query import close
from obframe.verify import verify
from obframe_plugins._maintenance import RocksMaintenance
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

T = 1_737_158_400
ROWS = 20_000
SYMBOLS = [f"SYM{n}USDT" for n in range(4)]
TICKS = 75_000
KEPT = 30_000
PASS = 600  # seconds of the data between two passes of retention


def _row(symbol: str, second: int) -> Record:
    """Make a row with two full, orderly sides."""
    middle = 6_000_000 + second * 7919 % 10_000
    sides = [
        [(f"{(middle + sign * n) / 100:.8f}", f"{second * n % 9973 + 1}.5") for n in range(1, 21)]
        for sign in (-1, 1)
    ]
    return Record(symbol, second, Snapshot(symbol, second, second, *sides).pack())


@pytest.fixture
def open_rows(tmp_path: Path) -> Iterator[Callable[[], RocksStorage]]:
    opened = []

    def make() -> RocksStorage:
        settings = RocksSettings(path=str(tmp_path / "rows"), durability="process")
        opened.append(RocksStorage.open(settings))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


def test_verify(race: Any, open_rows: Callable[[], RocksStorage]) -> None:
    """Every row of a symbol read and looked at, beside a scan and msgpack to objects."""
    storage = open_rows()
    for start in range(T, T + ROWS, 1000):
        storage.append([_row("A", second) for second in range(start, start + 1000)])
    storage.flush()
    seen = 0

    def count(rows: int) -> None:
        nonlocal seen
        seen += rows

    def work() -> None:
        assert list(verify(storage, "A", count=count)) == []

    def reference() -> None:
        for record in storage.scan("A", MIN_TIMESTAMP, MAX_TIMESTAMP):
            msgpack.unpackb(record.value)

    race("verify", work=work, reference=reference, units=ROWS, rounds=7)
    assert seen % ROWS == 0
    assert seen


def test_a_further_backup(gate: Any, open_rows: Callable[[], RocksStorage], tmp_path: Path) -> None:
    """A backup when one is there already: what is new is copied, beside copying all of it."""
    storage = open_rows()
    maintenance = RocksMaintenance(RocksSettings(path=str(tmp_path / "rows")))
    folder = tmp_path / "backups"
    for start in range(T, T + ROWS, 1000):
        storage.append(
            [
                Record(symbol, second, _snapshot(symbol, second).pack())
                for second in range(start, start + 1000)
                for symbol in SYMBOLS
            ]
        )
    storage.flush()
    begun = time.perf_counter()
    whole = maintenance.backup(folder, lambda _done, _of: None)
    first = time.perf_counter() - begun
    storage.append([Record("A", T + n, b"row") for n in range(100)])
    begun = time.perf_counter()
    further = maintenance.backup(folder, lambda _done, _of: None)
    second = time.perf_counter() - begun
    assert whole.copied == whole.bytes
    gate.hold("backup_further", second * 1e3, first * 1e3)
    gate.hold("backup_copied", further.copied, whole.copied)


def _stored_bytes(rows: Path) -> int:
    return sum(file.stat().st_size for file in rows.glob("*.sst") if file.exists())


def test_the_disk_in_steady_state(
    gate: Any, open_rows: Callable[[], RocksStorage], tmp_path: Path
) -> None:
    """Rows come and go for three times the age: the most that files take, beside the rows alone."""
    storage = open_rows()
    rows = tmp_path / "rows"
    value = [_snapshot("", T + n).pack() for n in range(1000)]
    most = 0
    for start in range(T, T + TICKS, 100):
        storage.append(
            [
                Record(symbol, second, value[second % 1000])
                for second in range(start, start + 100)
                for symbol in SYMBOLS
            ]
        )
        if (start - T) % PASS == 0 and start > T + KEPT:
            for symbol in SYMBOLS:
                storage.delete_before(symbol, start - KEPT)
            # At a recorder's pace files are rewritten long before the next pass.
            while storage.read(lambda database: database.is_compacting()):
                time.sleep(0.005)
            if start > T + 2 * KEPT:
                most = max(most, _stored_bytes(rows))
    begun = time.perf_counter()
    found = storage.scan(SYMBOLS[0], MIN_TIMESTAMP, MAX_TIMESTAMP)
    oldest = next(found)
    close(found)
    seek = time.perf_counter() - begun
    assert oldest.timestamp >= T + TICKS - KEPT - PASS - 100
    storage.flush()
    storage.read(lambda database: database.compact())
    gate.hold("disk_steady", 100 * most / _stored_bytes(rows))
    gate.hold("oldest_row", seek * 1e3)
