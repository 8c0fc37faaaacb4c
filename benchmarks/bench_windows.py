"""Windows: an hour from the disk to NumPy, a week in bounded memory, the age of what is followed.

The hour runs in turns with a scan whose rows msgpack makes objects of, kept as a reader keeps them.
Both read the same files through readers of their own, as another process than the recorder does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bench_recording import STARTING, Trial
from data import make_stream

import obframe
from obframe import DepthSnapshot, OrderBook, Record, Window, parse_depth_update
from obframe.reader import Reader
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

T = 1_737_158_400
HOUR = 3_600
WEEK = 168 * HOUR
FOLLOWED = 12


def make_values(count: int) -> list[bytes]:
    """Return rows of consecutive seconds: of a book that each second takes in one message."""
    stream = make_stream()
    book = OrderBook("BTCUSDT")
    values = []
    for at in range(count):
        if at % len(stream.messages) == 0:
            book.load(DepthSnapshot("BTCUSDT", 0, stream.bids, stream.asks))
        update = parse_depth_update(stream.messages[at % len(stream.messages)])
        assert update is not None
        book.apply(update)
        values.append(book.snapshot(T + at).pack())
    return values


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of one hour of one symbol, all of it in files."""
    path = tmp_path_factory.mktemp("hour") / "rows"
    with closing(RocksStorage.open(RocksSettings(path=str(path)))) as storage:
        values = make_values(HOUR)
        storage.append([Record("BTCUSDT", T + at, value) for at, value in enumerate(values)])
        storage.flush()
    return path


class Readers:
    """Two readers of a store: one for the work, one for what it is compared with."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self.window: Window | None = None
        self.kept: list[Any] = []
        self.open()

    def open(self) -> None:
        """Open both anew, so that neither has a block in memory, and the kernel none either."""
        self.close()
        for file in self._path.glob("*.sst"):
            number = os.open(file, os.O_RDONLY)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(number)
        self.ours: Reader = self._stack.enter_context(obframe.open(self._path))
        self.theirs: Reader = self._stack.enter_context(obframe.open(self._path))

    def close(self) -> None:
        self._stack.close()
        self.forget()

    def forget(self) -> None:
        """Let go of what was read; that is not measured."""
        self.window = None
        self.kept.clear()

    def work(self) -> None:
        self.window = self.ours.window("BTCUSDT", T, T + HOUR - 1)

    def reference(self) -> None:
        for record in self.theirs.storage.scan("BTCUSDT", T, T + HOUR - 1):
            self.kept.append(msgpack.unpackb(record.value))


@pytest.fixture
def readers(hour: Path) -> Iterator[Readers]:
    readers = Readers(hour)
    yield readers
    readers.close()


def test_an_hour(race: Any, readers: Readers) -> None:
    """Blocks that were read before are in memory."""
    race(
        "window_hour",
        work=readers.work,
        reference=readers.reference,
        settle=readers.forget,
        rounds=30,
    )
    check(readers)


def test_an_hour_from_the_disk(race: Any, readers: Readers) -> None:
    """Each round begins with readers just opened, and without the files in the kernel's memory."""
    race(
        "window_hour_cold",
        work=readers.work,
        reference=readers.reference,
        settle=readers.open,
        rounds=20,
    )
    check(readers)


def check(readers: Readers) -> None:
    """The last round's window holds what msgpack reads."""
    readers.work()
    readers.kept.clear()
    readers.reference()
    assert readers.window is not None
    assert readers.window.coverage.stored == len(readers.kept) == HOUR
    exact = readers.window.to_float64()
    for at in (0, HOUR // 2, HOUR - 1):
        bids = readers.kept[at][0]
        assert exact.bid_prices[at].tolist() == [float(price) for price, _ in bids]
        assert exact.bid_quantities[at].tolist() == [float(quantity) for _, quantity in bids]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.timeout(600)
def test_a_week_in_bounded_memory(gate: Any, tmp_path: Path) -> None:
    """What streaming a week adds to a process's memory, beside the columns of the whole week."""
    path = tmp_path / "rows"
    values = make_values(500)
    with closing(RocksStorage.open(RocksSettings(path=str(path), durability="process"))) as storage:
        for start in range(T, T + WEEK, HOUR):
            storage.append(
                [
                    # The second is the value's last four bytes.
                    Record("BTCUSDT", at, values[at % 500][:-4] + at.to_bytes(4, "big"))
                    for at in range(start, start + HOUR)
                ]
            )
    done = subprocess.run(
        [sys.executable, __file__, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows, grown, column_bytes, seconds = (float(word) for word in done.stdout.split())
    assert rows == WEEK
    gate.hold("week_memory", grown, column_bytes)
    gate.hold("week_hour", seconds / 168 * 1e3)


def stream_week(path: str) -> None:
    """Print rows read, bytes by which the peak of memory grew, bytes of columns, and seconds."""
    with obframe.open(path) as store:
        store.window("BTCUSDT", T, T + 60)
        before = read_status("VmRSS")
        rows = column_bytes = 0
        started = time.perf_counter()
        for window in store.windows("BTCUSDT", T, T + WEEK - 1):
            assert window.coverage.missing == ()
            rows += len(window)
            columns = (window.bid_prices, window.bid_quantities, window.timestamp, window.trust)
            column_bytes += sum(2 * column.nbytes for column in columns)
        spent = time.perf_counter() - started
        grown = read_status("VmHWM") - before
    sys.stdout.write(f"{rows} {grown} {column_bytes} {spent}\n")


def read_status(name: str) -> int:
    """Return bytes that the kernel tells of this process; a peak is not its parent's, as rusage's.

    Args:
        name: ``VmRSS``, what is resident now, or ``VmHWM``, the most there was.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


@pytest.mark.timeout(180)
def test_the_age_of_a_followed_row(gate: Any, tmp_path: Path) -> None:
    """From a second's beginning to its row in another process's hands: sampled, stored and read."""
    trial = Trial(tmp_path, 2)
    ages = []
    with trial.record() as recorder:
        with obframe.open(tmp_path / "rows") as store:
            newest = store.latest("BTCUSDT")
            assert newest is not None
            for row in store.follow("BTCUSDT", newest.timestamp + 1, timeout=STARTING):
                ages.append(time.time() - row.timestamp)
                if len(ages) == FOLLOWED:
                    break
        trial.finish(recorder)
    gate.hold("followed_age", statistics.median(ages) * 1e3)


if __name__ == "__main__":
    stream_week(sys.argv[1])
