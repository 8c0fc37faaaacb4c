"""Every stored row for a sink: without a hole, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import Record, Snapshot, StorageError, StoreCorrupt
from obframe.backfill import StoredOutbox
from obframe.positions import Positions
from obframe_plugins.memory import MemoryStorage

START = 1_700_000_000


def row(symbol: str, second: int) -> Record:
    snapshot = Snapshot(symbol, second, START + second, [("1.50", "1")], [("2", "1")])
    return Record(symbol, START + second, snapshot.pack())


def outbox(
    storage: MemoryStorage, positions: Positions | None = None, *, now: int = 0, **options: Any
) -> StoredOutbox:
    settings: dict[str, Any] = {"rows": 4, "start": "now", "counters": Counter(), **options}
    kept = positions if positions is not None else Positions(None)
    return StoredOutbox("kept", storage, kept, now=START + now, **settings)


def store(storage: MemoryStorage, box: StoredOutbox | None, second: int, *symbols: str) -> None:
    records = [row(symbol, second) for symbol in symbols or ("A",)]
    refused = storage.append(records)
    if box is not None:
        box.offer(records, {record.timestamp for record in refused})


async def tell_all(box: StoredOutbox, rows: int = 100) -> list[tuple[str, int]]:
    """Be a sink that takes everything that waits."""
    told: list[tuple[str, int]] = []
    while (batch := await box.next(rows)) is not None:
        told += [(each.symbol, each.timestamp - START) for each in batch.snapshots]
        box.told(batch)
    return told


def stored(storage: MemoryStorage, after: int = 0) -> list[tuple[str, int]]:
    return sorted(
        (record.symbol, record.timestamp - START)
        for symbol in storage.symbols()
        for record in storage.scan(symbol, START + after, START + 10**6)
    )


# What happens to a sink's outbox: seconds come, the sink takes some, fails, or the process dies.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sets(st.sampled_from("ABC"), min_size=1)),
        st.tuples(st.just("take"), st.integers(1, 6)),
        st.tuples(st.just("fail"), st.integers(1, 6)),
        st.tuples(st.just("skip"), st.integers(1, 300)),
        st.tuples(st.sampled_from(["save", "crash", "back"]), st.integers(1, 5)),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 8))
def test_row_53_and_54_whatever_happens_nothing_is_missing_and_each_symbol_comes_in_order(
    events: list[tuple[str, Any]], rows: int
) -> None:
    asyncio.run(live_through(events, rows))


async def live_through(events: list[tuple[str, Any]], rows: int) -> None:
    storage, positions = MemoryStorage(), Kept()
    now = 0
    for _ in range(5):  # before the sink's first start: not told
        now += 1
        store(storage, None, now)
    first = now + 1
    box = outbox(storage, positions, now=now, rows=rows)
    await box.save(now=True)
    told: list[tuple[str, int]] = []
    since: list[tuple[str, int]] = []  # in this life
    for what, value in [*events, ("crash", 1)]:
        if what == "store":
            now += 1
            store(storage, box, now, *sorted(value))
        elif what == "skip":
            now += value
        elif what in ("take", "fail"):
            batch = await box.next(value)
            if batch is not None and what == "take":
                assert batch.snapshots
                since += [(each.symbol, each.timestamp - START) for each in batch.snapshots]
                box.told(batch)
        elif what == "save":
            await box.save(now=True)
        else:
            check_life(since)
            told += since
            since = []
            if what == "back":
                now = max(now - value, first)  # the clock is set back before the next start
            box = outbox(storage, positions, now=now, rows=rows)
    told += await tell_all(box)
    assert box.lag == 0
    for symbol, second in stored(storage, first):
        if second <= now:  # later ones come when their time comes again
            assert (symbol, second) in told
    now = max([now, *(second for _, second in stored(storage))])
    store(storage, box, now + 1, "A", "B", "C")
    told += await tell_all(box)
    assert set(told) == set(stored(storage, first))


def check_life(told: list[tuple[str, int]]) -> None:
    """Within one life of the process nothing comes twice, and each symbol oldest first."""
    for symbol in "ABC":
        seconds = [second for name, second in told if name == symbol]
        assert seconds == sorted(set(seconds))


class Kept(Positions):
    """Positions that outlive an outbox, without a disk."""

    def __init__(self) -> None:
        super().__init__(None)
        self.seconds: dict[str, int] = {}

    def load(self, name: str) -> int | None:
        return self.seconds.get(name)

    def save(self, name: str, second: int) -> None:
        self.seconds[name] = second


async def test_the_first_start_begins_with_the_oldest_row_when_it_is_asked_to() -> None:
    storage = MemoryStorage()
    for second in (1, 2, 5000, 900_000):
        store(storage, None, second, "A", "B")
    box = outbox(storage, now=900_100, start="oldest")
    told = await tell_all(box)
    assert sorted(told) == stored(storage)
    assert box.position == START + 900_100


async def test_one_call_is_given_whole_seconds_of_about_so_many_rows() -> None:
    storage = MemoryStorage()
    for second in range(1, 8):
        store(storage, None, second, "A", "B", "C")
    box = outbox(storage, now=10, start="oldest")
    sizes = []
    while (batch := await box.next(7)) is not None:
        sizes.append(len(batch.snapshots))
        box.told(batch)
    assert sizes == [6, 6, 6, 3]
    store(storage, box, 11, "A", "B", "C")
    batch = await box.next(1)
    assert batch is not None
    assert len(batch.snapshots) == 3, "a second is never parted"


async def test_row_50_a_value_that_cannot_be_decoded_is_told_of_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = MemoryStorage()
    store(storage, None, 1)
    storage.append([Record("A", START + 2, b"\x94rubbish")])
    store(storage, None, 3)
    counters: Counter[str] = Counter()
    box = outbox(storage, now=4, start="oldest", counters=counters)
    for _ in range(3):
        assert await box.next(100) is not None, "the sink fails"
    assert await tell_all(box) == [("A", 1), ("A", 3)]
    assert counters["undecodable"] == 1
    assert caplog.text.count(f"A:{START + 2} is passed over") == 1


class Damaged(MemoryStorage):
    """A storage one symbol of which cannot be read, or that fails for a while."""

    error: StorageError | None = None

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        if self.error is not None:
            raise self.error
        if symbol == "B":
            raise StoreCorrupt("block 7 is damaged")
        return super().scan(symbol, start, end)


async def test_row_46_what_is_damaged_is_told_of_and_the_other_symbols_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = Damaged()
    for second in (1, 2, 3):
        store(storage, None, second, "A", "B", "C")
    counters: Counter[str] = Counter()
    box = outbox(storage, now=4, start="oldest", counters=counters)
    assert sorted(set(await tell_all(box))) == [(s, n) for s in "AC" for n in (1, 2, 3)]
    assert counters["unreadable"] >= 1
    assert caplog.text.count("rows of B between") == 1


async def test_a_storage_that_cannot_be_read_for_a_while_is_tried_again() -> None:
    storage = Damaged()
    store(storage, None, 1)
    box = outbox(storage, now=4, start="oldest")
    storage.error = StorageError("the disk is away")
    with pytest.raises(StorageError):
        await box.next(100)
    storage.error = None
    assert await tell_all(box) == [("A", 1)]


async def test_one_that_cannot_be_written_is_counted_and_delivery_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "state").write_text("in the way")
    counters: Counter[str] = Counter()
    storage = MemoryStorage()
    box = outbox(storage, counters=counters)
    box._positions = Positions(tmp_path / "state")
    for second in (1, 2, 3):
        store(storage, box, second)
        assert await tell_all(box) == [("A", second)]
        await box.save(now=True)
    assert counters["position_failures"] == 3
    assert caplog.text.count("its position cannot be kept") == 1
