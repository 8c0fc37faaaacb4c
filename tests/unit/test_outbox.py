"""What waits for a sink that is told live: bounded by rows, the oldest dropped and counted."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from obframe import Snapshot
from obframe.outbox import Bell, LiveOutbox

START = 1_700_000_000


def snapshots(second: int, symbols: str) -> list[Snapshot]:
    levels = [("1.50", "1")], [("2", "1")]
    return [Snapshot(symbol, second, START + second, *levels) for symbol in symbols]


async def test_row_53_snapshots_that_nobody_takes_are_dropped_by_rows_and_counted() -> None:
    counters: Counter[str] = Counter()
    box = LiveOutbox(6, counters)
    for second in range(1, 11):
        box.offer(snapshots(second, "AB"))
    assert counters["dropped"] == 14
    batch = await box.next(100)
    assert batch is not None
    assert [each.timestamp - START for each in batch.snapshots] == [8, 8]
    box.told(batch)
    assert box.lag == 2
    box.close()
    assert await box.next(100) is None
    assert counters["dropped"] == 18
    box.offer(snapshots(11, "ABCDEFGH"))
    assert await box.next(1) is not None, "one second is held, however many rows it has"


async def test_a_bell_wakes_the_loop_that_listens_and_costs_one_call_however_often_it_rings() -> (
    None
):
    bell = Bell()
    bell.ring()  # nobody listens yet
    bell.bind()
    bell.listen()
    await bell.wait(0.001)
    thread = threading.Thread(target=lambda: [bell.ring() for _ in range(1000)])
    thread.start()
    await asyncio.wait_for(bell.wait(), 10)
    thread.join()
