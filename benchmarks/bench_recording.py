"""The real recorder, fed by the real venue on loopback: latency with 20 symbols, CPU of two.

Beside it, in the same seconds, runs what both are compared with: an echo over loopback, and a
client of the same venue that only reads the messages.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gate import percentile_99

SECONDS = int(os.environ.get("OBFRAME_BENCH_SECONDS", "20"))
STARTING = 5
RATE = 10
MARKET = {2: ["BTCUSDT", "ETHUSDT"]}
MARKET[20] = [*MARKET[2], *(f"SIM{number:04}USDT" for number in range(1, 19))]

pytestmark = pytest.mark.timeout(180)


class Trial:
    """A venue of so many symbols and a recorder of them all."""

    def __init__(self, folder: Path, symbols: int) -> None:
        self.folder = folder
        self.symbols = symbols
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith("OBFRAME_")
        }
        self.environ.pop("PERSISTENT_SYMBOLS", None)
        self.command = [sys.executable, "-m", "obframe"]
        self.urls: dict[str, str] = {}

    @contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with (self.folder / f"{arguments[0]}.log").open("w") as log:
            process = subprocess.Popen(
                [*self.command, *arguments],
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
                process.kill()

    @contextmanager
    def record(self) -> Iterator[subprocess.Popen[str]]:
        """Start both; gives the recorder once it runs."""
        options = ["--symbols", str(self.symbols), "--rate", str(RATE)]
        with self.start("exchange", "--port", "0", "--format", "json", *options) as venue:
            assert venue.stdout is not None
            self.urls = json.loads(venue.stdout.readline())
            settings = [f"--set=binance.{name}={url}" for name, url in self.urls.items()]
            settings += [f"--set=rocksdb.path={self.folder / 'rows'}", "--plugins", "rocksdb"]
            names = ["--symbols", ",".join(MARKET[self.symbols])]
            life = ["--duration", str(STARTING + SECONDS), "--format", "json"]
            with self.start("run", *settings, *names, *life) as recorder:
                time.sleep(STARTING)
                yield recorder

    @contextmanager
    def read_plainly(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start a client of the same streams that only reads their JSON; gives it once it does."""
        script = Path(__file__).with_name("plain_client.py")
        command = [sys.executable, str(script), self.urls["ws_url"], *MARKET[self.symbols]]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            try:
                assert client.stdout is not None
                assert client.stdout.readline() == b"connected\n"
                yield client
            finally:
                client.kill()

    def finish(self, recorder: subprocess.Popen[str]) -> dict[str, Any]:
        """Return what the recorder says of its run, which must have been a good one."""
        out, _ = recorder.communicate(timeout=60)
        assert recorder.returncode == 0, (self.folder / "run.log").read_text()
        summary: dict[str, Any] = json.loads(out)
        assert summary["rows"] >= self.symbols * (SECONDS - 2)
        assert summary["updates"] >= self.symbols * SECONDS * RATE * 0.8
        return summary


def echo_for(seconds: float, pause: float = 0.005) -> list[float]:
    """Return the seconds of each exchange of a message over loopback; between them are pauses."""
    server = socket.create_server(("127.0.0.1", 0))
    message = b"x" * 1024

    def answer() -> None:
        peer, _ = server.accept()
        with peer:
            while received := peer.recv(4096):
                peer.sendall(received)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    spent = []
    end = time.monotonic() + seconds
    with server, socket.create_connection(server.getsockname()) as client:
        while time.monotonic() < end:
            start = time.perf_counter()
            client.sendall(message)
            left = len(message)
            while left:
                left -= len(client.recv(left))
            spent.append(time.perf_counter() - start)
            time.sleep(pause)
    thread.join(10)
    return spent


def read_cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used, all its threads."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e9


def test_latency_of_20_symbols(gate: Any, tmp_path: Path) -> None:
    trial = Trial(tmp_path, 20)
    with trial.record() as recorder:
        # Pauses as between messages, as some machines make dear what runs after one; of a short
        # run they are shorter, for exchanges enough.
        pause = min(0.5 / RATE, (SECONDS - 1) / 200)
        echo = percentile_99(echo_for(SECONDS - 1, pause)) * 1e3
        summary = trial.finish(recorder)
    gate.hold("latency_20", summary["book_latency_p99"] * 1e3, echo)
    gate.hold("lag_20", summary["tick_lag_p99"] * 1e3, echo)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's schedstat")
def test_cpu_of_2_symbols(gate: Any, tmp_path: Path) -> None:
    trial = Trial(tmp_path, 2)
    with trial.record() as recorder:
        end = time.monotonic() + SECONDS - 1
        with trial.read_plainly() as client:
            processes = recorder.pid, client.pid
            started, before = time.monotonic(), [read_cpu(pid) for pid in processes]
            time.sleep(max(end - started, 0))
            spent = [read_cpu(pid) - at for pid, at in zip(processes, before, strict=True)]
            elapsed = time.monotonic() - started
            assert client.poll() is None
        trial.finish(recorder)
    ours, plain = (seconds / elapsed * 100 for seconds in spent)
    gate.hold("cpu_2", ours, plain)
