"""Which market a symbol's rows are of: kept beside them, and never another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from obframe import Record, StorageError
from obframe.origins import Origins
from obframe_plugins.memory import MemoryStorage

ROW = Record("BTCUSDT", 1_700_000_000, b"\x94\x90\x90\x00\x00")
SPOT, FUTURES = {"BTCUSDT": "binance spot"}, {"BTCUSDT": "binance usdm"}


class Store(MemoryStorage):
    """A storage with a place for small files."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.state_directory = directory


def test_rows_stay_of_their_market(tmp_path: Path) -> None:
    store = Store(tmp_path / "side")
    assert Origins(store).claim(SPOT) == {}
    store.append([ROW])
    origins = Origins(store)
    assert origins.claim(FUTURES | {"ETHUSDT": "binance usdm"}) == SPOT
    assert origins.claim({"ETHUSDT": "binance usdm"}) == {}
    assert Origins(store).claim(FUTURES) == SPOT
    assert Origins(store).claim(SPOT) == {}
    assert [path.name for path in store.state_directory.iterdir()] == ["origins.json"]


def test_a_symbol_without_rows_may_become_anothers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Origins(store).claim(SPOT)
    assert Origins(store).claim(FUTURES) == {}
    store.append([ROW])
    assert Origins(store).claim(SPOT) == FUTURES


def test_what_cannot_be_read_counts_as_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    Origins(store).claim(SPOT)

    def fail(symbol: str) -> None:
        raise StorageError(f"{symbol} is damaged")

    monkeypatch.setattr(store, "latest", fail)
    assert Origins(store).claim(FUTURES) == SPOT


@pytest.mark.parametrize("text", ["", "{", "[]", '{"BTCUSDT":1}'])
def test_a_file_that_is_not_understood_is_refused_with_the_mend(tmp_path: Path, text: str) -> None:
    (tmp_path / "origins.json").write_text(text)
    with pytest.raises(StorageError, match=r"origins\.json: .*; restore it, or remove it") as error:
        Origins(Store(tmp_path))
    assert error.value.path == str(tmp_path / "origins.json")


def test_without_a_place_it_holds_for_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    for store in (MemoryStorage(), Store(tmp_path / "file" / "side")):
        store.append([ROW])
        origins = Origins(store)
        assert origins.claim(SPOT) == {}
        assert origins.claim(FUTURES) == SPOT
    assert "which markets the rows are of cannot be kept" in caplog.text
