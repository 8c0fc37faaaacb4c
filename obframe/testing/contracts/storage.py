"""The rules of ``obframe.protocols.Storage``, each as one test.

A backend's author subclasses ``StorageContract``, gives ``make_storage`` and runs pytest::

    class TestMine(StorageContract):
        persistent = True

        @contextmanager
        def make_storage(self, tmp_path):
            with open_mine(tmp_path / "rows") as storage:
                yield storage
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from obframe.errors import StorageError, SymbolError
from obframe.protocols import Storage
from obframe.types import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    Record,
)

_T = 1_737_158_400
_LINE = 1_800_000_000
_ALWAYS = (MIN_TIMESTAMP, MAX_TIMESTAMP)


def _value(symbol: str, timestamp: int) -> bytes:
    return f"{symbol}@{timestamp}".encode()


def _record(symbol: str, timestamp: int) -> Record:
    return Record(symbol, timestamp, _value(symbol, timestamp))


def _records(symbol: str, start: int, end: int, step: int = 1) -> list[Record]:
    return [_record(symbol, second) for second in range(start, end + 1, step)]


class StorageContract:
    """Every rule that a storage must keep; subclass it as ``Test…``.

    Attributes:
        persistent: Rows survive closing and opening again at the same ``tmp_path``.
        supports_reader: ``make_reader`` gives a second view that sees what was acknowledged.
    """

    persistent = False
    supports_reader = False

    def make_storage(self, tmp_path: Path) -> AbstractContextManager[Storage]:
        """Return a context manager around a storage that keeps its files below ``tmp_path``.

        Called again with the same path after the first was closed, it opens the same store.
        """
        raise NotImplementedError

    def make_reader(self, tmp_path: Path) -> AbstractContextManager[Storage]:
        """Return a context manager around a reader of the store at ``tmp_path``."""
        raise NotImplementedError

    def settle(self, storage: Storage) -> None:
        """Bring rows to where they rest, such as from memory to files. Nothing by default.

        Some faults show only in rows at rest; the contract calls this before it reads.
        """

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        """Give an empty storage."""
        with self.make_storage(tmp_path) as storage:
            yield storage

    # Rows

    def test_is_a_storage(self, storage: Storage) -> None:
        """It has every method of the protocol."""
        assert isinstance(storage, Storage)

    def test_empty_storage_answers(self, storage: Storage) -> None:
        """Nothing stored is nothing found, not an error."""
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == []
        assert storage.latest("BTCUSDT") is None
        assert storage.symbols() == []
        assert storage.gaps("BTCUSDT", *_ALWAYS) == []
        assert storage.marks("BTCUSDT", *_ALWAYS) == []
        assert list(storage.append([])) == []
        storage.append_gaps([])
        storage.append_marks([])
        storage.delete_before("BTCUSDT", _T)

    def test_rows_come_back_byte_for_byte(self, storage: Storage) -> None:
        """Any bytes are kept, empty and binary ones too."""
        values = [b"", b"\x00", bytes(range(256)) * 40, b"\x94\x90\x90\x00\x00"]
        records = [Record("BTCUSDT", _T + n, value) for n, value in enumerate(values)]
        assert list(storage.append(records)) == []
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == records

    def test_scan_includes_both_ends(self, storage: Storage) -> None:
        """``start`` and ``end`` are inside; one second alone is a range."""
        storage.append(_records("BTCUSDT", _T, _T + 9))
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", _T + 2, _T + 5)) == _records("BTCUSDT", _T + 2, _T + 5)
        assert list(storage.scan("BTCUSDT", _T + 3, _T + 3)) == [_record("BTCUSDT", _T + 3)]
        assert list(storage.scan("BTCUSDT", _T + 5, _T + 2)) == []
        assert list(storage.scan("BTCUSDT", _T + 10, MAX_TIMESTAMP)) == []

    def test_scan_accepts_any_bounds(self, storage: Storage) -> None:
        """Bounds beyond what can be stored are no error."""
        rows = [_record("BTCUSDT", MIN_TIMESTAMP), _record("BTCUSDT", MAX_TIMESTAMP)]
        storage.append(rows)
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", 0, 10**12)) == rows
        assert list(storage.scan("BTCUSDT", -5, 10)) == []
        assert list(storage.scan("BTCUSDT", 10**12, 10**13)) == []

    def test_scan_is_oldest_first(self, storage: Storage) -> None:
        """The order is that of time, whatever the order of appending."""
        rows = _records("BTCUSDT", _T, _T + 20)
        for record in [*rows[10:], *rows[:10]]:
            assert list(storage.append([record])) == []
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == rows

    @pytest.mark.parametrize(
        "symbol", ["X", "BTC", "BTCUS", "BTCUSD", "BTCUSDT", "BTCUSDT_2", "BTCUSDT_260327", "1000X"]
    )
    def test_scan_crosses_every_digit_of_time(self, storage: Storage, symbol: str) -> None:
        """No row is lost where leading digits of the time change, for any length of symbol."""
        rows = []
        for line in (_LINE, 1_750_000_000, 1_740_000_000, 1_738_000_000, 1_737_200_000):
            rows += _records(symbol, line - 300, line + 300)
        rows.sort()
        storage.append(rows)
        self.settle(storage)
        assert list(storage.scan(symbol, *_ALWAYS)) == rows
        for line in (_LINE, 1_737_200_000):
            assert len(list(storage.scan(symbol, line - 100, line + 100))) == 201
        last = storage.latest(symbol)
        assert last == rows[-1]

    def test_symbols_that_begin_alike_stay_apart(self, storage: Storage) -> None:
        """A symbol that is the beginning of another never sees its rows."""
        symbols = ["BTC", "BTC1", "BTCUSD", "BTCUSDT", "BTCUSDT_260327", "BTCUSDT_2603271", "btc"]
        for symbol in symbols:
            storage.append(_records(symbol, _T, _T + 30))
        self.settle(storage)
        assert storage.symbols() == sorted(symbols)
        for symbol in symbols:
            assert list(storage.scan(symbol, *_ALWAYS)) == _records(symbol, _T, _T + 30)
            assert storage.latest(symbol) == _record(symbol, _T + 30)
        assert storage.latest("BTCU") is None
        assert storage.latest("BTCUSDT_26") is None
        assert storage.latest("A") is None
        assert storage.latest("zzz") is None

    def test_symbols_may_be_unicode(self, storage: Storage) -> None:
        """Any symbol that ``check_symbol`` takes is kept apart and sorted."""
        symbols = sorted(["币安人生USDT", "ÄTHER", "ETHUSDT", "🚀", "a/b", "1000PEPE", "ＢＴＣ"])
        for symbol in symbols:
            storage.append(_records(symbol, _T, _T + 2))
        self.settle(storage)
        assert storage.symbols() == symbols
        for symbol in symbols:
            assert list(storage.scan(symbol, *_ALWAYS)) == _records(symbol, _T, _T + 2)

    def test_latest_is_the_newest(self, storage: Storage) -> None:
        """The newest second counts, not the last appended."""
        storage.append([_record("BTCUSDT", _T + 50)])
        storage.append([_record("BTCUSDT", _T)])
        self.settle(storage)
        assert storage.latest("BTCUSDT") == _record("BTCUSDT", _T + 50)

    # Never twice

    def test_a_stored_second_is_never_overwritten(self, storage: Storage) -> None:
        """The second record of a second is refused and returned, the first stays."""
        storage.append(_records("BTCUSDT", _T, _T + 5))
        self.settle(storage)
        late = [Record("BTCUSDT", _T + 3, b"other"), _record("BTCUSDT", _T + 6)]
        assert list(storage.append(late)) == late[:1]
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == _records("BTCUSDT", _T, _T + 6)

    def test_a_hole_can_be_filled_later(self, storage: Storage) -> None:
        """An older second that is not stored is taken."""
        storage.append(_records("BTCUSDT", _T, _T + 10, step=2))
        self.settle(storage)
        assert list(storage.append(_records("BTCUSDT", _T + 1, _T + 9, step=2))) == []
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == _records("BTCUSDT", _T, _T + 10)

    def test_of_two_in_one_batch_the_first_stays(self, storage: Storage) -> None:
        """A batch that names a second twice stores its first and refuses the rest."""
        batch = [
            Record("BTCUSDT", _T, b"first"),
            Record("BTCUSDT", _T, b"second"),
            Record("ETHUSDT", _T, b"other"),
            Record("BTCUSDT", _T, b"third"),
        ]
        assert list(storage.append(batch)) == [batch[1], batch[3]]
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == [batch[0]]
        assert list(storage.append(batch)) == batch
        assert list(storage.scan("ETHUSDT", *_ALWAYS)) == [batch[2]]

    def test_a_bad_record_spoils_its_whole_batch(self, storage: Storage) -> None:
        """A batch is atomic: with one bad record nothing of it is stored."""
        bad_symbols = ["", "A:B", "A B", "A\nB", "..", "a/../b", "x" * 129, "A\0", "\ud800"]
        for symbol in bad_symbols:
            with pytest.raises(SymbolError):
                storage.append([_record("BTCUSDT", _T), Record(symbol, _T, b"x")])
        for timestamp in (0, -1, MIN_TIMESTAMP - 1, MAX_TIMESTAMP + 1, _T * 1000):
            with pytest.raises((ValueError, StorageError)):
                storage.append([_record("BTCUSDT", _T), Record("ETHUSDT", timestamp, b"x")])
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == []
        assert storage.symbols() == []

    # Reading while others write

    def test_a_scan_sees_one_state(self, storage: Storage) -> None:
        """Rows deleted or appended after ``scan`` was called change nothing in it."""
        storage.append(_records("BTCUSDT", _T, _T + 1999))
        self.settle(storage)
        rows = storage.scan("BTCUSDT", *_ALWAYS)
        unread = storage.scan("BTCUSDT", *_ALWAYS)
        first = [next(rows) for _ in range(3)]
        storage.delete_before("BTCUSDT", _T + 1990)
        storage.append(_records("BTCUSDT", _T + 2000, _T + 2010))
        self.settle(storage)
        assert [*first, *rows] == _records("BTCUSDT", _T, _T + 1999)
        assert list(unread) == _records("BTCUSDT", _T, _T + 1999)
        assert list(storage.scan("BTCUSDT", *_ALWAYS)) == _records("BTCUSDT", _T + 1990, _T + 2010)

    def test_an_unfinished_scan_can_be_dropped(self, storage: Storage) -> None:
        """Scans that are closed or forgotten hold nothing back."""
        storage.append(_records("BTCUSDT", _T, _T + 100))
        for _ in range(20):
            rows = storage.scan("BTCUSDT", *_ALWAYS)
            next(rows)
            close = getattr(rows, "close", None)
            if close is not None:
                close()
        del rows, close
        gc.collect()
        assert len(list(storage.scan("BTCUSDT", *_ALWAYS))) == 101

    def test_threads_append_and_scan_at_once(self, storage: Storage) -> None:
        """Whole batches only, each second once, whatever the threads do."""
        symbols = ["A", "AB", "ABC"]
        ticks = 60
        faults: list[BaseException] = []
        refused: list[Record] = []
        done = threading.Event()

        def write(offset: int) -> None:
            for tick in range(ticks):
                second = _T + 2 * tick + offset
                batch = [Record(symbol, second, b"%d" % offset) for symbol in symbols]
                refused.extend(storage.append(batch))
                refused.extend(storage.append([Record("SHARED", _T + tick, b"%d" % offset)]))

        def read() -> None:
            while not done.is_set():
                seen = [record.timestamp for record in storage.scan("A", *_ALWAYS)]
                assert seen == sorted(set(seen))
                # What stands in A stands in ABC too: batches are whole.
                assert set(seen) <= {row.timestamp for row in storage.scan("ABC", *_ALWAYS)}
                storage.symbols()
                storage.latest("AB")

        def guarded(action: Callable[..., None], *values: int) -> None:
            try:
                action(*values)
            except BaseException as error:
                faults.append(error)

        writers = [threading.Thread(target=guarded, args=(write, n)) for n in (0, 1)]
        readers = [threading.Thread(target=guarded, args=(read,)) for _ in range(2)]
        for thread in [*readers, *writers]:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert faults == []
        for symbol in symbols:
            stored = [record.timestamp for record in storage.scan(symbol, *_ALWAYS)]
            assert stored == list(range(_T, _T + 2 * ticks))
        shared = list(storage.scan("SHARED", *_ALWAYS))
        assert [record.timestamp for record in shared] == list(range(_T, _T + ticks))
        assert len(refused) == ticks
        # The one who was refused is not the one who is stored.
        assert not set(shared) & set(refused)

    # Deleting

    def test_delete_before_leaves_the_line_and_other_symbols(self, storage: Storage) -> None:
        """Seconds before the line go, the line itself and all other symbols stay."""
        symbols = ["BTC", "BTCUSD", "BTCUSDT", "BTC1"]
        for symbol in symbols:
            storage.append(_records(symbol, _LINE - 50, _LINE + 50))
        self.settle(storage)
        storage.delete_before("BTCUSD", _LINE + 10)
        self.settle(storage)
        for symbol in symbols:
            first = _LINE + 10 if symbol == "BTCUSD" else _LINE - 50
            assert list(storage.scan(symbol, *_ALWAYS)) == _records(symbol, first, _LINE + 50)
        storage.delete_before("BTCUSD", 0)
        storage.delete_before("NONE", _LINE)
        assert len(list(storage.scan("BTCUSD", *_ALWAYS))) == 41

    def test_a_symbol_deleted_whole_is_gone(self, storage: Storage) -> None:
        """When all rows and gaps are deleted the symbol is no longer listed; it can come again."""
        storage.append([_record("BTCUSDT", _T), _record("BTCUSDT", MAX_TIMESTAMP)])
        storage.append([_record("ETHUSDT", _T)])
        storage.append_gaps([Gap("BTCUSDT", _T + 1, _T + 2, GapReason.DISK)])
        storage.delete_before("BTCUSDT", MAX_TIMESTAMP + 1)
        assert storage.symbols() == ["ETHUSDT"]
        assert storage.latest("BTCUSDT") is None
        assert list(storage.append([_record("BTCUSDT", _T)])) == []
        assert storage.latest("BTCUSDT") == _record("BTCUSDT", _T)

    def test_delete_before_takes_gaps_and_marks_too(self, storage: Storage) -> None:
        """Old gaps and marks go with the rows; what straddles the line is cut there."""
        storage.append_gaps(
            [
                Gap("BTCUSDT", _T, _T + 9, GapReason.DISK),
                Gap("BTCUSDT", _T + 50, _T + 59, GapReason.SYNCING, "why"),
                Gap("ETHUSDT", _T, _T + 9, GapReason.DISK),
            ]
        )
        storage.append_marks(
            [
                Mark("BTCUSDT", _T, _T + 9, MarkKind.UNCERTAIN),
                Mark("BTCUSDT", _T + 52, _T + 60, MarkKind.UNCERTAIN),
            ]
        )
        storage.delete_before("BTCUSDT", _T + 55)
        assert storage.gaps("BTCUSDT", *_ALWAYS) == [
            Gap("BTCUSDT", _T + 55, _T + 59, GapReason.SYNCING, "why")
        ]
        assert storage.marks("BTCUSDT", *_ALWAYS) == [
            Mark("BTCUSDT", _T + 55, _T + 60, MarkKind.UNCERTAIN)
        ]
        assert storage.gaps("ETHUSDT", *_ALWAYS) == [Gap("ETHUSDT", _T, _T + 9, GapReason.DISK)]

    # Gaps and marks

    def test_gaps_come_back_oldest_first_and_uncut(self, storage: Storage) -> None:
        """Each gap that has a second in the window is given whole."""
        gaps = [
            Gap("BTCUSDT", _T, _T + 10, GapReason.DISK, "full"),
            Gap("BTCUSDT", _T + 20, _T + 20, GapReason.SEQUENCE),
            Gap("BTCUSDT", _T + 30, _T + 40, GapReason.CLOCK_STEP, 'a "line" with \' and ; signs'),
        ]
        storage.append_gaps([gaps[2], gaps[0], gaps[1], Gap("ETHUSDT", _T, _T, GapReason.DISK)])
        assert storage.gaps("BTCUSDT", *_ALWAYS) == gaps
        assert storage.gaps("BTCUSDT", _T + 10, _T + 30) == gaps
        assert storage.gaps("BTCUSDT", _T + 11, _T + 29) == gaps[1:2]
        assert storage.gaps("BTCUSDT", _T + 35, _T + 36) == gaps[2:]
        assert storage.gaps("BTCUSDT", _T + 41, MAX_TIMESTAMP) == []
        assert storage.gaps("BTC", *_ALWAYS) == []
        assert all(isinstance(gap.reason, GapReason) for gap in storage.gaps("BTCUSDT", *_ALWAYS))

    @pytest.mark.parametrize("settled", [False, True])
    def test_gaps_that_touch_become_one(self, storage: Storage, settled: bool) -> None:
        """Same symbol, reason and detail: touching, overlapping and bridging gaps are one."""
        parts = [(0, 4), (5, 9), (20, 29), (25, 26), (40, 49), (36, 45), (8, 22)]
        gaps = [Gap("BTCUSDT", _T + a, _T + b, GapReason.DISK, "full") for a, b in parts]
        if settled:
            for gap in gaps:
                storage.append_gaps([gap])
        else:
            storage.append_gaps(gaps)
        assert storage.gaps("BTCUSDT", *_ALWAYS) == [
            Gap("BTCUSDT", _T, _T + 29, GapReason.DISK, "full"),
            Gap("BTCUSDT", _T + 36, _T + 49, GapReason.DISK, "full"),
        ]

    def test_gaps_of_other_causes_stay_apart(self, storage: Storage) -> None:
        """A gap never joins one of another symbol, reason or detail, nor one a second away."""
        gaps = [
            Gap("BTCUSDT", _T, _T + 9, GapReason.DISK),
            Gap("BTCUSDT", _T + 5, _T + 12, GapReason.SYNCING),
            Gap("BTCUSDT", _T + 10, _T + 19, GapReason.DISK, "full"),
            Gap("BTCUSDT", _T + 11, _T + 11, GapReason.DISK),
        ]
        storage.append_gaps(gaps)
        storage.append_gaps([Gap("ETHUSDT", _T + 10, _T + 10, GapReason.DISK)])
        assert storage.gaps("BTCUSDT", *_ALWAYS) == gaps

    def test_a_symbol_with_gaps_alone_is_listed(self, storage: Storage) -> None:
        """What was never stored is known to be missing."""
        storage.append_gaps([Gap("NEVER", _T, _T + 9, GapReason.UNKNOWN_SYMBOL)])
        storage.append([_record("ALWAYS", _T)])
        assert storage.symbols() == ["ALWAYS", "NEVER"]

    def test_marks_that_touch_become_one(self, storage: Storage) -> None:
        """Marks join by symbol and kind and come back oldest first, uncut."""
        for second in range(_T, _T + 5):
            storage.append_marks([Mark("BTCUSDT", second, second, MarkKind.UNCERTAIN)])
        storage.append_marks(
            [
                Mark("BTCUSDT", _T + 2, _T + 2, MarkKind.EPOCH),
                Mark("BTCUSDT", _T + 9, _T + 9, MarkKind.UNCERTAIN),
                Mark("ETHUSDT", _T + 5, _T + 5, MarkKind.UNCERTAIN),
            ]
        )
        assert storage.marks("BTCUSDT", *_ALWAYS) == [
            Mark("BTCUSDT", _T, _T + 4, MarkKind.UNCERTAIN),
            Mark("BTCUSDT", _T + 2, _T + 2, MarkKind.EPOCH),
            Mark("BTCUSDT", _T + 9, _T + 9, MarkKind.UNCERTAIN),
        ]
        assert storage.marks("BTCUSDT", _T + 4, _T + 8) == [
            Mark("BTCUSDT", _T, _T + 4, MarkKind.UNCERTAIN)
        ]

    def test_gaps_and_marks_that_cannot_be_are_refused(self, storage: Storage) -> None:
        """A run with a bad symbol, bad bounds or its end before its start stores nothing."""
        good = Gap("BTCUSDT", _T, _T, GapReason.DISK)
        for bad in (
            Gap("A:B", _T, _T, GapReason.DISK),
            Gap("BTCUSDT", _T + 1, _T, GapReason.DISK),
            Gap("BTCUSDT", 5, _T, GapReason.DISK),
            Gap("BTCUSDT", _T, _T * 1000, GapReason.DISK),
        ):
            with pytest.raises((ValueError, StorageError)):
                storage.append_gaps([good, bad])
            with pytest.raises((ValueError, StorageError)):
                storage.append_marks([Mark(bad.symbol, bad.start, bad.end, MarkKind.EPOCH)])
        assert storage.gaps("BTCUSDT", *_ALWAYS) == []
        assert storage.marks("BTCUSDT", *_ALWAYS) == []

    # Life and death

    def test_close_twice_and_use_after_close(self, tmp_path: Path) -> None:
        """Closing again does nothing; using what is closed is a ``StorageError``."""
        with self.make_storage(tmp_path) as storage:
            storage.append([_record("BTCUSDT", _T)])
            storage.close()
            storage.close()
            for use in (
                lambda: storage.append([_record("BTCUSDT", _T + 1)]),
                lambda: list(storage.scan("BTCUSDT", *_ALWAYS)),
                lambda: storage.latest("BTCUSDT"),
                storage.symbols,
                lambda: storage.gaps("BTCUSDT", *_ALWAYS),
                lambda: storage.append_gaps([Gap("BTCUSDT", _T, _T, GapReason.DISK)]),
                lambda: storage.delete_before("BTCUSDT", _T),
            ):
                with pytest.raises(StorageError):
                    use()

    def test_close_during_a_scan_ends_it_cleanly(self, tmp_path: Path) -> None:
        """A scan that is under way gives all its rows or a ``StorageError``, never fewer."""
        with self.make_storage(tmp_path) as storage:
            storage.append(_records("BTCUSDT", _T, _T + 4999))
            rows = storage.scan("BTCUSDT", *_ALWAYS)
            seen = [next(rows)]
            storage.close()
            with contextlib.suppress(StorageError):
                seen.extend(rows)
                assert len(seen) == 5000
            assert seen == _records("BTCUSDT", _T, _T + len(seen) - 1)

    def test_reopening_keeps_everything(self, tmp_path: Path) -> None:
        """Rows, gaps and marks are there again, and stored seconds are still refused."""
        if not self.persistent:
            pytest.skip("not a persistent storage")
        gaps = [Gap("BTCUSDT", _T + 100, _T + 120, GapReason.DISK, "full")]
        marks = [Mark("BTCUSDT", _T, _T + 5, MarkKind.UNCERTAIN)]
        for run in range(3):
            with self.make_storage(tmp_path) as storage:
                start = _T + 10 * run
                assert list(storage.append(_records("BTCUSDT", start, start + 9))) == []
                again = _records("BTCUSDT", _T, start)
                assert list(storage.append(again)) == again
                storage.append_gaps(gaps)
                storage.append_marks(marks)
        with self.make_storage(tmp_path) as storage:
            assert list(storage.scan("BTCUSDT", *_ALWAYS)) == _records("BTCUSDT", _T, _T + 29)
            assert storage.gaps("BTCUSDT", *_ALWAYS) == gaps
            assert storage.marks("BTCUSDT", *_ALWAYS) == marks
            storage.append_gaps([gaps[0]._replace(start=_T + 121, end=_T + 122)])
            assert storage.gaps("BTCUSDT", *_ALWAYS) == [gaps[0]._replace(end=_T + 122)]

    def test_a_reader_sees_what_was_acknowledged(self, tmp_path: Path) -> None:
        """A reader sees each row as soon as it is acknowledged, and writes nothing."""
        if not self.supports_reader:
            pytest.skip("no readers beside the writer")
        with self.make_storage(tmp_path) as storage:
            storage.append(_records("BTCUSDT", _T, _T + 9))
            with self.make_reader(tmp_path) as reader:
                assert list(reader.scan("BTCUSDT", *_ALWAYS)) == _records("BTCUSDT", _T, _T + 9)
                for second in range(_T + 10, _T + 40):
                    storage.append([_record("BTCUSDT", second)])
                    if second % 7 == 0:
                        self.settle(storage)
                    assert reader.latest("BTCUSDT") == _record("BTCUSDT", second)
                storage.append_gaps([Gap("ETHUSDT", _T, _T, GapReason.DISK)])
                assert reader.gaps("ETHUSDT", *_ALWAYS) == [Gap("ETHUSDT", _T, _T, GapReason.DISK)]
                assert reader.symbols() == ["BTCUSDT", "ETHUSDT"]
                storage.delete_before("BTCUSDT", _T + 20)
                assert list(reader.scan("BTCUSDT", *_ALWAYS)) == _records(
                    "BTCUSDT", _T + 20, _T + 39
                )
                self._check_refuses_writing(reader)
        if self.persistent:
            with self.make_reader(tmp_path) as reader:
                assert reader.latest("BTCUSDT") == _record("BTCUSDT", _T + 39)

    def _check_refuses_writing(self, reader: Storage) -> None:
        batch: Sequence[Record] = [_record("BTCUSDT", _T + 1000)]
        for write in (
            lambda: reader.append(batch),
            lambda: reader.append_gaps([Gap("BTCUSDT", _T, _T, GapReason.DISK)]),
            lambda: reader.append_marks([Mark("BTCUSDT", _T, _T, MarkKind.EPOCH)]),
            lambda: reader.delete_before("BTCUSDT", _T),
        ):
            with pytest.raises(StorageError):
                write()
