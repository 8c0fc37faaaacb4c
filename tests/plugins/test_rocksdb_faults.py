"""The storage ``rocksdb`` when processes die, disks fill and syncs fail; and its readers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from obframe import (
    Gap,
    GapReason,
    Record,
    StorageError,
    StoreCorrupt,
    StoreUnavailable,
)
from obframe_plugins._reading import RocksReader
from obframe_plugins._rocks import RowDatabase
from obframe_plugins.rocksdb import RocksSettings, RocksStorage, open_reader

T = 1_737_158_400
ALWAYS = (0, 10**10)
SYMBOLS = [f"SYM{n}USDT" for n in range(20)]


@pytest.fixture
def settings(tmp_path: Path) -> RocksSettings:
    return RocksSettings(path=str(tmp_path / "rows"))


@contextlib.contextmanager
def opened(
    settings: RocksSettings, room: Callable[[Path], int] | None = None
) -> Iterator[RocksStorage]:
    storage = RocksStorage(settings, room=room) if room else RocksStorage.open(settings)
    try:
        yield storage
    finally:
        storage.close()


def value(symbol: str, second: int, size: int = 600) -> bytes:
    return random.Random(f"{symbol}{second}").randbytes(size)


def tick(second: int, size: int = 600) -> list[Record]:
    return [Record(symbol, second, value(symbol, second, size)) for symbol in SYMBOLS]


def stored_seconds(storage: RocksStorage, size: int = 600) -> set[int]:
    """Seconds of which every symbol has its row, to the last byte; halves are a failure."""
    seconds: dict[str, set[int]] = {}
    for symbol in SYMBOLS:
        rows = list(storage.scan(symbol, *ALWAYS))
        assert all(row.value == value(symbol, row.timestamp, size) for row in rows)
        seconds[symbol] = {row.timestamp for row in rows}
        assert len(rows) == len(seconds[symbol])
    first = seconds[SYMBOLS[0]]
    assert all(other == first for other in seconds.values())
    return first


WRITER = """
import random, sys, time
from obframe import Record, Gap, GapReason
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

path, durability, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
symbols = [f"SYM{n}USDT" for n in range(20)]
storage = RocksStorage.open(RocksSettings(path=path, durability=durability))
second = start
while True:
    batch = [
        Record(s, second, random.Random(f"{s}{second}").randbytes(600)) for s in symbols
    ]
    refused = storage.append(batch)
    assert not refused, refused
    if second % 10 == 0:
        storage.append_gaps([Gap("GAPS", second, second, GapReason.DISK, str(second))])
    if second % 97 == 0:
        storage.flush()
    print(second, flush=True)
    second += 1
    if len(sys.argv) > 4:
        storage.delete_before("OLD", second)
        time.sleep(float(sys.argv[4]))
"""


@contextlib.contextmanager
def writer(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


@pytest.mark.parametrize("durability", ["power", "process"])
def test_row_43_kill_9_loses_nothing_acknowledged(
    settings: RocksSettings, durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 43: three writers killed in the middle of their work; every acknowledged row is there."""
    acknowledged: list[int] = []
    start = T
    for run in range(3):
        with writer(settings.path, durability, str(start)) as (process, output):
            for line in output:
                acknowledged.append(int(line))
                if len(acknowledged) >= 120 * (run + 1):
                    break
            os.kill(process.pid, signal.SIGKILL)
            acknowledged += [int(line) for line in output if line.endswith("\n")]
        start = acknowledged[-1] + 10
    with opened(settings) as storage:
        stored = stored_seconds(storage)
        assert set(acknowledged) <= stored
        assert len(stored) <= len(acknowledged) + 3
        told = storage.gaps("GAPS", *ALWAYS)
        assert {gap.start for gap in told} >= {s for s in acknowledged if s % 10 == 0}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_another_process_reads_while_one_writes(settings: RocksSettings, tmp_path: Path) -> None:
    """Each read sees all that was acknowledged before it, through flushes and after the death."""
    with writer(settings.path, "power", str(T), "0.002") as (process, output):
        first = int(output.readline())
        with open_reader(settings) as reader, open_reader(settings) as other:
            for line in output:
                second = int(line)
                rows = list(reader.scan(SYMBOLS[3], *ALWAYS))
                assert [row.timestamp for row in rows][: second - T + 1] == list(
                    range(first, second + 1)
                )
                assert all(row.value == value(SYMBOLS[3], row.timestamp) for row in rows)
                newest = other.latest(SYMBOLS[-1])
                assert newest is not None
                assert newest.timestamp >= second
                if second % 10 == 0:
                    assert reader.gaps("GAPS", second, second)
                if second > T + 250:
                    break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            last = [second, *(int(line) for line in output if line.endswith("\n"))][-1]
            newest = other.latest(SYMBOLS[0])
            assert newest is not None
            assert newest.timestamp >= last
            # And on, with the next writer.
            with opened(settings) as storage:
                storage.append(tick(last + 100))
                assert reader.latest(SYMBOLS[0]) == tick(last + 100)[0]
                storage.flush()
                storage.append(tick(last + 101))
                assert other.latest(SYMBOLS[0]) == tick(last + 101)[0]
    assert list(Path(settings.path + ".obframe", "readers").iterdir()) == []


class _FlushedMeanwhile:
    """Catches up as the library does when the writer flushes between its two steps.

    It reads the list of files, then the logs. A flush in between moves rows from a log, which is
    then removed, to a file that is not in the list as it was read: for one pass nothing is seen.
    """

    def __init__(self, handle: Any, flush: Callable[[], None]) -> None:
        self.handle = handle
        self.flush = flush
        self.flushes = 2

    def try_catch_up_with_primary(self) -> None:
        if self.flushes:
            self.flushes -= 1
            self.flush()
        else:
            self.handle.try_catch_up_with_primary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)


def test_a_reader_loses_nothing_to_a_flush_while_it_catches_up(settings: RocksSettings) -> None:
    """What was acknowledged before a read is in its answer, wherever the writer moves it."""
    with opened(settings) as storage:
        storage.append(tick(T))
        seconds = iter(range(T + 2, T + 100))

        def flush() -> None:
            storage.append(tick(next(seconds)))
            storage.flush()

        with open_reader(settings) as reader:
            assert isinstance(reader, RocksReader)
            storage.append(tick(T + 1))
            database = reader._handle
            assert database is not None
            database._handle = _FlushedMeanwhile(database._handle, flush)  # type: ignore[assignment]
            newest = reader.latest(SYMBOLS[0])
            assert newest is not None
            assert newest.timestamp >= T + 1

            class Restless(_FlushedMeanwhile):
                flushes = property(lambda self: 1, lambda self, value: None)

            database._handle = Restless(database._handle, flush)  # type: ignore[assignment]
            # No answer rather than a short one; and then it is opened anew.
            assert len(list(reader.scan(SYMBOLS[0], *ALWAYS))) >= 50


def test_a_reader_that_cannot_be_opened_for_a_moment_heals(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer may remove a file while the reader opens: it is tried again, now and later."""
    real = RowDatabase.open_secondary
    failures = [0]

    def opens(path: str, own: str) -> RowDatabase:
        if failures[0]:
            failures[0] -= 1
            raise StoreCorrupt("IO error: No such file or directory: 000012.sst", path)
        return real(path, own)

    def fails(_database: RowDatabase) -> None:
        raise StoreCorrupt("IO error: No such file or directory: 000013.sst")

    monkeypatch.setattr(RowDatabase, "open_secondary", opens)
    with opened(settings) as storage:
        storage.append(tick(T))
        failures[0] = 2
        with open_reader(settings) as reader:
            assert reader.latest(SYMBOLS[0]) == tick(T)[0]
            with monkeypatch.context() as patch:
                patch.setattr(RowDatabase, "catch_up", fails)
                for _ in range(3):
                    failures[0] = 100
                    with pytest.raises(StoreCorrupt, match="sst"):
                        reader.latest(SYMBOLS[0])
            with pytest.raises(StoreCorrupt, match="000012"):
                reader.latest(SYMBOLS[0])
            failures[0] = 0
            assert reader.latest(SYMBOLS[0]) == tick(T)[0]
        failures[0] = 100
        with pytest.raises(StoreCorrupt, match="000012"):
            open_reader(settings).__enter__()
    assert list(Path(settings.path + ".obframe", "readers").iterdir()) == []


@pytest.mark.parametrize("step", ["listdir", "read_bytes"])
def test_a_reader_takes_no_restart_of_the_writer_for_damage(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A start of the writer replaces the list of files while the reader looks at it."""
    restarts = [1]

    def restart(found: Any) -> Any:
        if restarts[0]:
            restarts[0] -= 1
            with opened(settings) as storage:
                storage.append(tick(T + 1))
        return found

    listdir, read_bytes = os.listdir, Path.read_bytes
    with opened(settings) as storage:
        storage.append(tick(T))
    if step == "listdir":
        monkeypatch.setattr(os, "listdir", lambda path: restart(listdir(path)))
    else:

        def read_then_restart(path: Path) -> bytes:
            found = read_bytes(path)
            return bytes(restart(found)) if path.name == "CURRENT" else found

        monkeypatch.setattr(Path, "read_bytes", read_then_restart)
    with open_reader(settings) as reader:
        assert restarts == [0]
        assert reader.latest(SYMBOLS[0]) == tick(T + 1)[0]


def test_a_reader_without_room_for_its_directory_leaves_nothing(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(settings) as storage:
        storage.append(tick(T))
    mkdir = Path.mkdir

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        if path.parent.name == "readers":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", full)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(StorageError, match="No space left"):
            open_reader(settings).__enter__()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert list(Path(settings.path + ".obframe", "readers").iterdir()) == []


def test_readers_leave_nothing_even_when_killed(settings: RocksSettings) -> None:
    """The directory of a dead reader is removed by the next one, that of a living one is not."""
    with opened(settings) as storage:
        storage.append(tick(T))
    code = (
        "import sys, os\n"
        "from obframe_plugins.rocksdb import RocksSettings, open_reader\n"
        "with open_reader(RocksSettings(path=sys.argv[1])) as reader:\n"
        "    print(reader.latest('SYM0USDT').timestamp, flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(9)\n"
    )
    readers = Path(settings.path + ".obframe", "readers")
    with subprocess.Popen(
        [sys.executable, "-c", code, settings.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == f"{T}\n"
        with open_reader(settings):
            assert len(list(readers.glob("*.lock"))) == 2
        assert len(list(readers.glob("*.lock"))) == 1
        process.stdin.close()
        assert process.wait() == 9
    assert len(list(readers.iterdir())) == 2
    with open_reader(settings):
        assert len(list(readers.glob("*.lock"))) == 1
    assert list(readers.iterdir()) == []


def test_reading_what_is_not_there_creates_nothing(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "no" / "such"):
        with pytest.raises(StorageError, match="no database there"):
            open_reader(RocksSettings(path=str(path))).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_reading_without_the_right_to_write_says_so(settings: RocksSettings) -> None:
    """A reader needs a small directory beside the rows; the error names it."""
    folder = Path(tempfile.mkdtemp(prefix="obframe-test-"))
    try:
        folder.chmod(0o755)
        mine = RocksSettings(path=str(folder / "rows"))
        with opened(mine) as storage:
            storage.append(tick(T))
        code = (
            "import sys\n"
            "from obframe import StorageError\n"
            "from obframe_plugins.rocksdb import RocksSettings, open_reader\n"
            "if len(sys.argv) > 2:\n"
            "    import os; os.setgid(65534); os.setuid(65534)\n"
            "try:\n"
            "    with open_reader(RocksSettings(path=sys.argv[1])): print('opened')\n"
            "except StorageError as error: print('refused', error)\n"
        )
        arguments = [sys.executable, "-c", code, mine.path]
        if os.geteuid() == 0:
            arguments.append("drop")
        else:
            for part in (mine.path, mine.path + ".obframe"):
                Path(part).chmod(0o555)
        answer = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        assert answer.startswith("refused")
        assert mine.path in answer
        assert "cannot be written" in answer
    finally:
        for part in folder.iterdir():
            part.chmod(0o755)
        shutil.rmtree(folder)


def test_a_place_that_cannot_be_written_is_told_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "rows.obframe").touch()
    with pytest.raises(StorageError, match=r"cannot be written: .*; choose a path in a folder"):
        RocksStorage.open(RocksSettings(path=str(tmp_path / "rows")))


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 MB, or skip; with OBFRAME_REQUIRE_SERVERS=1 fail instead."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    done = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False)
    if not done or done.returncode:
        message = "mounting a small disk needs root"
        if os.environ.get("OBFRAME_REQUIRE_SERVERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path, leave: int) -> Path:
    filler = disk / "filler"
    status = os.statvfs(disk)
    with filler.open("wb") as file, contextlib.suppress(OSError):
        for _ in range(max(0, status.f_bavail * status.f_frsize - leave) // 65536):
            file.write(b"x" * 65536)
    return filler


@pytest.mark.parametrize("leave", [0, 400_000])
@pytest.mark.parametrize("flushing", [False, True])
def test_row_41_a_full_disk_loses_nothing_and_heals(
    small_disk: Path, leave: int, flushing: bool
) -> None:
    """Row 41: errors while full, reading goes on, the same batches are taken when there is room."""
    settings = RocksSettings(path=str(small_disk / "rows"))
    size = 2500
    with opened(settings) as storage:
        second = T
        for _ in range(60):
            assert storage.append(tick(second, size)) == []
            second += 1
        filler = _fill(small_disk, leave)
        acknowledged = set(range(T, second))
        failed: dict[int, str] = {}
        for _ in range(40):
            if flushing:
                with contextlib.suppress(StorageError):
                    storage.flush()
            try:
                assert storage.append(tick(second, size)) == []
                acknowledged.add(second)
            except StoreUnavailable as error:
                failed[second] = str(error)
            second += 1
        assert len(failed) > 10
        assert all(settings.path in message for message in failed.values())
        with pytest.raises(StoreUnavailable, match=r"disk is full.*resumes by itself"):
            storage.append(tick(min(failed), size))
        # Reading goes on, with all that was acknowledged.
        assert acknowledged <= stored_seconds(storage, size)
        assert storage.latest(SYMBOLS[0]) is not None
        with contextlib.suppress(StoreUnavailable):
            storage.append_gaps([Gap("X", T, T, GapReason.DISK)])
        filler.unlink()
        for late in failed:
            assert storage.append(tick(late, size)) == []
        # A second that is stored now is refused again.
        assert storage.append(tick(min(failed), size)) == tick(min(failed), size)
        assert stored_seconds(storage, size) == set(range(T, second))
        storage.append_gaps([Gap("X", T + 1, T + 1, GapReason.DISK)])
        assert storage.gaps("X", *ALWAYS)
    with opened(settings) as storage:
        assert stored_seconds(storage, size) == set(range(T, second))


def test_row_41_a_reader_goes_on_while_the_disk_is_full(small_disk: Path) -> None:
    settings = RocksSettings(path=str(small_disk / "rows"))
    with opened(settings) as storage:
        storage.append(tick(T))
        with open_reader(settings) as reader:
            _fill(small_disk, 0)
            for second in range(T + 1, T + 60):
                with contextlib.suppress(StoreUnavailable):
                    storage.append(tick(second, 5000))
            assert reader.latest(SYMBOLS[0]) is not None
            assert list(reader.scan(SYMBOLS[0], T, T)) == tick(T)[:1]


# Faults of the disk itself, put between the library and the kernel

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The file named by FAULT holds what fails: "sync", "write" or nothing. "torn" writes half. */
static char fault(int fd, const char *suffix) {
    char link[64], path[4096], what[8] = "";
    ssize_t length;
    FILE *file = fopen(getenv("FAULT"), "r");
    if (!file) return 0;
    if (!fgets(what, sizeof what, file)) what[0] = 0;
    fclose(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 4) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, suffix) ? 0 : what[0];
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    if (fault(fd, ".log") == 's') { errno = EIO; return -1; }
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    if (fault(fd, ".log") == 's') { errno = EIO; return -1; }
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    char what;
    if (!real) real = (ssize_t (*)(int, const void *, size_t)) dlsym(RTLD_NEXT, "write");
    what = fault(fd, ".log");
    if (what == 'w') { errno = EIO; return -1; }
    if (what == 't') {
        if (size > 4000) return real(fd, data, size / 2);
        errno = ENOSPC;
        return -1;
    }
    return real(fd, data, size);
}
"""

FAULTY = """
import json, sys
from pathlib import Path
from obframe import Record, StoreUnavailable
from obframe_plugins.rocksdb import RocksSettings, RocksStorage
sys.path.insert(0, sys.argv[4])
from test_rocksdb_faults import T, tick, stored_seconds

path, kind, switch = sys.argv[1], sys.argv[2], Path(sys.argv[3])
now = [0.0]
storage = RocksStorage(RocksSettings(path=path), monotonic=lambda: now[0])
report = {"errors": [], "acknowledged": []}
for second in range(T, T + 20):
    assert storage.append(tick(second)) == []
    report["acknowledged"].append(second)
switch.write_text(kind)
for second in range(T + 20, T + 30):
    now[0] += 1
    try:
        storage.append(tick(second))
        report["acknowledged"].append(second)
    except StoreUnavailable as error:
        report["errors"].append(str(error))
report["read_while_failing"] = len(list(storage.scan("SYM0USDT", 0, 10**10)))
switch.write_text("")
now[0] += 1
# One of the batches that failed comes back changed: what landed of the first try must stand.
for second in range(T + 20, T + 40):
    now[0] += 1
    refused = storage.append(tick(second))
    assert refused == [], refused
    report["acknowledged"].append(second)
assert storage.append(tick(T + 20)) == tick(T + 20)
report["stored"] = sorted(stored_seconds(storage))
print(json.dumps(report))
sys.stdout.flush()
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile a library that makes writes or syncs of the log fail on demand."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        message = "making the disk fail needs a C compiler on Linux"
        if os.environ.get("OBFRAME_REQUIRE_SERVERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "fault.c", folder / "fault.so"
    source.write_text(SHIM)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True
    )
    return library


@pytest.mark.parametrize("kind", ["sync", "write", "torn"])
def test_row_42_a_failing_disk_acknowledges_nothing_and_heals(
    settings: RocksSettings, tmp_path: Path, shim: Path, kind: str
) -> None:
    """Row 42: a sync or write that fails is not acknowledged; a retry stores each row once."""
    switch = tmp_path / "switch"
    done = subprocess.run(
        [
            sys.executable, "-c", FAULTY, settings.path, kind, str(switch),
            str(Path(__file__).parent),
        ],
        env={**os.environ, "LD_PRELOAD": str(shim), "FAULT": str(switch)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = json.loads(done.stdout)
    assert len(report["errors"]) == 10
    assert set(report["acknowledged"]) == set(range(T, T + 40))
    assert report["stored"] == list(range(T, T + 40))
    assert report["read_while_failing"] >= 20 or kind == "torn"
    with opened(settings) as storage:
        assert stored_seconds(storage) == set(range(T, T + 40))


# The same, step by step, with a library that fails on command


class _FailingOnce:
    """Lets the write through and then says that it failed, as a failed sync does."""

    def __init__(self, lands: bool) -> None:
        self.lands = lands
        self.real = RowDatabase.write
        self.armed = True

    def __get__(self, instance: RowDatabase, owner: type) -> Callable[..., None]:
        def write(items: list[tuple[bytes, bytes]], *, sync: bool) -> None:
            if not self.armed:
                return self.real(instance, items, sync=sync)
            self.armed = False
            if self.lands:
                self.real(instance, items, sync=sync)
            raise StoreUnavailable("IO error: While fdatasync: Input/output error")

        return write


@pytest.mark.parametrize("lands", [True, False])
def test_a_retry_is_neither_refused_nor_doubled(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    """Whether the failed batch landed or not, the same bytes count as stored, others do not."""
    with opened(settings) as storage:
        storage.append(tick(T))
        monkeypatch.setattr(RowDatabase, "write", _FailingOnce(lands))
        with pytest.raises(StoreUnavailable):
            storage.append(tick(T + 1))
        changed = [Record(SYMBOLS[0], T + 1, b"other"), *tick(T + 1)[1:]]
        assert storage.append(changed) == (changed[:1] if lands else [])
        first = value(SYMBOLS[0], T + 1) if lands else b"other"
        assert storage.latest(SYMBOLS[0]) == Record(SYMBOLS[0], T + 1, first)
        # What is acknowledged by now is refused as ever.
        assert storage.append(tick(T + 1)[1:]) == tick(T + 1)[1:]
        assert storage.append(tick(T)) == tick(T)


def test_no_room_keeps_the_old_handle_for_reading(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for a reopening nothing is closed; with room again all goes on."""
    free = [1 << 30]
    with opened(settings, room=lambda path: free[0]) as storage:
        storage.append(tick(T))
        scan = storage.scan(SYMBOLS[0], *ALWAYS)
        monkeypatch.setattr(RowDatabase, "write", _FailingOnce(False))
        free[0] = 1 << 20
        with pytest.raises(StoreUnavailable, match="fdatasync"):
            storage.append(tick(T + 1))
        with pytest.raises(StoreUnavailable, match="disk is full: 1024 KiB free, 16384 KiB needed"):
            storage.append(tick(T + 1))
        assert storage.latest(SYMBOLS[0]) == tick(T)[0]
        free[0] = 1 << 30
        assert storage.append(tick(T + 1)) == []
        with pytest.raises(StorageError, match="opened anew during the scan"):
            list(scan)
        assert len(list(storage.scan(SYMBOLS[0], *ALWAYS))) == 2


def test_row_42_a_disk_that_does_not_tell_its_room_is_waited_for(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 42: an error of another kind would tell the writer to give the rows up."""
    broken = [False]

    def room(path: Path) -> int:
        if broken[0]:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return 1 << 30

    with opened(settings, room=room) as storage:
        monkeypatch.setattr(RowDatabase, "write", _FailingOnce(False))
        with pytest.raises(StoreUnavailable):
            storage.append(tick(T))
        broken[0] = True
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            storage.append(tick(T))
        broken[0] = False
        assert storage.append(tick(T)) == []
        assert stored_seconds(storage) == {T}


def test_a_reopening_that_fails_is_tried_again(
    settings: RocksSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    storage = RocksStorage(settings, monotonic=lambda: now[0])
    storage.append(tick(T))
    monkeypatch.setattr(RowDatabase, "write", _FailingOnce(True))
    with pytest.raises(StoreUnavailable):
        storage.append(tick(T + 1))
    real = RowDatabase.open_writer
    attempts = []

    def fails(path: str, *, create: bool, level: int = 3) -> RowDatabase:
        attempts.append(now[0])
        if len(attempts) < 3:
            raise StoreUnavailable("IO error: No space left on device")
        return real(path, create=create, level=level)

    monkeypatch.setattr(RowDatabase, "open_writer", fails)
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            storage.append(tick(T + 1))
    assert attempts == [0.0]  # no hot loop
    with pytest.raises(StoreUnavailable):
        storage.latest(SYMBOLS[0])
    now[0] = 1.0
    with pytest.raises(StoreUnavailable):
        storage.latest(SYMBOLS[0])
    now[0] = 2.0
    assert storage.latest(SYMBOLS[0]) == tick(T + 1)[0]
    assert storage.append(tick(T + 1)) == []
    storage.close()
    assert attempts == [0.0, 1.0, 2.0]
    with opened(settings) as again:
        assert stored_seconds(again) == {T, T + 1}
