"""Binance and Coinbase recorded in one run by the real command: an outage, and books of 5 MB."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from obframe.testing.oracle import Verdict, judge, judge_by, truth_by_time

BTC, ETH = "coinbase/BTC-USD", "coinbase/ETH-USD"


def coinbase_venue(desk: Any, record: str, *arguments: object, port: int = 0) -> Any:
    told = ("--venue", "coinbase", "--symbols", "BTC-USD,ETH-USD", "--record", record)
    return desk.venue(*told, *arguments, port=port)


def record(desk: Any, binance: Any, coinbase: Any, *arguments: object, **settings: object) -> Any:
    both = {
        "binance.rest_url": binance.rest_url,
        "binance.ws_url": binance.ws_url,
        "coinbase.rest_url": coinbase.rest_url,
        "coinbase.ws_url": coinbase.ws_url,
        "coinbase.backoff_max": 0.5,
        "rocksdb.path": desk.path,
    }
    sets = [
        part
        for key, value in (both | {f"coinbase.{name}": v for name, v in settings.items()}).items()
        for part in ("--set", f"{key}={value}")
    ]
    plugins = ("--plugins", "rocksdb,binance,coinbase")
    return desk.start("run", *plugins, "--symbols", f"BTCUSDT,{BTC},{ETH}", *sets, *arguments)


def judge_coinbase(desk: Any, symbol: str, *journals: str) -> Verdict:
    """Judge every row by the journal of the venue that served then."""
    name = symbol.removeprefix("coinbase/").lower()
    truths = [truth_by_time(desk.folder / each / f"{name}.gz") for each in journals]

    def truth(update_id: int) -> Any:
        found = [each(update_id) for each in truths]
        return next((sides for sides in reversed(found) if sides is not None), None)

    with desk.store() as storage:
        return judge_by(storage, symbol, truth)


def check_binance(desk: Any, least: int) -> None:
    """Binance's rows have no hole, and all are right."""
    line = desk.timeline("BTCUSDT")
    line.check()
    assert not [second for second in line.gaps if second > min(line.rows)], "no hole"
    with desk.store() as storage:
        verdict = judge(storage, "BTCUSDT", [desk.folder / "binance" / "btcusdt.gz"])
    assert (verdict.wrong, verdict.rows) == ([], verdict.equal)
    assert verdict.rows >= least


@pytest.mark.slow
def test_coinbases_outage_costs_binance_nothing_and_every_row_is_right(desk: Any) -> None:
    binance = desk.venue("--symbols", "BTCUSDT", "--rate", 20, "--record", "binance")
    coinbase = coinbase_venue(desk, "first", "--rate", 20, "--fault", "drop@60:symbol=ETH-USD")
    port = int(coinbase.ws_url.rpartition(":")[2])
    recorder = record(desk, binance, coinbase)
    desk.until(lambda: recorder.log.count("syncing -> live") >= 2, 30)
    desk.until(lambda: "fault drop" in coinbase.log, 30)
    recorder.pause(4)
    before = recorder.log.count("-> live")
    killed = time.time()
    coinbase.kill()
    recorder.until_logged("coinbase.ws_url")
    recorder.pause(3)
    coinbase_venue(desk, "second", "--rate", 20, port=port)
    back = time.time()
    desk.until(lambda: recorder.log.count("-> live") > before, 30)
    recorder.pause(4)
    assert recorder.terminate() == 0, recorder.log
    assert "Traceback" not in recorder.log
    binance.terminate()

    check_binance(desk, 12)
    assert "is missing: all its books begin anew" in recorder.log
    for symbol in (BTC, ETH):
        line = desk.timeline(symbol)
        line.check()
        outage = {second: why for second, why in line.gaps.items() if killed <= second <= back}
        assert len(outage) >= 2
        assert set(map(str, outage.values())) == {"disconnected"}
        assert [second for second in line.rows if second > back], "it came back"
        verdict = judge_coinbase(desk, symbol, "first", "second")
        # A venue that is killed takes the last second of its journal with it.
        unknown = [each for each in verdict.wrong if "unknown update id" in each]
        assert verdict.wrong == unknown
        assert len(unknown) <= 2
        assert verdict.equal >= 7


@pytest.mark.slow
def test_row_18_books_of_5_mb_leave_the_other_venues_ticks_on_time(
    desk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    binance = desk.venue("--symbols", "BTCUSDT", "--rate", 20, "--record", "binance")
    coinbase = coinbase_venue(
        desk, "coinbase", "--rate", 5, "--levels", 28_000, "--fault", "drop@15:every=25",
    )  # fmt: skip
    recorder = record(desk, binance, coinbase, "--format", "json", stable_after=1)
    recorder.until_logged("BTCUSDT: syncing -> live", 40)
    desk.until(lambda: recorder.log.count("is missing") >= 3, 60)
    recorder.pause(4)
    assert recorder.terminate() == 0, recorder.log
    binance.terminate()
    coinbase.terminate()
    summary = json.loads(recorder.out.read_text())
    check_binance(desk, 3)
    for symbol in (BTC, ETH):
        desk.timeline(symbol).check()
        verdict = judge_coinbase(desk, symbol, "coinbase")
        assert (verdict.wrong, verdict.rows) == ([], verdict.equal)
        assert verdict.rows >= 3
    counters = summary["counters"]
    books = counters["feed.coinbase.snapshots"]
    assert counters["feed.coinbase.bytes"] > books * 5_000_000
    lag = summary["tick_lag_p99"]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{books} books of over 5 MB in {summary['rows']} rows: tick lag p99 "
            f"{lag * 1e3:.1f} ms\n"
        )
    assert lag < 0.5
