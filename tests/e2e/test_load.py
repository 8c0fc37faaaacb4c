"""Many symbols, every second a row, and books that are up to date."""

from __future__ import annotations

import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from obframe.testing.exchange import ExchangeOptions, make_source
from obframe.testing.exchange_loop import LoopSource
from obframe.testing.oracle import judge, judge_by

SECONDS = int(os.environ.get("OBFRAME_LOAD_SECONDS", "60"))


@pytest.mark.slow
@pytest.mark.timeout(120 + SECONDS)
def test_20_symbols_for_a_minute(
    desk: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    venue = desk.venue("--symbols", 20, "--record", journal)
    symbols = ["BTCUSDT", "ETHUSDT", *(f"SIM{i:04}USDT" for i in range(1, 19))]
    recorder = desk.recorder(
        venue, "--symbols", ",".join(symbols), "--duration", SECONDS + 3, "--format", "json"
    )
    assert recorder.wait(SECONDS + 60) == 0, recorder.log
    assert venue.terminate() == 0, venue.log
    summary = json.loads(recorder.out.read_text())
    for symbol in symbols:
        timeline = desk.timeline(symbol)
        timeline.check()
        assert timeline.reasons() <= {"connecting", "syncing"}
        assert len(timeline.rows) + len(timeline.gaps) >= SECONDS
        assert len(timeline.rows) >= SECONDS - 2
        with desk.store() as storage:
            found = judge(storage, symbol, [journal / f"{symbol.lower()}.gz"])
        assert found.wrong == []
        assert found.equal == len(timeline.rows)
    assert summary["rows"] == sum(len(desk.timeline(symbol).rows) for symbol in symbols)
    with capsys.disabled():
        print(  # noqa: T201 - the figure that this test is asked for
            f"\n20 symbols, {SECONDS} s: {summary['rows']} rows, {summary['updates']} updates, "
            f"book latency p99 {summary['book_latency_p99'] * 1e3:.3f} ms, "
            f"tick lag p99 {summary['tick_lag_p99'] * 1e3:.2f} ms"
        )
    assert summary["book_latency_p99"] < 0.2
    assert summary["updates"] > 20 * SECONDS * 8


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["websockets", "picows"])
@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
def test_300_symbols_lose_nothing(desk: Any, transport: str, event_loop: str) -> None:
    seconds = 7
    options = ExchangeOptions(symbols=300, loop=40)
    source = make_source(options)
    assert isinstance(source, LoopSource)
    venue = desk.venue("--symbols", 300, "--loop", 40, "--weight-limit", 10**9)
    recorder = desk.recorder(
        venue,
        *("--symbols", ",".join(source.listings), "--format", "json"),
        *("--set", "binance.rest_weight_per_minute=1000000"),
        *("--set", f"binance.transport={transport}"),
        *("--set", f"recorder.event_loop={event_loop}"),
    )

    def live() -> int:
        told = re.findall(r"books: (.+?)(?: and (\d+) more)?: \w+ -> live", recorder.log)
        return sum(names.count(",") + 1 + int(more or 0) for names, more in told)

    desk.until(lambda: live() == 300, 60)
    lateness = measure_lateness(seconds)
    assert recorder.terminate() == 0, recorder.log
    assert f"event loop {event_loop}" in recorder.log
    assert f"streams are read by {transport}" in recorder.log
    summary = json.loads(recorder.out.read_text())
    counters = summary["counters"]
    for name in ("book.sequence", "feed.malformed", "feed.reconnects", "storage.overflowed"):
        assert counters.get(name, 0) == 0, name
    assert set(summary["gap_seconds"]) <= {"connecting", "syncing"}
    rows = 0
    with desk.store() as storage:
        for symbol in source.listings:
            verdict = judge_by(storage, symbol, partial(source.truth, symbol))
            assert verdict.wrong == []
            rows += verdict.equal
    assert rows == summary["rows"]
    for symbol in source.listings:
        timeline = desk.timeline(symbol)
        timeline.check()
        assert len(timeline.rows) >= seconds
        assert min(timeline.rows) > max(timeline.gaps, default=0)
    # Where others leave no processor to a few milliseconds of work, the recorder gets none either.
    assert summary["tick_lag_p99"] < max(0.05, 4 * lateness)


def measure_lateness(seconds: float) -> float:
    """Return the most that a tenth of a second's sleep and 5 ms of work were late, in seconds."""
    worst, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        due = time.monotonic() + 0.105
        time.sleep(0.1)
        busy_until = time.thread_time() + 0.005
        while time.thread_time() < busy_until:
            pass
        worst = max(worst, time.monotonic() - due)
    return worst
