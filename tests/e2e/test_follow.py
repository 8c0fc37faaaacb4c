"""Reading beside a recorder: nothing missing, nothing twice, and as fresh as the last second."""

from __future__ import annotations

import json
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

import obframe
from obframe import Record, Snapshot, Trust
from obframe.following import follow
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader


@pytest.mark.slow
def test_following_beside_recorders_misses_no_row_and_sees_none_twice(desk: Any) -> None:
    """History, live rows, a recorder killed and another one: by the command and by a script."""
    venue = desk.venue("--symbols", 2)
    recorder = desk.recorder(venue)
    recorder.until_logged("live")
    recorder.pause(2)
    place = ("--set", f"rocksdb.path={desk.path}")
    command = desk.start("query", "BTCUSDT", "-f", "--from", "-1h", "--format", "jsonl", *place)
    seen: list[int] = []
    ages: list[float] = []
    with obframe.open(desk.path) as store:
        for row in store.follow("BTCUSDT", "-1h", timeout=30):
            seen.append(row.timestamp)
            ages.append(time.time() - row.timestamp)
            if len(seen) == 8:
                recorder.kill()
                venue.pause(1.2)
                recorder = desk.recorder(venue)
            if len(seen) == 16:
                break
        window = store.window("BTCUSDT", seen[0], seen[-1])
    command.popen.send_signal(signal.SIGINT)
    assert command.wait() == 0, command.log
    assert recorder.terminate() == 0, recorder.log

    stored = desk.timeline("BTCUSDT").rows
    assert seen == stored[:16]
    printed = [json.loads(line) for line in command.out.read_text().splitlines()]
    assert [row["timestamp"] for row in printed] == stored[: len(printed)]
    assert len(printed) >= 15
    assert window.timestamp.tolist() == seen
    assert window.coverage.unexplained == ()
    assert "process_down" in window.coverage.causes
    assert "process_down" in command.log
    (again,) = [at for at in range(1, 16) if window.trust[at] & Trust.EPOCH]
    assert window.timestamp[again] > window.timestamp[again - 1] + 1
    assert [row["trust"] for row in printed][again] == ["epoch"]
    assert statistics.median(ages[4:]) < 1, ages


def test_a_follower_sees_rows_through_flushes_and_reopenings(tmp_path: Path) -> None:
    """Rows in any rhythm, between flushes, and after the writer opened the store anew."""
    settings = RocksSettings(path=str(tmp_path / "rows"))
    start = second = 1_737_158_400
    expected: list[int] = []
    seen: list[int] = []
    writer = RocksStorage.open(settings)

    def append() -> None:
        snapshot = Snapshot("AAA", second, second, [("1.5", "2")] * 20, [("2.5", "2")] * 20)
        writer.append([Record("AAA", second, snapshot.pack())])
        expected.append(second)

    def write_meanwhile(_pause: float) -> None:
        nonlocal second, writer
        for _ in range(second % 7):
            second += 1 + (second % 11 == 0)
            append()
        second += 1
        if second % 5 == 0:
            writer.flush()
        if second % 13 == 0:
            writer.close()
            writer = RocksStorage.open(settings)

    append()
    try:
        with open_reader(settings) as storage:
            for row in follow(storage, "AAA", start, wait=write_meanwhile):
                if row is not None:
                    seen.append(row.timestamp)
                elif second > start + 400:
                    break
    finally:
        writer.close()
    assert seen == expected
    assert len(seen) > 250
