"""The observer ``eventlog``, through a run of the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from obframe import Gap, GapReason, Instrument, RunInfo
from obframe_plugins import eventlog
from obframe_plugins.eventlog import EventLogSettings

CommandLine: TypeAlias = Any

SECOND = 1_737_158_400


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_runs_lost_books_and_gaps_are_told(command_line: CommandLine) -> None:
    """Two runs append to one file; what it tells of gaps is what the storage knows."""
    faults = ("--fault", "drop@20:symbol=BBB", "--fault", "slow-rest@2:symbol=BBB,seconds=2")
    with command_line.venue("--symbols", "AAA,BBB", *faults) as urls:
        plugins = ("--plugins", "rocksdb,eventlog", "--set", "eventlog.path=events.jsonl")
        for seconds in ("7", "3"):
            command = ("run", *plugins, "--symbols", "AAA,BBB", "--duration", seconds, *urls)
            result = command_line.run(*command)
            assert result.returncode == 0, result.stderr
    events = read(command_line.folder / "events.jsonl")
    kinds = [event["event"] for event in events]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_finished"
    assert kinds.count("run_started") == kinds.count("run_finished") == 2
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    started = events[0]
    assert set(started["plugins"]) == {"rocksdb", "eventlog", "static", "binance"}
    finished = [event for event in events if event["event"] == "run_finished"]
    assert finished[0]["run"] == started["run"] != finished[1]["run"]
    assert [event["error"] for event in finished] == [None, None]
    resets = [event for event in events if event["event"] == "book_reset"]
    assert [(event["symbol"], event["reason"]) for event in resets] == [("BBB", "sequence")]
    told = {
        (event["start"], event["end"], event["reason"], event["detail"])
        for event in events
        if event["event"] == "gap" and event["symbol"] == "BBB"
    }
    listed = command_line.run("gaps", "BBB", "--format", "jsonl").stdout.splitlines()
    stored = {
        (gap["start"], gap["end"], gap["reason"], gap["detail"]) for gap in map(json.loads, listed)
    }
    assert told == stored
    assert any(reason == "sequence" for _, _, reason, _ in told)


def test_a_file_that_cannot_be_written_harms_no_row(command_line: CommandLine) -> None:
    with command_line.venue("--symbols", "AAA") as urls:
        plugins = ("--plugins", "rocksdb,eventlog", "--set", "eventlog.path=no/such/folder/x")
        result = command_line.run(
            "run", *plugins, "--symbols", "AAA", "--duration", "3", "--format", "json", *urls
        )
    assert result.returncode == 0, result.stderr
    assert "plugin 'eventlog': its observer obframe_run_started raised" in result.stderr
    assert "no/such/folder/x" in result.stderr
    assert json.loads(result.stdout)["rows"] >= 1


def test_each_event_is_one_line_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    run = RunInfo("r1", SECOND, "0.1.0", ("static",), {"eventlog": EventLogSettings(str(path))})
    detail = "two\nlines, and \udcff"
    eventlog.obframe_gap(Gap("AAA", SECOND, SECOND + 2, GapReason.DISK, "before any run"))
    eventlog.obframe_run_started(run)
    eventlog.obframe_gap(Gap("AAA", SECOND, SECOND + 2, GapReason.DISK, detail))
    eventlog.obframe_book_reset(Instrument("BBB"), "sequence", SECOND)
    started, gap, reset = read(path)
    assert started["event"] == "run_started"
    assert {key: gap[key] for key in ("symbol", "seconds", "reason", "origin", "detail")} == {
        "symbol": "AAA",
        "seconds": 3,
        "reason": "disk",
        "origin": "ours",
        "detail": detail,
    }
    assert (reset["symbol"], reset["at"]) == ("BBB", SECOND)
    eventlog.obframe_run_finished(run, OSError("gone"))
    eventlog.obframe_run_finished(run, None)
    assert [event["error"] for event in read(path)[3:]] == ["OSError: gone"]


def test_an_empty_path_is_refused(command_line: CommandLine) -> None:
    with pytest.raises(ValueError, match="path is empty"):
        EventLogSettings(path="")
    result = command_line.run("run", "--plugins", "eventlog", "--set", "eventlog.path=")
    assert result.returncode == 2
    assert "eventlog.path: path is empty" in result.stderr
