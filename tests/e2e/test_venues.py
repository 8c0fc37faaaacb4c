"""Two venues recorded in one run by the real command; one of them goes away in the middle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from obframe.testing.oracle import Verdict, judge, judge_by, truth_by_time

KRAKEN = ("kraken/BTC/USD", "kraken/ETH/USD")
SETTINGS = {"kraken.backoff_max": "0.5", "kraken.control_interval": "0.05"}


def journal(folder: Path, symbol: str) -> Path:
    name = symbol.removeprefix("kraken/").lower().replace("/", "%2F")
    return folder / f"{name}.gz"


def kraken_venue(desk: Any, record: str, *arguments: object, port: int = 0) -> Any:
    symbols = ",".join(each.removeprefix("kraken/") for each in KRAKEN)
    told = ("--venue", "kraken", "--symbols", symbols, "--rate", 20, "--record", record)
    return desk.venue(*told, *arguments, port=port)


def judge_kraken(desk: Any, symbol: str, *journals: str) -> Verdict:
    """Judge every row by the journal of the venue that served then."""
    truths = [truth_by_time(journal(desk.folder / each, symbol)) for each in journals]

    def truth(update_id: int) -> object:
        found = [each(update_id) for each in truths]
        return next((sides for sides in reversed(found) if sides is not None), None)

    with desk.store() as storage:
        return judge_by(storage, symbol, truth)  # type: ignore[arg-type]


@pytest.mark.slow
def test_one_venues_outage_costs_the_other_nothing_and_every_row_is_right(desk: Any) -> None:
    binance = desk.venue("--symbols", "BTCUSDT", "--rate", 20, "--record", "binance")
    kraken = kraken_venue(desk, "first", "--fault", "checksum@60:symbol=ETH/USD")
    port = int(kraken.ws_url.rsplit(":", 1)[1].split("/")[0])
    settings = {
        **SETTINGS,
        "binance.rest_url": binance.rest_url,
        "binance.ws_url": binance.ws_url,
        "kraken.ws_url": kraken.ws_url,
        "rocksdb.path": desk.path,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    symbols = ",".join(("BTCUSDT", *KRAKEN))
    recorder = desk.start("run", "--plugins", "rocksdb,binance,kraken", "--symbols", symbols, *sets)
    recorder.until_logged("default venue binance")
    desk.until(lambda: recorder.log.count("syncing -> live") >= 2, 30)
    recorder.pause(6)
    before = recorder.log.count("-> live")
    killed = time.time()
    kraken.kill()
    recorder.until_logged("kraken.ws_url")
    recorder.pause(3)
    kraken_venue(desk, "second", port=port)
    back = time.time()
    desk.until(lambda: recorder.log.count("-> live") > before, 30)
    recorder.pause(4)
    assert recorder.terminate() == 0, recorder.log
    assert "Traceback" not in recorder.log
    binance.terminate()

    bitcoin = desk.timeline("BTCUSDT")
    bitcoin.check()
    assert bitcoin.reasons() <= {"process_down", "connecting", "syncing", "snapshot"}
    assert not [second for second in bitcoin.gaps if second > min(bitcoin.rows)], "no hole"
    with desk.store() as storage:
        verdict = judge(storage, "BTCUSDT", [desk.folder / "binance" / "btcusdt.gz"])
    assert (verdict.wrong, verdict.rows) == ([], verdict.equal)
    assert verdict.rows >= 14

    for symbol in KRAKEN:
        line = desk.timeline(symbol)
        line.check()
        outage = {second: why for second, why in line.gaps.items() if killed <= second <= back}
        assert len(outage) >= 2
        assert set(map(str, outage.values())) == {"disconnected"}
        assert [second for second in line.rows if second > back], "it came back"
        verdict = judge_kraken(desk, symbol, "first", "second")
        # A venue that is killed takes the last second of its journal with it.
        unknown = [each for each in verdict.wrong if "unknown update id" in each]
        assert verdict.wrong == unknown
        assert len(unknown) <= 2
        assert verdict.equal >= 7
    assert "checksum" in desk.timeline("kraken/ETH/USD").reasons() or "checksum" in recorder.log
    listed = desk.run("symbols", "--format", "csv", "--set", f"rocksdb.path={desk.path}")
    assert all(symbol in listed.stdout for symbol in (*KRAKEN, "BTCUSDT"))


def test_kraken_may_be_the_default_venue_whose_symbols_are_bare(desk: Any) -> None:
    kraken = kraken_venue(desk, "only")
    sets = ("--set", f"kraken.ws_url={kraken.ws_url}", "--set", f"rocksdb.path={desk.path}")
    arguments = ("run", "--plugins", "rocksdb,kraken", "--symbols", "BTC/USD,kraken/ETH/USD")
    ended = desk.run(*arguments, *sets, "--duration", 5)
    assert ended.returncode == 0, ended.stderr
    kraken.terminate()
    for symbol in ("BTC/USD", "kraken/ETH/USD"):
        line = desk.timeline(symbol)
        line.check()
        assert len(line.rows) >= 3
        verdict = judge_kraken(desk, symbol, "only")
        assert (verdict.wrong, verdict.equal) == ([], len(line.rows))
