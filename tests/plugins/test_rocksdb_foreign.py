"""Databases that obframe did not write: read at once, recorded into only when that is wanted."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import rocksdict

from obframe import (
    Gap,
    GapReason,
    Record,
    Snapshot,
    Storage,
    StorageError,
    StoreFormatError,
    StoreUnavailable,
)
from obframe_plugins import _files
from obframe_plugins._maintenance import RocksMaintenance
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader

T = 1_737_158_400
ALWAYS = (0, 10**10)


@pytest.fixture
def settings(tmp_path: Path) -> RocksSettings:
    return RocksSettings(path=str(tmp_path / "rows"))


@contextlib.contextmanager
def opened(path: str, *, adopt: bool = False) -> Iterator[RocksStorage]:
    storage = RocksStorage.open(RocksSettings(path=path, adopt=adopt))
    try:
        yield storage
    finally:
        storage.close()


@contextlib.contextmanager
def plain(path: str) -> Iterator[rocksdict.Rdict]:
    """Open as any program with rocksdict would, with default options but raw."""
    database = rocksdict.Rdict(path, rocksdict.Options(raw_mode=True))
    try:
        yield database
    finally:
        database.close()


def row(symbol: str, second: int) -> Record:
    snapshot = Snapshot(symbol, 7, second, [("60000.04", "1.50")], [("60000.05", "2.0")])
    return Record(symbol, second, snapshot.pack())


def fill(database: rocksdict.Rdict, symbol: str, start: int, count: int) -> list[Record]:
    rows = [row(symbol, second) for second in range(start, start + count)]
    for record in rows:
        database[f"{symbol}:{record.timestamp}".encode()] = record.value
    return rows


def fingerprint(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its change time and content."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def scan(storage: Storage, symbol: str = "BTCUSDT") -> list[Record]:
    return list(storage.scan(symbol, *ALWAYS))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "obframe", *arguments], capture_output=True, text=True, check=False
    )


# Reading


@pytest.mark.parametrize("note", [True, False])
def test_a_foreign_store_is_read_at_once_and_nothing_is_touched(
    settings: RocksSettings, tmp_path: Path, note: bool
) -> None:
    """Rows in files and rows in the log; no gaps are known; nothing appears beside it."""
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 50)
        database.flush()
        rows += fill(database, "BTCUSDT", T + 50, 50)
        fill(database, "ETHUSDT", T, 5)
        shutil.copytree(settings.path, tmp_path / "killed")  # its last rows are in the log only
    path = tmp_path / "killed"
    if not note:
        (path / "rocksdict-config.json").unlink()
    before = fingerprint(tmp_path)
    with open_reader(RocksSettings(path=str(path))) as reader:
        assert reader.symbols() == ["BTCUSDT", "ETHUSDT"]
        assert scan(reader) == rows
        assert reader.latest("BTCUSDT") == rows[-1]
        assert reader.latest("XRPUSDT") is None
        assert reader.gaps("BTCUSDT", *ALWAYS) == []
        assert reader.marks("BTCUSDT", *ALWAYS) == []
        for write in (
            lambda: reader.append(rows[:1]),
            lambda: reader.append_gaps([]),
            lambda: reader.append_marks([]),
            lambda: reader.delete_before("BTCUSDT", T + 10),
        ):
            with pytest.raises(StorageError, match="reading only"):
                write()
    with pytest.raises(StorageError, match="closed"):
        reader.latest("BTCUSDT")
    assert fingerprint(tmp_path) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed", "rows"]


def test_commands_read_a_foreign_store(settings: RocksSettings, tmp_path: Path) -> None:
    with plain(settings.path) as database:
        fill(database, "BTCUSDT", T, 3)
    before = fingerprint(tmp_path)
    choose = ("--set", f"rocksdb.path={settings.path}")
    rows = command("query", "BTCUSDT", "--format", "jsonl", *choose)
    assert (rows.returncode, rows.stderr) == (0, "")
    assert rows.stdout.count("60000.04") == 3
    assert "BTCUSDT" in command("symbols", *choose).stdout
    assert command("gaps", "BTCUSDT", *choose).returncode == 0
    assert fingerprint(tmp_path) == before


def test_a_store_without_its_side_directory_is_read(settings: RocksSettings) -> None:
    with opened(settings.path) as storage:
        rows = [row("BTCUSDT", T + i) for i in range(5)]
        storage.append(rows)
    shutil.rmtree(settings.path + ".obframe")
    with open_reader(settings) as reader:
        assert scan(reader) == rows
    assert not Path(settings.path + ".obframe").exists()


def test_each_read_sees_what_a_foreign_writer_wrote_before(settings: RocksSettings) -> None:
    """Through new logs, flushes and compactions; a scan under way keeps its state."""
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 1500)
        with open_reader(settings) as reader:
            under_way = reader.scan("BTCUSDT", *ALWAYS)
            first = next(iter(under_way))
            for turn in range(4):
                more = fill(database, "BTCUSDT", T + 1500 + 10 * turn, 10)
                rows += more
                assert reader.latest("BTCUSDT") == rows[-1]
                database.flush()
                if turn == 2:
                    database.compact_range(None, None)
                assert scan(reader) == rows
            assert [first, *under_way] == rows[:1500]
            assert scan(reader) == rows
            unfinished = iter(reader.scan("BTCUSDT", *ALWAYS))
            next(unfinished)
        with pytest.raises(StorageError, match="closed"):
            list(unfinished)


def test_a_reader_of_a_foreign_store_leaves_no_views(
    settings: RocksSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = tmp_path / "views"
    views.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(views))
    with plain(settings.path) as database, open_reader(settings) as reader:
        for turn in range(5):
            rows = fill(database, "BTCUSDT", T + turn, 1)
            assert reader.latest("BTCUSDT") == rows[-1]
            assert len(list(views.iterdir())) == 1
    assert list(views.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="reading needs a small directory"):
        open_reader(settings).__enter__()


@pytest.mark.parametrize("calms", [True, False])
def test_a_flush_while_a_view_is_made_gives_no_short_answer(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch, calms: bool
) -> None:
    """The log that held the rows goes, the file that holds them then is not in the view."""
    real = _files.link_files
    turns: list[str] = []
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 20)

        def link(path: str, view: str) -> None:
            real(path, view)
            if not calms or not turns:
                turns.append(view)
                rows.extend(fill(database, "BTCUSDT", T + 20 * len(turns), 20))
                database.flush()

        monkeypatch.setattr("obframe_plugins._rocks.link_files", link)
        if calms:
            with open_reader(settings) as reader:
                assert scan(reader) == rows
            assert len(turns) == 1
        else:
            with pytest.raises(StorageError):
                open_reader(settings).__enter__()


def test_a_foreign_store_that_goes_is_an_error_never_a_short_answer(
    settings: RocksSettings, tmp_path: Path
) -> None:
    with plain(settings.path) as database:
        fill(database, "BTCUSDT", T, 20)
        database.flush()
    with open_reader(settings) as reader:
        Path(settings.path).rename(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="no database there"):
            reader.latest("BTCUSDT")
        (tmp_path / "elsewhere").rename(settings.path)
        assert len(scan(reader)) == 20
    (file,) = Path(settings.path).glob("*.sst")
    file.unlink()
    with pytest.raises(StorageError, match="No such file"):
        open_reader(settings).__enter__()


def test_a_reader_tells_when_a_recorder_begins_to_keep_gaps(settings: RocksSettings) -> None:
    """From then on "no gaps" would be a short answer."""
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 20)
    with open_reader(settings) as reader:
        with opened(settings.path, adopt=True) as storage:
            storage.append_gaps([Gap("BTCUSDT", T + 20, T + 29, GapReason.PROCESS_DOWN, "")])
            storage.append([row("BTCUSDT", T + 30)])
            assert scan(reader) == [*rows, row("BTCUSDT", T + 30)]
        for read in (reader.gaps, reader.marks):
            with pytest.raises(StoreUnavailable, match="open the store again"):
                read("BTCUSDT", *ALWAYS)
    with open_reader(settings) as reader:
        assert len(reader.gaps("BTCUSDT", *ALWAYS)) == 1


def test_logs_in_another_directory_are_not_missed(settings: RocksSettings, tmp_path: Path) -> None:
    options = rocksdict.Options(raw_mode=True)
    options.set_wal_dir(str(tmp_path / "logs"))
    database = rocksdict.Rdict(settings.path, options)
    rows = fill(database, "BTCUSDT", T, 20)
    database.flush()
    rows += fill(database, "BTCUSDT", T + 20, 20)
    killed = RocksSettings(path=str(tmp_path / "killed"))
    shutil.copytree(settings.path, killed.path)
    told = r"newest rows in logs in .*logs, .*copy these logs into"
    with pytest.raises(StoreFormatError, match=told), open_reader(killed):
        pass
    with pytest.raises(StoreFormatError, match=told):
        RocksStorage.open(RocksSettings(path=killed.path, adopt=True))
    maintenance = RocksMaintenance(killed)
    with pytest.raises(StoreFormatError, match=told):
        maintenance.backup(tmp_path / "backups", lambda *_: None)
    with pytest.raises(StoreFormatError, match=told):
        maintenance.repair(str(tmp_path / "saved"), lambda *_: None)
    for log in (tmp_path / "logs").glob("*.log"):
        shutil.copy(log, killed.path)
    database.close()
    maintenance.backup(tmp_path / "backups", lambda *_: None)
    assert maintenance.repair(str(tmp_path / "saved"), lambda *_: None).rows == 40
    with open_reader(killed) as reader:
        assert scan(reader) == rows


# Recording


def test_recording_into_a_foreign_store_is_refused_and_says_what_it_would_do(
    settings: RocksSettings, tmp_path: Path
) -> None:
    with plain(settings.path) as database:
        fill(database, "BTCUSDT", T, 50)
        fill(database, "ETHUSDT", T + 10, 3600)
    before = fingerprint(tmp_path)
    with pytest.raises(StoreFormatError) as caught:
        RocksStorage.open(settings)
    told = str(caught.value)
    assert "rows of 2 symbols from 2025-01-18T00:00:00Z to 2025-01-18T01:00:09Z" in told
    for part in (
        "`obframe query` reads them as they are",
        "`--set rocksdb.adopt=true`",
        "retention.max_age (7 days by default)",
        "retention.max_age=0 to keep all",
        "Nothing was touched",
    ):
        assert part in told
    ran = command(
        "run", "--symbols", "BTCUSDT", "--set", f"rocksdb.path={settings.path}",
        "--set", "binance.rest_url=http://127.0.0.1:9",
        "--set", "binance.ws_url=ws://127.0.0.1:9", "--duration", "1",
    )  # fmt: skip
    assert ran.returncode == 3, ran.stderr
    assert "rocksdb.adopt=true" in ran.stderr
    assert fingerprint(tmp_path) == before
    assert not Path(settings.path + ".obframe").exists()


@pytest.mark.parametrize("lost", [True, False])
def test_a_store_is_adopted_once(
    settings: RocksSettings, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program's, or one of ours that lost what stands beside it."""
    with opened(settings.path) if lost else contextlib.nullcontext():
        pass
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 50)
    if lost:
        shutil.rmtree(settings.path + ".obframe")
    with pytest.raises(StoreFormatError, match=r"rocksdb\.adopt=true"):
        RocksStorage.open(settings)
    with caplog.at_level(logging.WARNING), opened(settings.path, adopt=True) as storage:
        assert "adopted, with rows of 1 symbol" in caplog.text
        assert scan(storage) == rows
        assert storage.append([rows[0]]) == [rows[0]]
        storage.append([row("BTCUSDT", T + 50)])
    caplog.clear()
    with opened(settings.path) as storage:
        assert len(scan(storage)) == 51
    with opened(settings.path, adopt=True) as storage:
        assert len(scan(storage)) == 51
    assert caplog.text == ""


def test_nothing_to_lose_needs_no_adoption(settings: RocksSettings) -> None:
    with opened(settings.path) as storage:
        storage.append([row("BTCUSDT", T)])
    empty = settings.path + "-empty"
    with plain(empty):
        pass
    with opened(empty) as storage:
        storage.append([row("BTCUSDT", T)])
        assert len(scan(storage)) == 1


# Keys outside the format

STRAYS = [
    b"A:B:12",
    b"BTCUSDT:0737158400",
    b"BTCUSDT:17371584000",
    b"BTCUSDT:99",
    b"BTCUSDT:meta",
    b"weird",
    b"\xff\xfe",
]


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_key_hides_no_row_and_is_told_once(
    settings: RocksSettings, caplog: pytest.LogCaptureFixture, marked: bool, stray: bytes
) -> None:
    if marked:
        with opened(settings.path):
            pass
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 50)
        fill(database, "ETHUSDT", T, 1)
        database[stray] = b"?"
    with open_reader(settings) as reader:
        for _ in range(2):
            assert scan(reader) == rows
            assert reader.latest("BTCUSDT") == rows[-1]
            assert scan(reader, "ETHUSDT") == [row("ETHUSDT", T)]
            assert scan(reader, "A") == []
            assert reader.symbols() == ["BTCUSDT", "ETHUSDT"]
    told = [entry.getMessage() for entry in caplog.records]
    assert len(told) == 1
    assert "passed over 1 key" in told[0]
    assert repr(stray) in told[0]


def test_strays_are_counted_and_only_where_they_are_met(
    settings: RocksSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 2000)
        for second in range(T, T + 700):
            database[b"BTCUSDT:%dx" % second] = b"?"
        for number in range(3):
            database[b"weird%d" % number] = b"?"
    with open_reader(settings) as reader:
        assert list(reader.scan("BTCUSDT", T + 1000, T + 1999)) == rows[1000:]
        assert caplog.text == ""
        assert scan(reader) == rows
        assert "passed over 700 key(s)" in caplog.text
        assert f"b'BTCUSDT:{T}x'" in caplog.text
        caplog.clear()
        assert reader.symbols() == ["BTCUSDT"]
        assert "passed over 3 key(s)" in caplog.text
        assert "b'weird0'" in caplog.text


def test_a_database_without_a_single_row_of_ours_is_refused_to_readers_too(
    settings: RocksSettings, tmp_path: Path
) -> None:
    with plain(settings.path) as database:
        for number in range(50):
            database[b"user%d" % number] = b"?"
    before = fingerprint(tmp_path)
    told = r"50 keys such as b'user0'.*another program's"
    with pytest.raises(StoreFormatError, match=told), open_reader(settings):
        pass
    for adopt in (False, True):
        with pytest.raises(StoreFormatError, match=told):
            RocksStorage.open(RocksSettings(path=settings.path, adopt=adopt))
    assert fingerprint(tmp_path) == before


# All but the one among the rows, where an opening does not look.
@pytest.mark.parametrize("stray", [stray for stray in STRAYS if stray[:10] != b"BTCUSDT:17"])
def test_a_store_with_a_stray_key_is_not_adopted(
    settings: RocksSettings, tmp_path: Path, stray: bytes
) -> None:
    """Retention would delete among the keys of a program that uses them still."""
    with plain(settings.path) as database:
        fill(database, "BTCUSDT", T, 50)
        database[stray] = b"?"
    before = fingerprint(tmp_path)
    for adopt in (False, True):
        with pytest.raises(StoreFormatError, match=r"symbol:seconds.*can be read"):
            RocksStorage.open(RocksSettings(path=settings.path, adopt=adopt))
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_key_in_a_store_of_ours_stops_no_recording(
    settings: RocksSettings, caplog: pytest.LogCaptureFixture, stray: bytes
) -> None:
    with opened(settings.path) as storage:
        storage.append([row("BTCUSDT", T + i) for i in range(10)])
    with plain(settings.path) as database:
        database[stray] = b"?"
    with opened(settings.path) as storage:
        assert storage.append([row("BTCUSDT", T + 5)]) == [row("BTCUSDT", T + 5)]
        assert storage.append([row("BTCUSDT", T + 10)]) == []
        assert scan(storage) == [row("BTCUSDT", T + i) for i in range(11)]
        assert storage.symbols() == ["BTCUSDT"]
    assert repr(stray) in caplog.text
    with plain(settings.path) as database:
        assert database[stray] == b"?"


@pytest.mark.parametrize("strays", [*([stray] for stray in STRAYS), STRAYS], ids=str)
def test_a_repair_leaves_stray_keys_out(
    settings: RocksSettings, tmp_path: Path, strays: list[bytes]
) -> None:
    with plain(settings.path) as database:
        rows = fill(database, "BTCUSDT", T, 20)
        others = fill(database, "weird0", T, 20)  # lies after the key "weird", before "weird:"
        for key in strays:
            database[key] = rows[0].value
    saved = str(tmp_path / "saved")
    repaired = RocksMaintenance(settings).repair(saved, lambda *_: None)
    assert (repaired.rows, repaired.foreign, repaired.holes) == (40, len(strays), 0)
    with opened(saved) as storage:
        assert storage.symbols() == ["BTCUSDT", "weird0"]
        assert scan(storage) == rows
        assert scan(storage, "weird0") == others
