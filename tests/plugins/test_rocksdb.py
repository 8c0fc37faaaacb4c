"""The storage ``rocksdb``: its bytes, what it opens and refuses, its traps, its readers."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import rocksdict

import obframe
import obframe_plugins
from obframe import (
    MAX_TIMESTAMP,
    Gap,
    GapReason,
    Record,
    Snapshot,
    Storage,
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreLocked,
    StoreUnavailable,
    SymbolError,
)
from obframe_plugins import _rocks
from obframe_plugins._layout import Layout
from obframe_plugins._salvage import salvage
from obframe_plugins.rocksdb import (
    RocksSettings,
    RocksStorage,
    obframe_storages,
    open_reader,
    open_storage,
)

T = 1_737_158_400
ALWAYS = (0, 10**10)
GOLDEN = bytes.fromhex(
    "94 91 92 a6 31 30 30 2e 35 30 a3 31 2e 35 91 92 a6 31 30 30 2e 36 30 a3 32 2e 30"
    "cd 30 39 ce 67 8a ef 00"
)


@pytest.fixture
def settings(tmp_path: Path) -> RocksSettings:
    return RocksSettings(path=str(tmp_path / "rows"))


@contextlib.contextmanager
def opened(settings: RocksSettings) -> Iterator[RocksStorage]:
    storage = RocksStorage.open(settings)
    try:
        yield storage
    finally:
        storage.close()


def records(symbol: str, start: int, count: int, size: int = 200) -> list[Record]:
    """Rows whose bytes do not compress, so that they fill blocks and files."""
    return [
        Record(symbol, second, hashlib.shake_128(b"%d" % second).digest(size))
        for second in range(start, start + count)
    ]


def plain(path: str | Path) -> rocksdict.Rdict:
    """Open as any program with rocksdict would, with default options but raw."""
    return rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))


def fingerprint(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its change time and content."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# The bytes


def test_golden_row_is_there_for_plain_calls(settings: RocksSettings) -> None:
    """Key and value are those of the format, and a default raw open finds all rows."""
    snapshot = Snapshot("BTCUSDT", 12345, T, [("100.50", "1.5")], [("100.60", "2.0")])
    with opened(settings) as storage:
        storage.append([Record("BTCUSDT", T, snapshot.pack())])
        storage.append(records("BTCUSDT", T + 1, 500))
        storage.flush()
        storage.append(records("ETHUSDT", T, 500))
    database = plain(settings.path)
    assert database[b"BTCUSDT:1737158400"] == GOLDEN
    assert len(list(database.items())) == 1001
    database.close()
    assert rocksdict.Rdict.list_cf(settings.path) == ["default"]


def test_a_database_of_another_program_is_adopted(settings: RocksSettings) -> None:
    """A directory written by plain calls, without a marker or the library's note, reads back."""
    database = plain(settings.path)
    expected = []
    for symbol in ("BTCUSD", "BTCUSDT", "BTCUSDT_260327"):
        for second in range(1_799_999_900, 1_800_000_100):
            database[f"{symbol}:{second}".encode()] = GOLDEN + bytes([second % 250])
            expected.append(Record(symbol, second, GOLDEN + bytes([second % 250])))
        database.flush()
    database.close()
    Path(settings.path, "rocksdict-config.json").unlink()
    with opened(dataclasses.replace(settings, adopt=True)) as storage:
        assert storage.symbols() == ["BTCUSD", "BTCUSDT", "BTCUSDT_260327"]
        for symbol in storage.symbols():
            mine = [record for record in expected if record.symbol == symbol]
            assert list(storage.scan(symbol, *ALWAYS)) == mine
        assert list(storage.append(expected[:2])) == expected[:2]
        assert list(storage.append([Record("BTCUSD", 1_800_000_100, b"x")])) == []
    database = plain(settings.path)
    assert len(list(database.keys())) == 601
    database.close()


def test_files_are_readable_by_old_tools(settings: RocksSettings) -> None:
    """Table format 5, zstd, 16 KiB blocks, the prefix of ten and its filter stand in the file."""
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 10))
    with opened(settings):
        pass  # a reopening must not drop any of them
    options = max(Path(settings.path).glob("OPTIONS-*")).read_text()
    for line in (
        "format_version=5",
        "block_size=16384",
        "compression=kZSTD",
        "prefix_extractor=rocksdb.FixedPrefix.10",
        "filter_policy=bloomfilter",
        "write_buffer_size=8388608",
        "wal_recovery_mode=kTolerateCorruptedTailRecords",
    ):
        assert line in options, line
    assert options.count("[CFOptions") == 1


# Traps of the library


def test_only_the_wrapper_imports_the_library() -> None:
    for package in (obframe, obframe_plugins):
        assert package.__file__ is not None
        for file in Path(package.__file__).parent.rglob("*.py"):
            names = {
                name.split(".")[0]
                for node in ast.walk(ast.parse(file.read_text()))
                for name in _imported(node)
            }
            assert "pickle" not in names
            assert ("rocksdict" in names) == (file.name == "_rocks.py"), file


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def test_scan_over_the_line_of_2027_in_files(settings: RocksSettings) -> None:
    """Rows at rest in files, over 1,800,000,000, after a reopening and after a compaction."""
    rows = records("BTCUSDT", 1_799_999_000, 2001)
    with opened(settings) as storage:
        storage.append(rows[::2])
        storage.flush()
        storage.append(rows[1::2])
        storage.flush()
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows
    with opened(settings) as storage:
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows
        storage.read(lambda database: database.compact())
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows
        assert storage.latest("BTCUSDT") == rows[-1]
        assert storage.latest("BTCUSD") is None
        assert storage.latest("BTCUSDT_26") is None


def test_many_scans_at_once_keep_their_own_bounds(settings: RocksSettings) -> None:
    """The library keeps a pointer to the bound; none may be freed while its scan lives."""
    rows = records("BTCUSDT", T, 3000)
    with opened(settings) as storage:
        storage.append(rows)
        storage.flush()
        scans = [storage.scan("BTCUSDT", T, T + 10 * n) for n in range(200)]
        litter = [os.urandom(18) for _ in range(10_000)]
        for n, scan in enumerate(scans):
            assert list(scan) == rows[: 10 * n + 1]
        del litter


def test_a_kept_error_keeps_nothing_locked(settings: RocksSettings) -> None:
    """An exception that somebody stores, with its frames, must not hold the lock file."""
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 3000))
        storage.flush()
    _damage(_only(settings.path, "*.sst"), 0.5)
    storage = RocksStorage.open(settings)
    with pytest.raises(StoreCorrupt) as kept:
        list(storage.scan("BTCUSDT", *ALWAYS))
    storage.close()
    again = RocksStorage.open(settings)
    again.close()
    assert kept.value is not None


class _Stalls:
    """Lets the next writes fail as a stall does: the library uses the batch up all the same."""

    def __init__(self, folder: Path, times: int) -> None:
        self.real = plain(folder / "real")
        self.scratch = plain(folder / "scratch")
        self.times = times
        self.options: list[rocksdict.WriteOptions] = []

    def write(self, batch: rocksdict.WriteBatch, options: rocksdict.WriteOptions) -> None:
        self.options.append(options)
        if self.times:
            self.times -= 1
            self.scratch.write(batch)
            raise Exception("Operation incomplete: Write stall")
        self.real.write(batch, options)

    def close(self) -> None:
        self.real.close()
        self.scratch.close()


def test_row_51_a_stall_is_waited_for_without_the_interpreter_lock(tmp_path: Path) -> None:
    """Row 51: writes and deletions wait for the end of a stall, the process is never frozen."""
    handle = _Stalls(tmp_path, 3)
    database = _rocks.RowDatabase(handle, "rows")  # type: ignore[arg-type]
    keys = [b"BTCUSDT:1737158400", b"BTCUSDT:1737158401"]
    database.write([(key, b"row") for key in keys], sync=False)
    assert [handle.real.get(key) for key in keys] == [b"row", b"row"]
    handle.times = 2
    database.delete_range(keys[0], keys[1])
    assert [handle.real.get(key) for key in keys] == [None, b"row"]
    assert len(handle.options) == 4 + 3
    assert all(options.no_slowdown for options in handle.options)
    database.close()


def test_row_51_a_stall_that_does_not_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 51: after the limit the batch counts as not acknowledged, to be tried again."""
    monkeypatch.setattr(_rocks, "_STALL_LIMIT", 0.05)
    database = _rocks.RowDatabase(_Stalls(tmp_path, 10**6), "rows")  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match="stall"):
        database.write([(b"BTCUSDT:1737158400", b"row")], sync=False)
    with pytest.raises(StoreUnavailable, match="stall"):
        database.delete_range(b"A", b"B")
    database.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("IO error: While lock file: /a/LOCK: Resource temporarily unavailable", StoreLocked),
        ("IO error: lock hold by current process, acquire time 1", StoreLocked),
        ("IO error: No space left on device: While appending to file: /a/4.log", StoreUnavailable),
        ("IO error: While fdatasync: /a/4.log: Input/output error", StoreUnavailable),
        ("Corruption: block checksum mismatch: stored = 1, computed = 2", StoreCorrupt),
        ("IO error: No such file or directory: While open a file: /a/9.sst", StoreCorrupt),
        ("Invalid argument: Column families not opened: gaps", StoreFormatError),
        ("Invalid argument: a: does not match existing comparator b", StoreFormatError),
        ("IO error: Permission denied: /a/LOCK", StorageError),
        ("something new", StorageError),
    ],
)
def test_the_librarys_texts_become_errors_of_ours(text: str, kind: type[StorageError]) -> None:
    error = _rocks.storage_error(Exception(text), "/data/rows")
    assert type(error) is kind
    assert "/data/rows" in str(error)
    assert error.path == "/data/rows"


# What lies at the path


def test_row_47_missing_current_or_manifest_is_refused_and_untouched(
    settings: RocksSettings, tmp_path: Path
) -> None:
    """Row 47: opening would make an empty database and delete the files that are left."""
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 100))
        storage.flush()
        storage.append(records("BTCUSDT", T + 100, 100))
    rows = Path(settings.path)
    whole = tmp_path / "whole"
    shutil.copytree(rows, whole)
    manifest = (rows / "CURRENT").read_text().strip()
    for damage in (
        (rows / "CURRENT").unlink,
        lambda: (rows / "CURRENT").write_bytes(b""),
        lambda: (rows / "CURRENT").write_bytes(b"\0" * 16),
        (rows / manifest).unlink,
        lambda: (rows / manifest).write_bytes(b""),
    ):
        damage()
        before = fingerprint(tmp_path)
        for attempt in (RocksStorage.open, lambda s: open_reader(s).__enter__()):
            with pytest.raises(StoreCorrupt, match="`obframe repair "):
                attempt(settings)
        assert fingerprint(tmp_path) == before
        shutil.rmtree(rows)
        shutil.copytree(whole, rows)
    with opened(settings) as storage:
        assert len(list(storage.scan("BTCUSDT", *ALWAYS))) == 200


def test_row_47_rows_that_vanished_are_not_taken_for_a_new_database(
    settings: RocksSettings, tmp_path: Path
) -> None:
    """An unmounted disk must not end in an empty database under its mount point."""
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 5))
    Path(settings.path).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreCorrupt, match="the rows are gone"):
        RocksStorage.open(settings)
    Path(settings.path).mkdir()
    with pytest.raises(StoreCorrupt, match="is a disk not mounted"):
        RocksStorage.open(settings)
    assert list(Path(settings.path).iterdir()) == []


def test_a_creation_that_was_killed_can_begin_again(settings: RocksSettings) -> None:
    """Before the first row there is nothing to lose."""
    rows = Path(settings.path)
    rows.mkdir()
    for name in ("LOCK", "LOG", "IDENTITY", "MANIFEST-000001", "000001.dbtmp"):
        (rows / name).write_bytes(b"")
    with pytest.raises(StorageError, match="no database there"):
        open_reader(settings).__enter__()
    with opened(settings) as storage:
        assert list(storage.append(records("BTCUSDT", T, 1))) == []


def test_row_49_a_pickling_database_is_refused_and_nothing_runs(
    settings: RocksSettings, tmp_path: Path
) -> None:
    """Row 49: the library's default mode unpickles on reading, which runs what was planted."""
    database = rocksdict.Rdict(settings.path)
    database["BTCUSDT:1737158400"] = {"a": 1}
    database[b"x"] = _Bomb(str(tmp_path / "went-off"))
    database.close()
    _refused_untouched(settings, tmp_path, "pickled")
    Path(settings.path, "rocksdict-config.json").unlink()
    _refused_untouched(settings, tmp_path, "comparator")
    assert not (tmp_path / "went-off").exists()


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def _refused_untouched(
    settings: RocksSettings, tmp_path: Path, match: str, *, readable: bool = False
) -> None:
    before = fingerprint(tmp_path)
    with pytest.raises(StoreFormatError, match=match):
        RocksStorage.open(settings)
    with (
        contextlib.nullcontext() if readable else pytest.raises(StorageError),
        open_reader(settings),
    ):
        pass
    assert fingerprint(tmp_path) == before
    assert not Path(settings.path + ".obframe").exists()


@pytest.mark.parametrize(
    "keys",
    [
        [b"hello"],
        [b"BTCUSDT:1737158400", b"BTCUSDT:x737158400"],
        [b"BTCUSDT:173715840"],
        [b"BTCUSDT:1737158400", b"BTCUSDT:1737158401", b"meta"],
        [b"\xff\xfe:1737158400"],
        [b"A B:1737158400"],
        [b":1737158400"],
        [b"BTCUSDT:17371584000"],
    ],
)
def test_row_49_a_database_with_other_keys_is_refused(
    settings: RocksSettings, tmp_path: Path, keys: list[bytes]
) -> None:
    database = plain(settings.path)
    for key in keys:
        database[key] = GOLDEN
    database.close()
    readable = b"BTCUSDT:1737158400" in keys
    _refused_untouched(settings, tmp_path, "symbol:seconds", readable=readable)


def test_row_49_a_database_with_more_column_families_is_refused(
    settings: RocksSettings, tmp_path: Path
) -> None:
    database = plain(settings.path)
    database.create_column_family("trades", rocksdict.Options(raw_mode=True)).close()
    database.close()
    _refused_untouched(settings, tmp_path, "column families default, trades")


def test_row_49_something_else_at_the_path_is_refused(
    settings: RocksSettings, tmp_path: Path
) -> None:
    rows = Path(settings.path)
    rows.write_text("notes")
    _refused_untouched(settings, tmp_path, "is a file")
    rows.unlink()
    rows.mkdir()
    (rows / "holiday.jpg").write_bytes(b"x")
    _refused_untouched(settings, tmp_path, r"holiday\.jpg")


def test_row_49_a_newer_format_is_refused(settings: RocksSettings, tmp_path: Path) -> None:
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 5))
    ledger = Path(settings.path + ".obframe", "ledger.sqlite")
    connection = sqlite3.connect(ledger)
    assert connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == ("1",)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = fingerprint(tmp_path)
    for attempt in (RocksStorage.open, lambda s: open_reader(s).__enter__()):
        with pytest.raises(StoreFormatError, match=r"format 2.*install a newer obframe"):
            attempt(settings)
    assert fingerprint(tmp_path) == before


def test_a_foreign_or_damaged_ledger_is_refused(settings: RocksSettings) -> None:
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 5))
    ledger = Path(settings.path + ".obframe", "ledger.sqlite")
    good = ledger.read_bytes()
    foreign = bytearray(good)
    foreign[68:72] = struct.pack(">I", 77)
    for bad in (b"not a database" * 20, bytes(foreign), good[:50]):
        ledger.write_bytes(bad)
        with pytest.raises(StoreCorrupt, match="move it away: the rows stay whole"):
            RocksStorage.open(settings)
    ledger.unlink()
    with opened(dataclasses.replace(settings, adopt=True)) as storage:
        assert len(list(storage.scan("BTCUSDT", *ALWAYS))) == 5


def test_a_wrong_open_by_another_program_harms_nothing(settings: RocksSettings) -> None:
    """An open with the library's own default options flips its note to pickling."""
    rows = records("BTCUSDT", T, 50)
    with opened(settings) as storage:
        storage.append(rows)
    rocksdict.Rdict(settings.path, rocksdict.Options()).close()
    note = Path(settings.path, "rocksdict-config.json")
    assert json.loads(note.read_text())["raw_mode"] is False
    with open_reader(settings) as reader:
        assert list(reader.scan("BTCUSDT", *ALWAYS)) == rows
    note.write_text('{"raw_mode":false}')
    with opened(settings) as storage:
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows
    note.write_text("")  # cut off by a full disk
    with opened(settings) as storage:
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows


def test_a_pickling_program_that_wrote_into_our_database_is_found(settings: RocksSettings) -> None:
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 50))
    database = rocksdict.Rdict(settings.path, rocksdict.Options())
    database["BTCUSDT:1737158400"] = "pickled"
    database.close()
    with pytest.raises(StoreFormatError, match="symbol:seconds"):
        RocksStorage.open(settings)


def test_a_missing_parent_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist; create it"):
        RocksStorage.open(RocksSettings(path=str(tmp_path / "mnt" / "disk" / "rows")))
    assert list(tmp_path.iterdir()) == []


# Locks


def test_row_48_locked_says_how_to_read_all_the_same(settings: RocksSettings) -> None:
    """Row 48: by this process and by another, and the one who holds it keeps it."""
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 5))
        for attempt in (_open_here, _open_elsewhere):
            message = attempt(settings)
            assert settings.path in message
            assert "`obframe query` works while a recorder runs" in message
        assert list(storage.append(records("BTCUSDT", T + 5, 5))) == []
    with opened(settings) as storage:
        assert len(list(storage.scan("BTCUSDT", *ALWAYS))) == 10


def _open_here(settings: RocksSettings) -> str:
    with pytest.raises(StoreLocked) as caught:
        RocksStorage.open(settings)
    return str(caught.value)


def _open_elsewhere(settings: RocksSettings) -> str:
    code = (
        "import sys\n"
        "from obframe import StoreLocked\n"
        "from obframe_plugins.rocksdb import RocksSettings, RocksStorage\n"
        "try: RocksStorage.open(RocksSettings(path=sys.argv[1]))\n"
        "except StoreLocked as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, settings.path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("adopted", [False, True])
def test_row_48_locked_by_a_program_that_is_not_obframe(
    settings: RocksSettings, tmp_path: Path, adopted: bool
) -> None:
    if adopted:
        with opened(settings) as storage:
            storage.append(records("BTCUSDT", T, 5))
    code = (
        "import sys, rocksdict\n"
        "db = rocksdict.Rdict(sys.argv[1], rocksdict.Options(raw_mode=True))\n"
        "db[b'BTCUSDT:1737158500'] = b'x'\n"
        "print('open', flush=True); sys.stdin.read(); db.close()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, settings.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        before = fingerprint(tmp_path)
        with pytest.raises(StoreLocked):
            RocksStorage.open(settings)
        assert fingerprint(tmp_path) == before
        other.stdin.close()
        assert other.wait() == 0
    with opened(dataclasses.replace(settings, adopt=True)) as storage:
        assert storage.latest("BTCUSDT") == Record("BTCUSDT", T + 100, b"x")


# Damage


def _only(path: str | Path, pattern: str) -> Path:
    (file,) = [file for file in Path(path).glob(pattern) if file.stat().st_size]
    return file


def _damage(file: Path, where: float) -> None:
    with file.open("r+b") as stream:
        stream.seek(int(file.stat().st_size * where))
        old = stream.read(32)
        stream.seek(-len(old), os.SEEK_CUR)
        stream.write(bytes(byte ^ 0xFF for byte in old))


def _crashed(settings: RocksSettings, target: Path) -> RocksSettings:
    """Copy a store as a crash at this moment would leave it."""
    shutil.copytree(settings.path, target)
    shutil.copytree(settings.path + ".obframe", target.with_name(target.name + ".obframe"))
    return RocksSettings(path=str(target))


def test_row_44_a_torn_tail_opens_and_is_reported(
    settings: RocksSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 44: the torn record is dropped, the rest kept, and what was acknowledged is told."""
    rows = records("BTCUSDT", T, 300)
    with opened(settings) as storage:
        for record in rows:
            storage.append([record])
        torn = _crashed(settings, tmp_path / "torn")
        clean = _crashed(settings, tmp_path / "clean")
    log = _only(torn.path, "*.log")
    os.truncate(log, log.stat().st_size - 100)
    with caplog.at_level(logging.WARNING, "obframe.rocksdb"):
        with opened(clean) as storage:
            assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows
        assert caplog.messages == []
        with opened(torn) as storage:
            assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows[:-1]
        (message,) = caplog.messages
        assert f"newest row is of {T + 298}, yet rows up to {T + 299} (1 s more)" in message
        caplog.clear()
        with opened(torn):
            pass
        assert caplog.messages == []


def test_retention_is_not_reported_as_loss(
    settings: RocksSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(settings) as storage:
        storage.append([*records("BTCUSDT", T, 5), *records("ETHUSDT", T + 50, 5)])
        storage.delete_before("ETHUSDT", T + 1000)
    with caplog.at_level(logging.WARNING, "obframe.rocksdb"), opened(settings) as storage:
        assert storage.symbols() == ["BTCUSDT"]
    assert caplog.messages == []


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8])
def test_row_45_damage_in_the_middle_of_the_log_is_refused(
    settings: RocksSettings, tmp_path: Path, where: float
) -> None:
    """Row 45: refused with the command that saves the rest, which it does."""
    rows = records("BTCUSDT", T, 1000)
    with opened(settings) as storage:
        for start in range(0, 1000, 10):
            storage.append(rows[start : start + 10])
        storage.append_gaps([Gap("BTCUSDT", T + 5000, T + 5001, GapReason.DISK)])
        broken = _crashed(settings, tmp_path / "broken")
    _damage(_only(broken.path, "*.log"), where)
    before = {file.name: file.read_bytes() for file in Path(broken.path).glob("0*")}
    with pytest.raises(StoreCorrupt) as caught:
        RocksStorage.open(broken)
    command = f"obframe repair {broken.path}-saved --set rocksdb.path={broken.path}"
    assert f"`{command}`" in str(caught.value)
    assert {file.name: file.read_bytes() for file in Path(broken.path).glob("0*")} == before
    answer = subprocess.run(
        [sys.executable, "-m", *command.split()], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    with opened(RocksSettings(path=broken.path + "-saved")) as storage:
        saved = list(storage.scan("BTCUSDT", *ALWAYS))
        assert set(saved) < set(rows)
        assert len(saved) > 1000 * where - 100
        assert f"{len(saved):,} rows saved" in answer.stderr
        gap = Gap("BTCUSDT", T + 5000, T + 5001, GapReason.DISK)
        assert gap in storage.gaps("BTCUSDT", *ALWAYS)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_row_46_a_damaged_block_is_an_error_never_a_short_answer(
    settings: RocksSettings, where: float
) -> None:
    """Row 46: rows before the damage come, then the error; never an end."""
    rows = records("BTCUSDT", T, 4000)
    with opened(settings) as storage:
        storage.append(rows)
        storage.flush()
    file = _only(settings.path, "*.sst")
    _damage(file, where * 0.95)
    with opened(settings) as storage:
        seen: list[Record] = []
        with pytest.raises(StoreCorrupt, match=file.name):
            seen.extend(storage.scan("BTCUSDT", *ALWAYS))
        assert seen == rows[: len(seen)]
        assert 0 < len(seen) < 4000
        bad = T + len(seen)
        with pytest.raises(StoreCorrupt):
            storage.append([Record("BTCUSDT", bad, b"x")])  # may be stored: nobody can tell
        # What lies elsewhere can be read and written all the same.
        assert list(storage.append([Record("BTCUSDT", T + 5000, b"x")])) == []
        assert len(list(storage.scan("BTCUSDT", bad + 200, MAX_TIMESTAMP))) == 3801 - len(seen)


def test_row_46_a_file_that_is_gone_is_an_error(settings: RocksSettings) -> None:
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 100))
        storage.flush()
        storage.append(records("BTCUSDT", T + 100, 100))
        storage.flush()
    min(Path(settings.path).glob("*.sst")).unlink()
    with pytest.raises(StoreCorrupt, match=r"\.sst"):
        RocksStorage.open(settings)


def test_salvage_steps_over_a_bad_block(settings: RocksSettings, tmp_path: Path) -> None:
    """All but the rows of the bad block are saved, also those of symbols after it."""
    rows = {symbol: records(symbol, T, 3000) for symbol in ("BTC", "BTCUSDT", "ETHUSDT")}
    with opened(settings) as storage:
        for some in rows.values():
            storage.append(some)
        storage.flush()
    _damage(_only(settings.path, "*.sst"), 0.30)
    _damage(_only(settings.path, "*.sst"), 0.60)
    before = fingerprint(tmp_path / "rows")
    result = salvage(Layout(settings.path), Layout(str(tmp_path / "saved")))
    assert fingerprint(tmp_path / "rows") == before
    assert result.holes == 2
    assert result.foreign == 0
    assert 9000 - 2 * 90 <= result.rows < 9000
    with opened(RocksSettings(path=str(tmp_path / "saved"))) as storage:
        saved = [row for symbol in rows for row in storage.scan(symbol, *ALWAYS)]
        told = [storage.gaps(symbol, *ALWAYS) for symbol in rows]
    assert len(saved) == result.rows
    assert set(saved) <= {row for some in rows.values() for row in some}
    missing = {row[:2] for some in rows.values() for row in some} - {row[:2] for row in saved}
    assert [gap for gaps in told for gap in gaps] == list(result.lost)
    assert {gap.reason for gap in result.lost} == {GapReason.DAMAGED}
    assert {
        (gap.symbol, second) for gap in result.lost for second in range(gap.start, gap.end + 1)
    } == missing
    for source, target in ((settings.path, "saved"), (str(tmp_path / "none"), "x")):
        with pytest.raises(StorageError):
            salvage(Layout(source), Layout(str(tmp_path / target)))


@pytest.mark.parametrize("place", [0.001, 0.335, 0.5])
@pytest.mark.parametrize("step", [1, 2000])
def test_salvage_saves_every_row_that_can_be_read(
    settings: RocksSettings, tmp_path: Path, place: float, step: int
) -> None:
    """Also the rows right behind a bad block, the first block of all, and rows days apart."""
    starts = {"BTC": T + 500_000, "BTCUSDT": T, "ETHUSDT": T + 200_000}
    rows = [
        row._replace(timestamp=start + step * (row.timestamp - start))
        for symbol, start in starts.items()
        for row in records(symbol, start, 1000)
    ]
    with opened(settings) as storage:
        storage.append(rows)
        storage.flush()
    _damage(_only(settings.path, "*.sst"), place)
    readable = set()
    with _rocks.RowDatabase.open_view(settings.path) as database:
        for row in rows:
            with contextlib.suppress(StoreCorrupt):
                key = f"{row.symbol}:{row.timestamp}".encode()
                assert database.get_many([key]) == [row.value]
                readable.add(row)
    assert 0 < len(rows) - len(readable) < 100
    result = salvage(Layout(settings.path), Layout(str(tmp_path / "saved")))
    with opened(RocksSettings(path=str(tmp_path / "saved"))) as storage:
        saved = {row for symbol in starts for row in storage.scan(symbol, *ALWAYS)}
    assert saved == readable
    assert (result.rows, result.holes) == (len(readable), 1)


def test_salvage_rebuilds_a_lost_list_of_files(settings: RocksSettings, tmp_path: Path) -> None:
    rows = records("BTCUSDT", T, 2000)
    with opened(settings) as storage:
        storage.append(rows[:1500])
        storage.flush()
        for record in rows[1500:]:
            storage.append([record])
        broken = _crashed(settings, tmp_path / "broken")
    for name in [*Path(broken.path).glob("MANIFEST-*"), Path(broken.path, "CURRENT")]:
        name.unlink()
    before = fingerprint(Path(broken.path))
    assert salvage(Layout(broken.path), Layout(str(tmp_path / "saved"))).rows == 2000
    assert fingerprint(Path(broken.path)) == before


# Deleting


def test_row_52_a_scan_during_retention_sees_one_state(settings: RocksSettings) -> None:
    """Row 52: rows deleted, flushed and compacted away under a scan still come."""
    rows = records("BTCUSDT", T, 5000)
    with opened(settings) as storage:
        storage.append(rows)
        storage.flush()
        scan = storage.scan("BTCUSDT", *ALWAYS)
        seen = [next(scan) for _ in range(10)]
        storage.delete_before("BTCUSDT", T + 4000)
        storage.flush()
        storage.read(lambda database: database.compact())
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows[4000:]
        seen.extend(scan)
        assert seen == rows


def test_rows_that_are_in_no_file_yet_are_reckoned_each(settings: RocksSettings) -> None:
    with opened(settings) as storage:
        storage.append([Record("BTC", T + n, os.urandom(200)) for n in range(100)])
        assert 10_000 < storage.usage().by_symbol["BTC"] < 50_000


def test_space_that_could_not_be_given_back_is_given_back_the_next_time(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(RocksSettings(path=settings.path, durability="process")) as storage:
        for start in range(T, T + 20_000, 5000):
            storage.append([Record("BTC", start + n, os.urandom(200)) for n in range(5000)])
        storage.flush()
        whole = storage.usage().bytes
        storage.delete_before("BTC", T + 19_990)

        def fail(*_arguments: object) -> None:
            raise StoreUnavailable("rows: No space left on device")

        with monkeypatch.context() as context:
            context.setattr(_rocks.RowDatabase, "compact_range", fail)
            with pytest.raises(StoreUnavailable):
                storage.reclaim()
        storage.reclaim()
        assert storage.usage().bytes < whole / 2


def test_retention_costs_one_write_whatever_it_deletes(settings: RocksSettings) -> None:
    """Deleting 100,000 rows is far below the time of deleting them one by one."""
    count = 100_000
    with opened(RocksSettings(path=settings.path, durability="process")) as storage:
        value = os.urandom(40)
        for start in range(T, T + count, 5000):
            storage.append([Record("BTCUSDT", start + n, value) for n in range(5000)])
        storage.flush()
        started = time.perf_counter()
        storage.delete_before("BTCUSDT", T + count - 10)
        whole = time.perf_counter() - started
        started = time.perf_counter()
        assert len(list(storage.scan("BTCUSDT", *ALWAYS))) == 10
        seek = time.perf_counter() - started
    database = plain(settings.path + "-single")
    started = time.perf_counter()
    for second in range(T, T + count):
        del database[b"BTCUSDT:%d" % second]
    single = time.perf_counter() - started
    database.close()
    assert whole < single / 20
    assert seek < 0.1


def test_deleting_nothing_writes_nothing(settings: RocksSettings) -> None:
    """Retention that runs every hour must not pile up deletions of what is gone already."""
    with opened(settings) as storage:
        storage.append(records("BTCUSDT", T, 10))
        storage.delete_before("BTCUSDT", T + 5)
        size = _only(settings.path, "*.log").stat().st_size
        for _ in range(10):
            storage.delete_before("BTCUSDT", T + 5)
            storage.delete_before("NONE", T + 5)
        assert _only(settings.path, "*.log").stat().st_size == size


# Clock and symbols


def test_row_36_a_clock_that_steps_back_overwrites_nothing(settings: RocksSettings) -> None:
    """Row 36: seconds told a second time are refused, at rest, in memory and after a restart."""
    rows = records("BTCUSDT", T, 60)
    again = [record._replace(value=b"later") for record in rows]
    with opened(settings) as storage:
        for record in rows[:30]:
            storage.append([record])
        storage.flush()
        for record in rows[30:]:
            storage.append([record])
        assert [record for late in again for record in storage.append([late])] == again
    with opened(settings) as storage:
        assert list(storage.append(again)) == again
        assert list(storage.scan("BTCUSDT", *ALWAYS)) == rows


def test_row_58_a_symbol_is_never_part_of_a_path(settings: RocksSettings, tmp_path: Path) -> None:
    """Row 58: what a key cannot hold is refused; what it can touches no other file."""
    with opened(settings) as storage:
        for symbol in ("A:B", "../../x", "A\0B", "A\nB", ".."):
            with pytest.raises(SymbolError):
                storage.append([Record(symbol, T, b"x")])
            with pytest.raises(SymbolError):
                storage.append_gaps([Gap(symbol, T, T, GapReason.DISK)])
            for read in (storage.latest, lambda s: storage.scan(s, *ALWAYS)):
                with pytest.raises(SymbolError):
                    read(symbol)
            with pytest.raises(SymbolError):
                storage.delete_before(symbol, T)
        before = {file for file in tmp_path.rglob("*") if file.suffix != ".sst"}
        storage.append([Record("a/b", T, b"x"), Record("币安人生USDT", T, b"y")])
        storage.append_gaps([Gap("c/d';--", T, T, GapReason.DISK, "x")])
        assert {file for file in tmp_path.rglob("*") if file.suffix != ".sst"} == before
        assert storage.symbols() == ["a/b", "c/d';--", "币安人生USDT"]


# Life


async def test_the_provider_opens_and_closes(settings: RocksSettings) -> None:
    (provider,) = obframe_storages()
    assert provider.name == "rocksdb"
    assert provider.settings is RocksSettings
    assert provider.open_reader is not None
    async with provider.open(settings) as storage:
        assert isinstance(storage, Storage)
        storage.append(records("BTCUSDT", T, 5))
        with provider.open_reader(settings) as reader:
            assert isinstance(reader, Storage)
            assert len(list(reader.scan("BTCUSDT", *ALWAYS))) == 5
    with opened(settings) as again:
        assert len(list(again.scan("BTCUSDT", *ALWAYS))) == 5


async def test_a_cancelled_opening_leaves_nothing_locked(settings: RocksSettings) -> None:
    async def use() -> None:
        async with open_storage(settings):
            pass

    for _ in range(3):
        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with opened(settings):
            pass


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", ""),
        ("path", "a\0b"),
        ("path", "."),
        ("path", "/"),
        ("path", "rows/.."),
        ("durability", "full"),
        ("compression_level", 0),
    ],
)
def test_settings_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must"):
        RocksSettings(**{field: value})  # type: ignore[arg-type]


def test_close_waits_for_calls_in_other_threads(settings: RocksSettings) -> None:
    """Closing while others read and write ends their calls with ``StorageError``, no crash."""
    storage = RocksStorage.open(settings)
    storage.append(records("BTCUSDT", T, 3000))
    storage.flush()
    faults: list[BaseException] = []
    turns = threading.Semaphore(0)

    def work(n: int) -> None:
        second = T + 10_000 * (n + 1)
        try:
            while True:
                second += 1
                storage.append([Record(f"S{n}", second, b"x")])
                list(storage.scan("BTCUSDT", *ALWAYS))
                storage.latest("BTCUSDT")
                storage.symbols()
                turns.release()
        except StorageError:
            pass
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert turns.acquire(timeout=30)
    storage.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert faults == []
    RocksStorage.open(settings).close()


def test_ctrl_c_in_any_call_leaves_a_database_that_closes(tmp_path: Path) -> None:
    """Raised at each point of a call, one after the other, at which Python runs signal handlers.

    These are where a function written in Python begins and where any call has returned, which is
    what a profiler is told of. It closes from another thread, which owns no lock of the call's.
    """
    for point in itertools.count():
        database = _rocks.RowDatabase.open_writer(str(tmp_path / str(point)), create=True)
        left = point

        def interrupt(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal left
            if event in ("call", "c_return"):
                left -= 1
                if left == -1:
                    raise KeyboardInterrupt

        caught: KeyboardInterrupt | None = None
        sys.setprofile(interrupt)
        try:
            database.get_many([b"BTCUSDT:1737158400"])
        except KeyboardInterrupt as error:
            caught = error  # its traceback keeps alive what was under way, as in a `finally`
        finally:
            sys.setprofile(None)
        closing = threading.Thread(target=database.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive(), f"interrupted at point {point}"
        if caught is None:
            break
    assert point > 5


@pytest.mark.parametrize("count", [1, 7, 8, 9, 511, 512, 520, 1500])
def test_batches_are_the_scan(settings: RocksSettings, count: int) -> None:
    """Dense and with holes, in memory and in files; all of them, whatever the batches' sizes."""
    rows = [row for row in records("BTCUSDT", T, count) if row.timestamp % 97 != 5]
    with opened(settings) as storage:
        storage.append([*rows, *records("BTCUSDT1", T, 9), *records("BTCUSD", T, 9)])
        for _ in range(2):
            found = list(storage.scan_batches("BTCUSDT", *ALWAYS))
            assert all(batch.timestamps for batch in found)
            assert (
                [
                    Record("BTCUSDT", second, value)
                    for batch in found
                    for second, value in zip(batch.timestamps, batch.values, strict=True)
                ]
                == rows
                == list(storage.scan("BTCUSDT", *ALWAYS))
            )
            storage.flush()
        assert list(storage.scan_batches("BTCUSDT", T + count, MAX_TIMESTAMP)) == []
        with pytest.raises(SymbolError):
            storage.scan_batches("BTC:USDT", *ALWAYS)


def test_batches_pass_over_keys_that_are_no_row_s(settings: RocksSettings) -> None:
    """Longer, shorter, and of the right length but no digits: none is taken for a row."""
    rows = records("AAA", T, 30)
    strays = [b"%d1", b"1%d", b"%d_", b"%d\0", b"%d:1"]
    keys = [b"AAA:" + stray % (T + n) for n in range(30) for stray in strays]
    keys += [b"AAA:17371584:0", b"AAA:17371584_1", b"AAA:173715840", b"AAA:17371584001"]
    with opened(settings) as storage:
        storage.append(rows)
    options = rocksdict.Options(raw_mode=True)
    with rocksdict.Rdict(settings.path, options) as database:
        for key in keys:
            database[key] = b"x"
    with opened(settings) as storage:
        found = list(storage.scan_batches("AAA", *ALWAYS))
    assert [second for batch in found for second in batch.timestamps] == [
        row.timestamp for row in rows
    ]
    assert [value for batch in found for value in batch.values] == [row.value for row in rows]


def test_row_46_a_window_over_a_damaged_block_names_file_and_range(
    settings: RocksSettings,
) -> None:
    rows = [
        Record("BTCUSDT", T + n, Snapshot("", n, T + n, [(f"{n}.5", f"{n}")] * 20, []).pack())
        for n in range(4000)
    ]
    with opened(settings) as storage:
        storage.append(rows)
        storage.flush()
    file = _only(settings.path, "*.sst")
    _damage(file, 0.5)
    with obframe.open(settings.path) as store:
        text = rf"{file.name}.*rows of BTCUSDT from (\d+) on, up to {T + 3999}, were not read"
        with pytest.raises(StoreCorrupt, match=text) as caught:
            store.window("BTCUSDT", T, T + 3999)
        unread = int(str(caught.value).rpartition(" from ")[2].split()[0])
        assert T < unread < T + 4000
        assert len(store.window("BTCUSDT", T, unread - 1)) == unread - T
        assert len(store.window("BTCUSDT", unread + 400, T + 3999)) == T + 3600 - unread
