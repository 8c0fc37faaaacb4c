"""The storage contract holds for a good storage, and each rule catches one that breaks it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from obframe import (
    Gap,
    Mark,
    Record,
    RowBatch,
    Storage,
    StorageError,
    StoreLocked,
    StoreUnavailable,
    SymbolError,
)
from obframe.testing.contracts import Rule, StorageContract
from obframe_plugins.memory import MemoryStorage

from .catching import Broken, Table, cases, check_caught


class Kept(MemoryStorage):
    """Keeps every rule that the memory storage does not come near: its rows outlive it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.unreadable = False
        self.opened = 0

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        if self.down:
            raise StoreUnavailable("no space left")
        return super().append(records)

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        if self.unreadable:
            raise StorageError("damaged")
        return super().scan(symbol, start, end)

    def open(self) -> None:
        if self.opened:
            raise StoreLocked("is open already")
        self.opened += 1
        self._is_closed = False

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self.opened = 0


class Reader:
    """A view of a store, also of a closed one, that writes nothing."""

    def __init__(self, store: Kept) -> None:
        self.store = store

    def _refuse(self, *_: object) -> Any:
        raise StorageError("a reader does not write")

    append = append_gaps = append_marks = delete_before = _refuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class TestKept(StorageContract):
    persistent = supports_reader = is_exclusive = can_break = can_damage = True
    kind: type[Kept] = Kept
    reader: Callable[[Kept], Any] = Reader
    stores: dict[Path, Kept]

    def store(self, tmp_path: Path) -> Kept:
        if "stores" not in vars(self):
            self.stores = {}
        if tmp_path not in self.stores:
            self.stores[tmp_path] = self.kind()
        return self.stores[tmp_path]

    @contextlib.contextmanager
    def make_storage(self, tmp_path: Path) -> Iterator[Storage]:
        store = self.store(tmp_path)
        store.open()
        try:
            yield store
        finally:
            store.close()

    @contextlib.contextmanager
    def make_reader(self, tmp_path: Path) -> Iterator[Storage]:
        store = self.store(tmp_path)
        was_closed, store._is_closed = store._is_closed, False
        yield type(self).reader(store)
        store._is_closed = was_closed

    def break_(self, storage: Storage) -> None:
        assert isinstance(storage, Kept)
        storage.down = True

    def mend(self, storage: Storage) -> None:
        assert isinstance(storage, Kept)
        storage.down = False

    def damage(self, tmp_path: Path) -> None:
        self.store(tmp_path).unreadable = True


class WithoutMarks(Kept):
    marks: Any = None


class NothingIsAnError(Kept):
    def latest(self, symbol: str) -> Record | None:
        row = super().latest(symbol)
        if row is None:
            raise KeyError(symbol)
        return row


class TakesEmptyForNothing(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        return super().append([row for row in records if row.value])


class ExclusiveEnd(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        return super().scan(symbol, start, end - 1)


class StrictBounds(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        if not 10**9 <= start <= end < 10**10:
            raise ValueError(f"bounds {start}..{end}")
        return super().scan(symbol, start, end)


class OrderOfArrival(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        held = {row.timestamp: row for row in super().scan(symbol, start, end)}
        rows = self._rows.get(symbol)
        return iter([held[second] for second in rows.values if second in held] if rows else [])


class ComparesPrefixes(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        rows = list(super().scan(symbol, start, end))
        cut = [f"{symbol}:{row.timestamp}"[:10] for row in rows]
        return iter([row for row, prefix in zip(rows, cut, strict=True) if prefix == cut[0]])


class LatestOfNeighbour(Kept):
    def latest(self, symbol: str) -> Record | None:
        names = [name for name in self.symbols() if name <= symbol]
        return super().latest(names[-1]) if names else None


class AsciiOnly(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        made = [row._replace(symbol=ascii(row.symbol)[1:-1]) for row in records]
        return super().append(made)


class LatestAppended(Kept):
    last: Record | None = None

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        self.last = records[-1] if records else self.last
        return super().append(records)

    def latest(self, symbol: str) -> Record | None:
        return self.last


class Overwrites(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        for record in super().append(records):
            self._rows[record.symbol].values[record.timestamp] = record.value
        return []


class RefusesSilently(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        super().append(records)
        return []


class NewestOnly(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        refused = []
        for record in records:
            last = self.latest(record.symbol)
            if last is not None and last.timestamp >= record.timestamp:
                refused.append(record)
        super().append([record for record in records if record not in refused])
        return refused


class LastOfBatchWins(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        return super().append(list(records)[::-1])


class OneByOne(Kept):
    """Not atomic, and slow enough for others to see it."""

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        refused: list[Record] = []
        for record in records:
            refused += super().append([record])
            if len(records) == 3:
                time.sleep(0.001)
        return refused


class TakesAnySymbol(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        with contextlib.suppress(SymbolError):
            return super().append(records)
        return []


class LazyScan(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        rows = self._rows.get(symbol)
        for second in list(rows.seconds) if rows else []:
            yield from super().scan(symbol, second, second)


class FewScans(Kept):
    open_scans = 0

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        rows = list(super().scan(symbol, start, end))
        self.open_scans += 1
        if self.open_scans > 10:
            raise StorageError("too many scans are open")
        return iter(rows)


class ScansOfOneThread(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        rows = super().scan(symbol, start, end)
        return self._guard(rows, threading.get_ident())

    def _guard(self, rows: Iterator[Record], owner: int) -> Iterator[Record]:
        for row in rows:
            if threading.get_ident() != owner:
                raise StorageError("made in another thread")
            yield row


class DeletesTheLine(Kept):
    def delete_before(self, symbol: str, timestamp: int) -> None:
        super().delete_before(symbol, timestamp + 1)


class ListsTheDeleted(Kept):
    def symbols(self) -> list[str]:
        return sorted({*self._rows, *self._gaps})


class KeepsOldGaps(Kept):
    def delete_before(self, symbol: str, timestamp: int) -> None:
        gaps = self._gaps.get(symbol, [])
        super().delete_before(symbol, timestamp)
        self._gaps[symbol] = gaps


class CutsGaps(Kept):
    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        return [
            gap._replace(start=max(gap.start, start), end=min(gap.end, end))
            for gap in super().gaps(symbol, start, end)
        ]


class NeverJoins(Kept):
    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self._gaps.setdefault(gap.symbol, []).append(gap)


class JoinsAnyCause(Kept):
    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        super().append_gaps([gap._replace(reason=gaps[0].reason, detail="") for gap in gaps])


class ForgetsGapSymbols(Kept):
    def symbols(self) -> list[str]:
        return sorted(symbol for symbol, rows in self._rows.items() if rows.seconds)


class ListsTheMarked(Kept):
    def symbols(self) -> list[str]:
        return sorted({*super().symbols(), *self._marks})


class NeverJoinsMarks(Kept):
    def append_marks(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            self._marks.setdefault(mark.symbol, []).append(mark)


class TakesAnyGap(Kept):
    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self._gaps.setdefault(gap.symbol, []).append(gap)


class WorksWhenClosed(Kept):
    def close(self) -> None:
        self.opened = 0


class ClosesOnce(Kept):
    def close(self) -> None:
        if self._is_closed:
            raise StorageError("is closed already")
        super().close()


class CutShortByClosing(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        for row in super().scan(symbol, start, end):
            if self._is_closed:
                return
            yield row


class Forgets(Kept):
    def close(self) -> None:
        super().close()
        self._rows.clear()


class ForgetsMarks(Kept):
    def close(self) -> None:
        super().close()
        self._marks.clear()


class StaleReader(Reader):
    def __init__(self, store: Kept) -> None:
        super().__init__(store)
        self.rows = list(store.scan("BTCUSDT", 0, 10**10))

    def latest(self, symbol: str) -> Record:
        return self.rows[-1]


class WritingReader(Reader):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        return self.store.append(records)


class TwoWriters(Kept):
    def open(self) -> None:
        self.opened = 0
        super().open()


class ClosedByTheSecond(Kept):
    def open(self) -> None:
        if self.opened:
            self.close()
            raise StoreLocked("is open already")
        super().open()


class HalfOfTheBatch(Kept):
    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        if self.down:
            MemoryStorage.append(self, records[:2])
        return super().append(records)


class GivesUpForGood(Kept):
    gone = False

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        self.gone = self.gone or self.down
        if self.gone:
            raise StoreUnavailable("the disk was full")
        return super().append(records)


class LeavesOutTheDamaged(Kept):
    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        rows = list(MemoryStorage.scan(self, symbol, start, end))
        return iter(rows[:100] if self.unreadable else rows)


class Batched(Kept):
    """Gives one batch, all of it."""

    def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
        rows = list(self.scan(symbol, start, end))
        if rows:
            yield RowBatch([row.timestamp for row in rows], [row.value for row in rows])


class BatchesWithoutHoles(Batched):
    def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
        for batch in super().scan_batches(symbol, start, end):
            first = batch.timestamps[0]
            yield RowBatch(range(first, first + len(batch.values)), batch.values)


class EmptyBatch(Batched):
    def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
        yield from super().scan_batches(symbol, start, end)
        yield RowBatch([], [])


BROKEN: Table = {
    "test_is_a_storage": Broken(WithoutMarks, "marks is missing"),
    "test_empty_storage_answers": Broken(NothingIsAnError, "BTCUSDT"),
    "test_rows_come_back_byte_for_byte": Broken(TakesEmptyForNothing, "b'\\x00'"),
    "test_scan_includes_both_ends": Broken(ExclusiveEnd, "1737158405"),
    "test_scan_accepts_any_bounds": Broken(StrictBounds, "bounds 0..1000000000000"),
    "test_scan_is_oldest_first": Broken(OrderOfArrival, "1737158410"),
    "test_scan_crosses_every_digit_of_time": Broken(ComparesPrefixes, "1737199800"),
    "test_symbols_that_begin_alike_stay_apart": Broken(LatestOfNeighbour, "is None"),
    "test_symbols_may_be_unicode": Broken(AsciiOnly, "U0001f680"),
    "test_latest_is_the_newest": Broken(LatestAppended, "1737158450"),
    "test_batches_are_the_scan": [
        Broken(BatchesWithoutHoles, "1737163400"),
        Broken(EmptyBatch, "a batch is empty"),
    ],
    "test_a_stored_second_is_never_overwritten": [
        Broken(Overwrites, "b'other'"),
        Broken(RefusesSilently, "assert [] == "),
    ],
    "test_a_hole_can_be_filled_later": Broken(NewestOnly, "1737158401"),
    "test_of_two_in_one_batch_the_first_stays": Broken(LastOfBatchWins, "b'third'"),
    "test_a_bad_record_spoils_its_whole_batch": [
        Broken(OneByOne, "1737158400"),
        Broken(TakesAnySymbol, "DID NOT RAISE"),
    ],
    "test_a_scan_sees_one_state": Broken(LazyScan, "1737160390"),
    "test_an_unfinished_scan_can_be_dropped": Broken(FewScans, "too many scans"),
    "test_a_scan_can_go_on_in_another_thread": Broken(ScansOfOneThread, "made in another thread"),
    "test_threads_append_and_scan_at_once": Broken(OneByOne, "AssertionError"),
    "test_delete_before_leaves_the_line_and_other_symbols": Broken(DeletesTheLine, "1800000011"),
    "test_a_symbol_deleted_whole_is_gone": Broken(ListsTheDeleted, "['BTCUSDT', 'ETHUSDT']"),
    "test_delete_before_takes_gaps_and_marks_too": Broken(KeepsOldGaps, "Gap("),
    "test_gaps_come_back_oldest_first_and_uncut": Broken(CutsGaps, "Gap("),
    "test_gaps_that_touch_become_one": Broken(NeverJoins, "Gap("),
    "test_gaps_of_other_causes_stay_apart": Broken(JoinsAnyCause, "Gap("),
    "test_a_symbol_with_gaps_alone_is_listed": Broken(ForgetsGapSymbols, "['ALWAYS', 'NEVER']"),
    "test_a_symbol_with_marks_alone_is_not_listed": Broken(ListsTheMarked, "'MARKED'"),
    "test_marks_that_touch_become_one": Broken(NeverJoinsMarks, "Mark("),
    "test_gaps_and_marks_that_cannot_be_are_refused": Broken(TakesAnyGap, "DID NOT RAISE"),
    "test_close_twice_and_use_after_close": [
        Broken(WorksWhenClosed, "DID NOT RAISE"),
        Broken(ClosesOnce, "is closed already"),
    ],
    "test_close_during_a_scan_ends_it_cleanly": Broken(CutShortByClosing, "assert 1 == 5000"),
    "test_reopening_keeps_everything": [
        Broken(Forgets, "1737158410"),
        Broken(ForgetsMarks, "Mark("),
    ],
    "test_a_reader_sees_what_was_acknowledged": [
        Broken(StaleReader, "1737158409"),
        Broken(WritingReader, "DID NOT RAISE"),
    ],
    "test_a_second_writer_is_refused": [
        Broken(TwoWriters, "DID NOT RAISE"),
        Broken(ClosedByTheSecond, "is closed"),
    ],
    "test_a_write_that_fails_stores_nothing": [
        Broken(HalfOfTheBatch, "1737158402"),
        Broken(GivesUpForGood, "the disk was full"),
    ],
    "test_damage_is_an_error_never_a_short_answer": Broken(
        LeavesOutTheDamaged, "rows are missing, and nothing says so"
    ),
}


@pytest.mark.parametrize(("rule", "broken"), cases(BROKEN, StorageContract))
def test_the_contract_catches(rule: Rule, broken: Broken, tmp_path: Path) -> None:
    contract = type("Broken", (TestKept,), {"__test__": False})()
    if issubclass(broken.part, Reader):
        type(contract).reader = broken.part
    else:
        contract.kind = broken.part
    check_caught(contract, rule, broken.words, tmp_path)


class TestBatched(TestKept):
    kind = Batched
