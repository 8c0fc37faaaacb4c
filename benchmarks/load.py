"""The real recorder under the load of thousands of symbols, and every row of it judged.

A venue of its own process serves a loop of events; its truth follows from the update ids alone.
``python benchmarks/load.py`` prints one line for each way to read; ``--help`` tells how to choose.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obframe import MAX_TIMESTAMP, MIN_TIMESTAMP
from obframe.testing.exchange import ExchangeOptions
from obframe.testing.exchange_loop import LoopSource
from obframe.testing.exchange_market import MARKETS
from obframe.testing.oracle import judge_by
from obframe_plugins.rocksdb import RocksSettings, open_reader

STARTING = 12
"""Seconds for all connections, subscriptions and snapshots."""
LOOP = 100
EARLY = {"connecting", "syncing"}
WAYS = {
    "transport": ["websockets", "picows"],
    "event-loop": ["asyncio", "uvloop"],
    "wire": ["plain", "tls"],
}


@dataclass(frozen=True)
class Load:
    """What is recorded, and how it is read."""

    symbols: int = 1500
    rate: float = 10.0
    seconds: int = 30
    transport: str = "auto"
    event_loop: str = "auto"
    tls: Path | None = None

    @property
    def options(self) -> ExchangeOptions:
        """The venue's, as far as its truth depends on them."""
        return ExchangeOptions(symbols=self.symbols, rate=self.rate, loop=LOOP)

    def source(self) -> LoopSource:
        """Return the venue's market, for its truth."""
        options = self.options
        assert isinstance(options.symbols, int)
        market = MARKETS["spot"]
        return LoopSource(
            market, options.symbols, options.seed, options.rate, options.levels, options.loop
        )


@dataclass
class Figures:
    """What one run took and gave.

    Attributes:
        cpu: Per cent of a core, of all threads of the recorder, after its start.
        venue_cpu: The same of the venue.
        memory: MiB of the recorder, resident.
        messages: A second, by the update ids of the rows.
        rows: Stored.
        lag: Seconds from a second's label to the sampling of its last row, p99.
        latency: Seconds from the reading of a message to the updated book, p99.
        faults: What went wrong; empty for a good run.
    """

    cpu: float = 0.0
    venue_cpu: float = 0.0
    memory: float = 0.0
    messages: float = 0.0
    rows: int = 0
    lag: float = 0.0
    latency: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def cpu_a_message(self) -> float:
        """Microseconds of CPU a message, with its share of rows and all else."""
        return self.cpu / 100 / self.messages * 1e6 if self.messages else 0.0


class Desk:
    """A folder where a venue and a recorder run."""

    def __init__(self, folder: Path, load: Load) -> None:
        self.folder = folder
        self.load = load
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("OBFRAME_")}
        self.environ.pop("PERSISTENT_SYMBOLS", None)
        if load.tls is not None:
            self.environ["SSL_CERT_FILE"] = str(load.tls)

    @contextmanager
    def start(self, *arguments: object) -> Iterator[Any]:
        """Run one of our commands; it is ended in order, its log is a file."""
        with (self.folder / f"{arguments[0]}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "obframe", *map(str, arguments)],
                cwd=self.folder,
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        with process:
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    @contextmanager
    def venue(self) -> Iterator[tuple[Any, dict[str, str]]]:
        """Start the venue; gives it and its URLs."""
        load = self.load
        options = ["--symbols", load.symbols, "--rate", load.rate, "--loop", LOOP]
        options += ["--weight-limit", 10**9, "--port", 0, "--format", "json"]
        if load.tls is not None:
            options += ["--tls", load.tls]
        with self.start("exchange", *options) as venue:
            yield venue, json.loads(venue.stdout.readline())

    def recorder(self, urls: dict[str, str], names: list[str]) -> Any:
        """Start the recorder."""
        load = self.load
        settings = {f"binance.{name}": url for name, url in urls.items()}
        settings |= {
            "binance.transport": load.transport,
            "binance.rest_weight_per_minute": 10**9,
            "recorder.event_loop": load.event_loop,
            "rocksdb.path": str(self.path),
        }
        sets = [f"--set={key}={value}" for key, value in settings.items()]
        life = ["--duration", STARTING + load.seconds + 1, "--format", "json"]
        return self.start("run", "--plugins", "rocksdb", "--symbols", ",".join(names), *sets, *life)

    @property
    def path(self) -> Path:
        """Where the rows go."""
        return self.folder / "rows"


def read_cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_memory(pid: int) -> float:
    """Return the resident MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(load: Load, folder: Path) -> Figures:
    """Record, and judge every row that was stored."""
    figures = Figures()
    source = load.source()
    desk = Desk(folder, load)
    with desk.venue() as (venue, urls), desk.recorder(urls, list(source.listings)) as recorder:
        time.sleep(STARTING)
        started, second = time.monotonic(), int(time.time()) + 1
        before = read_cpu(recorder.pid), read_cpu(venue.pid)
        time.sleep(load.seconds - 1)
        after = read_cpu(recorder.pid), read_cpu(venue.pid)
        elapsed = time.monotonic() - started
        figures.memory = read_memory(recorder.pid)
        out, _ = recorder.communicate(timeout=120)
        if recorder.returncode:
            figures.faults.append((folder / "run.log").read_text()[-2000:])
            return figures
    figures.cpu, figures.venue_cpu = (
        (b - a) / elapsed * 100 for a, b in zip(before, after, strict=True)
    )
    summary = json.loads(out)
    figures.rows = summary["rows"]
    figures.lag = summary["tick_lag_p99"]
    figures.latency = summary["book_latency_p99"]
    figures.faults += judge_counters(summary)
    judge_rows(figures, desk.path, source, (second, second + load.seconds - 2))
    return figures


def judge_counters(summary: dict[str, Any]) -> list[str]:
    """Name every counter that tells of a loss."""
    counters = summary["counters"]
    losses = ("book.sequence", "book.invalid", "book.buffer_full", "books.errors")
    losses += ("feed.malformed", "feed.invalid", "feed.reconnects", "feed.silences")
    losses += ("storage.overflowed", "storage.failures", "storage.already_stored")
    found = [f"{name} {counters[name]}" for name in losses if counters.get(name)]
    late = set(summary["gap_seconds"]) - EARLY
    return found + [f"lost: {reason}" for reason in sorted(late)]


def judge_rows(figures: Figures, path: Path, source: LoopSource, window: tuple[int, int]) -> None:
    """Compare every row with the venue's truth; from a symbol's first one on none may be missing.

    Args:
        figures: Take the messages a second within the window, and the faults.
        path: Of the rows.
        source: The venue's market.
        window: First and last second of the time measured.
    """
    rows = messages = 0
    with open_reader(RocksSettings(path=str(path))) as storage:
        for symbol in source.listings:
            verdict = judge_by(storage, symbol, lambda at, of=symbol: source.truth(of, at))
            rows += verdict.equal
            figures.faults += verdict.wrong[:3]
            scanned = storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP)
            ids = {record.timestamp: read_update_id(record.value) for record in scanned}
            stamps = list(ids)
            holes = [a + 1 for a, b in itertools.pairwise(stamps) if b != a + 1]
            if holes or not stamps or stamps[0] > window[0] or stamps[-1] < window[1]:
                figures.faults.append(f"{symbol}: rows are missing {holes[:5]}")
                continue
            first, last = (source.count(symbol, ids[second]) for second in window)
            assert first is not None
            assert last is not None
            messages += last - first
    if rows != figures.rows:
        figures.faults.append(f"{rows} rows are right, {figures.rows} were said to be stored")
    figures.messages = messages / (window[1] - window[0])


def read_update_id(value: bytes) -> int:
    """Return the update id of a row, read without the core."""
    import msgpack  # noqa: PLC0415

    return int(msgpack.unpackb(value)[2])


@contextmanager
def make_certificate() -> Iterator[Path]:
    """Make a PEM file of a key and a certificate for 127.0.0.1, by the openssl command."""
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder, "venue.pem")
        key, cert = Path(folder, "key"), Path(folder, "cert")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", key, "-out", cert, "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
        pem.write_bytes(key.read_bytes() + cert.read_bytes())
        yield pem


def main(arguments: list[str] | None = None) -> int:
    """Measure each way and print a line of it; 1 when a run was not good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=1500, help="how many are recorded")
    parser.add_argument("--rate", type=float, default=10.0, help="messages a second and symbol")
    parser.add_argument("--seconds", type=int, default=30, help="of each run, after its start")
    ways = "which to measure, each with each; by default all"
    for name, known in WAYS.items():
        parser.add_argument(
            f"--{name}",
            nargs="+",
            choices=known,
            default=known,
            metavar="NAME",
            help=f"{', '.join(known)}: {ways}",
        )
    chosen = parser.parse_args(arguments)
    print(
        f"{chosen.symbols} symbols, {chosen.rate:g} messages/s each, {chosen.seconds} s a run\n"
        f"{'wire':6}{'transport':12}{'event loop':12}{'messages/s':>11}{'CPU':>8}{'us/message':>11}"
        f"{'memory':>9}{'rows':>8}{'tick lag':>10}{'latency':>10}{'venue CPU':>10}  faults"
    )
    bad = 0
    with make_certificate() as pem:
        ways = itertools.product(chosen.wire, chosen.transport, chosen.event_loop)
        for wire, transport, event_loop in ways:
            tls = pem if wire == "tls" else None
            load = Load(chosen.symbols, chosen.rate, chosen.seconds, transport, event_loop, tls)
            folder = Path(tempfile.mkdtemp(prefix="obframe-load-"))
            try:
                got = measure(load, folder)
            finally:
                shutil.rmtree(folder)
            bad += bool(got.faults)
            print(
                f"{wire:6}{transport:12}{event_loop:12}{got.messages:11,.0f}{got.cpu:7.1f}%"
                f"{got.cpu_a_message:11.1f}{got.memory:5.0f} MiB{got.rows:8,}"
                f"{got.lag * 1e3:7.1f} ms{got.latency * 1e3:7.2f} ms{got.venue_cpu:9.1f}%  "
                f"{'; '.join(got.faults[:3]) or 'none'}",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
