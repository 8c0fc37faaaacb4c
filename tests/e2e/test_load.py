"""Twenty symbols for a minute: every second a row, and books that are up to date."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from obframe.testing.oracle import judge

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
