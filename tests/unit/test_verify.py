"""Verification: each fault is found where it is, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from obframe import Gap, GapReason, Record, Snapshot, StoreCorrupt
from obframe.protocols import Storage
from obframe.verify import Fault, Finding, verify
from obframe_plugins.memory import MemoryStorage

T = 1_737_158_400
BIDS = [("100.2", "1"), ("100.1", "2.50"), ("99.0", "3")]
ASKS = [("100.30", "1"), ("100.4", "2")]


def row(second: int, bids: object = BIDS, asks: object = ASKS, label: int | None = None) -> Record:
    packed = Snapshot("X", second, label or second, bids, asks).pack()  # type: ignore[arg-type]
    return Record("X", second, packed)


class Damaged(MemoryStorage):
    """A memory storage with seconds that cannot be read."""

    def __init__(self, bad: range) -> None:
        super().__init__()
        self.bad = bad

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        for record in super().scan(symbol, start, end):
            if record.timestamp in self.bad:
                raise StoreCorrupt("000007.sst: checksum mismatch", "rows")
            yield record


def findings(storage: Storage) -> list[tuple[int, int, Fault]]:
    return [(each.start - T, each.end - T, each.fault) for each in verify(storage, "X")]


def test_a_good_store_has_no_findings() -> None:
    storage = MemoryStorage()
    storage.append([row(T + n) for n in range(3000)])
    storage.append_gaps([Gap("X", T + 3000, T + 3009, GapReason.SILENT)])
    storage.append([row(T + n) for n in range(3010, 3020)])
    storage.append([row(T + 3020, bids=[]), row(T + 3021, asks=[])])
    seen = 0

    def count(rows: int) -> None:
        nonlocal seen
        seen += rows

    assert list(verify(storage, "X", count=count)) == []
    assert seen == 3012


@pytest.mark.parametrize(
    ("record", "fault", "told"),
    [
        (Record("X", T + 5, b"\x94\x90"), Fault.UNDECODABLE, ""),
        (row(T + 5, label=T + 6), Fault.UNDECODABLE, f"of second {T + 6}, its key of {T + 5}"),
        (row(T + 5, bids=[*BIDS, ("99.5", "1")]), Fault.ORDER, "bid 3 is 99.0, bid 4 99.5"),
        (row(T + 5, asks=[("100.3", "1"), ("100.30", "2")]), Fault.ORDER, "ask 1 is 100.3, ask 2"),
        (row(T + 5, bids=[("100.3", "1")]), Fault.CROSSED, "best bid 100.3, best ask 100.30"),
        (row(T + 5, bids=[("100.2", "0.00")]), Fault.EMPTY_LEVEL, "bid 1 is 0.00 at 100.2"),
        (
            row(T + 5, bids=[("100000000000.123456789012", "1")], asks=[("1000000000000", "1")]),
            None,
            "",
        ),
        (
            row(T + 5, bids=[("0.123456789012345678901", "1"), ("0.123456789012345678902", "1")]),
            Fault.ORDER,
            "bid 1",
        ),
    ],
)
def test_a_wrong_row_is_named_by_its_second(record: Record, fault: Fault | None, told: str) -> None:
    storage = MemoryStorage()
    storage.append([row(T + n) for n in range(10) if n != 5])
    storage.append([record])
    found = list(verify(storage, "X"))
    if fault is None:
        assert found == []
    else:
        assert [each[:4] for each in found] == [Finding("X", T + 5, T + 5, fault, "")[:4]]
        assert told in found[0].detail


def test_the_ledger_is_held_against_the_rows() -> None:
    storage = MemoryStorage()
    storage.append([row(T + n) for n in range(100) if not 20 <= n < 40 and n != 60])
    storage.append_gaps(
        [
            Gap("X", T + 22, T + 29, GapReason.SILENT),
            Gap("X", T + 25, T + 41, GapReason.SEQUENCE),
            Gap("X", T + 70, T + 72, GapReason.DISK),
        ]
    )
    assert findings(storage) == [
        (20, 21, Fault.UNEXPLAINED),
        (60, 60, Fault.UNEXPLAINED),
        (40, 41, Fault.CONTRADICTED),
        (70, 72, Fault.CONTRADICTED),
    ]


@pytest.mark.parametrize("bad", [range(1), range(1500, 1501), range(700, 2900), range(3990, 4000)])
def test_row_46_damage_is_a_finding_with_its_range_and_the_rest_is_read(bad: range) -> None:
    storage = Damaged(range(T + bad.start, T + bad.stop))
    storage.append([row(T + n) for n in range(4000)])
    seen = 0

    def count(rows: int) -> None:
        nonlocal seen
        seen += rows

    found = list(verify(storage, "X", T, T + 3999, count=count))
    assert [(each.start - T, each.end - T + 1) for each in found] == [(bad.start, bad.stop)]
    assert found[0].fault is Fault.UNREADABLE
    assert "000007.sst" in found[0].detail
    assert seen == 4000 - len(bad)
