"""What the stream says: normalised, matched to what is wanted, refused when it is wrong."""

from __future__ import annotations

import gzip
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import pytest

from obframe import (
    DepthUpdate,
    GapReason,
    Instrument,
    OrderBook,
    StreamEvent,
    parse_depth_update,
)


async def test_a_stream_is_opened_told_and_delivered_in_order(wire: Any) -> None:
    sent = [wire.diff("BTCUSDT", 10 * n + 1, 10 * n + 10) for n in range(50)]
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
        await wire.sink.until("BTCUSDT", StreamEvent.SUBSCRIBED)
        before = time.monotonic_ns()
        for message in sent:
            await peer.send(message)
        await wire.sink.until_id("BTCUSDT", 500)
    assert peer.path == "/stream"
    assert peer.commands == [{"method": "SUBSCRIBE", "params": ["btcusdt@depth@100ms"], "id": 1}]
    assert wire.sink.ids("BTCUSDT") == [10 * n + 10 for n in range(50)]
    statuses = wire.sink.statuses("BTCUSDT")
    assert statuses == [StreamEvent.CONNECTING, StreamEvent.SUBSCRIBED]
    first = wire.sink.updates("BTCUSDT")[0]
    assert (first.first_update_id, first.prev_update_id) == (1, 0)
    assert first.bids == [("61736.01000000", "1.50000000")]
    assert before < first.received_ns < time.monotonic_ns()


async def test_usdm_follows_pu_and_ignores_fields_it_does_not_know(wire: Any) -> None:
    message = wire.diff(
        "BTCUSDT", 5123107832006, 5123107837557, [("58710.20", "0.014")],
        T=1723161256298, pu=5123107831937, ps="BTCUSDT", st=1,
    )  # fmt: skip
    async with wire.run("BTCUSDT", market="usdm"):
        peer = await wire.venue.subscribed(0)
        await peer.send(message)
        await wire.sink.until_id("BTCUSDT", 5123107837557)
        await wire.eventually(lambda: wire.venue.requests)
    assert wire.sink.updates("BTCUSDT")[0].prev_update_id == 5123107831937
    assert wire.venue.requests[0] == ("/fapi/v1/exchangeInfo", {})


async def test_coinm_has_its_own_paths_and_quantities_without_a_point(wire: Any) -> None:
    wire.venue.books["BTCUSD_PERP"] = {
        "lastUpdateId": 16769853,
        "symbol": "BTCUSD_PERP",
        "pair": "BTCUSD",
        "E": 1591250106370,
        "T": 1591250106368,
        "bids": [["9638.0", "431"]],
        "asks": [["9638.2", "12"]],
    }
    message = wire.diff(
        "BTCUSD_PERP", 16769850, 16769860, [("9638.0", "7")], pu=16769849, ps="BTCUSD"
    )
    async with wire.run("BTCUSD_PERP", market="coinm") as feed:
        peer = await wire.venue.subscribed(0)
        feed.request_snapshot(Instrument("BTCUSD_PERP"))
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSD_PERP"))
        await peer.send(message)
        await wire.sink.until_id("BTCUSD_PERP", 16769860)
    assert peer.streams == {"btcusd_perp@depth@100ms"}
    assert ("/dapi/v1/depth", {"symbol": "BTCUSD_PERP", "limit": "1000"}) in wire.venue.requests
    assert wire.sink.snapshots("BTCUSD_PERP")[0].bids == [("9638.0", "431")]
    update = wire.sink.updates("BTCUSD_PERP")[0]
    assert (update.prev_update_id, update.bids) == (16769849, [("9638.0", "7")])


async def test_row_58_unicode_and_odd_symbols_reach_stream_and_query(wire: Any) -> None:
    symbols = ["币安人生USDT", "A/B&C=1%2+#-X"]
    wire.venue.books = {symbol: wire.book(7) for symbol in symbols}
    async with wire.run(*symbols) as feed:
        peer = await wire.venue.subscribed(0, 2)
        for symbol in symbols:
            feed.request_snapshot(Instrument(symbol))
            await peer.send(json.dumps(wire.diff(symbol, 8, 9), ensure_ascii=symbol.isascii()))
            await wire.sink.until_id(symbol, 9)
            await wire.eventually(lambda symbol=symbol: wire.sink.snapshots(symbol))
    assert peer.streams == {"币安人生usdt@depth@100ms", "a/b&c=1%2+#-x@depth@100ms"}
    assert sorted(wire.venue.asked_depth()) == sorted(symbols)
    assert feed.counters()["unsubscribed"] == 0


async def test_data_before_the_acknowledgement_opens_the_stream(wire: Any) -> None:
    async def data_first(peer: Any, command: dict[str, Any]) -> None:
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        await peer.acknowledge(command)

    wire.venue.on_command = data_first
    async with wire.run("BTCUSDT"):
        await wire.sink.until_id("BTCUSDT", 2)
        await wire.venue.subscribed(0)
    kinds = [type(event).__name__ for event in wire.sink.events]
    assert kinds == ["FeedStatus", "FeedStatus", "DepthUpdate"]
    assert wire.sink.statuses("BTCUSDT")[-1] is StreamEvent.SUBSCRIBED


@pytest.mark.parametrize(
    ("field", "value"),
    [("u", 4), ("U", -1), ("u", 1e3), ("u", True), ("u", "7"), ("u", 2**63), ("U", None)],
)
async def test_row_3_an_id_that_is_none_refuses_the_event(
    wire: Any, field: str, value: Any
) -> None:
    message = wire.diff("BTCUSDT", 5, 6)
    message["data"][field] = value
    async with wire.run("BTCUSDT", "ETHUSDT") as feed:
        peer = await wire.venue.subscribed(0, 2)
        await peer.send(message)
        status = await wire.sink.until("BTCUSDT", StreamEvent.INVALID)
        await peer.send(wire.diff("BTCUSDT", 7, 8))
        await wire.sink.until_id("BTCUSDT", 8)
    assert status.reason is GapReason.INVALID
    assert status.instruments == {Instrument("BTCUSDT")}
    assert wire.sink.ids("BTCUSDT") == [8]
    assert feed.counters()["invalid"] == 1
    assert StreamEvent.INVALID not in wire.sink.statuses("ETHUSDT")


@pytest.mark.parametrize(
    "price", ["NaN", "1e400", "６１", "-1", "", "1" * 10_000, "Infinity", " 1", "1_0", 7, None]
)
async def test_row_11_a_bad_price_refuses_the_whole_event(wire: Any, price: Any) -> None:
    levels = [("61736.01000000", "1.50000000"), (price, "1.00000000")]
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
        await peer.send(wire.diff("BTCUSDT", 5, 6, levels))
        status = await wire.sink.until("BTCUSDT", StreamEvent.INVALID)
        await peer.send(wire.diff("BTCUSDT", 7, 8))
        await wire.sink.until_id("BTCUSDT", 8)
    assert status.reason is GapReason.INVALID
    assert len(status.detail) < 500
    assert wire.sink.ids("BTCUSDT") == [8]


async def test_row_12_a_value_beyond_the_fixed_point_is_told_as_capacity(wire: Any) -> None:
    huge = [("61736.01000000", "9" * 40)]
    async with wire.run("BTCUSDT", "ETHUSDT") as feed:
        peer = await wire.venue.subscribed(0, 2)
        await peer.send(wire.diff("BTCUSDT", 5, 6, huge))
        status = await wire.sink.until("BTCUSDT", StreamEvent.INVALID)
    assert status.reason is GapReason.CAPACITY
    assert "does not fit" in status.detail
    assert wire.sink.ids("BTCUSDT") == []
    assert feed.counters()["capacity"] == 1
    assert StreamEvent.INVALID not in wire.sink.statuses("ETHUSDT")


@pytest.mark.parametrize(
    ("raw", "hit"),
    [
        (b'{"e":"depthUpdate","s":"BTCUSDT","U":5,"u":6,"b":[["1.0",', {"BTCUSDT"}),
        (b'{"stream":"', {"BTCUSDT", "ETHUSDT"}),
        (b"[" * 100_000, {"BTCUSDT", "ETHUSDT"}),
        (b'{"e":"depthUpdate","s":"\xff\xfe"', {"BTCUSDT", "ETHUSDT"}),
        (b"", {"BTCUSDT", "ETHUSDT"}),
    ],
    ids=["cut-short", "cut-before-symbol", "deep", "not-utf8", "empty"],
)
async def test_row_15_malformed_json_is_dropped_and_what_it_may_have_hit_told(
    wire: Any, raw: bytes, hit: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with wire.run("BTCUSDT", "ETHUSDT") as feed:
        peer = await wire.venue.subscribed(0, 2)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await wire.sink.until(symbol, StreamEvent.SUBSCRIBED)
        for _ in range(40):
            await peer.send(raw)
        await peer.send(wire.diff("BTCUSDT", 5, 6))
        await wire.sink.until_id("BTCUSDT", 6)
    assert feed.counters()["malformed"] == 40
    for symbol in ("BTCUSDT", "ETHUSDT"):
        told = wire.sink.told(symbol, StreamEvent.INVALID)
        assert len(told) == (symbol in hit), "told once until good data comes"
        assert all(status.reason is GapReason.INVALID for status in told)
    samples = [r for r in caplog.records if "was dropped" in r.getMessage()]
    assert 1 <= len(samples) <= 10
    assert all(len(r.getMessage()) < 600 and r.getMessage().isprintable() for r in samples)
    assert len(wire.venue.peers) == 1


async def test_row_16_an_unknown_event_type_is_logged_once(
    wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "obframe.binance")
    trade = {"stream": "btcusdt@trade", "data": {"e": "trade", "s": "BTCUSDT", "p": "1.0"}}
    ticker = {"stream": "btcusdt@bookTicker", "data": {"u": 5, "s": "BTCUSDT", "b": "1.0"}}
    async with wire.run("BTCUSDT") as feed:
        peer = await wire.venue.subscribed(0)
        for _ in range(3):
            for message in (trade, ticker, [], 7, "text", {"id": 99, "result": ["x"]}):
                await peer.send(json.dumps(message))
        await peer.send(wire.diff("BTCUSDT", 5, 6, newfield={"deep": [1, 2.5, None]}))
        await wire.sink.until_id("BTCUSDT", 6)
    assert feed.counters()["unknown_events"] == 15
    assert feed.counters()["malformed"] == 0
    lines = [r.getMessage() for r in caplog.records if "are ignored" in r.getMessage()]
    assert sum("type trade " in line for line in lines) == 1
    assert len(lines) == len(set(lines)) == 5
    assert StreamEvent.INVALID not in wire.sink.statuses("BTCUSDT")


async def test_row_17_an_event_of_a_symbol_not_subscribed_is_dropped(wire: Any) -> None:
    async with wire.run("BTCUSDT") as feed:
        peer = await wire.venue.subscribed(0)
        await peer.send(wire.diff("DOGEUSDT", 1, 2))
        await peer.send(wire.diff("btcusdt", 1, 2))
        bad = wire.diff("DOGEUSDT", 9, 3)
        await peer.send(bad)
        await peer.send(wire.diff("BTCUSDT", 5, 6))
        await wire.sink.until_id("BTCUSDT", 6)
    assert feed.counters()["unsubscribed"] == 3
    assert wire.sink.updates("DOGEUSDT") == []
    assert StreamEvent.INVALID not in wire.sink.statuses("BTCUSDT")


async def test_subscribe_and_unsubscribe_while_running(wire: Any) -> None:
    wire.venue.statuses = dict.fromkeys(("BTCUSDT", "ETHUSDT", "BNBUSDT"), "TRADING")
    async with wire.run("BTCUSDT") as feed:
        peer = await wire.venue.subscribed(0)
        feed.subscribe([Instrument("ETHUSDT"), Instrument("BNBUSDT")])
        await wire.venue.subscribed(0, 3)
        await wire.sink.until("ETHUSDT", StreamEvent.SUBSCRIBED)
        feed.unsubscribe([Instrument("BTCUSDT")])
        await peer.send(wire.diff("BTCUSDT", 5, 6))
        await peer.send(wire.diff("ETHUSDT", 7, 8))
        await wire.sink.until_id("ETHUSDT", 8)
        await wire.eventually(lambda: len(peer.streams) == 2, "the stream to be ended")
        assert wire.sink.ids("BTCUSDT") == []
        feed.subscribe([Instrument("BTCUSDT")])
        await wire.sink.until("BTCUSDT", StreamEvent.SUBSCRIBED, 2)
        feed.unsubscribe([Instrument(s) for s in ("BTCUSDT", "ETHUSDT", "BNBUSDT")])
        await wire.eventually(lambda: peer.closed, "the empty connection to be closed")
    assert wire.sink.statuses("ETHUSDT") == [StreamEvent.CONNECTING, StreamEvent.SUBSCRIBED]
    assert len(wire.venue.peers) == 1


async def test_a_captured_day_arrives_as_it_was_recorded(wire: Any, captures: Path) -> None:
    """The book from the wire equals the one built from the file, in one-message bursts."""
    lines = []
    with gzip.open(captures / "usdm" / "btcusdt_20240808.gz", "rb") as file:
        for line in file:
            raw = line.split(b" ", 1)[1].strip()
            if b'"depthUpdate"' in raw:
                lines.append(raw)
            if len(lines) == 1500:
                break
    rng = random.Random(3)
    through_wire, direct = OrderBook("BTCUSDT"), OrderBook("BTCUSDT")
    for raw in lines:
        update = parse_depth_update(raw, True)
        assert update is not None
        direct.apply(update)

    def apply(event: Any) -> None:
        if isinstance(event, DepthUpdate):
            if wire.sink.ids_seen:
                assert event.prev_update_id == wire.sink.ids_seen[-1]
            wire.sink.ids_seen.append(event.last_update_id)
            through_wire.apply(event)

    wire.sink.ids_seen = []
    wire.sink.on_event = apply
    async with wire.run("BTCUSDT", market="usdm"):
        peer = await wire.venue.subscribed(0)
        while lines:
            count = rng.randint(1, 80)
            burst, lines = lines[:count], lines[count:]
            for raw in burst:
                await peer.send(raw)
        await wire.eventually(lambda: through_wire.update_id == direct.update_id, "the last one")
    assert len(wire.sink.ids_seen) == 1500
    assert through_wire.bids() == direct.bids()
    assert through_wire.asks() == direct.asks()
