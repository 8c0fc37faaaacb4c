"""What sinks cost the recording: nothing while they are in trouble, little while they work.

Two recorders of one venue run in the same seconds, one with sinks and one without.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bench_recording import MARKET, RATE, STARTING, Trial
from data import make_stream

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Record,
    Snapshot,
    Storage,
    snapshot_to_json,
)
from obframe.backfill import StoredOutbox
from obframe.positions import Positions
from obframe_plugins._row_files import RowFiles
from obframe_plugins._row_lines import JSONL
from obframe_plugins._row_paths import PathTemplate
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader

SECONDS = int(os.environ.get("OBFRAME_BENCH_SECONDS", "40"))
HERE = Path(__file__).resolve().parent
SYMBOLS = 20

pytestmark = pytest.mark.timeout(240)


class Pair:
    """A venue, a recorder with sinks, and one beside it without."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trial = Trial(folder, SYMBOLS)
        self.install("trouble")

    def install(self, name: str) -> None:
        """Make a module of this directory a plugin, as an installed distribution would."""
        site = self.folder / "site"
        info = site / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        shutil.copy(HERE / f"{name}.py", site)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[obframe.plugins]\n{name} = {name}\n")
        self.trial.environ["PYTHONPATH"] = str(site)

    def start(self, urls: dict[str, str], name: str, *options: str) -> subprocess.Popen[str]:
        """Start a recorder that keeps its rows under a name."""
        settings = [f"--set=binance.{key}={url}" for key, url in urls.items()]
        settings += [f"--set=rocksdb.path={self.folder / name}", "--plugins", "rocksdb"]
        names = ["--symbols", ",".join(MARKET[SYMBOLS])]
        life = ["--duration", str(STARTING + SECONDS), "--format", "json"]
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [*self.trial.command, "run", *settings, *names, *life, *options],
                cwd=self.folder,
                env=self.trial.environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def record(self, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the summaries of a recorder with these options and of one without."""
        venue_options = ["--symbols", str(SYMBOLS), "--rate", str(RATE)]
        command = ["exchange", "--port", "0", "--format", "json", *venue_options]
        with self.trial.start(*command) as venue:
            assert venue.stdout is not None
            urls = json.loads(venue.stdout.readline())
            recorders = [self.start(urls, "alone"), self.start(urls, "with", *options)]
            time.sleep(STARTING + SECONDS)
            alone, troubled = (self.finish(each) for each in recorders)
        return troubled, alone

    def finish(self, recorder: subprocess.Popen[str]) -> dict[str, Any]:
        out, _ = recorder.communicate(timeout=90)
        assert recorder.returncode == 0
        summary: dict[str, Any] = json.loads(out)
        assert summary["drained"]
        assert set(summary["gap_seconds"]) <= {"connecting", "syncing", "process_down"}
        return summary

    def rows(self, name: str) -> set[tuple[str, int]]:
        """Return which rows a recorder stored."""
        with open_reader(RocksSettings(path=str(self.folder / name))) as storage:
            return {
                (record.symbol, record.timestamp)
                for symbol in storage.symbols()
                for record in storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP)
            }

    def check_rows(self) -> None:
        """Raise unless both stored the same seconds, but for those of start and end."""
        ours, theirs = self.rows("with"), self.rows("alone")
        seconds = {second for _, second in ours & theirs}
        inner = range(min(seconds) + STARTING, max(seconds) - 2)
        assert len(inner) >= SECONDS - STARTING
        expected = {(symbol, second) for symbol in MARKET[SYMBOLS] for second in inner}
        assert expected <= ours
        assert expected <= theirs


def hold_lag(gate: Any, name: str, ours: dict[str, Any], alone: dict[str, Any]) -> None:
    """Hold the tick lag of a recorder with sinks to that of the one without."""
    for key, part in ((f"lag_{name}", "tick_lag_p50"), (f"lag_{name}_p99", "tick_lag_p99")):
        gate.hold(key, ours[part] * 1e3, alone[part] * 1e3)


def test_sinks_and_observers_in_trouble_change_no_lag(gate: Any, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    options = ("--plugins", "trouble", "--set", "recorder.sink_timeout=2")
    troubled, alone = pair.record(*options, "--set", "recorder.drain_timeout=3")
    pair.check_rows()
    assert troubled["counters"]["sink.sleeper.stuck"] == 1
    assert troubled["counters"]["sink.forever.timeouts"] >= 2
    assert troubled["counters"]["observer.trouble.errors"] >= 1
    hold_lag(gate, "trouble", troubled, alone)


def test_a_sink_of_files_changes_little(gate: Any, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with_files, alone = pair.record("--plugins", "files", "--sink", "jsonl")
    pair.check_rows()
    assert with_files["counters"]["sink.jsonl.written"] == with_files["rows"]
    assert with_files["counters"]["sink.jsonl.lag_seconds"] == 0
    hold_lag(gate, "files", with_files, alone)


def test_back_fill_changes_little(gate: Any, tmp_path: Path) -> None:
    """Rows of some hours are read back and written to files while 20 symbols are recorded."""
    pair = Pair(tmp_path)
    before = int(time.time()) - 86_400
    with closing(RocksStorage.open(RocksSettings(path=str(tmp_path / "with")))) as storage:
        fill(storage, MARKET[SYMBOLS], before, 10_000)
    start = ("--set", "recorder.sink_start=oldest")
    with_files, alone = pair.record("--plugins", "files", "--sink", "jsonl", *start)
    pair.check_rows()
    assert with_files["counters"]["sink.jsonl.backfilled"] >= 10_000 * SYMBOLS
    assert with_files["counters"]["sink.jsonl.lag_seconds"] == 0
    hold_lag(gate, "backfill", with_files, alone)


def fill(storage: Storage, symbols: Sequence[str], start: int, seconds: int) -> None:
    """Store a row of each symbol on each of so many seconds."""
    stream = make_stream()
    for begin in range(start, start + seconds, 1000):
        records = []
        for second in range(begin, min(begin + 1000, start + seconds)):
            row = Snapshot("", second, second, stream.bids[:20], stream.asks[:20]).pack()
            records += [Record(symbol, second, row) for symbol in symbols]
        storage.append(records)


@pytest.mark.benchmark(timer=time.process_time)
def test_back_fill_costs_what_reading_and_writing_cost(race: Any, tmp_path: Path) -> None:
    """10,000 rows of 10 symbols from RocksDB into a file, by the framework and by hand."""
    symbols = [f"SIM{number:04}USDT" for number in range(10)]
    start, seconds = 1_700_000_000, 1000
    with closing(RocksStorage.open(RocksSettings(path=str(tmp_path / "rows")))) as storage:
        fill(storage, symbols, start, seconds)
        rounds = itertools.count()

        def by_hand() -> None:
            path = tmp_path / f"{next(rounds)}.jsonl"
            with path.open("wb") as file:
                for symbol in symbols:
                    for record in storage.scan(symbol, start, start + seconds):
                        snapshot = Snapshot.unpack(record.value, symbol)
                        file.write(snapshot_to_json(snapshot) + b"\n")
                file.flush()
                os.fsync(file.fileno())

        def by_outbox() -> None:
            asyncio.run(deliver(storage, tmp_path / f"{next(rounds)}", start + seconds))

        race("backfill", work=by_outbox, reference=by_hand, rounds=10, units=seconds * 10)


async def deliver(storage: Storage, folder: Path, now: int) -> None:
    """Tell a sink of files everything that is stored."""
    box = StoredOutbox(
        "jsonl", storage, Positions(None), rows=1, now=now, start="oldest", counters=Counter()
    )
    with closing(RowFiles(PathTemplate(str(folder / "{period}"), "day"), JSONL)) as files:
        while (batch := await box.next(1000)) is not None:
            files.append(batch.snapshots)
            box.told(batch)
    assert box.position == now
