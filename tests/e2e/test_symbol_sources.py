"""Symbols that come and go while others are recorded, by the real commands: no one else notices."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obframe.testing.oracle import judge

SYMBOLS = ["BTCUSDT", "ETHUSDT", *(f"SIM{i:04}USDT" for i in range(1, 23))]
KEPT, COMING, GOING = SYMBOLS[:20], SYMBOLS[20:22], SYMBOLS[22:24]


def check_undisturbed(desk: Any, symbol: str, journal: Path) -> None:
    """No hole from the first row on, and every row as the venue sent it."""
    timeline = desk.timeline(symbol)
    timeline.check()
    assert timeline.reasons() <= {"connecting", "syncing"}, symbol
    assert timeline.rows == list(range(timeline.rows[0], timeline.rows[-1] + 1)), symbol
    check_true(desk, symbol, journal, len(timeline.rows))


def check_true(desk: Any, symbol: str, journal: Path, rows: int) -> None:
    with desk.store() as storage:
        found = judge(storage, symbol, [journal / f"{symbol.lower()}.gz"])
    assert found.wrong == []
    assert found.equal == rows


def record_with_changes(
    desk: Any,
    tmp_path: Path,
    plugin: str,
    options: tuple[str, ...],
    change: Callable[[list[str]], None],
) -> None:
    """Record 22 symbols, exchange two of them in the middle, bring them back later."""
    journal = tmp_path / "journal"
    venue = desk.venue("--symbols", len(SYMBOLS), "--record", journal)
    change([*KEPT, *GOING])
    recorder = desk.recorder(venue, "--plugins", plugin, "--format", "json", *options)
    recorder.until_logged("live")
    rows: dict[str, list[int]] = {}

    def at_least(count: int, *symbols: str) -> Callable[[], bool]:
        def stored() -> bool:
            rows.update({symbol: desk.timeline(symbol).rows for symbol in symbols})
            return all(len(rows[symbol]) >= count for symbol in symbols)

        return stored

    desk.until(at_least(2, *KEPT, *GOING), 30)
    change([*KEPT, *COMING])
    changed = time.time()
    desk.until(at_least(1, *COMING), 30)
    desk.until(at_least(len(rows[COMING[0]]) + 2, *COMING), 30)
    left = {symbol: desk.timeline(symbol).rows[-1] for symbol in GOING}
    recorder.pause(1.1)
    for symbol in GOING:
        assert desk.timeline(symbol).rows[-1] == left[symbol], "it is still recorded"
        assert left[symbol] <= changed + 5  # within a second where the machine is not busy
    change([*KEPT, *COMING, *GOING])
    desk.until(lambda: all(desk.timeline(each).rows[-1] > left[each] for each in GOING), 30)
    recorder.pause(1.1)
    assert recorder.terminate() == 0, recorder.log
    assert venue.terminate() == 0, venue.log
    for symbol in KEPT:
        check_undisturbed(desk, symbol, journal)
    for symbol in COMING:
        check_undisturbed(desk, symbol, journal)
    for symbol in GOING:
        timeline = desk.timeline(symbol)
        timeline.check()
        away = [second for second, why in timeline.gaps.items() if str(why) == "unsubscribed"]
        assert away[0] == left[symbol] + 1
        assert away == list(range(away[0], away[-1] + 1))
        assert len(away) >= 2
        assert timeline.reasons() <= {"connecting", "syncing", "unsubscribed"}
        check_true(desk, symbol, journal, len(timeline.rows))
    counters = json.loads(recorder.out.read_text())["counters"]
    for name in ("book.sequence", "feed.reconnects", "feed.malformed", "feed.connections"):
        assert counters.get(name, 0) == (1 if name == "feed.connections" else 0), name


@pytest.mark.slow
def test_a_set_changed_from_other_processes_disturbs_nobody(desk: Any, tmp_path: Path) -> None:
    options = ("--set", f"runtime.path={tmp_path / 'set.db'}")

    def change(wanted: list[str]) -> None:
        listed = desk.run("symbols", "list", *options, "--format", "jsonl")
        held = [json.loads(line)["symbol"] for line in listed.stdout.splitlines()]
        if new := [symbol for symbol in wanted if symbol not in held]:
            assert desk.run("symbols", "add", *new, *options).returncode == 0
        if gone := [symbol for symbol in held if symbol not in wanted]:
            assert desk.run("symbols", "remove", *gone, *options).returncode == 0

    record_with_changes(desk, tmp_path, "runtime", options, change)


@pytest.mark.slow
def test_row_60_a_file_changed_well_and_badly_disturbs_nobody(desk: Any, tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    options = ("--set", f"file.path={path}", "--set", "file.interval=200ms")

    def refusals() -> int:
        logs = [one.read_text() for one in desk.folder.glob("*.err")]
        return sum(log.count("symbols of before stay") for log in logs)

    def change(wanted: list[str]) -> None:
        if path.exists():
            before = refusals()
            path.write_text("BTCUSDT\nNO:SYMBOL\nBTCUSDT\n")
            desk.until(lambda: refusals() > before, 10)
        beside = path.with_suffix(".new")
        beside.write_text("\n".join(["# what to record", *wanted, ""]))
        beside.replace(path)

    record_with_changes(desk, tmp_path, "file", options, change)
    (log,) = [
        one for one in desk.folder.glob("*.err") if "symbols of before stay" in one.read_text()
    ]
    assert "'NO:SYMBOL': holds ':'" in log.read_text()
    assert "is given again" in log.read_text()


@pytest.mark.slow
def test_the_top_by_volume_is_recorded_and_follows_the_venue(desk: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    venue = desk.venue("--symbols", 8, "--record", journal)
    recorder = desk.recorder(
        venue,
        *("--plugins", "top", "--set", "top.count=3", "--set", "top.buffer=0"),
        *("--set", f"top.rest_url={venue.rest_url}", "--set", "top.interval=1"),
    )
    recorder.until_logged("live")
    recorder.pause(2.5)
    volumes = json.dumps({"SIM0006USDT": "2000000000"}).encode()
    with urllib.request.urlopen(venue.rest_url + "/control/volumes", volumes) as answer:
        assert answer.status == 200
    recorder.until_logged("recording SIM0006USDT")
    recorder.pause(3)
    assert recorder.terminate() == 0, recorder.log
    assert venue.terminate() == 0
    with desk.store() as storage:
        assert storage.symbols() == ["BTCUSDT", "ETHUSDT", "SIM0001USDT", "SIM0006USDT"]
    for symbol in ("BTCUSDT", "ETHUSDT", "SIM0006USDT"):
        check_undisturbed(desk, symbol, journal)


@pytest.mark.parametrize(
    ("plugin", "setting", "content", "mistakes"),
    [
        ("file", "file.path=list", "A\nB:C\nA\n", ["list:2: ", "list:3: "]),
        ("file", "file.path=missing", None, ["missing: ", "No such file"]),
        ("environment", "environment.variable=NOT_SET", None, ["NOT_SET", "is not set"]),
        ("top", "top.count=0", None, ["count is 0"]),
    ],
)
def test_rows_57_and_58_mistakes_are_told_at_once_and_nothing_is_opened(
    desk: Any, plugin: str, setting: str, content: str | None, mistakes: list[str]
) -> None:
    if content is not None:
        (desk.folder / "list").write_text(content)
    done = desk.run("run", "--plugins", f"rocksdb,{plugin}", "--set", setting)
    assert done.returncode == 2, done.stderr
    for mistake in mistakes:
        assert mistake in done.stderr
    assert not list(desk.folder.glob("obframe-data*"))


def test_the_commands_that_change_a_set(desk: Any) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = desk.run("symbols", *arguments)
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("list")
    assert (code, "the set is empty" in err) == (0, True)
    assert run("add", "BTCUSDT,ETHUSDT", "kraken/BTC/USD")[0] == 0
    code, _, err = run("add", "ETHUSDT", "SOLUSDT")
    assert code == 0
    assert "added SOLUSDT" in err
    assert "in the set already: ETHUSDT" in err
    code, _, err = run("add", "XRPUSDT", "A:B")
    assert (code, "'A:B': holds ':'" in err) == (2, True)
    code, _, err = run("remove", "BTCUSDT", "ETHUSD")
    assert (code, "did you mean 'ETHUSDT'?" in err) == (2, True)
    code, _, err = run("remove", "ETHUSDT")
    assert (code, "removed ETHUSDT" in err) == (0, True)
    code, out, _ = run("list", "--format", "jsonl")
    assert [json.loads(line)["symbol"] for line in out.splitlines()] == [
        *("BTCUSDT", "SOLUSDT", "kraken/BTC/USD"),
    ]
    code, out, _ = run("list")
    assert (code, "SOLUSDT" in out) == (0, True)
    code, _, err = run("add", "A", "--symbol-source", "static")
    assert (code, "cannot be changed from outside" in err) == (4, True)
    code, _, err = run("add")
    assert (code, "SYMBOL" in err) == (2, True)
    (desk.folder / "obframe-symbols.db").write_text("BTCUSDT\n" * 100)
    code, _, err = run("list")
    assert (code, "no set of symbols" in err) == (3, True)


def test_symbol_sources_are_chosen_among_those_loaded(desk: Any) -> None:
    """The file is missing: a run that uses it is refused, one that does not is recorded."""
    venue = desk.venue()
    plugins = ("--plugins", "static,file", "--duration", 2)
    for chosen, code, told in (
        ((), 2, "symbols.txt"),
        (("--symbol-source", "static, file"), 2, "symbols.txt"),
        (("--symbol-source", "statik"), 4, "no loaded plugin offers the symbol source 'statik'"),
        (("--symbol-source", "static"), 0, "recording BTCUSDT, ETHUSDT"),
    ):
        recorder = desk.recorder(venue, *plugins, *chosen)
        assert recorder.wait() == code, recorder.log
        assert told in recorder.log
