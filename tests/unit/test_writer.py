"""The writer: rows, gaps and marks in an order that no crash can make a hole of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from obframe import Gap, GapReason, Mark, MarkKind, Record, StoreUnavailable
from obframe.testing.waiting import until
from obframe.writer import StorageWriter
from obframe_plugins.memory import MemoryStorage

T = 1_700_000_000
FOREVER = 9_999_999_999


def row(second: int, symbol: str = "BTCUSDT") -> Record:
    return Record(symbol, T + second, b"\x94\x90\x90\x01\x01")


def rows(storage: MemoryStorage, symbol: str = "BTCUSDT") -> list[int]:
    return [record.timestamp - T for record in storage.scan(symbol, 10**9, FOREVER)]


def gaps(storage: MemoryStorage, symbol: str = "BTCUSDT") -> list[tuple[int, int, str]]:
    found = storage.gaps(symbol, 10**9, FOREVER)
    return [(gap.start - T, gap.end - T, str(gap.reason)) for gap in found]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obframe.writer._RETRY_FIRST", 0.001)
    monkeypatch.setattr("obframe.writer._RETRY_MAX", 0.002)


@asynccontextmanager
async def writing(storage: MemoryStorage, queue_rows: int = 1000) -> AsyncIterator[StorageWriter]:
    writer = StorageWriter(storage, queue_rows=queue_rows)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        writer.close()
        await asyncio.wait_for(task, 10)


class Troubled(MemoryStorage):
    """Refuses one kind of write while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.attempts = 0

    def _check(self, kind: str) -> None:
        if kind in self.refused:
            self.attempts += 1
            raise StoreUnavailable(f"no room for {kind}", "db")

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        self._check("rows")
        return super().append(records)

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        self._check("gaps")
        super().append_gaps(gaps)

    def append_marks(self, marks: Sequence[Mark]) -> None:
        self._check("marks")
        super().append_marks(marks)


@pytest.mark.parametrize("seconds_in_trouble", [0, 20])
async def test_row_43_no_row_is_stored_before_the_gap_that_it_follows(
    seconds_in_trouble: int,
) -> None:
    """A crash between the two would leave seconds that neither rows nor gaps tell of."""
    storage = Troubled()
    async with writing(storage) as writer:
        writer.submit(T + 1, [row(1)], ())
        await until(lambda: rows(storage) == [1])
        storage.refused = {"gaps"}
        writer.add_gap("BTCUSDT", T + 2, T + 3, GapReason.SEQUENCE, "")
        writer.submit(T + 3, (), ())
        for second in range(4, 5 + seconds_in_trouble):
            writer.submit(T + second, [row(second)], ())
        await until(lambda: storage.attempts >= 3)
        assert rows(storage) == [1]
        storage.refused = set()
    assert gaps(storage) == [(2, 3, "sequence")]
    assert rows(storage) == [1, *range(4, 5 + seconds_in_trouble)]


async def test_row_43_no_gap_is_stored_before_the_rows_that_it_follows() -> None:
    storage = Troubled()
    storage.refused = {"rows"}
    async with writing(storage) as writer:
        for second in range(1, 6):
            writer.submit(T + second, [row(second)], ())
        await until(lambda: storage.attempts >= 2)
        writer.add_gap("BTCUSDT", T + 6, T + 7, GapReason.SEQUENCE, "")
        writer.submit(T + 7, (), ())
        for second in range(8, 12):
            writer.submit(T + second, [row(second)], ())
        written: list[tuple[str, int]] = []
        append, append_gaps = storage.append, storage.append_gaps

        def note_rows(records: Sequence[Record]) -> Sequence[Record]:
            refused = append(records)
            written.extend(("row", record.timestamp - T) for record in records)
            return refused

        def note_gaps(gaps: Sequence[Gap]) -> None:
            append_gaps(gaps)
            written.extend(("gap", gap.start - T) for gap in gaps)

        storage.append, storage.append_gaps = note_rows, note_gaps  # type: ignore[method-assign]
        storage.refused = set()
    assert [second for _, second in written] == [*range(1, 7), *range(8, 12)]


async def test_what_a_row_is_to_be_trusted_for_is_stored_before_the_row() -> None:
    storage = Troubled()
    storage.refused = {"marks"}
    async with writing(storage) as writer:
        writer.submit(T + 1, [row(1)], [Mark("BTCUSDT", T + 1, T + 1, MarkKind.UNCERTAIN)])
        await until(lambda: storage.attempts >= 2)
        assert rows(storage) == []
        storage.refused = set()
    assert rows(storage) == [1]
    assert len(storage.marks("BTCUSDT", T, FOREVER)) == 1


async def test_a_symbol_that_goes_and_comes_back_between_two_ticks_loses_no_second_twice() -> None:
    storage = MemoryStorage()
    async with writing(storage) as writer:
        writer.submit(T + 4, [row(4)], ())
        for second in (5, 6, 7):
            writer.add_gap("BTCUSDT", T + second, T + second, GapReason.SEQUENCE, "")
            writer.submit(T + second, (), ())
        writer.close_gap("BTCUSDT")
        writer.resume("BTCUSDT", T + 8, GapReason.UNSUBSCRIBED)
        writer.submit(T + 8, [row(8)], ())
    assert gaps(storage) == [(5, 7, "sequence")]


async def test_a_gap_that_cannot_be_stored_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A machine that wakes up in 1970 and is set right a minute later."""
    storage = MemoryStorage()
    async with writing(storage) as writer:
        writer.submit(60, [Record("BTCUSDT", 60, b"\x94\x90\x90\x01\x01")], ())
        writer.add_gap("BTCUSDT", 61, 62, GapReason.CONNECTING, "")
        writer.submit(62, (), [Mark("BTCUSDT", 60, 60, MarkKind.EPOCH)])
        writer.add_gap("ETHUSDT", T + 1, T + 1, GapReason.CONNECTING, "")
        for second in (2, 3):
            writer.submit(T + second, [row(second), row(second, "ETHUSDT")], ())
        await until(lambda: rows(storage) == [2, 3])
    assert gaps(storage, "ETHUSDT") == [(1, 1, "connecting")]
    assert writer.trouble is None
    assert writer.counters["rows"] == 4
    assert writer.counters["unstorable"] >= 2
    assert "61" in caplog.text


async def test_row_41_what_waits_for_a_broken_disk_is_bounded() -> None:
    storage = Troubled()
    storage.refused = {"rows", "gaps", "marks"}
    async with writing(storage, queue_rows=10) as writer:
        for second in range(1, 3601):
            mark = Mark("BTCUSDT", T + second, T + second, MarkKind.UNCERTAIN)
            writer.add_gap("ETHUSDT", T + second, T + second, GapReason.SEQUENCE, "")
            writer.submit(T + second, [row(second)], [mark])
            if second % 100 == 0:
                await asyncio.sleep(0)
        held = writer._jobs
        assert len(held) < 20
        assert sum(len(job.gaps) for job in held) < 20
        assert sum(len(job.marks) for job in held) <= 10
        storage.refused = set()
    assert rows(storage) == list(range(1, 11))
    assert {reason for _, _, reason in gaps(storage)} == {"disk"}
    assert [s for a, b, _ in gaps(storage) for s in range(a, b + 1)] == list(range(11, 3601))
    assert gaps(storage, "ETHUSDT") == [(1, 3600, "sequence")]


async def test_a_row_tried_alone_is_stored_and_counted_once() -> None:
    class Poisoned(Troubled):
        def append(self, records: Sequence[Record]) -> Sequence[Record]:
            if any(record.symbol == "BADUSDT" for record in records):
                raise ValueError("cannot encode BADUSDT")
            if records[0].symbol == "ETHUSDT" and len(records) == 1:
                self._check("rows")
            return MemoryStorage.append(self, records)

    storage = Poisoned()
    storage.refused = {"rows"}
    async with writing(storage) as writer:
        writer.submit(T + 1, [row(1), row(1, "BADUSDT"), row(1, "ETHUSDT")], ())
        await until(lambda: storage.attempts >= 3)
        storage.refused = set()
    assert (rows(storage), rows(storage, "ETHUSDT")) == ([1], [1])
    assert (writer.counters["rows"], writer.counters["already_stored"]) == (2, 0)
    assert gaps(storage, "BADUSDT") == [(1, 1, "internal")]
    assert writer.gap_seconds == {GapReason.INTERNAL: 1}
    assert writer.queued_rows == 0
