"""Files of rows: each once, whole, in order, whatever happens to the process that writes them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import (
    SNAPSHOT_COLUMNS,
    PluginError,
    Snapshot,
    check_symbol,
    snapshot_from_json,
    snapshot_to_json,
)
from obframe_plugins._row_files import RowFiles
from obframe_plugins._row_lines import CSV, JSONL, LineFormat
from obframe_plugins._row_paths import PathTemplate, encode_symbol
from obframe_plugins.files import FileSettings, obframe_sinks, open_csv, open_jsonl

HOUR = 1_700_002_800  # 2023-11-14T23:00:00Z
NAME = "2023-11-14T23"


def row(symbol: str, second: int) -> Snapshot:
    price = f"{second % 1000}.5000000"
    return Snapshot(symbol, second, HOUR + second, [(price, "1.50")], [(price + "1", "0.10")] * 20)


def rows(*seconds: int, symbols: str = "AB") -> list[Snapshot]:
    return [row(symbol, second) for second in seconds for symbol in symbols]


def open_files(
    folder: Path, template: str = "{period}", *, lines: LineFormat = JSONL, compress: bool = False,
    max_bytes: int = 0,
) -> RowFiles:  # fmt: skip
    paths = PathTemplate(str(folder / template), "hour")
    return RowFiles(paths, lines, compress=compress, max_bytes=max_bytes)


def finish(files: RowFiles) -> None:
    """Let the worker compress what is due, then close."""
    files._worker.shutdown(wait=True)
    files.close()


def read(folder: Path) -> list[Snapshot]:
    """Be a consumer: read every finished file, and what grows, by name."""
    found: list[Snapshot] = []
    for path in sorted(folder.rglob("*.jsonl*"), key=lambda path: str(path).replace(".part", "")):
        if path.name.endswith(".part") and path.with_suffix(".gz").exists():
            continue
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            found += [snapshot_from_json(line) for line in file]
    return found


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_line_is_the_message_and_a_period_is_finished_by_the_next(tmp_path: Path) -> None:
    with closing(open_files(tmp_path)) as files:
        files.append(rows(0, 1))
        assert names(tmp_path) == [f"{NAME}.jsonl.part"]
        expected = b"".join(snapshot_to_json(each) + b"\n" for each in rows(0, 1))
        assert (tmp_path / f"{NAME}.jsonl.part").read_bytes() == expected
        files.append(rows(3599, 3600))
        assert names(tmp_path) == [f"{NAME}.jsonl", "2023-11-15T00.jsonl.part"]
    assert read(tmp_path) == rows(0, 1, 3599, 3600)


def test_rows_come_again_and_are_written_once(tmp_path: Path) -> None:
    with closing(open_files(tmp_path)) as files:
        files.append(rows(1, 2, 3))
        files.append(rows(2, 3, 4))
        files.append(rows(3, 4, symbols="ABC"))
    with closing(open_files(tmp_path)) as files:
        files.append(rows(1, 2, 3, 4, 5, symbols="ABC"))
    found = [(each.symbol, each.timestamp - HOUR) for each in read(tmp_path)]
    assert sorted(found) == [(s, n) for s in "ABC" for n in range(1, 6)]
    assert len(found) == 15


def test_what_comes_late_begins_another_file_so_that_seconds_never_fall(tmp_path: Path) -> None:
    with closing(open_files(tmp_path)) as files:
        files.append(rows(5, 6))
        files.append(rows(1, 5))
        files.append(rows(7, 3600))
        files.append(rows(2))
    assert names(tmp_path) == [
        f"{NAME}.jsonl",
        f"{NAME}~0002.jsonl",
        f"{NAME}~0003.jsonl.part",
        "2023-11-15T00.jsonl.part",
    ]
    for path in tmp_path.rglob("*.jsonl*"):
        seconds = [snapshot_from_json(line).timestamp for line in path.read_bytes().splitlines()]
        assert seconds == sorted(seconds)
    expected = rows(1, 2, 5, 6, 7, 3600)
    assert sorted(read(tmp_path), key=lambda each: (each.timestamp, each.symbol)) == expected


@pytest.mark.parametrize("compress", [False, True])
def test_a_period_goes_on_in_another_file_past_its_size(tmp_path: Path, compress: bool) -> None:
    size = len(snapshot_to_json(row("A", 100))) + 1
    with closing(open_files(tmp_path, max_bytes=3 * size, compress=compress)) as files:
        for second in range(100, 108):
            files.append(rows(second, symbols="A"))
        finish(files)
    end = ".gz" if compress else ""
    assert names(tmp_path) == [
        f"{NAME}.jsonl{end}", f"{NAME}~0002.jsonl{end}", f"{NAME}~0003.jsonl.part",
    ]  # fmt: skip
    with closing(open_files(tmp_path, max_bytes=3 * size, compress=compress)) as files:
        files.append(rows(*range(99, 110), symbols="A"))  # 99 is new, and comes late
        finish(files)
    assert sorted(read(tmp_path), key=lambda each: each.timestamp) == rows(
        *range(99, 110), symbols="A"
    )


def test_compression_is_atomic_and_what_a_crash_left_of_it_is_cleared_up(tmp_path: Path) -> None:
    files = open_files(tmp_path, compress=True)
    files.append(rows(1, 2))
    files.append(rows(3600))
    finish(files)
    packed = tmp_path / f"{NAME}.jsonl.gz"
    assert names(tmp_path) == [packed.name, "2023-11-15T00.jsonl.part"]
    # As if the process had died before the grown file could go, and in the middle of another.
    (tmp_path / f"{NAME}.jsonl.part").write_bytes(gzip.decompress(packed.read_bytes()))
    (tmp_path / "2023-11-14T22.jsonl.gz.tmp").write_bytes(b"half of it")
    files = open_files(tmp_path, compress=True)
    files.append(rows(2, 3600, 3601))
    finish(files)
    assert names(tmp_path) == [packed.name, "2023-11-15T00.jsonl.part"]
    assert read(tmp_path) == rows(1, 2, 3600, 3601)


def test_what_could_not_be_compressed_before_the_end_is_compressed_in_the_next_run(
    tmp_path: Path,
) -> None:
    files = open_files(tmp_path, compress=True)
    files._stopping.set()
    files.append(rows(1))
    files.append(rows(3600))
    finish(files)
    assert f"{NAME}.jsonl.part" in names(tmp_path)
    files = open_files(tmp_path, compress=True)
    files.append(rows(3601))
    finish(files)
    assert names(tmp_path) == [f"{NAME}.jsonl.gz", "2023-11-15T00.jsonl.part"]
    assert read(tmp_path) == rows(1, 3600, 3601)


def test_row_41_after_a_failed_write_nothing_is_missing_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    with closing(open_files(tmp_path)) as files:
        files.append(rows(1))

        def fail(_: int) -> None:
            path = tmp_path / f"{NAME}.jsonl.part"
            os.truncate(path, path.stat().st_size - 10)  # a part of it got there
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            files.append(rows(2, 3))
        monkeypatch.setattr(os, "fsync", fsync)
        files.append(rows(2, 3))
        files.append(rows(4))
    assert read(tmp_path) == rows(1, 2, 3, 4)


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "again", "crash"]),
        st.integers(1, 4),
        st.floats(0, 1),
    ),
    max_size=25,
)


@given(CALLS, st.sampled_from(["{period}", "{symbol}/{period}"]), st.integers(0, 3), st.booleans())
def test_row_54_torn_at_any_byte_and_told_again_every_row_is_there_once(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[str, int, float]],
    template: str,
    split: int,
    is_csv: bool,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = CSV if is_csv else JSONL
    max_bytes = split * 2000

    def start() -> RowFiles:
        return open_files(folder, template, lines=lines, max_bytes=max_bytes)

    files = start()
    position = now = 3590  # so that the hour ends soon
    for what, count, cut in calls:
        if what == "write":
            now += count
            files.append(rows(*range(position + 1, now + 1)))
            position = now
        elif what == "again":
            files.append(rows(*range(max(position - count, 3590) + 1, position + 1)))
        else:  # killed while it was writing: some of what was not acknowledged is there
            before = {path: path.stat().st_size for path in folder.rglob("*.part")}
            files.append(rows(*range(position + 1, position + count + 1)))
            now = max(now, position + count)
            for path in folder.rglob("*.part"):
                size = path.stat().st_size
                kept = before.get(path, 0)
                os.truncate(path, kept + int((size - kept) * cut))
            files.close()
            files = start()
    files.append(rows(*range(max(position - 3, 3590) + 1, now + 1)))
    files.close()
    found = []
    for path in folder.rglob(f"*.{lines.extension}*"):
        text = path.read_bytes()
        assert text.startswith(lines.header)
        assert text.endswith(b"\n")
        keys = [lines.read_key(line) for line in text[len(lines.header) :].splitlines()]
        assert [second for _, second in keys] == sorted(second for _, second in keys)
        found += keys
    expected = [(s, HOUR + n) for n in range(3591, now + 1) for s in "AB"]
    assert sorted(found, key=lambda key: (key[1], key[0])) == expected


def test_garbage_after_the_last_whole_line_is_cut_off_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_files(tmp_path)) as files:
        files.append(rows(1))
    part = tmp_path / f"{NAME}.jsonl.part"
    whole = part.read_bytes()
    part.write_bytes(whole + b"\0" * 500 + b"\n" + snapshot_to_json(row("A", 2)) + b"\n")
    with closing(open_files(tmp_path)) as files:
        files.append(rows(2))
    assert read(tmp_path) == rows(1, 2)
    assert "are torn, as a crash leaves them, and are cut off" in caplog.text


def test_csv_has_its_header_once_a_file_and_prices_as_they_are_stored(tmp_path: Path) -> None:
    odd = 'A,"B'
    for part in ((1, 2), (2, 3)):
        with closing(open_files(tmp_path, lines=CSV)) as files:
            files.append([row(odd, second) for second in part])
    with (tmp_path / f"{NAME}.csv.part").open(newline="") as file:
        header, *found = list(csv.reader(file))
    assert tuple(header) == SNAPSHOT_COLUMNS
    assert [cells[:2] for cells in found] == [[odd, str(HOUR + second)] for second in (1, 2, 3)]
    assert found[0][3:7] == ["1.5000000", "1.50", "", ""]
    part = tmp_path / f"{NAME}.csv.part"
    part.write_bytes(part.read_bytes()[:40])  # torn within the header
    with closing(open_files(tmp_path, lines=CSV)) as files:
        files.append([row(odd, 1)])
    assert part.read_bytes() == CSV.header + CSV.encode(row(odd, 1))


SYMBOLS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters=":"), min_size=1, max_size=100
).filter(lambda text: ".." not in text and len(text.encode()) <= 128)


@given(SYMBOLS, SYMBOLS)
def test_row_58_a_symbol_is_one_name_of_a_file_and_its_own(first: str, second: str) -> None:
    for symbol in (first, second):
        encoded = encode_symbol(check_symbol(symbol))
        assert "/" not in encoded
        assert not encoded.startswith(".")
        assert len(encoded) < 200
    assert (encode_symbol(first) == encode_symbol(second)) == (first == second)


@given(SYMBOLS, st.integers(10**9, 10**10 - 1), st.sampled_from(["hour", "day"]))
def test_the_period_of_a_name_is_read_back(symbol: str, second: int, rotation: str) -> None:
    for template in ("rows/{period}", "{symbol}/{symbol}-{period}", "x/{period}/{symbol}"):
        paths = PathTemplate(template, rotation)  # type: ignore[arg-type]
        stem = paths.stem(symbol, second)
        assert paths.read_period(stem) == paths.period(second)
        assert paths.period(second) <= second < paths.period(second) + 86_400
    assert paths.read_period("x/notes/BTCUSDT") is None
    assert paths.directory == Path("x")


def test_symbols_with_files_of_their_own(tmp_path: Path) -> None:
    with closing(open_files(tmp_path, "{symbol}/{period}")) as files:
        files.append([row(symbol, 1) for symbol in ("kraken/BTC/USD", "BTCUSDT")])
    assert names(tmp_path) == [
        f"BTCUSDT/{NAME}.jsonl.part",
        f"kraken%2FBTC%2FUSD/{NAME}.jsonl.part",
    ]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"path": "rows"}, r"needs \{period\}"),
        ({"path": "rows/{date}"}, r"has the field \{date\}; there are \{period\} and \{symbol\}"),
        ({"path": "rows/{period"}, "single brace"),
        ({"path": ""}, "must name a file"),
        ({"path": "{period}/"}, "must name a file"),
        ({"max_bytes": -1}, "must be 0 or more"),
    ],
)
def test_settings_that_would_mix_files_up_are_refused(
    values: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        FileSettings(**values)  # type: ignore[arg-type]


async def test_two_writers_are_refused_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    settings = FileSettings(path=str(tmp_path / "rows" / "{period}"))
    async with open_jsonl(settings) as sink:
        await sink.write(rows(1))
        with pytest.raises(PluginError, match=r"another process writes files into .*rows"):
            async with open_jsonl(settings):
                pass
        async with open_csv(settings) as other:
            await other.write(rows(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="file cannot be written: File exists"):
        async with open_jsonl(FileSettings(path=str(tmp_path / "file" / "{period}"))):
            pass


def test_both_sinks_ask_for_back_fill() -> None:
    assert {offer.name: offer.backfill for offer in obframe_sinks()} == {"jsonl": True, "csv": True}


# Writes on and on, from the row after the last acknowledged one; says what is acknowledged.
WRITER = """
import sys
from contextlib import closing
sys.path.insert(0, {here!r})
from test_files import open_files, rows
from pathlib import Path
with closing(open_files(Path({folder!r}), compress=True, max_bytes=20_000)) as files:
    for second in range(int(sys.argv[1]), 10**6, 3):
        files.append(rows(second, second + 1, second + 2))
        print(second + 2, flush=True)
"""


@pytest.mark.slow
def test_row_43_and_54_kill_9_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(54)
    folder = tmp_path / "rows"
    program = WRITER.format(here=str(Path(__file__).parent), folder=str(folder))
    position = 3000
    for _ in range(8):
        again = max(position - rng.randrange(12), 3000)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(again + 1)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(rng.randrange(20, 120)):
            position = max(int(process.stdout.readline()), position)
        process.kill()
        rest, _ = process.communicate()
        position = max([position, *map(int, rest.split())])
    with closing(open_files(folder, compress=True, max_bytes=20_000)) as files:
        files.append(rows(*range(position - 5, position + 1)))
        finish(files)
    found = sorted((each.timestamp - HOUR, each.symbol) for each in read(folder))
    newest = found[-1][0]
    assert newest >= position
    assert found == [(second, symbol) for second in range(3001, newest + 1) for symbol in "AB"]
    assert json.loads(snapshot_to_json(row("A", 1)))["bids"] == [["1.5000000", "1.50"]]
