"""Snapshots and symbols over REST: limits kept, bans honoured, nothing parsed that is no book."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from typing import Any

import pytest
from aiohttp import web

from obframe import GapReason, Instrument, StreamEvent

SNAPSHOT_FAILED, HALTED = StreamEvent.SNAPSHOT_FAILED, StreamEvent.HALTED
SUBSCRIBED, DISCONNECTED = StreamEvent.SUBSCRIBED, StreamEvent.DISCONNECTED


async def test_a_snapshot_is_fetched_once_the_stream_is_open(wire: Any) -> None:
    wire.venue.books["BTCUSDT"] = wire.book(160)
    gate = asyncio.Event()

    async def late(peer: Any, command: dict[str, Any]) -> None:
        await gate.wait()
        await peer.acknowledge(command)

    wire.venue.on_command = late
    async with wire.run("BTCUSDT", snapshot_limit=100) as feed:
        for _ in range(3):
            feed.request_snapshot(Instrument("BTCUSDT"))
        feed.request_snapshot(Instrument("NOTWANTED"))
        await wire.eventually(lambda: wire.venue.peers and wire.venue.peers[0].commands, "command")
        await wire.eventually(lambda: wire.venue.requests, "exchangeInfo")
        assert wire.venue.asked_depth() == []
        gate.set()
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
        assert ("/api/v3/depth", {"symbol": "BTCUSDT", "limit": "100"}) in wire.venue.requests
        assert feed.counters()["snapshots"] == 1
    snapshot = wire.sink.snapshots("BTCUSDT")[0]
    assert (snapshot.last_update_id, snapshot.limit) == (160, 100)
    assert snapshot.asks[0] == ("61736.01000000", "1.00000000")
    assert wire.venue.asked_depth() == ["BTCUSDT"]
    assert SNAPSHOT_FAILED not in wire.sink.statuses("BTCUSDT")


async def test_row_4_a_snapshot_may_be_asked_for_again_as_soon_as_it_is_delivered(
    wire: Any,
) -> None:
    wire.venue.books["BTCUSDT"] = wire.book(160)
    async with wire.run("BTCUSDT") as feed:

        def again(event: Any) -> None:
            if wire.sink.snapshots("BTCUSDT") and feed.counters()["snapshots"] < 3:
                feed.request_snapshot(Instrument("BTCUSDT"))

        wire.sink.on_event = again
        feed.request_snapshot(Instrument("BTCUSDT"))
        await wire.eventually(lambda: len(wire.sink.snapshots("BTCUSDT")) == 3, "three")


async def test_a_snapshot_fetched_for_a_lost_stream_is_fetched_anew(wire: Any) -> None:
    fetching, answer = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        number = len(wire.venue.asked_depth())
        if number == 1:
            fetching.set()
            await answer.wait()
        return web.json_response(wire.book(100 * number))

    wire.venue.depth = slow
    async with wire.run("BTCUSDT") as feed:
        peer = await wire.venue.subscribed(0)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await fetching.wait()
        await peer.socket.close(1001)
        await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
        answer.set()
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
    assert [s.last_update_id for s in wire.sink.snapshots("BTCUSDT")] == [200]


@pytest.mark.parametrize(("status", "reason"), [(429, "too many"), (418, "banned")])
async def test_row_32_retry_after_is_honoured_and_all_requests_pause(
    wire: Any, status: int, reason: str
) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def ban(request: web.Request) -> web.Response:
        times.append(loop.time())
        if len(times) == 1:
            body = {"code": -1003, "msg": "Way too much request weight used; IP banned."}
            return web.json_response(body, status=status, headers={"Retry-After": "1"})
        return web.json_response(wire.book(5))

    wire.venue.depth = ban
    symbols = ["AUSDT", "BUSDT", "CUSDT"]
    async with wire.run(*symbols, rest_concurrency=1) as feed:
        await wire.venue.subscribed(0, 3)
        await wire.eventually(lambda: wire.venue.requests, "exchangeInfo")
        for symbol in symbols:
            await wire.sink.until(symbol, SUBSCRIBED)
            feed.request_snapshot(Instrument(symbol))
        for symbol in symbols:
            await wire.eventually(lambda s=symbol: wire.sink.snapshots(s), "snapshot")
    assert times[1] - times[0] >= 1.0
    assert len(times) == 4, "nothing was sent meanwhile"
    for symbol in symbols:
        told = wire.sink.told(symbol, SNAPSHOT_FAILED)
        assert len(told) == 1, "each book that waits is told, once"
        assert told[0].reason is GapReason.SNAPSHOT
        assert str(status) in told[0].detail
        assert reason in told[0].detail
    assert feed.counters()["rate_limited"] == 1


async def test_row_32_weight_used_by_others_behind_the_same_address_holds_us_back(
    wire: Any,
) -> None:
    async def nearly_used_up(request: web.Request) -> web.Response:
        # At the 58th second by the venue's clock: its minute ends 2 s later.
        headers = {
            "X-MBX-USED-WEIGHT-1M": "4790",
            "Date": "Thu, 08 Aug 2024 23:54:59 GMT",
        }
        return web.json_response(wire.book(5), headers=headers)

    wire.venue.depth = nearly_used_up
    loop = asyncio.get_running_loop()
    async with wire.run("AUSDT", "BUSDT", rest_concurrency=1) as feed:
        await wire.venue.subscribed(0, 2)
        await wire.eventually(lambda: wire.venue.requests, "exchangeInfo")
        feed.request_snapshot(Instrument("AUSDT"))
        await wire.eventually(lambda: wire.sink.snapshots("AUSDT"), "the first")
        began = loop.time()
        feed.request_snapshot(Instrument("BUSDT"))
        await wire.eventually(lambda: wire.sink.snapshots("BUSDT"), "the second")
        assert 1.5 < loop.time() - began < 4.0


@pytest.mark.parametrize("status", [403, 451])
async def test_row_33_a_block_is_explained_and_tried_again_late(
    wire: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def block(request: web.Request) -> web.Response:
        times.append(loop.time())
        if len(times) == 1:
            page = "<html><body>Service unavailable from a restricted location</body></html>"
            return web.Response(status=status, text=page, content_type="text/html")
        return web.json_response(wire.book(5))

    wire.venue.depth = block
    async with wire.run("BTCUSDT", blocked_retry=0.4) as feed:
        await wire.venue.subscribed(0)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
        assert feed.counters()["blocked"] == 1
    assert times[1] - times[0] >= 0.4
    told = wire.sink.told("BTCUSDT", SNAPSHOT_FAILED)
    assert len(told) == 1
    for text in (told[0].detail, caplog.text):
        assert str(status) in text
        assert "binance.rest_url" in text


@pytest.mark.parametrize(
    "trouble",
    ["500", "503-html", "200-html", "200-error", "cut-short", "timeout", "reset", "redirect",
     "empty", "wrong-types", "bad-price"],
)  # fmt: skip
async def test_row_34_trouble_is_retried_and_never_taken_for_a_book(
    wire: Any, trouble: str
) -> None:
    good = wire.book(5)

    async def fail(request: web.Request) -> web.StreamResponse:
        if len(wire.venue.asked_depth()) > 3:
            return web.json_response(good)
        if trouble == "500":
            return web.json_response({"code": -1000, "msg": "Internal error."}, status=500)
        if trouble == "503-html":
            return web.Response(status=503, text="<html>", content_type="text/html")
        if trouble == "200-html":
            return web.Response(text="<!DOCTYPE html><p>Log in", content_type="text/html")
        if trouble == "200-error":
            return web.json_response({"code": -1008, "msg": "Server is overloaded."})
        if trouble == "cut-short":
            return web.Response(body=json.dumps(good).encode()[:-20])
        if trouble == "timeout":
            await asyncio.sleep(0.3)
        if trouble == "reset" and request.transport is not None:
            request.transport.abort()
        if trouble == "redirect":
            return web.Response(status=302, headers={"Location": "/login"})
        if trouble == "empty":
            return web.Response(body=b"")
        if trouble == "wrong-types":
            return web.json_response({"lastUpdateId": "5", "bids": 7, "asks": None})
        bad = wire.book(5)
        bad["asks"][1][0] = "NaN"
        return web.json_response(bad)

    wire.venue.depth = fail
    async with wire.run("BTCUSDT", request_timeout=0.1) as feed:
        await wire.venue.subscribed(0)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
        # The HTTP client itself repeats a request on a connection that broke while it was idle.
        assert feed.counters()["snapshot_retries"] >= (1 if trouble == "reset" else 3)
        await wire.eventually(lambda: feed.counters()["snapshots"] == 1, "one")
    assert len(wire.sink.snapshots("BTCUSDT")) == 1
    assert wire.sink.snapshots("BTCUSDT")[0].asks == [tuple(level) for level in good["asks"]]
    told = wire.sink.told("BTCUSDT", SNAPSHOT_FAILED)
    assert len(told) == 1, "once for this trouble"
    assert told[0].reason is GapReason.SNAPSHOT
    assert told[0].detail.isprintable()


async def test_row_19_a_compressed_answer_that_swells_is_given_up_early(
    wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()

    async def swell(request: web.Request) -> web.Response:
        if len(wire.venue.asked_depth()) > 1:
            return web.json_response(wire.book(5))
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    wire.venue.depth = swell
    async with wire.run("BTCUSDT") as feed:
        await wire.venue.subscribed(0)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
    assert len(bomb) < 1 << 20
    assert "more than 64 MiB" in wire.sink.told("BTCUSDT", SNAPSHOT_FAILED)[0].detail


async def test_row_34_one_slow_or_failing_symbol_does_not_hold_up_the_others(wire: Any) -> None:
    hang = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.query["symbol"].startswith("SLOW"):
            await hang.wait()
        if request.query["symbol"].startswith("FAIL"):
            return web.Response(status=500)
        return web.json_response(wire.book(5))

    wire.venue.depth = answer
    good = [f"S{n}USDT" for n in range(10)]
    symbols = ["SLOW1", "SLOW2", *(f"FAIL{n}" for n in range(10)), *good]
    async with wire.run(*symbols, rest_concurrency=3, backoff_max=5.0) as feed:
        await wire.venue.subscribed(0, len(symbols))
        for symbol in symbols:
            feed.request_snapshot(Instrument(symbol))
        for symbol in good:
            await wire.eventually(lambda s=symbol: wire.sink.snapshots(s), f"{symbol}'s snapshot")
        hang.set()
    assert not wire.sink.snapshots("SLOW1")


async def test_no_more_requests_at_once_than_set(wire: Any) -> None:
    running, most = 0, 0

    async def count(request: web.Request) -> web.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return web.json_response(wire.book(5))

    wire.venue.depth = count
    symbols = [f"S{n}USDT" for n in range(30)]
    async with wire.run(*symbols, rest_concurrency=4) as feed:
        await wire.venue.subscribed(0, 30)
        for symbol in symbols:
            feed.request_snapshot(Instrument(symbol))
        await wire.eventually(lambda: feed.counters()["snapshots"] == 30, "all")
    assert most == 4


async def test_row_35_a_long_queue_is_kept_within_the_weight_and_its_end_is_told(
    wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "obframe.binance")
    symbols = [f"S{n:03}USDT" for n in range(100)]
    wire.venue.books = dict.fromkeys(symbols, wire.book(5))
    async with wire.run(*symbols, rest_weight_per_minute=520) as feed:
        await wire.venue.subscribed(0, 100)
        await wire.eventually(lambda: wire.venue.requests, "exchangeInfo")
        for symbol in symbols:
            feed.request_snapshot(Instrument(symbol))
        await wire.eventually(lambda: feed.counters()["snapshots"] == 10, "what fits")
        await wire.eventually(lambda: "snapshots are queued" in caplog.text, "the estimate")
        assert len(wire.venue.asked_depth()) == 10, "20 for exchangeInfo, 10 times 50"
    line = next(r.getMessage() for r in caplog.records if "are queued" in r.getMessage())
    found = re.match(r"100 snapshots are queued; the last is due in about (\d+) s", line)
    assert found is not None
    assert 515 <= int(found[1]) <= 530, "4500 of weight are left, 520 a minute"


async def test_unsubscribing_drops_the_request(wire: Any) -> None:
    async def fail(request: web.Request) -> web.Response:
        return web.Response(status=500)

    wire.venue.depth = fail
    async with wire.run("BTCUSDT", "ETHUSDT") as feed:
        await wire.venue.subscribed(0, 2)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await wire.eventually(lambda: len(wire.venue.asked_depth()) > 2, "some tries")
        feed.unsubscribe([Instrument("BTCUSDT")])
        asked = len(wire.venue.asked_depth())
        feed.request_snapshot(Instrument("ETHUSDT"))
        await wire.eventually(lambda: wire.venue.asked_depth().count("ETHUSDT") > 5, "others")
        assert len([s for s in wire.venue.asked_depth()[asked:] if s == "BTCUSDT"]) <= 1


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
async def test_row_59_an_unknown_symbol_is_named_and_the_others_run(
    wire: Any, market: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire.venue.statuses = {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING", "DOGEUSDT": "TRADING"}
    symbols = ["BTCUSDT", "NOSUCHUSDT", "ethusdt"]
    async with wire.run(*symbols, market=market):
        status = await wire.sink.until("NOSUCHUSDT", HALTED)
        lower = await wire.sink.until("ethusdt", HALTED)
        peer = await wire.venue.peer(0)
        await wire.eventually(lambda: peer.streams == {"btcusdt@depth@100ms"}, "one stream")
        more = {"pu": 0} if market != "spot" else {}
        await peer.send(wire.diff("BTCUSDT", 1, 2, **more))
        await wire.sink.until_id("BTCUSDT", 2)
    assert status.reason is GapReason.UNKNOWN_SYMBOL
    assert "no such symbol" in status.detail
    assert "did you mean ETHUSDT?" in lower.detail
    assert "NOSUCHUSDT: is not recorded" in caplog.text
    assert wire.sink.told("BTCUSDT", HALTED) == []
    assert wire.sink.statuses("NOSUCHUSDT")[-1] in (HALTED, DISCONNECTED)


async def test_row_59_a_symbol_that_the_venue_lists_later_is_recorded_then(wire: Any) -> None:
    wire.venue.statuses = {"BTCUSDT": "TRADING"}
    async with wire.run("BTCUSDT", "NEWUSDT", halted_poll=0.05):
        await wire.sink.until("NEWUSDT", HALTED)
        wire.venue.statuses["NEWUSDT"] = "TRADING"
        await wire.sink.until("NEWUSDT", StreamEvent.TRADING)
        peer = await wire.venue.subscribed(0, 2)
        await peer.send(wire.diff("NEWUSDT", 1, 2))
        await wire.sink.until_id("NEWUSDT", 2)
    assert wire.sink.statuses("NEWUSDT")[-1] is SUBSCRIBED


async def test_row_59_a_refused_snapshot_names_an_unknown_symbol_too(wire: Any) -> None:
    async def no_list(request: web.Request) -> web.Response:
        return web.Response(status=503)

    wire.venue.info = no_list
    wire.venue.books["BTCUSDT"] = wire.book(5)
    async with wire.run("BTCUSDT", "NOSUCHUSDT") as feed:
        await wire.venue.subscribed(0, 2)
        for symbol in ("NOSUCHUSDT", "BTCUSDT"):
            await wire.sink.until(symbol, SUBSCRIBED)
            feed.request_snapshot(Instrument(symbol))
        status = await wire.sink.until("NOSUCHUSDT", HALTED)
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
    assert status.reason is GapReason.UNKNOWN_SYMBOL
    assert "Invalid symbol" in status.detail
    assert wire.venue.asked_depth().count("NOSUCHUSDT") == 1


@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"symbols": []}', '{"symbols": 7}', "[1"])
async def test_a_list_of_symbols_that_cannot_be_had_stops_nothing(wire: Any, body: str) -> None:
    good = wire.venue.give_info
    asked = 0

    async def broken(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked < 4:
            return web.Response(text=body)
        return await good(request)

    wire.venue.info = broken
    wire.venue.statuses = {"BTCUSDT": "TRADING"}
    async with wire.run("BTCUSDT", "NOSUCHUSDT"):
        peer = await wire.venue.subscribed(0, 1)
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        await wire.sink.until_id("BTCUSDT", 2)
        await wire.sink.until("NOSUCHUSDT", HALTED)
    assert asked >= 4
    assert HALTED not in wire.sink.statuses("BTCUSDT")


@pytest.mark.parametrize("status", ["BREAK", "HALT", "SETTLING"])
async def test_row_31_a_halted_symbol_is_told_polled_slowly_and_told_again(
    wire: Any, status: str
) -> None:
    wire.venue.statuses = {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}
    async with wire.run(
        "BTCUSDT", "ETHUSDT", status_poll=0.05, halted_poll=0.1, stale_after=0.1, idle_timeout=0.2
    ):
        peer = await wire.venue.subscribed(0, 2)
        await wire.sink.until("ETHUSDT", SUBSCRIBED)
        wire.venue.statuses["ETHUSDT"] = status
        halted = await wire.sink.until("ETHUSDT", HALTED)
        asked = len(wire.venue.requests)
        await wire.eventually(lambda: len(wire.venue.requests) >= asked + 2, "two polls")
        wire.venue.statuses["ETHUSDT"] = "TRADING"
        await wire.sink.until("ETHUSDT", StreamEvent.TRADING)
        peer = wire.venue.peers[-1]
        await wire.venue.subscribed(len(wire.venue.peers) - 1, 2)
        await peer.send(wire.diff("ETHUSDT", 1, 2))
        await wire.sink.until_id("ETHUSDT", 2)
    assert halted.reason is GapReason.HALTED
    assert status in halted.detail
    assert len(wire.sink.told("ETHUSDT", HALTED)) == 1
    assert HALTED not in wire.sink.statuses("BTCUSDT")


async def test_row_31_a_connection_of_halted_symbols_alone_is_not_called_silent(
    wire: Any,
) -> None:
    wire.venue.statuses = {"ETHUSDT": "BREAK"}
    async with wire.run("ETHUSDT", halted_poll=0.1, stale_after=0.05, idle_timeout=0.1):
        await wire.sink.until("ETHUSDT", HALTED)
        told = len(wire.sink.told("ETHUSDT", DISCONNECTED))
        asked = len(wire.venue.requests)
        await wire.eventually(lambda: len(wire.venue.requests) >= asked + 5, "five polls")
        assert len(wire.sink.told("ETHUSDT", DISCONNECTED)) == told


async def test_cancelling_during_a_request_leaves_nothing_behind(wire: Any) -> None:
    hang, asked = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        asked.set()
        await hang.wait()
        return web.json_response(wire.book(5))

    wire.venue.depth = wait
    async with wire.run("BTCUSDT") as feed:
        await wire.venue.subscribed(0)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await asked.wait()
    hang.set()
    assert wire.sink.snapshots("BTCUSDT") == []
