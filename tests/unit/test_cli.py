"""The command line from outside: output, exit codes, signals, and one bad input a command."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import json
import os
import pty
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

import obframe
from obframe import (
    BookState,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    ObframeError,
    Provider,
    Record,
    Snapshot,
)
from obframe.commands.demo import _check_own
from obframe.commands.record import (
    choose_loop,
    describe,
    describe_vain,
    read_duration,
    suggest_query,
)
from obframe.commands.session import Choice
from obframe.recorder import RunSummary
from obframe.settings import RecorderSettings
from obframe_plugins.rocksdb import RocksSettings, open_reader
from obframe_plugins.rocksdb import open_storage as open_rocksdb

CommandLine: TypeAlias = Any
Eventually: TypeAlias = Callable[[Callable[[], bool], str], None]

FIRST = 1_737_158_400


def snapshot(symbol: str, second: int) -> Snapshot:
    return Snapshot(symbol, second - FIRST + 1, second, [("100.50", "1.5")], [("100.60", "2.0")])


@pytest.fixture
async def stored(command_line: CommandLine) -> CommandLine:
    """A store of ten seconds of two symbols, one of them with a hole of two seconds."""
    settings = RocksSettings(path=str(command_line.folder / "obframe-data"))
    async with open_rocksdb(settings) as storage:
        for second in range(FIRST, FIRST + 10):
            symbols = ["AAA"] if second - FIRST in (4, 5) else ["AAA", "BBB"]
            storage.append(
                [Record(symbol, second, snapshot(symbol, second).pack()) for symbol in symbols]
            )
        storage.append_gaps([Gap("BBB", FIRST + 4, FIRST + 5, GapReason.SEQUENCE, "5 after 3")])
        storage.append_gaps([Gap("CCC", FIRST, FIRST + 9, GapReason.UNKNOWN_SYMBOL, "not listed")])
        storage.append_marks([Mark("BBB", FIRST + 6, FIRST + 6, MarkKind.EPOCH)])
        storage.append_marks([Mark("BBB", FIRST + 6, FIRST + 7, MarkKind.UNCERTAIN)])
    return command_line


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def failure(result: subprocess.CompletedProcess[str], code: int) -> str:
    assert result.returncode == code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stderr
    return result.stderr


# -- reading ---------------------------------------------------------------------------------


def test_query_prints_rows_as_stored_ends_included(stored: CommandLine) -> None:
    window = ("--from", str(FIRST + 2), "--to", str(FIRST + 4))
    rows = lines(stored.run("query", "AAA", *window, "--format", "jsonl"))
    assert rows[0] == {
        "symbol": "AAA",
        "timestamp": FIRST + 2,
        "update_id": 3,
        "trust": [],
        "bids": [["100.50", "1.5"]],
        "asks": [["100.60", "2.0"]],
    }
    assert [row["timestamp"] for row in rows] == [FIRST + 2, FIRST + 3, FIRST + 4]
    whole = stored.run("query", "AAA", *window, "--format", "json")
    assert json.loads(whole.stdout) == rows
    limited = stored.run("query", "AAA", *window, "--format", "jsonl", "--limit", "2")
    assert lines(limited) == rows[:2]
    (row, *_) = csv.DictReader(
        io.StringIO(stored.run("query", "AAA", *window, "--format", "csv").stdout)
    )
    assert (row["timestamp"], row["bid1_price"], row["ask1_quantity"], row["bid2_price"]) == (
        str(FIRST + 2),
        "100.50",
        "2.0",
        "",
    )
    assert len(row) == 3 + 80 + 1
    assert row["trust"] == "live"


def test_query_takes_iso_times_and_shows_the_last_minute_by_default(stored: CommandLine) -> None:
    window = ("--from", "2025-01-18T00:00:00Z", "--to", "2025-01-18 00:00:01")
    assert len(lines(stored.run("query", "AAA", *window, "--format", "jsonl"))) == 2
    assert len(lines(stored.run("query", "AAA", "--format", "jsonl"))) == 10
    table = stored.run("query", "AAA")
    assert table.returncode == 0
    assert "00:00:09" in table.stdout
    assert "100.5 " in table.stdout


def test_tables_fit_a_narrow_terminal(stored: CommandLine) -> None:
    for command in (["query", "AAA"], ["symbols"], ["gaps", "BBB"], ["plugins"]):
        result = stored.run(*command, environ={"COLUMNS": "80"})
        assert result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80


def test_query_says_what_is_missing_and_why(stored: CommandLine) -> None:
    result = stored.run("query", "BBB", "--format", "jsonl")
    assert len(lines(result)) == 8
    assert "2 seconds have no row (sequence 2 s)" in result.stderr
    result = stored.run("query", "BBB", "--from", str(FIRST + 100), "--to", str(FIRST + 200))
    assert result.returncode == 0
    assert "no rows in this window" in result.stderr
    assert "2025-01-18 00:00:09" in result.stderr
    assert not stored.run("query", "AAA", "--format", "jsonl").stderr


def test_one_second_is_not_many(stored: CommandLine) -> None:
    window = ("--from", str(FIRST + 3), "--to", str(FIRST + 4))
    assert "1 second has no row" in stored.run("query", "BBB", *window).stderr


def test_query_gives_the_last_rows_of_the_window(stored: CommandLine) -> None:
    def seconds(*options: str) -> list[int]:
        found = lines(stored.run("query", "BBB", *options, "--format", "jsonl"))
        return [row["timestamp"] - FIRST for row in found]

    assert seconds("--last", "2") == [8, 9]
    assert seconds("--last", "5") == [3, 6, 7, 8, 9]
    assert seconds("--last", "2", "--to", str(FIRST + 5)) == [2, 3]
    assert seconds("--last", "9", "--from", str(FIRST + 7)) == [7, 8, 9]
    assert len(seconds("--last", "1000")) == 8


def test_the_heading_tells_the_window_of_what_is_shown(stored: CommandLine) -> None:
    def heading(*arguments: str) -> str:
        return str(stored.run(*arguments).stdout.splitlines()[0])

    since = "2025-01-18 00:00:0"
    assert heading("query", "BBB", "--last", "2") == f"BBB, {since}8 to 00:00:09 UTC"
    assert heading("query", "BBB", "--last", "1000") == f"BBB, {since}0 to 00:00:09 UTC"
    following = ("--follow", "--last", "1000", "--limit", "1")
    assert heading("query", "BBB", *following) == f"BBB from {since}0 UTC on"
    start, end = ("--from", str(FIRST)), ("--to", str(FIRST + 8))
    assert heading("gaps", "BBB") == "gaps of BBB, all that are recorded"
    assert heading("gaps", "BBB", *start) == f"gaps of BBB, {since}0 UTC and later"
    assert heading("gaps", "BBB", *end) == f"gaps of BBB, up to {since}8 UTC"
    assert heading("gaps", "BBB", *start, *end) == f"gaps of BBB, {since}0 to 00:00:08 UTC"


def test_the_last_rows_before_all_of_them_are_none(stored: CommandLine) -> None:
    result = stored.run("query", "BBB", "--last", "2", "--to", str(FIRST - 1))
    assert result.returncode == 0
    assert "no rows in this window" in result.stderr


def test_query_tells_how_far_each_row_can_be_trusted(stored: CommandLine) -> None:
    rows = lines(stored.run("query", "BBB", "--format", "jsonl"))
    assert {row["timestamp"] - FIRST: row["trust"] for row in rows if row["trust"]} == {
        6: ["uncertain", "epoch"],
        7: ["uncertain"],
    }
    table = list(csv.DictReader(io.StringIO(stored.run("query", "BBB", "--format", "csv").stdout)))
    assert [row["trust"] for row in table[3:7]] == ["live", "uncertain+epoch", "uncertain", "live"]
    printed = [line.split() for line in stored.run("query", "BBB").stdout.splitlines()]
    assert [line[-1] for line in printed[6:10]] == [row["trust"] for row in table[3:7]]


# -- following -------------------------------------------------------------------------------


def test_follow_prints_what_is_stored_and_ends_after_the_limit(stored: CommandLine) -> None:
    result = stored.run("query", "BBB", "--follow", "--limit", "8", "--format", "jsonl")
    assert [row["timestamp"] - FIRST for row in lines(result)] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert "00:00:04 to 2025-01-18 00:00:05: 2 seconds have no row (sequence)" in result.stderr
    last = ("--last", "3", "--limit", "2")
    result = stored.run("query", "BBB", "--follow", *last, "--format", "jsonl")
    assert [row["timestamp"] - FIRST for row in lines(result)] == [7, 8]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["table", "json", "jsonl", "csv"])
def test_follow_ends_in_order_by_a_signal(
    stored: CommandLine, number: signal.Signals, output: str
) -> None:
    expected = stored.run("query", "AAA", "--format", output)
    with stored.start("query", "AAA", "-f", "--format", output) as process:
        assert process.stdout is not None
        printed = ""
        while "00:00:09" not in printed and str(FIRST + 9) not in printed:
            line = process.stdout.readline()
            assert line, process.communicate()
            printed += line
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert not errors
    if output == "table":
        assert (printed + rest).count("2025-01-18 00:00:0") == 10
    else:
        assert printed + rest == expected.stdout


def test_follow_says_what_does_not_go_with_it(stored: CommandLine) -> None:
    assert "--follow, not both" in failure(stored.run("query", "AAA", "-f", "--to", "now"), 2)
    assert "did you mean AAA" in failure(stored.run("query", "AAB", "-f"), 1)


def test_a_narrow_table_keeps_every_digit(stored: CommandLine) -> None:
    options = ("--from", str(FIRST), "--limit", "1")
    result = stored.run("query", "AAA", *options, environ={"COLUMNS": "20"})
    (line,) = result.stdout.splitlines()[3:]
    assert line.split() == ["00:00:00", "1", "1.5", "100.5", "100.6", "2", "1+1", "live"]
    gaps = stored.run("gaps", "BBB", environ={"COLUMNS": "20"}).stdout
    assert "2025-01-18 00:00:04  00:00:05        2  sequence  venue" in gaps
    assert "    5 after 3" in gaps


@pytest.mark.parametrize("output", ["table", "csv", "json", "jsonl"])
def test_an_output_that_takes_nothing_is_named(stored: CommandLine, output: str) -> None:
    command = [sys.executable, "-m", "obframe", "query", "AAA", "--format", output]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command,
            cwd=stored.folder,
            env=stored.environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert failure(result, 1) == "obframe: standard output: No space left on device\n"
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        cwd=stored.folder,
        env=stored.environ,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert failure(closed, 1) == "obframe: standard output is closed: nothing can be printed\n"


async def test_notes_stand_after_what_was_printed_before_them(command_line: CommandLine) -> None:
    settings = RocksSettings(path=str(command_line.folder / "obframe-data"))
    async with open_rocksdb(settings) as storage:
        good = [Record("AAA", FIRST + n, snapshot("AAA", FIRST + n).pack()) for n in (0, 2)]
        storage.append([*good, Record("AAA", FIRST + 1, b"\xc1 broken")])
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "obframe", "query", "AAA", "--format", "jsonl"],
        cwd=command_line.folder,
        env={**command_line.environ, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    starts = [line[:9] for line in done.stdout.splitlines()]
    assert starts == ['{"symbol"', "obframe: ", '{"symbol"', '{"symbol"']


def test_symbols_and_gaps(stored: CommandLine) -> None:
    listed = {
        row["symbol"]: row["newest"] for row in lines(stored.run("symbols", "--format=jsonl"))
    }
    assert listed == {"AAA": FIRST + 9, "BBB": FIRST + 9, "CCC": None}
    (line,) = [each for each in stored.run("symbols").stdout.splitlines() if "CCC" in each]
    assert line.split() == ["CCC", "only", "gaps"]
    (gap,) = lines(stored.run("gaps", "BBB", "--format", "jsonl"))
    assert gap == {
        "symbol": "BBB",
        "start": FIRST + 4,
        "end": FIRST + 5,
        "seconds": 2,
        "reason": "sequence",
        "origin": "venue",
        "detail": "5 after 3",
    }
    assert "unknown_symbol" in stored.run("gaps", "CCC").stdout
    result = stored.run("gaps", "AAA")
    assert result.returncode == 0
    assert result.stderr == "obframe: no gaps of AAA are recorded\n"
    before = ("--to", str(FIRST + 3))
    assert not lines(stored.run("gaps", "BBB", *before, "--format", "jsonl"))


async def test_row_50_a_value_that_cannot_be_decoded_is_an_error_entry(
    command_line: CommandLine,
) -> None:
    settings = RocksSettings(path=str(command_line.folder / "obframe-data"))
    async with open_rocksdb(settings) as storage:
        good = [Record("AAA", FIRST + n, snapshot("AAA", FIRST + n).pack()) for n in (0, 2)]
        storage.append([*good, Record("AAA", FIRST + 1, b"\xc1 broken")])
    result = command_line.run("query", "AAA", "--format", "jsonl")
    assert str(FIRST + 1) in failure(result, 1)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [("error" in row, row["timestamp"] - FIRST) for row in rows] == [
        (False, 0),
        (True, 1),
        (False, 2),
    ]
    failure(command_line.run("query", "AAA"), 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["query", "AAB"], 1, "did you mean AAA?"),
        (["query", "aaa"], 1, "did you mean AAA?"),
        (["query", "binance/AAA"], 1, "did you mean AAA?"),
        (["gaps", "ZZZ"], 1, "stored: AAA, BBB, CCC"),
        (["query", "A:B"], 2, "':'"),
        (["query", "AAA", "--from", "yesterday"], 2, "yesterday"),
        (["query", "AAA", "--from", "1737158400000"], 2, "milliseconds"),
        (["query", "AAA", "--from", "-1h", "--to", "-2h"], 2, "exchange the two"),
        (["query", "AAA", "--format", "xml"], 2, "'--format': 'xml' is not one of 'table', 'json'"),
        (["query", "AAA", "--limit", "0"], 2, "'--limit': expected 1 or more, got '0'"),
        (["query", "AAA", "--last", "x"], 2, "'--last': expected an integer, got 'x'"),
        (["query", "AAA", "--last", "1", "--limit", "1"], 2, "not both"),
        (["query"], 2, "Missing argument"),
        (["qeury"], 2, "qeury"),
        (["query", "AAA", "--set", "rocksdb.pth=x"], 2, "did you mean 'path'?"),
        (["query", "AAA", "--set", "rocksdb.durability=never"], 2, "--set rocksdb.durability"),
        (
            ["query", "AAA", "--config", "absent.toml"],
            2,
            "absent.toml: cannot be read: No",
        ),
        (["query", "AAA", "--config", "absent.toml"], 2, "check the path, or leave --config out"),
        (
            ["import", "absent.csv"],
            1,
            "directory; check its path, and who may read it",
        ),
        (["export", "absent/x.csv"], 1, "directory; give a file in a folder that can"),
        (
            ["backup", "b", "--set", "rocksdb.path=nowhere"],
            3,
            "; set rocksdb.path to where a",
        ),
        (["backup", "obframe-data"], 3, "; choose an empty folder, or one of backups"),
        (
            ["restore", "absent"],
            3,
            "; give the folder that `obframe backup` wrote to",
        ),
        (
            ["repair", "b", "--set", "rocksdb.path=nowhere"],
            3,
            "; set rocksdb.path to the",
        ),
        (["query", "AAA", "--set", "rocksdb.path=nowhere"], 3, "nowhere"),
        (["query", "AAA", "--plugins", "memory"], 4, "cannot be read by another process"),
        (["symbols", "--plugins", "rocksbd"], 4, "did you mean 'rocksdb'?"),
        (["symbols", "--storage", "memory"], 4, "--plugins memory"),
        (["run", "--plugins", "nope"], 4, "installed:"),
        (["run", "--plugins", "rocksbd,nope"], 4, "2 plugins cannot be used:"),
        (["run", "--format", "csv"], 2, "csv"),
        (["run", "--symbols", "A,okx/BTC-USDT"], 2, "--symbols: static.symbols: symbol 'okx/BTC"),
        (["run", "--symbols", "A,okx/BTC-USDT"], 2, "not loaded (loaded: binance)"),
        (["run", "--plugins", "kraken", "--symbols", "binance/A"], 2, "(loaded: kraken)"),
        (["run", "--plugins", "kraken", "--symbols", "A/B,kraken/A/B"], 2, "same book as 'A/B'"),
        (["run", "--feed", "kraken"], 4, "--plugins kraken"),
        (["run", "--symbols", "A,binance/A"], 2, "is the same book as 'A'"),
        (["run", "--symbols", "binance/"], 2, "no symbol of it"),
        (["demo", "--symbols", "binance/A"], 2, "names a venue"),
        (["run", "--symbols", "A:B,C,C"], 2, "given 2 times"),
        (["run", "--duration", "-1"], 2, "--duration: expected a duration such as 90, '12h' or"),
        (["run", "--duration", "abc"], 2, "'12h' or '7d', got 'abc'"),
        (["run", "--duration", "0"], 2, "--duration: '0' records nothing; give more than 0"),
        (["run", "--duration", "0m"], 2, "--duration: '0m' records nothing; give more than 0"),
        (["run", "--log-level", "loud"], 2, "loud"),
        (["exchange", "--speed", "-1", "--fault", "nonsense@3"], 2, "nonsense"),
        (["exchange", "--capture", "absent.gz"], 2, "absent.gz"),
        (["query", "AAA", "--config", "a" * 300], 2, "cannot be read: File name too long; give"),
        (["exchange", "--port", "-1"], 2, "obframe: exchange: port = -1:"),
        (["exchange", "--fault", "dorp@3"], 2, "did you mean 'drop'?"),
        (["exchange", "--tls", "obframe-data/CURRENT"], 2, "; give a PEM file that holds both"),
        (["exchange", "--record", "obframe-data/CURRENT"], 2, "exists; choose another place"),
        (["exchange", "--port", "0", "--symbols", "a:b"], 2, "a:b"),
        (["demo", "--symbols", "A:B"], 2, "':'"),
        (["demo", "--symbols", "A:B,C:D"], 2, "'C:D'"),
        (["demo", "--seconds", "1"], 2, "seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_answered_in_one_block(
    stored: CommandLine, arguments: list[str], code: int, message: str
) -> None:
    result = stored.run(*arguments)
    assert message in failure(result, code)
    assert not (stored.folder / "nowhere").exists()


def test_a_port_that_is_taken_is_told_with_the_mend(command_line: CommandLine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = command_line.run("exchange", "--port", str(port))
    assert failure(result, 2) == (
        f"obframe: exchange: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "give another --port, or 0 for a free one\n"
    )


def test_row_57_all_mistakes_in_the_settings_come_at_once_with_exit_2(
    command_line: CommandLine,
) -> None:
    (command_line.folder / "obframe.toml").write_text(
        '[rocksdb]\npath = 5\n[binance]\nmarkt = "spot"\n[recorder]\nqueue_rows = 0\n'
    )
    environ = {"OBFRAME_BINANCE_OPEN_TIMEOUT": "soon", "PERSISTENT_SYMBOLS": "X,X"}
    result = command_line.run("run", "--set", "static.symbols", environ=environ)
    text = failure(result, 2)
    for part in (
        "6 mistakes",
        "obframe.toml:2: rocksdb.path",
        "obframe.toml:4: binance.markt",
        "did you mean 'market'?",
        "obframe.toml:6: recorder.queue_rows",
        "environment OBFRAME_BINANCE_OPEN_TIMEOUT: binance.open_timeout",
        "environment PERSISTENT_SYMBOLS: static.symbols",
        "--set: 'static.symbols'",
    ):
        assert part in text
    assert [path.name for path in command_line.folder.iterdir()] == ["obframe.toml"]


def test_a_foreign_directory_is_a_storage_error(command_line: CommandLine) -> None:
    folder = command_line.folder / "obframe-data"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    text = failure(command_line.run("symbols"), 3)
    assert "obframe-data" in text
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_a_broken_ledger_is_a_storage_error(stored: CommandLine) -> None:
    with sqlite3.connect(stored.folder / "obframe-data.obframe" / "ledger.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    failure(stored.run("gaps", "BBB"), 3)


def test_a_setting_is_named_once(command_line: CommandLine) -> None:
    options = ("--set", "recorder.queue_rows=many", "--set", "retention.max_age=7x")
    assert failure(command_line.run("run", *options), 2).splitlines()[1:] == [
        "  --set recorder.queue_rows: expected integer, got 'many'",
        "  --set retention.max_age: expected a duration such as 90, '12h' or '7d', got '7x'",
    ]


def test_what_looks_after_a_store_tells_of_symbols_that_have_only_gaps(stored: CommandLine) -> None:
    said = "CCC has only gaps"
    read = stored.run("verify").stderr
    assert f"18 rows of 2 symbols read; {said}; nothing to complain of" in read
    assert "10 rows of 1 symbol read; nothing" in stored.run("verify", "AAA").stderr
    assert "0 rows of 0 symbols read; CCC has" in stored.run("verify", "CCC").stderr
    assert said in stored.run("stats").stderr
    assert said not in stored.run("stats", "AAA", "BBB").stderr


@pytest.mark.parametrize(
    ("names", "who"),
    [("A", "1 symbol being recorded adds about "), ("AB", "2 symbols being recorded add about ")],
)
async def test_stats_say_how_many_symbols_are_being_recorded(
    command_line: CommandLine, names: str, who: str
) -> None:
    now = int(time.time())
    async with open_rocksdb(RocksSettings(path=str(command_line.folder / "obframe-data"))) as rows:
        for second in range(now - 5, now):
            rows.append([Record(name, second, snapshot(name, second).pack()) for name in names])
    assert who in command_line.run("stats").stderr


def test_the_demo_leaves_settings_alone_that_it_did_not_write(command_line: CommandLine) -> None:
    path = command_line.folder / "mine" / "obframe.toml"
    path.parent.mkdir()
    ours = '# Written by obframe demo\n[rocksdb]\npath = "x"\n\n[static]\nsymbols = ["A"]\n'
    for text in ('[rocksdb]\npath = "precious"\n', ours, "not TOML", ""):
        path.write_text(text)
        result = command_line.run("demo", "--seconds", "2", "--folder", "mine")
        assert "give another folder" in failure(result, 2)
        assert path.read_text() == text
        assert [each.name for each in path.parent.iterdir()] == ["obframe.toml"]


async def test_the_demo_leaves_folders_alone_that_are_not_its_own(stored: CommandLine) -> None:
    """A database, also one that is being written, and anything else; not what a demo left."""
    (stored.folder / "other").mkdir()
    (stored.folder / "other" / "notes").write_text("mine")
    async with open_rocksdb(RocksSettings(path=str(stored.folder / "live"))):
        for name, what in (
            ("obframe-data", "is a RocksDB database: it is left alone"),
            ("live", "is a RocksDB database: it is left alone"),
            ("other", "is not empty and no demo's: it is left alone"),
        ):
            folder = stored.folder / name
            before = sorted(each.name for each in folder.iterdir())
            result = stored.run("demo", "--seconds", "2", "--folder", name)
            text = failure(result, 2)
            assert f"obframe: --folder: {folder} {what}" in text
            assert "give a new folder" in text
            assert sorted(each.name for each in folder.iterdir()) == before
    (stored.folder / "begun").mkdir()
    (stored.folder / "begun" / "venue.log").touch()
    _check_own(stored.folder / "begun", stored.folder / "begun" / "obframe.toml")


def test_no_line_of_the_help_is_cut(command_line: CommandLine) -> None:
    assert "..." not in command_line.run("--help", environ={"COLUMNS": "80"}).stdout[100:]


def test_ctrl_c_while_a_command_loads_prints_no_traceback(
    command_line: CommandLine,
) -> None:
    # The command sends itself the signal as soon as it imports one of these modules.
    for module in ("obframe.commands.read", "obframe.commands.session", "obframe.query"):
        (command_line.folder / "sitecustomize.py").write_text(
            "import os, signal, sys\n"
            "class Finder:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {module!r} and 'obframe' in sys.modules:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
        result = command_line.run("query", "AAA", environ={"PYTHONPATH": str(command_line.folder)})
        assert result.returncode in (130, -signal.SIGINT), module
        assert not result.stdout + result.stderr, module


def test_the_event_loop_is_uvloop_where_it_is_installed_or_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [choose_loop(name)[0] for name in ("auto", "asyncio", "uvloop")] == [
        "uvloop",
        "asyncio",
        "uvloop",
    ]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvloop" else find(name)
    )
    assert choose_loop("auto") == ("asyncio", None)
    with pytest.raises(ValueError, match=r"not installed.*obframe\[fast\]"):
        RecorderSettings(event_loop="uvloop")


def test_the_query_that_a_run_suggests_chooses_what_the_run_chose() -> None:
    reads = Provider("shelf", "Keeps rows.", RocksSettings, open_rocksdb, open_reader)
    plugins = [SimpleNamespace(name="mine", providers={"storage": (reads,)})]
    registry = SimpleNamespace(plugins=plugins)
    session: Any = SimpleNamespace(chosen={"storage": reads}, registry=registry)
    choice = Choice(
        config=Path("my settings.toml"),
        assignments=("shelf.path=a b", "binance.market=usdm"),
        names={},
    )
    _, *arguments = shlex.split(suggest_query(choice, session, "AAA"))[-12:]
    expected = "AAA --last 5 --plugins mine --storage shelf --config 'my settings.toml'"
    assert arguments == shlex.split(f"{expected} --set 'shelf.path=a b'")
    session.chosen["storage"] = replace(reads, open_reader=None)
    assert not suggest_query(choice, session, "AAA")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("0.5", 0.5), ("1h30m", 5400)])
def test_a_run_lasts_as_long_as_is_said_with_or_without_units(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


def test_the_end_of_a_run_is_told_of_this_run() -> None:
    def summary(rows: int, updates: int, gaps: dict[GapReason, int]) -> RunSummary:
        return RunSummary(rows, gaps, {}, updates, 0.001, 0.0002, True, {})

    lost = {GapReason.PROCESS_DOWN: 148, GapReason.SEQUENCE: 2, GapReason.UNSUBSCRIBED: 3}
    assert describe(summary(1200, 1, lost)).split("\n         ") == [
        "stored 1,200 rows, 2 symbol-seconds without a row (sequence 2)",
        "while not recorded: 151 symbol-seconds without a row (process_down 148, unsubscribed 3)",
        "1 update, book latency p99 0.20 ms, tick lag p99 1.0 ms",
    ]
    assert describe(summary(1, 0, {GapReason.CONNECTING: 1})).split("\n         ") == [
        "stored 1 row, 1 symbol-second without a row (connecting 1)",
        "no updates were received",
    ]
    counters = {"sink.a-b.written": 1, "sink.a-b.lag_seconds": 0, "sink.csv.lag_seconds": 1200}
    counters |= {"sink.csv.dropped": 1000, "sink.csv.lost_seconds": 1}
    told = describe(replace(summary(1, 0, {}), counters=counters)).split("\n         ")
    assert told[2:] == [
        "sink a-b was told 1 row",
        "sink csv was told 0 rows, 1,000 dropped, 1 second lost to retention, 1,200 s behind",
    ]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["run", "--help"]])
def test_help_and_version(command_line: CommandLine, arguments: list[str]) -> None:
    result = command_line.run(*arguments)
    assert result.returncode == (0 if arguments else 2)
    assert "obframe" in result.stdout + result.stderr


def test_help_is_quick(command_line: CommandLine) -> None:
    imported = "import sys, obframe.cli; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", imported],
        capture_output=True,
        text=True,
        check=True,
        cwd=command_line.folder,
    )
    slow = {"aiohttp", "asyncio", "numpy", "rich", "rocksdict", "websockets"}
    slow |= {"obframe.recorder", "obframe.reader"}
    assert not slow & set(result.stdout.split())


def test_every_fault_is_listed(command_line: CommandLine) -> None:
    faults = lines(command_line.run("exchange", "--list-faults", "--format", "jsonl"))
    assert {"drop", "dup", "429", "silence"} <= {fault["fault"] for fault in faults}


# -- recording -------------------------------------------------------------------------------


@contextmanager
def recording(command_line: CommandLine, eventually: Eventually) -> Iterator[subprocess.Popen[str]]:
    """A recorder that has stored two seconds or more and goes on."""
    with (
        command_line.venue("--symbols", "AAA,BBB") as urls,
        command_line.start("run", "--plugins", "rocksdb", "--symbols", "AAA,BBB", *urls) as process,
    ):

        def stored_two() -> bool:
            assert process.poll() is None, process.communicate()
            return bool(command_line.count_rows("AAA") >= 2)

        eventually(stored_two, "two rows are stored")
        yield process


def test_a_terminal_that_is_closed_ends_a_run_in_order(
    command_line: CommandLine, eventually: Eventually
) -> None:
    """The kernel tells the run, and takes from it what it writes to."""
    ours, its = pty.openpty()
    with command_line.venue("--symbols", "AAA") as urls:
        arguments = ("run", "--plugins", "rocksdb", "--symbols", "AAA", *urls)
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "obframe", *arguments],
            cwd=command_line.folder,
            env=command_line.environ,
            stdin=its,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        try:
            eventually(lambda: command_line.count_rows("AAA") >= 2, "two rows are stored")
            os.close(ours)
            code = process.wait(20)
        finally:
            process.kill()
            process.wait()
    assert code in (0, 1), "1: nobody takes its last words"
    rows = lines(command_line.run("query", "AAA", "--format", "jsonl"))
    seconds = [row["timestamp"] for row in rows]
    assert seconds == list(range(seconds[0], seconds[-1] + 1))
    obframe.open(command_line.folder / "obframe-data").close()


def test_a_run_says_where_it_stores_and_what_shows_it(command_line: CommandLine) -> None:
    """In its log, at its end and in its summary; the command works as it stands."""
    with command_line.venue("--symbols", "AAA,BBB") as urls:
        common = ("run", "--symbols", "AAA,BBB", "--duration", "4", *urls)
        place = ("--plugins", "rocksdb", "--set", "rocksdb.path=rows of mine")
        told = command_line.run(*common, *place)
        summary = lines(command_line.run(*common, "--format", "json"))[0]
        memory = lines(command_line.run(*common, "--plugins", "memory", "--format", "json"))[0]
    path = command_line.folder / "rows of mine"
    assert f"storage rocksdb in {path}, " in told.stderr
    (where,) = [line for line in told.stderr.splitlines() if "stored in" in line]
    assert where.strip() == f"stored in {path}"
    (show,) = [line for line in told.stderr.splitlines() if "see it with: " in line]
    assert summary["storage"] == str(command_line.folder / "obframe-data")
    for shown in (show.partition("see it with: ")[2], summary["query"]):
        _, *arguments = shlex.split(shown)
        rows = lines(command_line.run(*arguments, "--format", "jsonl"))
        assert rows, shown
    assert (memory["storage"], memory["query"]) == ("", "")


def test_a_hang_up_stores_what_is_held_and_exits_0(
    command_line: CommandLine, eventually: Eventually
) -> None:
    with recording(command_line, eventually) as process:
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "SIGHUP: storing what is held" in errors
    assert "stored " in errors


def test_row_61_sigterm_stores_what_is_held_and_exits_0(
    command_line: CommandLine, eventually: Eventually
) -> None:
    with recording(command_line, eventually) as process:
        before = time.time()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    for symbol in ("AAA", "BBB"):
        rows = lines(command_line.run("query", symbol, "--format", "jsonl"))
        seconds = [row["timestamp"] for row in rows]
        assert seconds == list(range(seconds[0], seconds[-1] + 1))
        assert seconds[-1] >= int(before) - 1


def test_row_61_ctrl_c_is_the_same(command_line: CommandLine, eventually: Eventually) -> None:
    with recording(command_line, eventually) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def test_row_61_a_second_signal_ends_at_once(tmp_path: Path, command_line: CommandLine) -> None:
    # A feed whose closing never ends: only the second signal gets out of it.
    (tmp_path / "clinging.py").write_text(
        "import asyncio\n"
        "from contextlib import asynccontextmanager\n"
        "from dataclasses import dataclass\n"
        "from obframe import Provider, hookimpl\n"
        "@dataclass(frozen=True)\nclass Settings:\n    pass\n"
        "class Feed:\n"
        "    async def run(self, emit):\n        await asyncio.Event().wait()\n"
        "    def subscribe(self, instruments):\n        print('open', flush=True)\n"
        "    def unsubscribe(self, instruments): pass\n"
        "    def request_snapshot(self, instrument): pass\n"
        "    def counters(self): return {}\n"
        "@asynccontextmanager\nasync def open_feed(settings):\n"
        "    yield Feed()\n"
        "    print('closing', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "@hookimpl\ndef obframe_feeds():\n"
        "    return [Provider('clinging', 'never ends', Settings, open_feed)]\n"
    )
    info = tmp_path / "clinging-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clinging\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[obframe.plugins]\nclinging = clinging\n")
    command_line.environ["PYTHONPATH"] = str(tmp_path)
    for first, second, code in (
        (signal.SIGINT, signal.SIGTERM, 143),
        (signal.SIGTERM, signal.SIGINT, 130),
    ):
        with command_line.start("run", "--plugins", "clinging,memory") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            process.send_signal(first)
            assert process.stdout.readline() == "closing\n"
            process.send_signal(second)
            process.communicate(timeout=10)
        assert process.returncode == code


def test_row_61_a_reader_that_goes_away_is_met_in_silence(stored: CommandLine) -> None:
    for output in ("jsonl", "csv", "json", "table"):
        with stored.start("query", "AAA", "--format", output) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert not process.stderr.read()
            assert process.wait(timeout=30) == 141


def test_row_48_a_second_recorder_is_refused_and_told_how_to_read(
    command_line: CommandLine, eventually: Eventually
) -> None:
    with recording(command_line, eventually) as process:
        text = failure(command_line.run("run", "--plugins", "rocksdb"), 3)
        assert "obframe-data" in text
        assert text.count("obframe query") == 1
        assert process.poll() is None
        assert lines(command_line.run("symbols", "--format", "jsonl"))


def test_row_59_a_symbol_that_does_not_exist_is_named_and_the_others_run(
    command_line: CommandLine,
) -> None:
    with command_line.venue("--symbols", "AAA") as urls:
        arguments = ("run", "--symbols", "AAA,NOPE", "--duration", "4", *urls)
        result = command_line.run(*arguments)
    assert result.returncode == 0, result.stderr
    assert "NOPE" in result.stderr
    assert lines(command_line.run("query", "AAA", "--format", "jsonl"))
    gaps = lines(command_line.run("gaps", "NOPE", "--format", "jsonl"))
    *before, reason = [gap["reason"] for gap in gaps]
    assert reason == "unknown_symbol"
    assert set(before) <= {"connecting"}  # a tick may fall before the venue has told its symbols


def test_row_59_a_run_of_which_no_symbol_exists_ends_as_a_failure(
    command_line: CommandLine, eventually: Eventually
) -> None:
    with command_line.venue("--symbols", "AAA") as urls:
        arguments = ("run", "--symbols", "aaa,NOPE", "--format", "json", *urls)
        result = command_line.run(*arguments, "--duration", "3")
        other = ("--set", "rocksdb.path=other")
        with command_line.start(*arguments, *other) as process:
            gaps = ("gaps", "NOPE", *other)
            eventually(lambda: "unknown_symbol" in command_line.run(*gaps).stdout, "a gap")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 1, "likewise when it is told to stop"
    text = failure(result, 1)
    (told,) = [line for line in text.splitlines() if line.startswith("obframe: ")]
    assert told.startswith("obframe: nothing was recorded: no venue knows NOPE, aaa (NOPE: ")
    assert "check how the symbols are written" in told
    assert "did you mean AAA?" in text
    summary = json.loads(result.stdout)
    assert (summary["rows"], set(summary["unknown"])) == (0, {"aaa", "NOPE"})


@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_a_run_whose_venue_is_never_reached_ends_as_a_failure(
    command_line: CommandLine, eventually: Eventually, number: signal.Signals | None
) -> None:
    nowhere = ["--set=binance.rest_url=http://127.0.0.1:9", "--set=binance.ws_url=ws://127.0.0.1:9"]
    arguments = ["run", "--plugins", "rocksdb", "--symbols", "AAA,BBB", *nowhere]
    arguments += [] if number else ["--duration", "3"]
    with command_line.start(*arguments) as process:
        if number:
            eventually(lambda: "connecting" in command_line.run("gaps", "AAA").stdout, "a gap")
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1, errors
    told = errors.splitlines()[-1]
    assert told.startswith("obframe: nothing was recorded: no book gave a row (AAA, BBB; AAA: ")
    assert "set binance.ws_url" in told
    assert told.endswith("; check that the venue can be reached, and trades")


def make_summary(**changes: Any) -> RunSummary:
    return replace(RunSummary(1, {}, {}, 0, 0.001, 0.0002, True, {}), **changes)


@pytest.mark.parametrize(
    ("gaps", "changes", "told"),
    [
        (
            {GapReason.SYNCING: 3},
            {"updates": 59, "unproven": {"AAA": "syncing"}},
            "(AAA: syncing); updates came, yet none proved a book in time: record for longer",
        ),
        (
            {GapReason.UNKNOWN_SYMBOL: 3, GapReason.CONNECTING: 3},
            {
                "unknown": {"NOPE": "no such symbol"},
                "unproven": {
                    "NOPE": "unknown_symbol: no such symbol",
                    "FAR": "connecting: refused",
                },
                "states": {BookState.HALTED: 1, BookState.CONNECTING: 1},
            },
            "(FAR: connecting: refused); check that the venue can be reached, and trades",
        ),
        (
            {GapReason.CLOCK_STEP: 2},
            {},
            "(clock_step); check that the venue can be reached, and trades",
        ),
    ],
    ids=["too early", "one unknown, one not reached", "another cause"],
)
def test_a_vain_run_says_why(
    gaps: dict[GapReason, int], changes: dict[str, Any], told: str
) -> None:
    summary = make_summary(rows=0, gap_seconds=gaps, **changes)
    assert summary.is_vain
    assert describe_vain(summary) == f"no book gave a row {told}"


def test_seconds_from_before_a_run_make_it_not_vain() -> None:
    gaps = {GapReason.PROCESS_DOWN: 5, GapReason.UNSUBSCRIBED: 1}
    assert not make_summary(rows=0, gap_seconds=gaps).is_vain


def test_python_m_obframe_and_the_script_are_the_same(command_line: CommandLine) -> None:
    script = Path(sys.executable).with_name("obframe")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == command_line.run("--version").stdout


@pytest.mark.slow
def test_the_demo_shows_what_it_recorded(command_line: CommandLine) -> None:
    result = command_line.run("demo", "--seconds", "10")
    assert result.returncode == 0, result.stderr
    for part in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "sequence", "a row", "obframe-demo-data"):
        assert part in result.stdout
    (command,) = [line for line in result.stdout.splitlines() if " query " in line]
    arguments = shlex.split(command.partition(" query ")[2])
    again = command_line.run("demo", "--seconds", "3", "--symbols", "BTCUSDT")
    assert again.returncode == 0, again.stderr
    assert "process_down" not in again.stdout + again.stderr, "that was before it"
    command_line.folder = command_line.folder.parent  # what it printed works from anywhere
    assert len(lines(command_line.run("query", *arguments, "--format", "jsonl"))) >= 10
    gaps = lines(command_line.run("gaps", *arguments[:1], *arguments[3:], "--format", "jsonl"))
    assert "process_down" in {gap["reason"] for gap in gaps}


def test_ctrl_c_of_the_demo_stores_what_is_held_and_tells_it(
    command_line: CommandLine, eventually: Eventually
) -> None:
    def newest() -> int:
        try:
            with obframe.open(command_line.folder / "obframe-demo-data" / "rows") as store:
                row = store.latest("BTCUSDT")
        except ObframeError:
            return 0
        return 0 if row is None else row.timestamp

    with command_line.start("demo", "--seconds", "60", "--symbols", "BTCUSDT") as process:
        eventually(lambda: newest() > 0, "a row is stored")
        stored = newest()
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "storing what is held, then ending" in errors
    assert "what this run stored" in printed
    assert "SIGTERM: storing what is held" in (
        command_line.folder / "obframe-demo-data" / "recorder.log"
    ).read_text(encoding="utf-8")
    assert newest() >= stored


def test_ctrl_c_of_the_demo_before_a_row_says_that_there_is_none(
    command_line: CommandLine, eventually: Eventually
) -> None:
    with command_line.start("demo", "--seconds", "60", "--symbols", "BTCUSDT") as process:
        log = command_line.folder / "obframe-demo-data" / "venue.log"
        eventually(log.exists, "the venue is being started")
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.endswith("obframe: stopped before anything was stored\n")
    assert not printed
