"""Rows of a storage: what is stored comes back, once, in order."""

from __future__ import annotations

import pytest

from obframe.errors import StorageError, SymbolError
from obframe.protocols import BatchScan, Storage
from obframe.testing.contracts.rules import rule
from obframe.testing.contracts.storage_factory import (
    ALWAYS,
    LINE,
    StorageFactory,
    T,
    record,
    records,
)
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Record
from obframe.vetting import STORAGE, check_protocol


class RowRules(StorageFactory):
    """How rows are kept."""

    # Rows

    @rule(Storage)
    def test_is_a_storage(self, storage: Storage) -> None:
        """It has every method of the protocol."""
        check_protocol(storage, STORAGE, type(storage).__name__)

    @rule(Storage)
    def test_empty_storage_answers(self, storage: Storage) -> None:
        """Nothing stored is nothing found, not an error."""
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == []
        assert storage.latest("BTCUSDT") is None
        assert storage.symbols() == []
        assert storage.gaps("BTCUSDT", *ALWAYS) == []
        assert storage.marks("BTCUSDT", *ALWAYS) == []
        assert list(storage.append([])) == []
        storage.append_gaps([])
        storage.append_marks([])
        storage.delete_before("BTCUSDT", T)

    @rule(Storage.append)
    def test_rows_come_back_byte_for_byte(self, storage: Storage) -> None:
        """Any bytes are kept, empty and binary ones too."""
        values = [b"", b"\x00", bytes(range(256)) * 40, b"\x94\x90\x90\x00\x00"]
        records = [Record("BTCUSDT", T + n, value) for n, value in enumerate(values)]
        assert list(storage.append(records)) == []
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == records

    @rule(Storage.scan)
    def test_scan_includes_both_ends(self, storage: Storage) -> None:
        """``start`` and ``end`` are inside; one second alone is a range."""
        storage.append(records("BTCUSDT", T, T + 9))
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", T + 2, T + 5)) == records("BTCUSDT", T + 2, T + 5)
        assert list(storage.scan("BTCUSDT", T + 3, T + 3)) == [record("BTCUSDT", T + 3)]
        assert list(storage.scan("BTCUSDT", T + 5, T + 2)) == []
        assert list(storage.scan("BTCUSDT", T + 10, MAX_TIMESTAMP)) == []

    @rule(Storage.scan)
    def test_scan_accepts_any_bounds(self, storage: Storage) -> None:
        """Bounds beyond what can be stored are no error."""
        rows = [record("BTCUSDT", MIN_TIMESTAMP), record("BTCUSDT", MAX_TIMESTAMP)]
        storage.append(rows)
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", 0, 10**12)) == rows
        assert list(storage.scan("BTCUSDT", -5, 10)) == []
        assert list(storage.scan("BTCUSDT", 10**12, 10**13)) == []

    @rule(Storage.scan)
    def test_scan_is_oldest_first(self, storage: Storage) -> None:
        """The order is that of time, whatever the order of appending."""
        rows = records("BTCUSDT", T, T + 20)
        for row in [*rows[10:], *rows[:10]]:
            assert list(storage.append([row])) == []
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows

    @rule(Storage.scan)
    @pytest.mark.parametrize(
        "symbol", ["X", "BTC", "BTCUS", "BTCUSD", "BTCUSDT", "BTCUSDT_2", "BTCUSDT_260327", "1000X"]
    )
    def test_scan_crosses_every_digit_of_time(self, storage: Storage, symbol: str) -> None:
        """No row is lost where leading digits of the time change, for any length of symbol."""
        rows = []
        for line in (LINE, 1_750_000_000, 1_740_000_000, 1_738_000_000, 1_737_200_000):
            rows += records(symbol, line - 300, line + 300)
        rows.sort()
        storage.append(rows)
        self.settle(storage)
        assert list(storage.scan(symbol, *ALWAYS)) == rows
        for line in (LINE, 1_737_200_000):
            assert len(list(storage.scan(symbol, line - 100, line + 100))) == 201
        last = storage.latest(symbol)
        assert last == rows[-1]

    @rule(Storage.scan)
    def test_symbols_that_begin_alike_stay_apart(self, storage: Storage) -> None:
        """A symbol that is the beginning of another never sees its rows."""
        symbols = ["BTC", "BTC1", "BTCUSD", "BTCUSDT", "BTCUSDT_260327", "BTCUSDT_2603271", "btc"]
        for symbol in symbols:
            storage.append(records(symbol, T, T + 30))
        self.settle(storage)
        assert storage.symbols() == sorted(symbols)
        for symbol in symbols:
            assert list(storage.scan(symbol, *ALWAYS)) == records(symbol, T, T + 30)
            assert storage.latest(symbol) == record(symbol, T + 30)
        assert storage.latest("BTCU") is None
        assert storage.latest("BTCUSDT_26") is None
        assert storage.latest("A") is None
        assert storage.latest("zzz") is None

    @rule(Storage.append)
    def test_symbols_may_be_unicode(self, storage: Storage) -> None:
        """Any symbol that ``check_symbol`` takes is kept apart and sorted."""
        symbols = sorted(["币安人生USDT", "ÄTHER", "ETHUSDT", "🚀", "a/b", "1000PEPE", "ＢＴＣ"])
        for symbol in symbols:
            storage.append(records(symbol, T, T + 2))
        self.settle(storage)
        assert storage.symbols() == symbols
        for symbol in symbols:
            assert list(storage.scan(symbol, *ALWAYS)) == records(symbol, T, T + 2)

    @rule(Storage.latest)
    def test_latest_is_the_newest(self, storage: Storage) -> None:
        """The newest second counts, not the last appended."""
        storage.append([record("BTCUSDT", T + 50)])
        storage.append([record("BTCUSDT", T)])
        self.settle(storage)
        assert storage.latest("BTCUSDT") == record("BTCUSDT", T + 50)

    @rule(BatchScan.scan_batches)
    def test_batches_are_the_scan(self, storage: Storage) -> None:
        """A ``scan_batches`` that is offered gives what ``scan`` does, in batches of any size."""
        if not isinstance(storage, BatchScan):
            pytest.skip(f"{type(storage).__name__} offers no scan_batches")
        # Dense, with holes of one second and of many, and more than anybody puts into a batch.
        rows = [*records("BTCUSDT", T, T + 2999), *records("BTCUSDT", T + 5000, T + 5100, step=2)]
        storage.append([*rows, *records("BTCUSDT2", T, T + 9), *records("BTCUSD", T, T + 9)])
        self.settle(storage)
        for start, end in (ALWAYS, (T + 2, T + 2), (T + 2990, T + 5050), (T + 9000, T), (-5, T)):
            expected = list(storage.scan("BTCUSDT", start, end))
            found = list(storage.scan_batches("BTCUSDT", start, end))
            assert all(len(batch.timestamps) > 0 for batch in found), "a batch is empty"
            assert [
                Record("BTCUSDT", second, value)
                for batch in found
                for second, value in zip(batch.timestamps, batch.values, strict=True)
            ] == expected
        with pytest.raises(SymbolError):
            list(storage.scan_batches("BTC:USDT", *ALWAYS))

    # Never twice

    @rule(Storage.append)
    def test_a_stored_second_is_never_overwritten(self, storage: Storage) -> None:
        """The second record of a second is refused and returned, the first stays."""
        storage.append(records("BTCUSDT", T, T + 5))
        self.settle(storage)
        late = [Record("BTCUSDT", T + 3, b"other"), record("BTCUSDT", T + 6)]
        assert list(storage.append(late)) == late[:1]
        self.settle(storage)
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T, T + 6)

    @rule(Storage.append)
    def test_a_hole_can_be_filled_later(self, storage: Storage) -> None:
        """An older second that is not stored is taken."""
        storage.append(records("BTCUSDT", T, T + 10, step=2))
        self.settle(storage)
        assert list(storage.append(records("BTCUSDT", T + 1, T + 9, step=2))) == []
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == records("BTCUSDT", T, T + 10)

    @rule(Storage.append)
    def test_of_two_in_one_batch_the_first_stays(self, storage: Storage) -> None:
        """A batch that names a second twice stores its first and refuses the rest."""
        batch = [
            Record("BTCUSDT", T, b"first"),
            Record("BTCUSDT", T, b"second"),
            Record("ETHUSDT", T, b"other"),
            Record("BTCUSDT", T, b"third"),
        ]
        assert list(storage.append(batch)) == [batch[1], batch[3]]
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == [batch[0]]
        assert list(storage.append(batch)) == batch
        assert list(storage.scan("ETHUSDT", *ALWAYS)) == [batch[2]]

    @rule(Storage.append)
    def test_a_bad_record_spoils_its_whole_batch(self, storage: Storage) -> None:
        """A batch is atomic: with one bad record nothing of it is stored."""
        bad_symbols = ["", "A:B", "A B", "A\nB", "..", "a/../b", "x" * 129, "A\0", "\ud800"]
        for symbol in bad_symbols:
            with pytest.raises(SymbolError):
                storage.append([record("BTCUSDT", T), Record(symbol, T, b"x")])
        for timestamp in (0, -1, MIN_TIMESTAMP - 1, MAX_TIMESTAMP + 1, T * 1000):
            with pytest.raises((ValueError, StorageError)):
                storage.append([record("BTCUSDT", T), Record("ETHUSDT", timestamp, b"x")])
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == []
        assert storage.symbols() == []
