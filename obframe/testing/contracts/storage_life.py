"""A storage with others about, and its end."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from obframe.errors import StorageError, StoreLocked, StoreUnavailable
from obframe.protocols import Provider, Storage
from obframe.testing.contracts.rules import rule
from obframe.testing.contracts.storage_factory import (
    ALWAYS,
    StorageFactory,
    T,
    record,
    records,
)
from obframe.types import Gap, GapReason, Mark, MarkKind, Record


class LifeRules(StorageFactory):
    """How a storage behaves while others use it, in trouble and at its end."""

    # Reading while others write

    @rule(Storage.scan)
    def test_a_scan_sees_one_state(self, storage: Storage) -> None:
        """Rows deleted or appended after ``scan`` was called change nothing in it."""
        storage.append(records("BTCUSDT", T, T + 1999))
        self.settle(storage)
        rows = storage.scan("BTCUSDT", *ALWAYS)
        unread = storage.scan("BTCUSDT", *ALWAYS)
        first = [next(rows) for _ in range(3)]
        storage.delete_before("BTCUSDT", T + 1990)
        storage.append(records("BTCUSDT", T + 2000, T + 2010))
        self.settle(storage)
        assert [*first, *rows] == records("BTCUSDT", T, T + 1999)
        assert list(unread) == records("BTCUSDT", T, T + 1999)
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T + 1990, T + 2010)

    @rule(Storage.scan)
    def test_an_unfinished_scan_can_be_dropped(self, storage: Storage) -> None:
        """Scans that are closed or forgotten hold nothing back."""
        storage.append(records("BTCUSDT", T, T + 100))
        for _ in range(20):
            rows = storage.scan("BTCUSDT", *ALWAYS)
            next(rows)
            close = getattr(rows, "close", None)
            if close is not None:
                close()
        del rows, close
        gc.collect()
        assert len(list(storage.scan("BTCUSDT", *ALWAYS))) == 101

    @rule(Storage.scan)
    def test_a_scan_can_go_on_in_another_thread(self, storage: Storage) -> None:
        """A scan may be read in another thread than the one that began it."""
        storage.append(records("BTCUSDT", T, T + 99))
        self.settle(storage)
        rows = storage.scan("BTCUSDT", *ALWAYS)
        seen = [next(rows)]
        faults: list[BaseException] = []

        def read() -> None:
            try:
                seen.extend(rows)
            except BaseException as error:
                faults.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert faults == []
        assert seen == records("BTCUSDT", T, T + 99)

    @rule(Storage)
    def test_threads_append_and_scan_at_once(self, storage: Storage) -> None:
        """Whole batches only, each second once, whatever the threads do."""
        symbols = ["A", "AB", "ABC"]
        ticks = 60
        faults: list[BaseException] = []
        refused: list[Record] = []
        done = threading.Event()

        def write(offset: int) -> None:
            for tick in range(ticks):
                second = T + 2 * tick + offset
                batch = [Record(symbol, second, b"%d" % offset) for symbol in symbols]
                refused.extend(storage.append(batch))
                refused.extend(storage.append([Record("SHARED", T + tick, b"%d" % offset)]))

        def read() -> None:
            while not done.is_set():
                seen = [record.timestamp for record in storage.scan("A", *ALWAYS)]
                assert seen == sorted(set(seen))
                # What stands in A stands in ABC too: batches are whole.
                assert set(seen) <= {row.timestamp for row in storage.scan("ABC", *ALWAYS)}
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
            stored = [record.timestamp for record in storage.scan(symbol, *ALWAYS)]
            assert stored == list(range(T, T + 2 * ticks))
        shared = list(storage.scan("SHARED", *ALWAYS))
        assert [record.timestamp for record in shared] == list(range(T, T + ticks))
        assert len(refused) == ticks
        # The one who was refused is not the one who is stored.
        assert not set(shared) & set(refused)

    # Life and death

    @rule(Storage.close)
    def test_close_twice_and_use_after_close(self, tmp_path: Path) -> None:
        """Closing again does nothing; using what is closed is a ``StorageError``."""
        with self.make_storage(tmp_path) as storage:
            storage.append([record("BTCUSDT", T)])
            storage.close()
            storage.close()
            for use in (
                lambda: storage.append([record("BTCUSDT", T + 1)]),
                lambda: list(storage.scan("BTCUSDT", *ALWAYS)),
                lambda: storage.latest("BTCUSDT"),
                storage.symbols,
                lambda: storage.gaps("BTCUSDT", *ALWAYS),
                lambda: storage.append_gaps([Gap("BTCUSDT", T, T, GapReason.DISK)]),
                lambda: storage.marks("BTCUSDT", *ALWAYS),
                lambda: storage.append_marks([Mark("BTCUSDT", T, T, MarkKind.EPOCH)]),
                lambda: storage.delete_before("BTCUSDT", T),
            ):
                with pytest.raises(StorageError):
                    use()

    @rule(Storage.scan)
    def test_close_during_a_scan_ends_it_cleanly(self, tmp_path: Path) -> None:
        """A scan that is under way gives all its rows or a ``StorageError``, never fewer."""
        with self.make_storage(tmp_path) as storage:
            storage.append(records("BTCUSDT", T, T + 4999))
            rows = storage.scan("BTCUSDT", *ALWAYS)
            seen = [next(rows)]
            storage.close()
            with contextlib.suppress(StorageError):
                seen.extend(rows)
                assert len(seen) == 5000
            assert seen == records("BTCUSDT", T, T + len(seen) - 1)

    @rule(Storage.append, "persistent")
    def test_reopening_keeps_everything(self, tmp_path: Path) -> None:
        """Rows, gaps and marks are there again, and stored seconds are still refused."""
        gaps = [Gap("BTCUSDT", T + 100, T + 120, GapReason.DISK, "full")]
        marks = [Mark("BTCUSDT", T, T + 5, MarkKind.UNCERTAIN)]
        for run in range(3):
            with self.make_storage(tmp_path) as storage:
                start = T + 10 * run
                assert list(storage.append(records("BTCUSDT", start, start + 9))) == []
                again = records("BTCUSDT", T, start)
                assert list(storage.append(again)) == again
                storage.append_gaps(gaps)
                storage.append_marks(marks)
        with self.make_storage(tmp_path) as storage:
            assert list(storage.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T, T + 29)
            assert storage.gaps("BTCUSDT", *ALWAYS) == gaps
            assert storage.marks("BTCUSDT", *ALWAYS) == marks
            storage.append_gaps([gaps[0]._replace(start=T + 121, end=T + 122)])
            assert storage.gaps("BTCUSDT", *ALWAYS) == [gaps[0]._replace(end=T + 122)]

    @rule(Provider, "supports_reader")
    def test_a_reader_sees_what_was_acknowledged(self, tmp_path: Path) -> None:
        """A reader sees each row as soon as it is acknowledged, and writes nothing."""
        with self.make_storage(tmp_path) as storage:
            storage.append(records("BTCUSDT", T, T + 9))
            with self.make_reader(tmp_path) as reader:
                assert list(reader.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T, T + 9)
                for second in range(T + 10, T + 40):
                    storage.append([record("BTCUSDT", second)])
                    if second % 7 == 0:
                        self.settle(storage)
                    assert reader.latest("BTCUSDT") == record("BTCUSDT", second)
                storage.append_gaps([Gap("ETHUSDT", T, T, GapReason.DISK)])
                assert reader.gaps("ETHUSDT", *ALWAYS) == [Gap("ETHUSDT", T, T, GapReason.DISK)]
                assert reader.symbols() == ["BTCUSDT", "ETHUSDT"]
                storage.delete_before("BTCUSDT", T + 20)
                assert list(reader.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T + 20, T + 39)
                self._check_refuses_writing(reader)
        if self.persistent:
            with self.make_reader(tmp_path) as reader:
                assert reader.latest("BTCUSDT") == record("BTCUSDT", T + 39)

    @rule(StoreLocked, "is_exclusive")
    def test_a_second_writer_is_refused(self, tmp_path: Path) -> None:
        """Opening what is open raises ``StoreLocked``, and the first goes on as if nothing was."""
        with self.make_storage(tmp_path) as storage:
            storage.append([record("BTCUSDT", T)])
            with pytest.raises(StoreLocked), self.make_storage(tmp_path):
                pass
            storage.append([record("BTCUSDT", T + 1)])
            assert list(storage.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T, T + 1)
        with self.make_storage(tmp_path) as storage:
            storage.append([record("BTCUSDT", T + 2)])

    @rule(StoreUnavailable, "can_break")
    def test_a_write_that_fails_stores_nothing(self, storage: Storage) -> None:
        """``StoreUnavailable``: nothing of the batch is stored, and trying again helps later."""
        storage.append([record("BTCUSDT", T)])
        batch = [*records("BTCUSDT", T + 1, T + 5), record("ETHUSDT", T)]
        self.break_(storage)
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    storage.append(batch)
            assert list(storage.scan("BTCUSDT", *ALWAYS)) == [record("BTCUSDT", T)]
        finally:
            self.mend(storage)
        assert list(storage.append(batch)) == []
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T, T + 5)
        assert list(storage.scan("ETHUSDT", *ALWAYS)) == [record("ETHUSDT", T)]

    @rule(Storage.scan, "can_damage")
    def test_damage_is_an_error_never_a_short_answer(self, tmp_path: Path) -> None:
        """Rows that cannot be read any more end a scan with ``StorageError``; none is left out."""
        with self.make_storage(tmp_path) as storage:
            storage.append(records("BTCUSDT", T, T + 4999))
            self.settle(storage)
        self.damage(tmp_path)
        with contextlib.suppress(StorageError), self.make_storage(tmp_path) as storage:
            seen = list(storage.scan("BTCUSDT", *ALWAYS))
            assert seen == records("BTCUSDT", T, T + 4999), "rows are missing, and nothing says so"

    def _check_refuses_writing(self, reader: Storage) -> None:
        batch: Sequence[Record] = [record("BTCUSDT", T + 1000)]
        for write in (
            lambda: reader.append(batch),
            lambda: reader.append_gaps([Gap("BTCUSDT", T, T, GapReason.DISK)]),
            lambda: reader.append_marks([Mark("BTCUSDT", T, T, MarkKind.EPOCH)]),
            lambda: reader.delete_before("BTCUSDT", T),
        ):
            with pytest.raises(StorageError):
                write()
