"""The contract of storages, and what is this one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from obframe import Record, StorageError, StoreCorrupt

from obframe_myplugin.contract import SqliteContract
from obframe_myplugin.plugin import SqliteStorage, StorageSettings, open_reader


class TestContract(SqliteContract):
    """Every rule that a storage must keep."""


def test_obframe_takes_the_plugin() -> None:
    command = [sys.executable, "-m", "obframe", "plugins", "show", "myplugin"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "section [myplugin]" in shown.stdout


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="path is empty"):
        StorageSettings(path="")


def test_reading_makes_no_database(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    with pytest.raises(StorageError), open_reader(StorageSettings(path=str(path))):
        pass
    assert not path.exists()


def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    path.write_text("somebody's letters, longer than a header\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt):
        SqliteStorage(path)
    assert path.read_bytes() == before


def test_a_batch_with_a_bad_second_stores_nothing(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "rows.sqlite")
    good = Record("BTCUSDT", 1_737_158_400, b"row")
    with pytest.raises(ValueError, match="Unix second"):
        storage.append([good, Record("BTCUSDT", 5, b"row")])
    assert storage.latest("BTCUSDT") is None
    storage.close()
