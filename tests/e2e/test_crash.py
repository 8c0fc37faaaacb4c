"""Row 43: kill -9 while 20 symbols are recorded, again and again."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP
from obframe.testing.oracle import judge

ROUNDS = int(os.environ.get("OBFRAME_CRASH_ROUNDS", "10"))


def stored(desk: Any) -> dict[tuple[str, int], bytes]:
    with desk.store() as storage:
        return {
            (record.symbol, record.timestamp): record.value
            for symbol in storage.symbols()
            for record in storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP)
        }


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * ROUNDS)
@pytest.mark.parametrize("durability", ["power", "process"])
def test_row_43_kill_9_loses_and_tears_nothing_and_the_down_time_is_told(
    desk: Any, tmp_path: Path, durability: str
) -> None:
    rng = random.Random(durability)
    rounds = ROUNDS if durability == "power" else max(ROUNDS // 3, 1)
    journal = tmp_path / "journal"
    venue = desk.venue("--symbols", 20, "--rate", 5, "--levels", 100, "--record", journal)
    names = [f"SIM{i:04}USDT" for i in range(1, 19)]
    symbols = ["BTCUSDT", "ETHUSDT", *names]
    # Ten starts a minute with snapshots of 1,000 levels would pass the venue's weight limit.
    settings = (f"rocksdb.durability={durability}", "binance.snapshot_limit=100")
    arguments = ["--symbols", ",".join(symbols)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    acknowledged: dict[tuple[str, int], bytes] = {}
    for _ in range(rounds):
        recorder = desk.recorder(venue, *arguments)
        recorder.until_logged("live")
        before = len(acknowledged)
        while len(acknowledged) <= before + 20:
            assert recorder.popen.poll() is None, recorder.log
            recorder.pause(rng.uniform(0.2, 1.3))
            acknowledged = stored(desk)
        recorder.kill()
        venue.pause(rng.uniform(0.0, 2.5))
    recorder = desk.recorder(venue, *arguments)
    recorder.until_logged("live")
    recorder.pause(2.5)
    assert recorder.terminate() == 0, recorder.log
    assert venue.terminate() == 0, venue.log
    rows = stored(desk)
    assert {key: rows.get(key) for key in acknowledged} == acknowledged
    for symbol in symbols:
        timeline = desk.timeline(symbol)
        timeline.check()
        assert "process_down" in timeline.reasons()
        with desk.store() as storage:
            found = judge(storage, symbol, [journal / f"{symbol.lower()}.gz"])
        assert found.wrong == []
        assert found.equal == len(timeline.rows) >= rounds
