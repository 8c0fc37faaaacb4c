"""The set of the symbol source ``runtime``: many writers, whole changes, nothing lost by a kill."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from obframe import (
    Duration,
    EditableSymbolSource,
    StoreCorrupt,
    StoreFormatError,
    StoreUnavailable,
    SymbolError,
)
from obframe.testing.symbols import watching
from obframe.testing.waiting import until
from obframe_plugins.runtime import RuntimeSettings, RuntimeSymbols, SymbolSet, open_runtime


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a set ?#%.db")


def test_a_set_outlives_its_object(path: str) -> None:
    first = SymbolSet(path)
    assert first.add(["ETHUSDT", "BTCUSDT", "ETHUSDT"]) == ["ETHUSDT", "BTCUSDT"]
    assert first.add(["BTCUSDT", "kraken/BTC/USD"]) == ["kraken/BTC/USD"]
    assert SymbolSet(path).symbols() == ["BTCUSDT", "ETHUSDT", "kraken/BTC/USD"]
    assert SymbolSet(path).remove(["ETHUSDT"]) == ["ETHUSDT"]
    first.create()
    assert first.symbols() == ["BTCUSDT", "kraken/BTC/USD"]
    assert first.remove(first.symbols()) == ["BTCUSDT", "kraken/BTC/USD"]
    assert first.symbols() == []


def test_rows_58_and_60_a_bad_change_changes_nothing(path: str) -> None:
    symbols = SymbolSet(path)
    symbols.add(["BTCUSDT", "ETHUSDT"])
    for bad in ("A:B", "A..B", "A\0B", "", "A B", "A\nB", "\ud800"):
        with pytest.raises(SymbolError):
            symbols.add(["SOLUSDT", bad])
    with pytest.raises(SymbolError, match="did you mean 'ETHUSDT'"):
        symbols.remove(["BTCUSDT", "ETHUST"])
    assert symbols.symbols() == ["BTCUSDT", "ETHUSDT"]


def test_what_is_no_set_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE symbols (symbol)")
    connection.close()
    text = tmp_path / "symbols.txt"
    text.write_text("BTCUSDT\n" * 100)
    newer = tmp_path / "newer.db"
    SymbolSet(newer).create()
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    for file, mistake in {
        foreign: "of another program",
        text: "no set of symbols",
        newer: "of version 2",
    }.items():
        before = file.read_bytes()
        for use in (SymbolSet(file).symbols, lambda file=file: SymbolSet(file).add(["A"])):  # type: ignore[misc]
            with pytest.raises(StoreFormatError, match=mistake) as caught:
                use()
            assert caught.value.path == str(file)
        assert file.read_bytes() == before
    with pytest.raises(StoreUnavailable, match="its folder exists"):
        SymbolSet(tmp_path / "missing" / "set.db").add(["A"])
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        SymbolSet(tmp_path / "missing.db").symbols()
    assert not (tmp_path / "missing.db").exists()


def test_a_damaged_set_is_named(path: str) -> None:
    symbols = SymbolSet(path)
    symbols.add([f"SYMBOL{i:05}" for i in range(2000)])
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreCorrupt, match="damaged"):
        symbols.symbols()


def test_a_writer_that_hangs_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = SymbolSet(path)
    symbols.add(["A"])
    monkeypatch.setattr("obframe_plugins._symbol_set._PATIENCE", 0.05)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreUnavailable, match="another process has been writing"):
            symbols.add(["B"])
        assert symbols.symbols() == ["A"]
    finally:
        connection.close()


def _write(path: str, writer: int) -> None:
    symbols = SymbolSet(path)
    for i in range(25):
        symbols.add([f"W{writer}I{i}", f"W{writer}TEMP"])
        symbols.remove([f"W{writer}TEMP"])


def test_several_writers_lose_nothing(path: str) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert set(SymbolSet(path).symbols()) == {f"W{w}I{i}" for w in range(3) for i in range(25)}


_WRITER = """
import sys
from obframe_plugins.runtime import SymbolSet
symbols = SymbolSet(sys.argv[1])
number = int(sys.argv[2])
while True:
    symbols.add([f"A{number}", f"B{number}"])
    print(number, flush=True)
    number += 1
"""


@pytest.mark.timeout(120)
def test_a_kill_loses_nothing_acknowledged_and_leaves_nothing_half_done(path: str) -> None:
    number = 0
    for kill in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, path, str(number)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            told = [int(writer.stdout.readline()) for _ in range(5 + 3 * kill)]
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout.read().split()]
        held = set(SymbolSet(path).symbols())
        number = told[-1] + 1
        assert {f"{side}{i}" for side in "AB" for i in range(number)} <= held
        assert {name[1:] for name in held if name[0] == "A"} == {
            name[1:] for name in held if name[0] == "B"
        }


async def test_changes_are_yielded_and_an_empty_set_is_one(path: str) -> None:
    async with open_runtime(RuntimeSettings(path, Duration(0.01))) as source:
        assert isinstance(source, RuntimeSymbols)
        assert isinstance(source, EditableSymbolSource)
        async with watching(source) as watch:
            await watch.until("")
            other = SymbolSet(path)
            await asyncio.to_thread(other.add, ["A", "B"])
            await watch.until("", "A,B")
            await asyncio.to_thread(other.remove, ["A", "B"])
            await watch.until("", "A,B", "")


def _swap(path: str, content: bytes | None) -> None:
    """Replace the file at once, or remove it."""
    if content is None:
        Path(path).unlink()
        return
    beside = Path(path + ".new")
    beside.write_bytes(content)
    beside.replace(path)


async def test_row_60_a_set_that_is_gone_or_damaged_leaves_the_symbols_as_they_were(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    SymbolSet(path).add(["A", "B"])
    with open(path, "rb") as file:  # noqa: ASYNC230 (nobody waits)
        kept = file.read()
    async with (
        open_runtime(RuntimeSettings(path, Duration(0.01))) as source,
        watching(source) as watch,
    ):
        caplog.set_level("INFO")
        await watch.until("A,B")
        for harm in (b"", b"no database" * 100, None):
            caplog.clear()
            _swap(path, harm)
            await until(lambda: "the 2 symbols of before stay" in caplog.text)
            _swap(path, kept)
            await until(lambda: "can be read again" in caplog.text)
        assert watch.told == ["A,B"]


def test_settings_are_checked() -> None:
    for bad in ({"path": ""}, {"interval": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RuntimeSettings(**bad)  # type: ignore[arg-type]
