"""Starting, stopping, reading meanwhile, and the venue's own troubles, with the real commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from obframe.testing.oracle import judge


def rows_of(desk: Any, symbol: str) -> int:
    result = desk.run("query", symbol, "--set", f"rocksdb.path={desk.path}", "--from", "-1h",
                      "--format", "jsonl")  # fmt: skip
    return len(result.stdout.splitlines()) if result.returncode == 0 else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
def test_row_61_a_signal_drains_flushes_and_exits_0(
    desk: Any, number: signal.Signals, event_loop: str
) -> None:
    venue = desk.venue("--symbols", 2)
    chosen = f"recorder.event_loop={event_loop}"
    recorder = desk.recorder(venue, "--format", "json", "--set", chosen)
    recorder.until_logged("live")
    recorder.pause(2.2)
    recorder.popen.send_signal(number)
    assert recorder.wait() == 0, recorder.log
    summary = json.loads(recorder.out.read_text())
    assert summary["drained"]
    timeline = desk.timeline("BTCUSDT")
    timeline.check()
    assert len(timeline.rows) + len(desk.timeline("ETHUSDT").rows) == summary["rows"] >= 2


def test_row_48_a_second_recorder_is_refused_and_the_first_goes_on(desk: Any) -> None:
    venue = desk.venue()
    first = desk.recorder(venue)
    first.until_logged("live")
    second = desk.recorder(venue, "--duration", 2)
    assert second.wait() == 3
    assert str(desk.path) in second.log
    assert "obframe query" in second.log
    assert first.popen.poll() is None
    assert first.terminate() == 0


def test_query_symbols_and_gaps_work_while_a_recorder_runs(desk: Any) -> None:
    venue = desk.venue()
    recorder = desk.recorder(venue)
    recorder.until_logged("live")
    desk.until(lambda: rows_of(desk, "BTCUSDT") >= 2, 20)
    place = ("--set", f"rocksdb.path={desk.path}")
    result = desk.run("query", "BTCUSDT", *place, "--from", "-1m", "--format", "jsonl")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert set(rows[0]) == {"symbol", "timestamp", "update_id", "trust", "bids", "asks"}
    assert len(rows[0]["bids"]) == len(rows[0]["asks"]) == 20
    assert all(isinstance(text, str) for level in rows[0]["bids"] for text in level)
    result = desk.run("symbols", *place, "--format", "json")
    assert {entry["symbol"] for entry in json.loads(result.stdout)} == {"BTCUSDT", "ETHUSDT"}
    assert desk.run("gaps", "BTCUSDT", *place).returncode == 0
    assert recorder.terminate() == 0


def test_the_time_between_two_runs_is_told_at_the_next_start(desk: Any) -> None:
    venue = desk.venue()
    for _ in range(2):
        recorder = desk.recorder(venue)
        recorder.until_logged("live")
        recorder.pause(1.5)
        assert recorder.terminate() == 0
        venue.pause(1.5)
    timeline = desk.timeline("BTCUSDT")
    timeline.check()
    assert "process_down" in timeline.reasons()


def test_row_21_a_shutdown_of_the_venue_costs_no_second(desk: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    venue = desk.venue("--fault", "shutdown@20:seconds=3", "--record", journal)
    recorder = desk.recorder(venue)
    recorder.until_logged("live")
    desk.until(lambda: "fault shutdown" in venue.log, 20)
    recorder.pause(6)
    assert recorder.terminate() == 0, recorder.log
    assert venue.terminate() == 0
    for symbol in ("BTCUSDT", "ETHUSDT"):
        timeline = desk.timeline(symbol)
        timeline.check()
        began = min(timeline.rows)
        assert {s: str(r) for s, r in timeline.gaps.items() if s > began} == {}, recorder.log
        with desk.store() as storage:
            assert judge(storage, symbol, [journal / f"{symbol.lower()}.gz"]).wrong == []


def test_rows_22_and_24_silence_is_a_gap_and_the_other_symbol_goes_on(desk: Any) -> None:
    venue = desk.venue("--fault", "silence@20:seconds=4,symbol=BTCUSDT")
    recorder = desk.recorder(
        venue, "--set", "binance.streams_per_connection=1", "--set", "binance.stale_after=1",
        "--set", "binance.idle_timeout=2",
    )  # fmt: skip
    recorder.until_logged("live")
    desk.until(lambda: "fault silence" in venue.log, 20)
    recorder.pause(8)
    assert recorder.terminate() == 0
    btc, eth = desk.timeline("BTCUSDT"), desk.timeline("ETHUSDT")
    btc.check()
    eth.check()
    assert "silent" in btc.reasons()
    assert max(btc.rows) > max(second for second, r in btc.gaps.items() if r == "silent")
    assert [second for second in eth.gaps if second > min(eth.rows)] == []


def test_row_10_and_31_empty_and_halted_books_have_their_reasons(desk: Any) -> None:
    venue = desk.venue(
        "--symbols", "BTCUSDT,ETHUSDT,XRPUSDT",
        "--fault", "empty@15:seconds=2,symbol=BTCUSDT", "--fault", "halt@15:symbol=ETHUSDT",
    )  # fmt: skip
    recorder = desk.recorder(
        venue, "--symbols", "BTCUSDT,ETHUSDT,XRPUSDT", "--set", "binance.status_poll=1",
        "--set", "binance.streams_per_connection=1",
    )  # fmt: skip
    recorder.until_logged("live")
    desk.until(lambda: "halted" in recorder.log, 20)
    recorder.pause(2.5)
    assert recorder.terminate() == 0
    for symbol, reason in (("BTCUSDT", "empty"), ("ETHUSDT", "halted")):
        timeline = desk.timeline(symbol)
        timeline.check()
        assert reason in timeline.reasons(), recorder.log
    other = desk.timeline("XRPUSDT")
    other.check()
    assert [second for second in other.gaps if second > min(other.rows)] == []


def test_row_59_a_symbol_that_does_not_exist_is_named_and_the_others_run(desk: Any) -> None:
    venue = desk.venue()
    recorder = desk.recorder(venue, "--symbols", "BTCUSDT,NOSUCHUSDT", "--duration", 5)
    assert recorder.wait() == 0, recorder.log
    assert "NOSUCHUSDT" in recorder.log
    assert len(desk.timeline("BTCUSDT").rows) >= 2
    missing = desk.timeline("NOSUCHUSDT")
    assert missing.rows == []
    assert "unknown_symbol" in missing.reasons()


def test_the_venue_may_come_later_than_the_recorder(desk: Any) -> None:
    venue = desk.venue()
    port = int(venue.rest_url.rpartition(":")[2])
    assert venue.terminate() == 0
    recorder = desk.recorder(venue)
    recorder.until_logged("cannot be reached")
    recorder.pause(1.5)
    desk.venue(port=port)
    recorder.until_logged("live")
    recorder.pause(2)
    assert recorder.terminate() == 0
    timeline = desk.timeline("BTCUSDT")
    timeline.check()
    assert timeline.rows
    assert timeline.reasons() <= {"connecting", "disconnected", "syncing"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 48 MiB, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=48m", "obframe-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if mount else None
    if done is None or done.returncode != 0:
        reason = f"cannot mount a tmpfs: {done.stderr.strip() if done else 'no mount command'}"
        if os.environ.get("OBFRAME_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_row_41_a_full_disk_stops_no_book_and_recording_resumes_by_itself(
    desk: Any, small_disk: Path
) -> None:
    venue = desk.venue("--symbols", 2)
    path = small_disk / "db"
    recorder = desk.recorder(venue, "--format", "json", path=path)
    recorder.until_logged("live")
    recorder.pause(2)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
    recorder.until_logged("storage failed", 60)
    recorder.pause(4)
    assert recorder.popen.poll() is None
    ballast.unlink()
    recorder.until_logged("storage works again", 60)
    recorder.pause(2)
    assert recorder.terminate() == 0, recorder.log
    summary = json.loads(recorder.out.read_text())
    assert summary["drained"]
    assert summary["states"] == {"live": 2}
    for symbol in ("BTCUSDT", "ETHUSDT"):
        timeline = desk.timeline(symbol, path)
        timeline.check()
        assert timeline.reasons() <= {"connecting", "syncing"}, "held rows were stored afterwards"
