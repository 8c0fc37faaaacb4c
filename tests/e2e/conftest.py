"""The real commands as subprocesses: a venue on loopback, and recorders of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP, GapReason, Storage
from obframe_plugins.rocksdb import RocksSettings, open_reader


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "obframe", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment without settings of obframe that the developer may have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OBFRAME_")}
    kept.pop("PERSISTENT_SYMBOLS", None)
    return kept


@dataclass
class Process:
    """One command under way, its output in files."""

    popen: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def log(self) -> str:
        return self.err.read_text()

    def wait(self, timeout: float = 60) -> int:
        return self.popen.wait(timeout)

    def until_logged(self, text: str, timeout: float = 30) -> None:
        wait_until(lambda: text in self.log or self.popen.poll() is not None, timeout)
        assert text in self.log, self.log

    def pause(self, seconds: float) -> None:
        """Let the process go on for so long; it must not end meanwhile."""
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"ended early: {self.log}")

    def terminate(self, timeout: float = 20) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


@dataclass
class Venue(Process):
    rest_url: str = ""
    ws_url: str = ""


@dataclass
class Desk:
    """A folder with commands run in it."""

    folder: Path
    stack: ExitStack
    count: int = 0
    processes: list[Process] = field(default_factory=list)

    def start(self, *arguments: object) -> Process:
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            popen = subprocess.Popen(
                command(*arguments),
                cwd=self.folder,
                env=environment(),
                stdout=stdout,
                stderr=stderr,
            )
        process = Process(popen, out, err)
        self.stack.callback(_end, process)
        return process

    def venue(self, *arguments: object, port: int = 0) -> Venue:
        process = self.start("exchange", "--port", port, "--format", "json", *arguments)
        wait_until(lambda: process.out.read_bytes().endswith(b"\n") or process.popen.poll(), 60)
        assert process.out.read_text(), process.log
        urls = json.loads(process.out.read_text().splitlines()[0])
        return Venue(process.popen, process.out, process.err, urls["rest_url"], urls["ws_url"])

    def recorder(self, venue: Venue, *arguments: object, path: Path | None = None) -> Process:
        settings = {
            "binance.rest_url": venue.rest_url,
            "binance.ws_url": venue.ws_url,
            "rocksdb.path": path or self.path,
        }
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return self.start("run", "--plugins", "rocksdb", *sets, *arguments)

    def run(self, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def path(self) -> Path:
        return self.folder / "db"

    @contextmanager
    def store(self, path: Path | None = None) -> Iterator[Storage]:
        with open_reader(RocksSettings(path=str(path or self.path))) as storage:
            yield storage

    def until(self, condition: Callable[[], Any], timeout: float) -> None:
        wait_until(condition, timeout)

    def timeline(self, symbol: str, path: Path | None = None) -> Timeline:
        with self.store(path) as storage:
            rows = [
                record.timestamp for record in storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP)
            ]
            gaps: dict[int, GapReason] = {}
            for gap in storage.gaps(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP):
                for second in range(gap.start, gap.end + 1):
                    assert second not in gaps, f"{symbol}: {second} is lost twice"
                    gaps[second] = gap.reason
        return Timeline(symbol, rows, gaps)


@dataclass
class Timeline:
    """Every second of one symbol: stored, or lost with its reason."""

    symbol: str
    rows: list[int]
    gaps: dict[int, GapReason]

    def check(self) -> None:
        """Every second from the first to the last is a row or a gap, and never both."""
        stored, lost = set(self.rows), set(self.gaps)
        assert len(stored) == len(self.rows), f"{self.symbol}: a second stored twice"
        assert not stored & lost, f"{self.symbol}: stored and lost: {sorted(stored & lost)}"
        seconds = stored | lost
        holes = set(range(min(seconds), max(seconds) + 1)) - seconds
        assert not holes, f"{self.symbol}: unaccounted for: {sorted(holes)}"

    def reasons(self) -> set[str]:
        return {str(reason) for reason in self.gaps.values()}


def wait_until(condition: Callable[[], Any], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not true within {timeout} s"
        select.select([], [], [], 0.02)


def _end(process: Process) -> None:
    if process.popen.poll() is None:
        process.popen.send_signal(signal.SIGTERM)
        try:
            process.popen.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(tmp_path, stack)
