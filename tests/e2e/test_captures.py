"""Real market data over the real wire protocol: not one stored row may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from obframe.testing.oracle import Verdict, judge

SPOT = {
    "BTCUSDT": ["spot/btcusdt_20240808.gz", "spot/btcusdt_20240809.gz"],
    "ETHUSDT": ["spot/ethusdt_20240808.gz", "spot/ethusdt_20240809.gz"],
}
USDM = {"BTCUSDT": ["usdm/btcusdt_20240808.gz"], "ETHUSDT": ["usdm/ethusdt_20240808.gz"]}


def verdict(desk: Any, captures: Path, symbol: str, names: list[str], futures: bool) -> Verdict:
    with desk.store() as storage:
        return judge(storage, symbol, [captures / name for name in names], futures=futures)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("market", "files", "speed", "rows"),
    [("spot", SPOT, 40, 14), ("usdm", USDM, 20, 14)],
    ids=["spot", "usdm"],
)
def test_every_row_recorded_from_captures_is_the_venues_book(
    desk: Any, captures: Path, market: str, files: dict[str, list[str]], speed: int, rows: int
) -> None:
    paths = [captures / name for names in files.values() for name in names]
    venue = desk.venue("--speed", speed, "--at-end", "exit", "--market", market, *paths)
    recorder = desk.recorder(venue, "--set", f"binance.market={market}")
    assert venue.wait(60) == 0
    assert recorder.terminate() == 0, recorder.log
    confirmed = 0
    for symbol, names in files.items():
        timeline = desk.timeline(symbol)
        timeline.check()
        found = verdict(desk, captures, symbol, names, market != "spot")
        assert found.wrong == []
        assert found.equal == found.rows == len(timeline.rows) >= rows
        confirmed += found.tickers
    if market == "spot":  # a third of the updates have a bookTicker of the same id; 8 % of futures'
        assert confirmed > 0


@pytest.mark.slow
def test_faults_on_the_way_make_gaps_with_causes_and_never_a_wrong_row(
    desk: Any, captures: Path
) -> None:
    """Rows 1, 2, 3, 11, 15, 26, 32 strike at BTC; ETH, on its own connection, has no hole."""
    faults = [
        "drop@600", "dup@800", "abort@1000", "close@1600", "garbage@2200", "nan@2800",
        "truncate@3400", "badid@4000", "429@3:retry=2", "slow-rest@5:seconds=2",
        "old-snapshot@2", "reorder@4600", "dup-level@5000", "crossed@5200:seconds=0.3",
    ]  # fmt: skip
    arguments: list[object] = []
    for fault in faults:
        joined = "," if ":" in fault else ":"
        arguments += ["--fault", f"{fault}{joined}symbol=BTCUSDT"]
    paths = [captures / name for names in SPOT.values() for name in names]
    venue = desk.venue("--speed", 20, "--at-end", "exit", *arguments, *paths)
    recorder = desk.recorder(venue, "--set", "binance.streams_per_connection=1")
    assert venue.wait(100) == 0
    assert recorder.terminate() == 0, recorder.log
    btc, eth = desk.timeline("BTCUSDT"), desk.timeline("ETHUSDT")
    for timeline, names in ((btc, SPOT["BTCUSDT"]), (eth, SPOT["ETHUSDT"])):
        timeline.check()
        found = verdict(desk, captures, timeline.symbol, names, False)
        assert found.wrong == []
        assert found.equal == len(timeline.rows) >= 10
    assert {"disconnected", "snapshot"} <= btc.reasons()
    end = max(eth.rows)
    began = min(eth.rows)
    assert {second for second in eth.gaps if began < second < end} == set(), "ETH has a hole"
    for fault in ("abort", "close", "garbage", "nan", "429", "slow-rest"):
        assert f"fault {fault}" in venue.log or fault in venue.log, venue.log
