"""Gaps and marks of a storage, and deleting."""

from __future__ import annotations

import pytest

from obframe.errors import StorageError
from obframe.protocols import Storage
from obframe.testing.contracts.rules import rule
from obframe.testing.contracts.storage_factory import (
    ALWAYS,
    LINE,
    StorageFactory,
    T,
    record,
    records,
)
from obframe.types import MAX_TIMESTAMP, Gap, GapReason, Mark, MarkKind


class RunRules(StorageFactory):
    """How gaps and marks are kept, and how old seconds go."""

    # Gaps and marks

    @rule(Storage.gaps)
    def test_gaps_come_back_oldest_first_and_uncut(self, storage: Storage) -> None:
        """Each gap that has a second in the window is given whole."""
        gaps = [
            Gap("BTCUSDT", T, T + 10, GapReason.DISK, "full"),
            Gap("BTCUSDT", T + 20, T + 20, GapReason.SEQUENCE),
            Gap("BTCUSDT", T + 30, T + 40, GapReason.CLOCK_STEP, 'a "line" with \' and ; signs'),
        ]
        storage.append_gaps([gaps[2], gaps[0], gaps[1], Gap("ETHUSDT", T, T, GapReason.DISK)])
        assert storage.gaps("BTCUSDT", *ALWAYS) == gaps
        assert storage.gaps("BTCUSDT", T + 10, T + 30) == gaps
        assert storage.gaps("BTCUSDT", T + 11, T + 29) == gaps[1:2]
        assert storage.gaps("BTCUSDT", T + 35, T + 36) == gaps[2:]
        assert storage.gaps("BTCUSDT", T + 41, MAX_TIMESTAMP) == []
        assert storage.gaps("BTC", *ALWAYS) == []
        assert all(isinstance(gap.reason, GapReason) for gap in storage.gaps("BTCUSDT", *ALWAYS))

    @rule(Storage.append_gaps)
    @pytest.mark.parametrize("settled", [False, True])
    def test_gaps_that_touch_become_one(self, storage: Storage, settled: bool) -> None:
        """Same symbol, reason and detail: touching, overlapping and bridging gaps are one."""
        parts = [(0, 4), (5, 9), (20, 29), (25, 26), (40, 49), (36, 45), (8, 22)]
        gaps = [Gap("BTCUSDT", T + a, T + b, GapReason.DISK, "full") for a, b in parts]
        if settled:
            for gap in gaps:
                storage.append_gaps([gap])
        else:
            storage.append_gaps(gaps)
        assert storage.gaps("BTCUSDT", *ALWAYS) == [
            Gap("BTCUSDT", T, T + 29, GapReason.DISK, "full"),
            Gap("BTCUSDT", T + 36, T + 49, GapReason.DISK, "full"),
        ]

    @rule(Storage.append_gaps)
    def test_gaps_of_other_causes_stay_apart(self, storage: Storage) -> None:
        """A gap never joins one of another symbol, reason or detail, nor one a second away."""
        gaps = [
            Gap("BTCUSDT", T, T + 9, GapReason.DISK),
            Gap("BTCUSDT", T + 5, T + 12, GapReason.SYNCING),
            Gap("BTCUSDT", T + 10, T + 19, GapReason.DISK, "full"),
            Gap("BTCUSDT", T + 11, T + 11, GapReason.DISK),
        ]
        storage.append_gaps(gaps)
        storage.append_gaps([Gap("ETHUSDT", T + 10, T + 10, GapReason.DISK)])
        assert storage.gaps("BTCUSDT", *ALWAYS) == gaps

    @rule(Storage.symbols)
    def test_a_symbol_with_gaps_alone_is_listed(self, storage: Storage) -> None:
        """What was never stored is known to be missing."""
        storage.append_gaps([Gap("NEVER", T, T + 9, GapReason.UNKNOWN_SYMBOL)])
        storage.append([record("ALWAYS", T)])
        assert storage.symbols() == ["ALWAYS", "NEVER"]

    @rule(Storage.symbols)
    def test_a_symbol_with_marks_alone_is_not_listed(self, storage: Storage) -> None:
        """Marks say something of rows; without rows and gaps there is no symbol."""
        storage.append_marks([Mark("MARKED", T, T + 9, MarkKind.UNCERTAIN)])
        storage.append([record("ALWAYS", T)])
        assert storage.symbols() == ["ALWAYS"]

    @rule(Storage.append_marks)
    def test_marks_that_touch_become_one(self, storage: Storage) -> None:
        """Marks join by symbol and kind and come back oldest first, uncut."""
        for second in range(T, T + 5):
            storage.append_marks([Mark("BTCUSDT", second, second, MarkKind.UNCERTAIN)])
        storage.append_marks(
            [
                Mark("BTCUSDT", T + 2, T + 2, MarkKind.EPOCH),
                Mark("BTCUSDT", T + 9, T + 9, MarkKind.UNCERTAIN),
                Mark("ETHUSDT", T + 5, T + 5, MarkKind.UNCERTAIN),
            ]
        )
        assert storage.marks("BTCUSDT", *ALWAYS) == [
            Mark("BTCUSDT", T, T + 4, MarkKind.UNCERTAIN),
            Mark("BTCUSDT", T + 2, T + 2, MarkKind.EPOCH),
            Mark("BTCUSDT", T + 9, T + 9, MarkKind.UNCERTAIN),
        ]
        assert storage.marks("BTCUSDT", T + 4, T + 8) == [
            Mark("BTCUSDT", T, T + 4, MarkKind.UNCERTAIN)
        ]

    @rule(Storage.append_gaps)
    def test_gaps_and_marks_that_cannot_be_are_refused(self, storage: Storage) -> None:
        """A run with a bad symbol, bad bounds or its end before its start stores nothing."""
        good = Gap("BTCUSDT", T, T, GapReason.DISK)
        for bad in (
            Gap("A:B", T, T, GapReason.DISK),
            Gap("BTCUSDT", T + 1, T, GapReason.DISK),
            Gap("BTCUSDT", 5, T, GapReason.DISK),
            Gap("BTCUSDT", T, T * 1000, GapReason.DISK),
        ):
            with pytest.raises((ValueError, StorageError)):
                storage.append_gaps([good, bad])
            with pytest.raises((ValueError, StorageError)):
                storage.append_marks([Mark(bad.symbol, bad.start, bad.end, MarkKind.EPOCH)])
        assert storage.gaps("BTCUSDT", *ALWAYS) == []
        assert storage.marks("BTCUSDT", *ALWAYS) == []

    # Deleting

    @rule(Storage.delete_before)
    def test_delete_before_leaves_the_line_and_other_symbols(self, storage: Storage) -> None:
        """Seconds before the line go, the line itself and all other symbols stay."""
        symbols = ["BTC", "BTCUSD", "BTCUSDT", "BTC1"]
        for symbol in symbols:
            storage.append(records(symbol, LINE - 50, LINE + 50))
        self.settle(storage)
        storage.delete_before("BTCUSD", LINE + 10)
        self.settle(storage)
        for symbol in symbols:
            first = LINE + 10 if symbol == "BTCUSD" else LINE - 50
            assert list(storage.scan(symbol, *ALWAYS)) == records(symbol, first, LINE + 50)
        storage.delete_before("BTCUSD", 0)
        storage.delete_before("NONE", LINE)
        assert len(list(storage.scan("BTCUSD", *ALWAYS))) == 41

    @rule(Storage.delete_before)
    def test_a_symbol_deleted_whole_is_gone(self, storage: Storage) -> None:
        """When all rows and gaps are deleted the symbol is no longer listed; it can come again."""
        storage.append([record("BTCUSDT", T), record("BTCUSDT", MAX_TIMESTAMP)])
        storage.append([record("ETHUSDT", T)])
        storage.append_gaps([Gap("BTCUSDT", T + 1, T + 2, GapReason.DISK)])
        storage.delete_before("BTCUSDT", MAX_TIMESTAMP + 1)
        assert storage.symbols() == ["ETHUSDT"]
        assert storage.latest("BTCUSDT") is None
        assert list(storage.append([record("BTCUSDT", T)])) == []
        assert storage.latest("BTCUSDT") == record("BTCUSDT", T)

    @rule(Storage.delete_before)
    def test_delete_before_takes_gaps_and_marks_too(self, storage: Storage) -> None:
        """Old gaps and marks go with the rows; what straddles the line is cut there."""
        storage.append_gaps(
            [
                Gap("BTCUSDT", T, T + 9, GapReason.DISK),
                Gap("BTCUSDT", T + 50, T + 59, GapReason.SYNCING, "why"),
                Gap("ETHUSDT", T, T + 9, GapReason.DISK),
            ]
        )
        storage.append_marks(
            [
                Mark("BTCUSDT", T, T + 9, MarkKind.UNCERTAIN),
                Mark("BTCUSDT", T + 52, T + 60, MarkKind.UNCERTAIN),
            ]
        )
        storage.delete_before("BTCUSDT", T + 55)
        assert storage.gaps("BTCUSDT", *ALWAYS) == [
            Gap("BTCUSDT", T + 55, T + 59, GapReason.SYNCING, "why")
        ]
        assert storage.marks("BTCUSDT", *ALWAYS) == [
            Mark("BTCUSDT", T + 55, T + 60, MarkKind.UNCERTAIN)
        ]
        assert storage.gaps("ETHUSDT", *ALWAYS) == [Gap("ETHUSDT", T, T + 9, GapReason.DISK)]
