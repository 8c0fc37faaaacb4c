"""Rows to files and back: every byte comes again, and what is no row is told of."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, ObframeError, Record, Snapshot
from obframe.testing.strategies import decimals
from obframe.transfer import ENDINGS, FormatUnknown, _writing, export_rows, import_rows
from obframe_plugins.memory import MemoryStorage

T = 1_737_158_400
ALWAYS = (MIN_TIMESTAMP, MAX_TIMESTAMP)

number = decimals(10**12 - 1, 12)
side = st.lists(st.tuples(number, number), max_size=20)


def row(symbol: str, second: int, bids: object = (("1.50", "2.0"),), asks: object = ()) -> Record:
    snapshot = Snapshot(symbol, 7, second, list(bids), list(asks))  # type: ignore[call-overload]
    return Record(symbol, second, snapshot.pack())


def stored(*records: Record) -> MemoryStorage:
    storage = MemoryStorage()
    storage.append(records)
    return storage


def everything(storage: MemoryStorage) -> list[Record]:
    return [each for symbol in storage.symbols() for each in storage.scan(symbol, *ALWAYS)]


@pytest.mark.parametrize("ending", ENDINGS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sides=st.lists(st.tuples(side, side, st.integers(0, 2**64 - 1)), min_size=1, max_size=4))
def test_every_byte_comes_again(
    ending: str, sides: list[tuple[object, object, int]], tmp_path: Path
) -> None:
    rows = [
        Record(symbol, T + n, Snapshot(symbol, update_id, T + n, bids, asks).pack())  # type: ignore[arg-type]
        for symbol in ("kraken/BTC/USD", "币安人生USDT")
        for n, (bids, asks, update_id) in enumerate(sides)
    ]
    storage = stored(*rows)
    file = tmp_path / f"rows{ending}"
    assert export_rows(storage, storage.symbols(), *ALWAYS, file) == (len(rows), 0)
    again = MemoryStorage()
    assert import_rows(again, file)[:3] == (len(rows), 0, 0)
    assert everything(again) == everything(storage)
    assert import_rows(again, file)[:3] == (0, len(rows), 0)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_many_rows_and_only_those_of_the_window(ending: str, tmp_path: Path) -> None:
    storage = stored(*(row(symbol, T + n) for symbol in ("A", "B") for n in range(3000)))
    file = tmp_path / f"rows{ending}"
    seen: list[tuple[str, int]] = []
    done = export_rows(storage, ["B"], T + 5, T + 2504, file, count=lambda *more: seen.append(more))
    assert done == (2500, 0)
    assert sum(rows for _, rows in seen) == 2500
    again = MemoryStorage()
    counts: list[int] = []
    assert import_rows(again, file, count=counts.append).rows == 2500
    assert sum(counts) == 2500
    assert everything(again) == list(storage.scan("B", T + 5, T + 2504))


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_stored_stays(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{ending}"
    source = stored(row("A", T), row("A", T + 1))
    export_rows(source, ["A"], *ALWAYS, file)
    target = stored(row("A", T), row("A", T + 1, [("9", "9")]))
    assert import_rows(target, file)[:3] == (0, 1, 1)
    assert list(target.scan("A", *ALWAYS))[1] == row("A", T + 1, [("9", "9")])


def test_a_value_that_is_no_row_is_left_out_and_counted(tmp_path: Path) -> None:
    storage = stored(row("A", T), Record("A", T + 1, b"\x93"), row("A", T + 2))
    assert export_rows(storage, ["A"], *ALWAYS, tmp_path / "a.jsonl") == (2, 1)


def test_lines_that_are_no_rows_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    export_rows(stored(row("A", T), row("A", T + 1)), ["A"], *ALWAYS, file)
    lines = file.read_text().splitlines()
    lines[1:1] = ["{", '{"symbol":"A","timestamp":1}', lines[0].replace('"2.0"', "2.0"), ""]
    file.write_text("\n".join(lines))
    target = MemoryStorage()
    done = import_rows(target, file)
    assert (done.rows, done.wrong_rows) == (2, 3)
    for line, told in zip((2, 3, 4), done.wrong, strict=True):
        assert told.startswith(f"{file}: line {line}: ")


def test_cells_that_are_no_rows_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    export_rows(stored(row("A", T), row("A", T + 1)), ["A"], *ALWAYS, file)
    lines = file.read_text().splitlines()
    assert len(lines) == 3
    cells = lines[1].split(",")
    torn, hole, word = cells[:30], cells.copy(), cells.copy()
    hole[9] = "1"
    word[1] = "soon"
    lines += [",".join(each) for each in (torn, hole, word)]
    file.write_text("\n".join(lines))
    done = import_rows(MemoryStorage(), file)
    assert (done.rows, done.wrong_rows) == (2, 3)
    assert "line 4: 30 cells where 83 are needed" in done.wrong[0]
    assert "line 5: level 2 is empty, and one behind it is not" in done.wrong[1]
    assert "line 6" in done.wrong[2]
    file.write_text("a,b,c\n1,2,3\n")
    assert "the headings are not symbol, timestamp" in import_rows(MemoryStorage(), file).wrong[0]


@pytest.mark.parametrize("name", ["rows", "rows.txt", "rows.parquet.gz", "rows.xlsx"])
def test_a_form_is_told_by_the_ending(name: str, tmp_path: Path) -> None:
    with pytest.raises(FormatUnknown, match=r"\.jsonl, \.csv, \.parquet"):
        export_rows(MemoryStorage(), [], *ALWAYS, tmp_path / name)
    with pytest.raises(FormatUnknown):
        import_rows(MemoryStorage(), tmp_path / name)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_that_cannot_be_read_are_named(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{ending}"
    with pytest.raises(ObframeError, match=file.name):
        import_rows(MemoryStorage(), file)
    with pytest.raises(ObframeError, match="none"):
        export_rows(MemoryStorage(), [], *ALWAYS, tmp_path / "none" / file.name)
    if ending.endswith(".gz"):
        export_rows(stored(*(row("A", T + n) for n in range(2000))), ["A"], *ALWAYS, file)
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(ObframeError, match=r"it is damaged, .*: export it anew"):
            import_rows(MemoryStorage(), file)


def test_a_damaged_store_leaves_no_file(tmp_path: Path) -> None:
    class Damaged(MemoryStorage):
        def scan(self, symbol: str, start: int, end: int):  # type: ignore[no-untyped-def]
            yield from super().scan(symbol, start, start + 5)
            raise ObframeError("000007.sst: checksum mismatch")

    storage = Damaged()
    storage.append([row("A", T + n) for n in range(10)])
    file = tmp_path / "rows.jsonl"
    file.write_text("the one of yesterday")
    with pytest.raises(ObframeError, match="checksum"):
        export_rows(storage, ["A"], T, T + 9, file)
    assert file.read_text() == "the one of yesterday"
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_that_can_have_no_key_are_named_and_the_rest_is_stored(
    ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"rows{ending}"
    with _writing(file) as rows:
        rows.write(
            [
                Snapshot("A", 1, T, [("1", "1")], []),
                Snapshot("A", 1, 5, [("1", "1")], []),
                Snapshot("A:B", 1, T, [("1", "1")], []),
                Snapshot("B", 1, T, [("1", "1")], []),
            ]
        )
    storage = MemoryStorage()
    done = import_rows(storage, file)
    assert (done.rows, done.wrong_rows) == (2, 2)
    assert "timestamp 5 is not Unix seconds of ten digits" in done.wrong[0]
    assert "A:B" in done.wrong[1]
    assert storage.symbols() == ["A", "B"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_without_rows_is_one(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{ending}"
    assert export_rows(stored(row("A", T)), ["A"], T + 1, T + 2, file) == (0, 0)
    assert import_rows(MemoryStorage(), file) == (0, 0, 0, [], 0)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_of_another_form_are_named(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{ending}"
    file.write_bytes(b"\xff\xfe no rows\n" * 100)
    if ending == ".jsonl":
        assert import_rows(MemoryStorage(), file).wrong_rows == 100
        return
    with pytest.raises(ObframeError, match=file.name):
        import_rows(MemoryStorage(), file)


@pytest.mark.parametrize("ending", [".jsonl.gz", ".csv.gz", ".parquet"])
def test_of_a_damaged_file_no_wrong_row_is_stored(ending: str, tmp_path: Path) -> None:
    rng = random.Random(5)
    file = tmp_path / f"rows{ending}"
    rows = [row("A", T + n, [(f"{n}.{rng.randrange(10**9)}", f"{n}")]) for n in range(3000)]
    export_rows(stored(*rows), ["A"], *ALWAYS, file)
    whole = file.read_bytes()
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        storage = MemoryStorage()
        with contextlib.suppress(ObframeError):
            import_rows(storage, file)
        assert set(everything(storage)) <= set(rows)


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ObframeError, match=r"rows\.jsonl: cannot be written"):
        export_rows(stored(row("A", T)), ["A"], *ALWAYS, tmp_path / "file" / "rows.jsonl")
