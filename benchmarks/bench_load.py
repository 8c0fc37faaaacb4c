"""1,500 symbols at 10 messages a second each, from the loopback venue into RocksDB.

What is judged beside the budgets: no message was lost, every row is the venue's truth, none misses.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bench_recording import echo_for
from data import make_stream
from gate import percentile_99
from load import STARTING, Load, measure

SECONDS = 30

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc"),
]


def test_1500_symbols(gate: Any, tmp_path: Path) -> None:
    beside: list[tuple[float, float]] = []
    thread = threading.Thread(target=lambda: beside.append(measure_beside(STARTING + SECONDS)))
    thread.start()
    figures = measure(Load(seconds=SECONDS), tmp_path)
    thread.join()
    echo, reading = beside[0]
    assert figures.faults == []
    assert figures.messages > 1500 * 10 * 0.99
    gate.hold("lag_1500", figures.lag * 1e3, 1500 * reading / 1e3)
    gate.hold("latency_1500", figures.latency * 1e3, echo)
    gate.hold("cpu_1500", figures.cpu_a_message, reading)
    gate.hold("memory_1500", figures.memory * 2**20 / 1500)


def measure_beside(seconds: float) -> tuple[float, float]:
    """Return the p99 of a loopback echo in ms, and the us that json.loads takes for a message."""
    messages = make_stream().messages[:50]
    spent: list[float] = []
    end = time.monotonic() + seconds
    echoes: list[float] = []
    while time.monotonic() < end:
        echoes += echo_for(1.0)
        start = time.thread_time()
        for message in messages:
            json.loads(message)
        spent.append((time.thread_time() - start) / len(messages))
    return percentile_99(echoes) * 1e3, sorted(spent)[len(spent) // 2] * 1e6
