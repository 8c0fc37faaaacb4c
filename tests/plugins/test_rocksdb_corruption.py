"""One wrong byte anywhere in a store: an error that names it or the right rows, never others."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from obframe import Gap, GapReason, Record, StorageError, StoreCorrupt
from obframe_plugins import _rocks
from obframe_plugins._layout import Layout
from obframe_plugins._salvage import salvage
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader

T = 1_737_158_400
ALWAYS = (0, 10**10)
ROUNDS = int(os.environ.get("OBFRAME_CORRUPTION_ROUNDS", "60"))
SYMBOLS = ("BTC", "BTCUSDT", "ETHUSDT")


def make_rows() -> list[Record]:
    rng = random.Random(7)
    return [
        Record(symbol, second, rng.randbytes(180))
        for second in range(T, T + 900)
        for symbol in SYMBOLS
    ]


ROWS = make_rows()
WHOLE = {row[:2]: row.value for row in ROWS}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with two files of rows and a log, as a kill -9 leaves it."""
    folder = tmp_path_factory.mktemp("template")
    storage = RocksStorage.open(RocksSettings(path=str(folder / "live")))
    for start in range(0, len(ROWS), 30):
        storage.append(ROWS[start : start + 30])
        if start in (900, 1800):
            storage.flush()
    storage.append_gaps([Gap("BTC", T - 5, T - 1, GapReason.PROCESS_DOWN)])
    for name in ("live", "live.obframe"):
        shutil.copytree(folder / name, folder / name.replace("live", "rows"))
    storage.close()
    return folder


def flip(path: Path, rng: random.Random) -> tuple[str, float]:
    """Change a bit; return the file, and how far into it."""
    files = sorted(
        file
        for file in path.iterdir()
        if file.stat().st_size
        and (file.suffix in (".sst", ".log") or file.name.startswith(("MANIFEST", "CURRENT")))
    )
    # Each kind as often as the others: in most of all bytes it would be rows.
    kind = rng.choice([".sst", ".log", "MANIFEST", "CURRENT"])
    file = rng.choice([file for file in files if kind in (file.suffix, file.name.split("-")[0])])
    data = bytearray(file.read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return file.name, place / len(data)


def read_all(settings: RocksSettings) -> dict[tuple[str, int], bytes]:
    with open_reader(settings) as storage:
        assert storage.symbols() == list(SYMBOLS)
        return {row[:2]: row.value for symbol in SYMBOLS for row in storage.scan(symbol, *ALWAYS)}


@pytest.mark.timeout(120 + ROUNDS)
def test_row_46_one_wrong_byte_is_named_or_does_no_harm(
    template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rng = random.Random(46)
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(ROUNDS):
        path = tmp_path / f"{number}" / "rows"
        shutil.copytree(template / "rows", path)
        shutil.copytree(template / "rows.obframe", path.with_name("rows.obframe"))
        file, place = flip(path, rng)
        kind = file.split("-")[0].rpartition(".")[2]
        caplog.clear()
        outcome = read_or_refuse(RocksSettings(path=str(path)), file)
        # The end of a log is cut off, as after a power cut: that is told.
        assert outcome != "cut" or (kind == "log" and "are lost" in caplog.text)
        outcomes[kind, outcome] += 1
        lost = check_repair(path)
        # Before the last tenth of a file of rows there are nothing but blocks of rows.
        assert kind != "sst" or place > 0.9 or lost < 100, (file, place, lost)
        shutil.rmtree(path.parent)
    assert sum(outcomes.values()) == ROUNDS
    assert {kind for kind, _ in outcomes} == {"sst", "log", "MANIFEST", "CURRENT"}
    assert {outcome for _, outcome in outcomes} <= {"named", "right", "cut"}
    assert outcomes["sst", "named"] >= ROUNDS // 10


def read_or_refuse(settings: RocksSettings, file: str) -> str:
    """Read all; return ``right``, ``cut`` or ``named``, for an error that names the file."""
    try:
        seen = read_all(settings)
    except StoreCorrupt as error:
        return "named" if file in str(error) or settings.path in str(error) else str(error)
    assert seen.items() <= WHOLE.items()
    return "right" if seen == WHOLE else "cut"


def check_repair(path: Path) -> int:
    """Repair, hold the result against the truth, and return how many rows were lost."""
    target = Layout(f"{path}-saved")
    repaired = salvage(Layout(str(path)), target)
    with open_reader(RocksSettings(path=str(target))) as storage:
        saved = {row[:2]: row.value for each in SYMBOLS for row in storage.scan(each, *ALWAYS)}
        assert saved.items() <= WHOLE.items()
        assert repaired.rows == len(saved)
        told = {
            (symbol, second)
            for symbol in SYMBOLS
            for gap in storage.gaps(symbol, T, T + 899)
            for second in range(gap.start, gap.end + 1)
        }
    missing = WHOLE.keys() - saved.keys()
    # What is lost without a trace: rows before all others of their symbol that are left; of the
    # first symbol a file tells where they began.
    first = {symbol: min(second for name, second in saved if name == symbol) for symbol in SYMBOLS}
    traced = {row for row in missing if row[1] > first[row[0]] or row[0] == SYMBOLS[0]}
    assert traced <= told
    assert not told & saved.keys()
    return len(missing)


def test_a_repair_loses_only_the_damaged_block(template: Path, tmp_path: Path) -> None:
    """RocksDB's own repair drops the whole file."""
    path = tmp_path / "rows"
    shutil.copytree(template / "rows", path)
    shutil.copytree(template / "rows.obframe", tmp_path / "rows.obframe")
    file = min(path.glob("*.sst"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    readable = set()
    with _rocks.RowDatabase.open_view(str(path)) as database:
        for row in ROWS:
            try:
                database.get_many([f"{row.symbol}:{row.timestamp}".encode()])
            except StoreCorrupt:
                continue
            readable.add(row)
    assert len(ROWS) - 100 < len(readable) < len(ROWS)
    assert salvage(Layout(str(path)), Layout(str(tmp_path / "saved"))).rows == len(readable)


def test_the_first_rows_that_are_lost_are_told(template: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    shutil.copytree(template / "rows", path)
    shutil.copytree(template / "rows.obframe", tmp_path / "rows.obframe")
    file = min(path.glob("*.sst"))
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    assert 0 < check_repair(path) < 100


@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError])
def test_a_repair_that_is_cut_off_leaves_nothing_that_looks_whole(
    error: type[BaseException], template: Path, tmp_path: Path
) -> None:
    """Half of the rows without gaps would pass for a store, and stand in a second try's way."""
    target = Layout(str(tmp_path / "saved"))

    def break_off(_done: int, _of: int) -> None:
        raise error("cut off")

    with pytest.raises(error):
        salvage(Layout(str(template / "rows")), target, break_off)
    assert list(tmp_path.iterdir()) == []
    assert salvage(Layout(str(template / "rows")), target).rows == len(ROWS)
