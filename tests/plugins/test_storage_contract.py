"""The storages of ours keep the contract, and the contract catches storages that do not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from obframe import Gap, Record, Storage
from obframe.testing.contracts import StorageContract
from obframe_plugins.memory import MemoryStorage
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader


class TestMemory(StorageContract):
    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = MemoryStorage()
        yield storage
        storage.close()


class TestRocks(StorageContract):
    persistent = True
    supports_reader = True

    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = RocksStorage.open(RocksSettings(path=str(tmp_path / "rows")))
        try:
            yield storage
        finally:
            storage.close()

    def make_reader(self, tmp_path: Path) -> contextlib.AbstractContextManager[Storage]:
        return open_reader(RocksSettings(path=str(tmp_path / "rows")))

    def settle(self, storage: Storage) -> None:
        assert isinstance(storage, RocksStorage)
        storage.flush()


class TestRocksUnsynced(TestRocks):
    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        settings = RocksSettings(path=str(tmp_path / "rows"), durability="process")
        storage = RocksStorage.open(settings)
        try:
            yield storage
        finally:
            storage.close()


class _ExclusiveEnd(MemoryStorage):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        return super().scan(symbol, start, end - 1)


class _Overwrites(MemoryStorage):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        for record in super().append(records):
            self._rows[record.symbol].values[record.timestamp] = record.value
        return []


class _RefusesSilently(MemoryStorage):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        super().append(records)
        return []


class _LastOfBatchWins(MemoryStorage):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        return super().append(list(records)[::-1])


class _NotAtomic(MemoryStorage):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        refused: list[Record] = []
        for record in records:
            refused += super().append([record])
        return refused


class _NewestOnly(MemoryStorage):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        refused = []
        for record in records:
            last = self.latest(record.symbol)
            if last is not None and last.timestamp >= record.timestamp:
                refused.append(record)
        super().append([record for record in records if record not in refused])
        return refused


class _PrefixLosesRows(MemoryStorage):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        rows = list(super().scan(symbol, start, end))
        cut = [f"{symbol}:{record.timestamp}"[:10] for record in rows]
        return iter([record for record, prefix in zip(rows, cut, strict=True) if prefix == cut[0]])


class _LatestOfNeighbour(MemoryStorage):
    def latest(self, symbol: str) -> Record | None:
        names = [name for name in self.symbols() if name <= symbol]
        return super().latest(names[-1]) if names else None


class _LazyScan(MemoryStorage):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        for second in range(start, end + 1) if end - start < 5000 else self._seconds(symbol):
            yield from super().scan(symbol, second, second)

    def _seconds(self, symbol: str) -> list[int]:
        rows = self._rows.get(symbol)
        return list(rows.seconds) if rows else []


class _DeletesTheLine(MemoryStorage):
    def delete_before(self, symbol: str, timestamp: int) -> None:
        super().delete_before(symbol, timestamp + 1)


class _KeepsOldGaps(MemoryStorage):
    def delete_before(self, symbol: str, timestamp: int) -> None:
        gaps = self._gaps.get(symbol, [])
        super().delete_before(symbol, timestamp)
        self._gaps[symbol] = gaps


class _CutsGaps(MemoryStorage):
    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        return [
            gap._replace(start=max(gap.start, start), end=min(gap.end, end))
            for gap in super().gaps(symbol, start, end)
        ]


class _NeverMerges(MemoryStorage):
    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self._gaps.setdefault(gap.symbol, []).append(gap)


class _ForgetsGapSymbols(MemoryStorage):
    def symbols(self) -> list[str]:
        return sorted(symbol for symbol, rows in self._rows.items() if rows.seconds)


class _WorksWhenClosed(MemoryStorage):
    def close(self) -> None:
        pass


class _Racy(MemoryStorage):
    """Looks first and writes later, without a lock between."""

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        refused: list[Record] = []
        for record in sorted(records, key=lambda record: record.symbol, reverse=False):
            refused += super().append([record])
            list(super().scan(record.symbol, 0, 10**10))  # room for the others
        return refused


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (_ExclusiveEnd, "test_scan_includes_both_ends"),
        (_Overwrites, "test_a_stored_second_is_never_overwritten"),
        (_RefusesSilently, "test_a_stored_second_is_never_overwritten"),
        (_LastOfBatchWins, "test_of_two_in_one_batch_the_first_stays"),
        (_NotAtomic, "test_a_bad_record_spoils_its_whole_batch"),
        (_NewestOnly, "test_a_hole_can_be_filled_later"),
        (_LatestOfNeighbour, "test_symbols_that_begin_alike_stay_apart"),
        (_LazyScan, "test_a_scan_sees_one_state"),
        (_DeletesTheLine, "test_delete_before_leaves_the_line_and_other_symbols"),
        (_KeepsOldGaps, "test_delete_before_takes_gaps_and_marks_too"),
        (_CutsGaps, "test_gaps_come_back_oldest_first_and_uncut"),
        (_ForgetsGapSymbols, "test_a_symbol_with_gaps_alone_is_listed"),
    ],
)
def test_the_contract_catches(broken: Callable[[], Storage], rule: str, tmp_path: Path) -> None:
    """Each rule fails for a storage that breaks it, and holds for one that does not."""
    getattr(StorageContract(), rule)(MemoryStorage())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(StorageContract(), rule)(broken())


def test_the_contract_catches_rows_lost_by_a_prefix() -> None:
    """Losing rows where leading digits change is caught for a symbol of any length."""
    rule = StorageContract().test_scan_crosses_every_digit_of_time
    for symbol in ("BTC", "BTCUSD", "BTCUSDT"):
        rule(MemoryStorage(), symbol)
        with pytest.raises(AssertionError):
            rule(_PrefixLosesRows(), symbol)


def test_the_contract_catches_gaps_that_never_merge() -> None:
    for settled in (False, True):
        with pytest.raises(AssertionError):
            StorageContract().test_gaps_that_touch_become_one(_NeverMerges(), settled)


def test_the_contract_catches_torn_batches() -> None:
    """A reader that sees half a batch is noticed."""

    def attempt() -> None:
        for _ in range(20):
            StorageContract().test_threads_append_and_scan_at_once(_Racy())

    with pytest.raises(AssertionError):
        attempt()


def test_the_contract_catches_use_after_close(tmp_path: Path) -> None:
    class Open(StorageContract):
        @contextlib.contextmanager
        def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
            yield _WorksWhenClosed()

    with pytest.raises(pytest.fail.Exception):
        Open().test_close_twice_and_use_after_close(tmp_path)
