"""Looking after a storage with the real commands, beside a recorder that goes on writing it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import rocksdict

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, Record, Size, Snapshot
from obframe.testing.oracle import judge
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

ROUNDS = int(os.environ.get("OBFRAME_CRASH_ROUNDS", "4"))
ALWAYS = (MIN_TIMESTAMP, MAX_TIMESTAMP)


def stored(desk: Any, path: Path | None = None) -> dict[tuple[str, int], bytes]:
    with desk.store(path) as storage:
        return {
            record[:2]: record.value
            for symbol in storage.symbols()
            for record in storage.scan(symbol, *ALWAYS)
        }


def json_of(result: Any, code: int = 0) -> Any:
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_a_storage_is_looked_after_while_it_is_recorded(desk: Any, tmp_path: Path) -> None:
    venue = desk.venue("--symbols", "AAAUSDT,BBBUSDT", "--levels", 100)
    recorder = desk.recorder(venue, "--symbols", "AAAUSDT,BBBUSDT")
    recorder.until_logged("live")
    desk.until(lambda: len(stored(desk)) >= 10, 30)
    at = ("--set", f"rocksdb.path={desk.path}")

    assert json_of(desk.run("verify", *at, "--format", "json")) == []
    lines = json_of(desk.run("stats", *at, "--format", "json"))
    assert [line["symbol"] for line in lines] == ["AAAUSDT", "BBBUSDT"]
    assert all(line["rows"] >= 5 and line["coverage"] == 1.0 for line in lines)
    assert all(line["bytes"] >= 100 * line["rows"] for line in lines)  # still in memory and log
    told = desk.run("stats", *at)
    assert "on the disk" in told.stderr
    assert "a day" in told.stderr
    dry = ("retention", "--dry-run", "--set", "retention.max_age=2s", *at)
    cuts = json_of(desk.run(*dry, "--format", "json"))
    assert {cut["cause"] for cut in cuts} == {"age"}
    words = desk.run(*dry).stderr
    assert re.search(r"\d s of rows would go$", words.strip()), words  # no size where none is known
    refused = desk.run("retention", *at)
    assert refused.returncode == 3
    assert "stop that recorder" in refused.stderr

    folder = tmp_path / "backups"
    (first,) = json_of(desk.run("backup", folder, *at, "--format", "json"))
    exported = desk.run("export", tmp_path / "rows.csv.gz", "AAAUSDT", *at)
    assert exported.returncode == 0, exported.stderr
    before = stored(desk)
    desk.until(lambda: len(stored(desk)) >= len(before) + 4, 30)
    (second,) = json_of(desk.run("backup", folder, "--keep", 1, *at, "--format", "json"))
    assert second["newest"] > first["newest"]
    assert json_of(desk.run("backup", folder, "--list", *at, "--format", "json")) == [second]
    assert recorder.terminate() == 0, recorder.log

    rows = stored(desk)
    copy = tmp_path / "restored"
    restored = desk.run("restore", folder, "--set", f"rocksdb.path={copy}")
    assert restored.returncode == 0, restored.stderr
    assert stored(desk, copy) == {key: rows[key] for key in rows if key[1] <= second["newest"]}
    assert json_of(desk.run("verify", "--set", f"rocksdb.path={copy}", "--format", "json")) == []
    fresh = tmp_path / "imported"
    imported = desk.run("import", tmp_path / "rows.csv.gz", "--set", f"rocksdb.path={fresh}")
    assert imported.returncode == 0, imported.stderr
    assert stored(desk, fresh).items() <= rows.items()
    assert len(stored(desk, fresh)) >= 5

    # A recorder goes on from the backup, and tells of the time in between.
    again = desk.recorder(venue, "--symbols", "AAAUSDT,BBBUSDT", path=copy)
    again.until_logged("live")
    newest = max(second for _, second in stored(desk, copy))
    desk.until(lambda: max(second for _, second in stored(desk, copy)) > newest + 1, 30)
    assert again.terminate() == 0, again.log
    timeline = desk.timeline("AAAUSDT", copy)
    timeline.check()
    # Whether a tick falls into the start of the second run is chance.
    assert timeline.reasons() - {"connecting", "syncing"} == {"process_down"}


def test_what_is_wrong_ends_with_1_and_a_list_and_can_be_repaired(
    desk: Any, tmp_path: Path
) -> None:
    lines = [
        {"symbol": "AAA", "timestamp": 1_737_158_400 + n, "update_id": n,
         "bids": [["100.10", f"{n}.5"]], "asks": [["100.20", "1"]]}
        for n in range(1, 20_000)
    ]  # fmt: skip
    lines[500]["asks"] = [["100.1", "1"]]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in [*lines, {"symbol": "AAA"}]))
    at = ("--set", f"rocksdb.path={desk.path}")
    imported = desk.run("import", file, *at)
    assert imported.returncode == 1
    assert "19,999 rows stored" in imported.stderr
    assert f"{file}: line 20000: " in imported.stderr

    (crossed,) = json_of(desk.run("verify", *at, "--format", "json"), 1)
    assert (crossed["fault"], crossed["start"]) == ("crossed", 1_737_158_901)
    (table,) = desk.path.glob("*.sst")
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    _, hole = json_of(desk.run("verify", *at, "--format", "json"), 1)
    assert hole["fault"] == "unreadable"
    assert table.name in hole["detail"]
    lost = hole["end"] - hole["start"] + 1
    assert 0 < lost < 1000
    saved = tmp_path / "saved"
    (gap,) = json_of(desk.run("repair", saved, *at, "--format", "json"), 1)
    assert (gap["start"], gap["end"]) == (hole["start"], hole["end"])
    assert len(stored(desk, saved)) == 19_999 - lost
    (crossed,) = json_of(
        desk.run("verify", "--set", f"rocksdb.path={saved}", "--format", "json"), 1
    )
    assert crossed["fault"] == "crossed"
    told = json_of(desk.run("gaps", "AAA", "--set", f"rocksdb.path={saved}", "--format", "json"))
    assert [each["reason"] for each in told] == ["damaged"]


def test_an_import_ends_at_once_with_ctrl_c_and_what_it_stored_stays(
    desk: Any, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    os.mkfifo(file)
    process = desk.start("import", file, "--set", f"rocksdb.path={desk.path}")

    def line(number: int) -> str:
        row = {"symbol": "AAA", "timestamp": 1_737_158_400 + number, "update_id": number,
               "bids": [["1", "1"]], "asks": [["2", "1"]]}  # fmt: skip
        return json.dumps(row) + "\n"

    def feed() -> None:
        with file.open("w") as pipe:
            pipe.writelines(map(line, range(3000)))
            pipe.flush()
            desk.until(lambda: desk.path.exists() and len(stored(desk)) >= 1000, 30)
            process.popen.send_signal(signal.SIGINT)
            pipe.writelines(map(line, range(3000, 100_000)))

    with pytest.raises(BrokenPipeError):
        feed()
    assert process.wait() == 130
    assert "import the file again to go on" in process.log
    assert sorted(second for _, second in stored(desk))[-1] == 1_737_158_399 + len(stored(desk))


def test_row_46_a_damaged_first_block_is_in_the_list_and_named_symbols_are_verified(
    desk: Any, tmp_path: Path
) -> None:
    storage = RocksStorage.open(RocksSettings(path=str(desk.path)))
    rng = random.Random(1)
    for symbol in ("AAA", "BBB"):
        storage.append([Record(symbol, 1_737_158_400 + n, rng.randbytes(200)) for n in range(500)])
    storage.flush()
    storage.close()
    at = ("--set", f"rocksdb.path={desk.path}", "--format", "json")
    (table,) = desk.path.glob("*.sst")
    data = bytearray(table.read_bytes())
    data[100] ^= 1
    table.write_bytes(data)
    (found,) = json_of(desk.run("verify", *at), 1)
    assert (found["symbol"], found["fault"]) == ("", "unreadable")
    assert table.name in found["detail"]
    faults = [each["fault"] for each in json_of(desk.run("verify", "BBB", *at), 1)]
    assert faults == ["unreadable"] + ["undecodable"] * 500
    told = desk.run("verify", "--set", f"rocksdb.path={desk.path}")
    assert "unreadable" in told.stdout


def test_keys_of_another_program_are_in_the_list(desk: Any) -> None:
    database = rocksdict.Rdict(str(desk.path), rocksdict.Options(raw_mode=True))
    for key in (b"meta", b"AAA:1737158400", b"zzz"):
        database[key] = Snapshot("AAA", 1, 1_737_158_400, [("1", "1")], []).pack()
    database.close()
    (found,) = json_of(desk.run("verify", "--set", f"rocksdb.path={desk.path}", "--format", "json"))
    assert found["fault"] == "foreign_key"
    assert found["detail"].startswith("2 keys")


@pytest.mark.slow
@pytest.mark.timeout(120 + 15 * ROUNDS)
def test_row_43_kill_9_while_rows_are_written_retained_and_backed_up(
    desk: Any, tmp_path: Path
) -> None:
    """What was read once is there until it is past its age, is never another, and comes from one
    venue's true messages; so it is in every backup."""
    rng = random.Random(43)
    journal = tmp_path / "journal"
    symbols = [f"SIM{i:04}USDT" for i in range(1, 9)]
    venue = desk.venue(
        "--symbols", ",".join(symbols), "--rate", 5, "--levels", 100, "--record", journal
    )
    age = 20
    options = ["--symbols", ",".join(symbols), "--set", "binance.snapshot_limit=100"]
    options += ["--set", f"retention.max_age={age}s", "--set", "retention.interval=1s"]
    at = ("--set", f"rocksdb.path={desk.path}")
    folder = tmp_path / "backups"
    acknowledged: dict[tuple[str, int], bytes] = {}

    def look() -> None:
        seen = stored(desk)
        now = time.time()
        again = {key: seen[key] for key in seen.keys() & acknowledged.keys()}
        assert again == {key: acknowledged[key] for key in again}
        gone = acknowledged.keys() - seen.keys()
        assert all(second < now - age + 2 for _, second in gone), sorted(gone)[-1]
        acknowledged.update(seen)

    for _ in range(ROUNDS):
        recorder = desk.recorder(venue, *options)
        recorder.until_logged("live")
        before = len(acknowledged)
        while len(acknowledged) < before + 16:
            assert recorder.popen.poll() is None, recorder.log
            look()
        backup = desk.start("backup", folder, *at)
        if rng.random() < 0.5:
            recorder.pause(rng.uniform(0.0, 0.6))
            backup.kill()
        recorder.pause(rng.uniform(0.2, 1.3))
        look()
        recorder.kill()
        backup.wait()
        look()
        venue.pause(rng.uniform(0.0, 1.5))
    taken = desk.run("backup", folder, *at)
    assert taken.returncode == 0, taken.stderr
    look()
    assert venue.terminate() == 0, venue.log
    for number, backup in enumerate(
        json_of(desk.run("backup", folder, "--list", "--format", "json"))
    ):
        copy = tmp_path / f"copy-{number}"
        restored = desk.run(
            "restore", folder, "--name", backup["name"], "--set", f"rocksdb.path={copy}"
        )
        assert restored.returncode == 0, restored.stderr
        rows = stored(desk, copy)
        assert rows
        assert all(acknowledged.get(key, value) == value for key, value in rows.items())
        with desk.store(copy) as storage:
            for symbol in symbols:
                found = judge(storage, symbol, [journal / f"{symbol.lower()}.gz"])
                assert found.wrong == []


@pytest.mark.slow
def test_the_cap_in_bytes_holds_under_load_and_the_space_comes_back(
    desk: Any, tmp_path: Path
) -> None:
    """The recorder deletes the oldest rows of what was imported before it reaches the cap."""
    cap = Size.parse("50MB")
    now = int(time.time())
    file = tmp_path / "rows.jsonl"
    rng = random.Random(5)

    def side(price: int, step: int) -> list[list[str]]:
        return [
            [f"{price + step * level}.{rng.randrange(10**8):08}", f"{rng.randrange(10**12)}"]
            for level in range(20)
        ]

    count = 110_000
    with file.open("w") as lines:
        for second in range(now - count - 5, now - 5):
            row = {"symbol": "AAAUSDT", "timestamp": second, "update_id": second,
                   "bids": side(90_000, -1), "asks": side(90_100, 1)}  # fmt: skip
            lines.write(json.dumps(row) + "\n")
    at = ("--set", f"rocksdb.path={desk.path}")
    assert desk.run("import", file, *at).returncode == 0

    def size() -> int:
        folders = (desk.path, desk.path.with_name(desk.path.name + ".obframe"))
        return sum(
            f.stat().st_blocks * 512 for each in folders for f in each.rglob("*") if f.is_file()
        )

    assert size() > cap
    venue = desk.venue("--symbols", "AAAUSDT,BBBUSDT", "--levels", 100)
    recorder = desk.recorder(
        venue, "--symbols", "AAAUSDT,BBBUSDT", "--set", f"retention.max_bytes={int(cap)}",
        "--set", "retention.max_age=0", "--set", "retention.interval=1s",
    )  # fmt: skip
    recorder.until_logged("nears retention.max_bytes", 60)
    desk.until(lambda: size() < 0.95 * cap, 60)
    recorder.pause(3)
    left = size()
    assert 0.5 * cap < left < 0.95 * cap
    begun = time.perf_counter()
    with desk.store() as storage:
        oldest = next(iter(storage.scan("AAAUSDT", *ALWAYS)))
    assert time.perf_counter() - begun < 2.0  # no seek over what is deleted
    assert oldest.timestamp > now - count
    assert recorder.terminate() == 0, recorder.log
    timeline = desk.timeline("BBBUSDT")
    timeline.check()
    assert timeline.reasons() <= {"connecting", "syncing"}  # before its first row
