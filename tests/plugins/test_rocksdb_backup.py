"""Backups of the storage ``rocksdb``: consistent, incremental, and held against checksums."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from obframe import (
    Gap,
    GapReason,
    Mark,
    MarkKind,
    Record,
    StorageError,
    StoreCorrupt,
    StoreFormatError,
)
from obframe_plugins._maintenance import RocksMaintenance
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

T = 1_737_158_400
ALWAYS = (0, 10**10)


def untold(_done: int, _of: int) -> None:
    """Show no progress."""


def records(start: int, count: int, symbols: tuple[str, ...] = ("BTC", "BTCUSDT")) -> list[Record]:
    rng = random.Random(start)
    return [
        Record(symbol, second, rng.randbytes(200))
        for second in range(start, start + count)
        for symbol in symbols
    ]


def rows_of(path: Path) -> list[Record]:
    storage = RocksStorage.open(RocksSettings(path=str(path)))
    try:
        return [row for symbol in storage.symbols() for row in storage.scan(symbol, *ALWAYS)]
    finally:
        storage.close()


@pytest.fixture
def store(tmp_path: Path) -> tuple[RocksSettings, RocksMaintenance, Path]:
    settings = RocksSettings(path=str(tmp_path / "rows"), durability="process")
    return settings, RocksMaintenance(settings), tmp_path / "backups"


def restored(tmp_path: Path, folder: Path, name: str | None = None) -> Path:
    target = tmp_path / f"restored-{name}"
    RocksMaintenance(RocksSettings(path=str(target))).restore(folder, name, untold)
    return target


Store = tuple[RocksSettings, RocksMaintenance, Path]


def test_a_backup_is_taken_beside_the_writer_and_the_next_copies_only_what_is_new(
    store: Store, tmp_path: Path
) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    first = records(T, 2000)
    storage.append(first)
    storage.flush()
    one = maintenance.backup(folder, untold)
    assert (one.symbols, one.newest) == (2, T + 1999)
    assert one.copied == one.bytes > 500_000
    second = records(T + 2000, 100)
    storage.append(second)  # in the log only
    two = maintenance.backup(folder, untold)
    assert two.copied < 250_000 < one.copied
    storage.delete_before("BTC", T + 1000)
    storage.flush()
    three = maintenance.backup(folder, untold)
    storage.close()
    listed = maintenance.backups(folder)
    assert [each.name for each in listed] == [one.name, two.name, three.name]
    assert rows_of(restored(tmp_path, folder, one.name)) == sorted(first)
    assert rows_of(restored(tmp_path, folder, two.name)) == sorted(first + second)
    kept = [row for row in first + second if row.symbol != "BTC" or row.timestamp >= T + 1000]
    assert rows_of(restored(tmp_path, folder)) == sorted(kept)


def test_gaps_and_marks_come_along_up_to_the_newest_row(store: Store, tmp_path: Path) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    storage.append(records(T, 10))
    storage.append_gaps([Gap("BTC", T - 9, T - 1, GapReason.SILENT)])
    storage.append_gaps([Gap("BTC", T + 8, T + 50, GapReason.DISK)])  # the rows came true
    storage.append_gaps([Gap("BTC", T + 60, T + 70, GapReason.DISK)])
    storage.append_marks([Mark("BTC", T, T, MarkKind.EPOCH)])
    maintenance.backup(folder, untold)
    storage.close()
    copy = RocksStorage.open(RocksSettings(path=str(restored(tmp_path, folder))))
    assert copy.gaps("BTC", *ALWAYS) == [
        Gap("BTC", T - 9, T - 1, GapReason.SILENT),
        Gap("BTC", T + 8, T + 9, GapReason.DISK),
    ]
    assert copy.marks("BTC", *ALWAYS) == [Mark("BTC", T, T, MarkKind.EPOCH)]
    assert list(copy.append(records(T + 10, 5))) == []
    copy.close()


def test_backups_taken_while_rows_are_written_flushed_and_compacted_are_each_whole(
    store: Store, tmp_path: Path
) -> None:
    """Each holds every row up to one second of all symbols, and none later."""
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    ended = threading.Event()
    faults: list[BaseException] = []

    def write() -> None:
        second = T
        try:
            while not ended.is_set():
                storage.append(records(second, 20))
                second += 20
                if second % 400 == 0:
                    storage.flush()
                if second % 2000 == 0:
                    storage.read(lambda database: database.compact())
        except BaseException as error:
            faults.append(error)

    storage.append(records(T - 20, 20))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken = [maintenance.backup(folder, untold) for _ in range(12)]
    finally:
        ended.set()
        writer.join()
        storage.close()
    assert faults == []
    assert taken[-1].newest > taken[0].newest
    for backup in taken:
        rows = rows_of(restored(tmp_path, folder, backup.name))
        count = backup.newest - (T - 20) + 1
        assert count % 20 == 0  # batches are whole
        batches = range(T - 20, T - 20 + count, 20)
        assert rows == sorted(row for start in batches for row in records(start, 20))


def test_what_is_not_needed_any_longer_goes(store: Store, tmp_path: Path) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    for n in range(4):
        storage.append(records(T + 100 * n, 100))
        storage.flush()
        storage.read(lambda database: database.compact())
        maintenance.backup(folder, untold)
    storage.close()
    files = set((folder / "files").iterdir())
    assert maintenance.prune(folder, 2) == 2
    assert len(maintenance.backups(folder)) == 2
    assert set((folder / "files").iterdir()) < files
    assert maintenance.prune(folder, 2) == 0
    for backup in maintenance.backups(folder):
        assert rows_of(restored(tmp_path, folder, backup.name))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("kind", ["*.sst", "*MANIFEST*", "*.log", "*CURRENT", "*ledger.sqlite"])
def test_a_damaged_backup_is_refused_and_leaves_nothing_behind(
    store: Store, tmp_path: Path, damage: Callable[[Path], object], kind: str
) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    storage.append(records(T, 1000))
    storage.flush()
    storage.append(records(T + 1000, 10))
    maintenance.backup(folder, untold)
    storage.close()
    (file,) = (folder / "files").glob(kind)
    damage(file)
    with pytest.raises(StoreCorrupt, match=file.name.rpartition("-")[2]) as refused:
        restored(tmp_path, folder)
    assert str(refused.value).endswith("--list` names them, --name takes one")
    assert not list(tmp_path.glob("restored*"))


def test_what_is_there_is_never_overwritten(store: Store, tmp_path: Path) -> None:
    settings, maintenance, folder = store
    with pytest.raises(StorageError, match="nothing is stored"):
        maintenance.backup(folder, untold)
    with pytest.raises(StorageError, match="holds no backups"):
        maintenance.restore(folder, None, untold)
    RocksStorage.open(settings).close()
    maintenance.backup(folder, untold)
    with pytest.raises(StorageError, match="something is there already"):
        maintenance.restore(folder, None, untold)
    with pytest.raises(StorageError, match="no backup 'x'; it has 20"):
        restored(tmp_path, folder, "x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    with pytest.raises(StoreFormatError, match="holds other files"):
        maintenance.backup(other, untold)
    with pytest.raises(StorageError, match="is no folder of backups"):
        maintenance.backup(other / "file", untold)
    (folder / "backups" / "29990101T000000000Z.json").write_text('{"format": 99}')
    with pytest.raises(StoreFormatError, match="format 99"):
        maintenance.backups(folder)


def test_a_backup_that_was_cut_off_disturbs_no_other(store: Store, tmp_path: Path) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    storage.append(records(T, 1000))
    storage.flush()
    cut = 0

    def break_off(done: int, _of: int) -> None:
        nonlocal cut
        cut += 1
        if done > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maintenance.backup(folder, break_off)
    assert cut
    assert maintenance.backups(folder) == []
    maintenance.backup(folder, untold)
    storage.close()
    assert rows_of(restored(tmp_path, folder)) == sorted(records(T, 1000))
    assert not list(Path(settings.path + ".obframe").glob("pin-*"))
    assert shutil.disk_usage(tmp_path).free


def test_a_database_of_another_program_is_backed_up_as_it_is(store: Store, tmp_path: Path) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    storage.append(records(T, 100))
    storage.close()
    shutil.rmtree(settings.path + ".obframe")
    backup = maintenance.backup(folder, untold)
    assert backup.newest == T + 99
    assert not Path(settings.path + ".obframe").exists()
    target = restored(tmp_path, folder)
    storage = RocksStorage.open(RocksSettings(path=str(target), adopt=True))
    assert len(list(storage.scan("BTC", *ALWAYS))) == 100
    storage.close()


def test_two_backups_into_one_folder_do_not_take_each_others_files(
    store: Store, tmp_path: Path
) -> None:
    """Such as one by hand while that of the night still runs, each removing what is not needed."""
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    storage.append(records(T, 500))
    maintenance.backup(folder, untold)
    storage.append(records(T + 500, 500))
    storage.flush()
    refused: list[str] = []

    def meddle(_done: int, _of: int) -> None:
        for work in (
            lambda: maintenance.prune(folder, 1),
            lambda: maintenance.backup(folder, untold),
        ):
            with pytest.raises(StorageError) as caught:
                work()
            refused.append(str(caught.value))

    maintenance.backup(folder, meddle)
    storage.close()
    assert refused
    assert all("another backup into it is under way; wait" in told for told in refused)
    assert maintenance.prune(folder, 1) == 1
    rows = records(T, 500) + records(T + 500, 500)
    assert rows_of(restored(tmp_path, folder)) == sorted(rows)


def test_a_folder_keeps_the_backups_of_one_store(store: Store, tmp_path: Path) -> None:
    """Of another the newest N would push out those of this one."""
    settings, maintenance, folder = store
    with_rows(settings, records(T, 100))
    maintenance.backup(folder, untold)
    other = RocksSettings(path=str(tmp_path / "other"))
    with_rows(other, records(T, 100))
    with pytest.raises(StorageError, match=r"of another store, .*rows; choose a folder"):
        RocksMaintenance(other).backup(folder, untold)
    assert len(maintenance.backups(folder)) == 1
    # A store that was restored is the same one.
    copy = restored(tmp_path, folder)
    RocksMaintenance(RocksSettings(path=str(copy))).backup(folder, untold)
    assert len(maintenance.backups(folder)) == 2


def with_rows(settings: RocksSettings, rows: list[Record]) -> None:
    storage = RocksStorage.open(settings)
    storage.append(rows)
    storage.close()


def test_what_a_killed_backup_held_is_let_go(store: Store) -> None:
    """Its links would keep deleted rows on the disk for ever."""
    settings, maintenance, folder = store
    with_rows(settings, records(T, 100))
    side = Path(settings.path + ".obframe")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from obframe_plugins._maintenance import RocksMaintenance\n"
        "from obframe_plugins.rocksdb import RocksSettings\n"
        "maintenance = RocksMaintenance(RocksSettings(path=sys.argv[1]))\n"
        "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "maintenance.backup(Path(sys.argv[2]), die)\n"
    )
    subprocess.run([sys.executable, "-c", code, settings.path, str(folder)], check=False)
    (left,) = side.glob("pin-*")

    def reopen(_done: int, _of: int) -> None:
        """Start a recorder beside a backup: what died goes, what lives stays."""
        left.mkdir(exist_ok=True)
        RocksStorage.open(settings).close()
        (held,) = side.glob("pin-*")
        assert held != left

    maintenance.backup(folder, reopen)
    assert not list(side.glob("pin-*"))


def test_the_next_backup_goes_on_with_what_was_copied(store: Store) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    for start in (T, T + 1000):
        storage.append(records(start, 1000))
        storage.flush()

    def break_off(done: int, of: int) -> None:
        if done > of * 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maintenance.backup(folder, break_off)
    (copied,) = (folder / "files").glob("*.sst")
    again = maintenance.backup(folder, untold)
    storage.close()
    assert again.copied <= again.bytes - copied.stat().st_size


def test_a_file_that_was_cut_short_in_the_folder_is_copied_again(
    store: Store, tmp_path: Path
) -> None:
    settings, maintenance, folder = store
    storage = RocksStorage.open(settings)
    storage.append(records(T, 1000))
    storage.flush()
    maintenance.backup(folder, untold)
    (file,) = (folder / "files").glob("*.sst")
    file.write_bytes(file.read_bytes()[:1000])
    maintenance.backup(folder, untold)
    storage.close()
    assert rows_of(restored(tmp_path, folder)) == sorted(records(T, 1000))


def test_a_folder_that_is_none_is_named(store: Store, tmp_path: Path) -> None:
    settings, maintenance, _ = store
    with_rows(settings, records(T, 10))
    file = tmp_path / "file"
    file.touch()
    for work in (
        lambda: maintenance.backup(file, untold),
        lambda: maintenance.backups(file),
        lambda: maintenance.prune(file, 1),
        lambda: maintenance.restore(file, None, untold),
        lambda: maintenance.backup(file / "below", untold),
    ):
        with pytest.raises(StorageError, match="file"):
            work()


def test_a_restore_that_fails_at_its_last_step_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, maintenance, folder = store
    with_rows(settings, records(T, 10))
    maintenance.backup(folder, untold)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "rows":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", fail)
        with pytest.raises(KeyboardInterrupt):
            restored(tmp_path, folder)
    assert not list(tmp_path.glob("restored*"))
    assert rows_of(restored(tmp_path, folder)) == sorted(records(T, 10))
