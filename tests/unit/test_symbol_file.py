"""The symbol source ``file``: how it reads its file, and what a bad change does: nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

import pytest

from obframe import ConfigError, Instrument
from obframe.testing.symbols import HeldSleep, watching
from obframe_plugins.file import FileSettings, FileSymbols, open_file


def names(instruments: frozenset[Instrument]) -> str:
    return ",".join(sorted(instrument.symbol for instrument in instruments))


def write(path: Path, text: str) -> None:
    """Replace the file as careful programs do."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("list", "BTCUSDT\nETHUSDT\n", "BTCUSDT,ETHUSDT"),
        ("list", "\ufeff# all of them\r\n\r\n  BTCUSDT \t# the first\rETHUSDT", "BTCUSDT,ETHUSDT"),
        ("list", "A#B\nkraken/BTC/USD\n1000PEPEUSDT", "1000PEPEUSDT,A#B,kraken/BTC/USD"),
        ("list.json", '["BTCUSDT", "ETHUSDT"]', "BTCUSDT,ETHUSDT"),
        ("list.toml", 'symbols = [\n  "BTCUSDT", # one\n]\n', "BTCUSDT"),
        ("list.TOML", 'symbols = ["币安USDT"]', "币安USDT"),
    ],
)
def test_good_files(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert names(FileSymbols(str(tmp_path / name)).read()) == expected


@pytest.mark.parametrize(
    ("name", "text", "mistakes"),
    [
        ("list", "", ["list: ", "names no symbols"]),
        ("list", "# nothing\n", ["names no symbols"]),
        ("list", "A\nB,C\nD E\n", ["list:2: ", "'B,C' holds ','", "list:3: ", "one symbol a line"]),
        ("list", "A\nB:C\nA\n", ["list:2: ", "':'", "list:3: ", "'A' is given again", "list:1"]),
        ("list", "A,B\nC..D\n", ["list:1: ", "list:2: ", "'..'"]),
        ("list", "A\0B\nC\x1b[2J", ["U+0000", "U+001B"]),
        ("list", "A" * 200, ["longer than 128 bytes"]),
        ("list.json", '["A", "B"', ["is not JSON", "line 1"]),
        ("list.json", '{"A": 1}', ["does not hold a list of texts"]),
        ("list.json", '["A", 5]', ["number 2 is 5"]),
        ("list.json", '["A", "B", "A"]', ["symbol 3: ", "given again", "symbol 1"]),
        ("list.json", "[" * 100_000, ["no file of symbols"]),
        ("list.toml", "symbols = [", ["is not TOML"]),
        ("list.toml", 'symbol = ["A"]', ["holds symbol beside symbols"]),
        ("list.toml", 'symbols = "A"', ["does not hold symbols = [...]"]),
    ],
)
def test_rows_57_and_58_every_mistake_of_a_file_is_told_with_its_place(
    tmp_path: Path, name: str, text: str, mistakes: list[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigError) as caught:
        FileSymbols(str(tmp_path / name))
    for mistake in mistakes:
        assert mistake in str(caught.value)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def list_open(folder: Path) -> list[str]:
    """Name what this process has open of a folder; nothing where /proc does not tell."""
    found = []
    for link in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):  # of another thread, and closed since
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(str(folder))]


@pytest.mark.timeout(20)
def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"BTC\xff\n")
    (tmp_path / "huge").write_bytes(b"#" * (5 * 1024 * 1024))
    for name, mistake in {
        "missing": "No such file",
        "pipe": "no plain file",
        ".": "directory",
        "bytes": "not UTF-8",
        "huge": "more than 4 MiB",
    }.items():
        with pytest.raises(ConfigError, match=mistake):
            FileSymbols(str(tmp_path / name))
        assert not list_open(tmp_path), f"{name}: left a file open"


async def test_the_first_reading_must_be_good(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        async with open_file(FileSettings(str(tmp_path / "missing"))):
            pass


def test_settings_are_checked() -> None:
    for bad in ({"path": ""}, {"path": "a\0b"}, {"interval": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            FileSettings(**bad)  # type: ignore[arg-type]


async def test_row_60_only_a_good_change_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("A\nB\n")
    sleep = HeldSleep()
    symbols = FileSymbols(str(path), 7.0, sleep)
    async with watching(symbols) as watch:
        await watch.until("A,B")
        await sleep.end(3)
        seen = watch.told
        assert seen == ["A,B"]
        assert set(sleep.asked) == {7.0}
        write(path, "B\nC\n")
        await sleep.end()
        assert seen == ["A,B"], "a change is taken when it lies still"
        await sleep.end()
        assert seen == ["A,B", "B,C"]
        with caplog.at_level(logging.INFO, "obframe.file"):
            for bad, mistake in {
                "": "names no symbols",
                "B\nC\nD:E\nB\n": "':'",
                "B,C,D\n": "one symbol a line",
            }.items():
                caplog.clear()
                write(path, bad)
                await sleep.end(4)
                (record,) = caplog.records
                assert record.levelno == logging.ERROR
                assert mistake in record.message
                assert "the 2 symbols of before stay" in record.message
            caplog.clear()
            path.unlink()
            await sleep.end(4)
            assert "No such file" in caplog.text
            assert len(caplog.records) == 1
            path.write_text("B\nC\n")
            await sleep.end(2)
            assert "can be read again" in caplog.text
        assert seen == ["A,B", "B,C"]
        write(path, "C\n")
        await sleep.end(2)
    assert seen == ["A,B", "B,C", "C"]


async def test_a_file_being_written_is_not_read_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("A\nB\nC\n")
    sleep = HeldSleep()
    async with watching(FileSymbols(str(path), 1.0, sleep)) as watch:
        await watch.until("A,B,C")
        seen = watch.told
        with path.open("w") as file:
            for part in ("A\n", "B", "TC\n", "C\nD\n"):
                file.write(part)
                file.flush()
                await sleep.end()
        assert seen == ["A,B,C"]
        await sleep.end(2)
    assert seen == ["A,B,C", "A,BTC,C,D"]


def test_a_change_between_looking_and_reading_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("A\n")
    symbols = FileSymbols(str(path))
    write(path, "B\n")
    symbols.read()
    really = FileSymbols._take

    def change_first(self: FileSymbols, now: object) -> None:
        monkeypatch.undo()
        write(path, "C\n")
        really(self, now)  # type: ignore[arg-type]

    monkeypatch.setattr(FileSymbols, "_take", change_first)
    assert names(symbols.read()) == "A"
    assert names(symbols.read()) == "C"


async def test_the_file_is_read_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "symbols.txt"
    path.write_text("A\n")
    threads: list[threading.Thread] = []
    really = os.stat

    def noting(path: object, *args: object, **more: object) -> os.stat_result:
        if str(path).endswith("symbols.txt"):
            threads.append(threading.current_thread())
        return really(path, *args, **more)  # type: ignore[call-overload, no-any-return]

    sleep = HeldSleep()
    async with open_file(FileSettings(str(path))) as source:
        assert isinstance(source, FileSymbols)
        source._sleep = sleep
        monkeypatch.setattr(os, "stat", noting)
        async with watching(source) as watch:
            await watch.until("A")
            await sleep.end(3)
    assert len(threads) == 4
    assert threading.main_thread() not in threads
