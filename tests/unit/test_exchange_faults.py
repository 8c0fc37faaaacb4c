"""Each fault on demand, as it shows on the wire."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from obframe.testing.exchange import FAULTS, Exchange
from obframe.testing.exchange_client import (
    FAST,
    PATIENCE,
    LocalBook,
    ask,
    collect,
    connected,
    get,
    receive,
    running,
    until,
)
from obframe.testing.exchange_faults import FaultPlan, Scope, parse_fault
from obframe.testing.exchange_mangle import write_zero
from obframe.testing.reference import ReferenceBook

STREAM = "/ws/btcusdt@depth@100ms"
DEPTH = "/api/v3/depth?symbol=BTCUSDT&limit=1000"


async def first(count: int, *faults: str, **parameters: Any) -> list[str]:
    """Return the first messages of one stream under faults."""
    async with (
        running(**{**FAST, **parameters}, faults=faults) as venue,
        connected(venue, STREAM) as socket,
    ):
        return await collect(socket, count)


def ids(messages: list[str]) -> Iterator[tuple[int, int]]:
    return ((event["U"], event["u"]) for event in map(json.loads, messages))


def breaks(messages: list[str]) -> list[int]:
    """Return the places (from 0) where an event does not continue the one before it."""
    pairs = itertools.pairwise(ids(messages))
    return [place for place, (old, new) in enumerate(pairs, 1) if new[0] != old[1] + 1]


async def test_without_faults_nothing_breaks() -> None:
    assert breaks(await first(30)) == []


async def test_row_1_drop_leaves_a_true_gap() -> None:
    assert breaks(await first(10, "drop@4")) == [3]
    messages = await first(10, "drop@4:count=2,every=4")
    assert breaks(messages) == [3, 5, 7, 9]


async def test_drop_is_applied_in_the_venues_own_book() -> None:
    async with (
        running(**FAST, faults=("drop@20:count=3",)) as venue,
        connected(venue, STREAM) as socket,
    ):
        await collect(socket, 25)
        assert [strike.fault for strike in venue.fired] == ["drop"] * 3
        local = await synced(venue, socket)
        while local.book.update_id != venue.depth("BTCUSDT").last_update_id:
            local.event(await receive(socket))
        assert local.book.bids() == list(venue.depth("BTCUSDT").bids)
        assert local.book.asks() == list(venue.depth("BTCUSDT").asks)


async def test_row_2_dup_sends_twice() -> None:
    messages = await first(8, "dup@3")
    assert messages[2] == messages[3]
    assert len(set(messages)) == 7


async def test_reorder_swaps_with_the_next() -> None:
    messages = await first(8, "reorder@3")
    assert breaks(messages) == [2, 3, 4]
    messages[2], messages[3] = messages[3], messages[2]
    assert breaks(messages) == []


async def test_row_15_garbage_and_truncate() -> None:
    messages = await first(6, "garbage@3")
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(messages.pop(2))
    assert breaks(messages) == [2]
    messages = await first(6, "garbage@3:mode=before")
    assert not messages.pop(2).startswith("{")
    assert breaks(messages) == []
    messages = await first(6, "truncate@3")
    assert messages[2].startswith('{"e":"depthUpdate"')
    with pytest.raises(ValueError, match="column"):
        json.loads(messages.pop(2))
    assert breaks(messages) == [2]


@pytest.mark.parametrize(
    ("fault", "place", "value"),
    [
        ("nan@3", 0, "NaN"),
        ("nan@3:value=1e400", 0, "1e400"),
        ("nan@3:value=-1,field=quantity", 1, "-1"),
        ("nan@3:value=,field=quantity", 1, ""),
        ("nan@3:value=１２", 0, "１２"),
    ],
)
async def test_row_11_bad_numbers(fault: str, place: int, value: str) -> None:
    messages = await first(5, fault)
    events = [json.loads(message) for message in messages]
    for number, event in enumerate(events):
        levels = event["b"] + event["a"]
        assert (levels[0][place] == value) is (number == 2)
    assert breaks(messages) == []


@pytest.mark.parametrize("kind", ["order", "negative", "float", "bool", "string", "huge"])
async def test_row_3_bad_ids(kind: str) -> None:
    bad = json.loads((await first(3, f"badid@3:kind={kind}"))[2])
    value = bad["u"]
    assert {
        "order": type(value) is int and 0 < value < bad["U"],
        "negative": type(value) is int and value < 0,
        "float": isinstance(value, float),
        "bool": value is True,
        "string": isinstance(value, str) and int(value) >= bad["U"],
        "huge": type(value) is int and value > 2**63,
    }[kind]


async def test_row_13_same_price_twice_the_last_is_true(tmp_path: Path) -> None:
    async with (
        running(**FAST, record=tmp_path, faults=("dup-level@2",)) as venue,
        connected(venue, STREAM) as socket,
    ):
        event = json.loads((await collect(socket, 2))[1])
    side = event["b"] or event["a"]
    assert side[0][0] == side[1][0]
    assert side[0][1] != side[1][1]


async def test_row_8_crossed_until_withdrawn() -> None:
    async with (
        running(**FAST, faults=("crossed@8:seconds=0.2",)) as venue,
        connected(venue, STREAM) as socket,
    ):
        local = await synced(venue, socket)
        crossed: list[bool] = []
        while len(crossed) < 2 or crossed[-1]:
            local.event(await receive(socket))
            if not crossed or crossed[-1] is not local.book.crossed:
                crossed.append(local.book.crossed)
        # Withdrawn, and the same book as before: the journal's truth at that id.
        while local.book.update_id != venue.depth("BTCUSDT").last_update_id:
            local.event(await receive(socket))
        assert local.book.bids() == list(venue.depth("BTCUSDT").bids)
    assert crossed == [False, True, False]


async def synced(venue: Exchange, socket: websockets.ClientConnection) -> LocalBook:
    """Return a book that has joined a snapshot to the stream, which is open already."""
    local = LocalBook(futures=venue.market.futures)
    local.event(await receive(socket))
    _, snapshot, _ = await get(venue, DEPTH)
    while not local.snapshot(snapshot):
        local.event(await receive(socket))
    return local


@pytest.mark.parametrize("side", ["both", "bids", "asks"])
async def test_rows_9_and_10_empty_sides_come_back_whole(side: str) -> None:
    async with (
        running(**FAST, faults=(f"empty@8:side={side},seconds=0.2",)) as venue,
        connected(venue, STREAM) as socket,
    ):
        local = await synced(venue, socket)
        seen: list[tuple[bool, bool]] = []
        while not (seen and local.book.bids(1) and local.book.asks(1)):
            local.event(await receive(socket))
            empty = not local.book.bids(1), not local.book.asks(1)
            if any(empty):
                seen.append(empty)
        while local.book.update_id != venue.depth("BTCUSDT").last_update_id:
            local.event(await receive(socket))
        assert local.book.bids() == list(venue.depth("BTCUSDT").bids)
        assert local.book.asks() == list(venue.depth("BTCUSDT").asks)
    assert len(seen) > 5
    assert set(seen) == {(side in ("both", "bids"), side in ("both", "asks"))}


async def test_row_22_silence_loses_and_other_symbols_go_on() -> None:
    options = {**FAST, "faults": ("silence@5:seconds=0.3,symbol=BTCUSDT",)}
    path = "/ws/btcusdt@depth@100ms/ethusdt@depth@100ms"
    async with running(**options) as venue, connected(venue, path) as socket:
        events: list[tuple[float, Any]] = []
        while sum(event["s"] == "BTCUSDT" for _, event in events) < 10:
            events.append((time.monotonic(), await receive(socket)))
    bitcoin = [(at, event) for at, event in events if event["s"] == "BTCUSDT"]
    assert bitcoin[4][0] - bitcoin[3][0] > 0.25
    assert bitcoin[4][1]["U"] > bitcoin[3][1]["u"] + 1
    between = [at for at, event in events if event["s"] == "ETHUSDT"]
    assert sum(bitcoin[3][0] < at < bitcoin[4][0] for at in between) > 20


async def test_silence_can_hold_instead() -> None:
    assert breaks(await first(120, "silence@5:seconds=0.2,mode=hold")) == []


async def test_row_31_halt_shows_in_exchange_info() -> None:
    info = "/api/v3/exchangeInfo?symbol=BTCUSDT"
    async with (
        running(**FAST, faults=("halt@3:seconds=0.3,symbol=BTCUSDT",)) as venue,
        connected(venue, STREAM) as socket,
    ):
        await collect(socket, 2)
        await until(lambda: venue.fired)
        assert (await get(venue, info))[1]["symbols"][0]["status"] == "BREAK"
        assert (await get(venue, DEPTH))[0] == 200
        await collect(socket, 1)
        assert (await get(venue, info))[1]["symbols"][0]["status"] == "TRADING"
    assert [strike.fault for strike in venue.fired] == ["halt"]


async def test_row_21_close_after_the_message() -> None:
    async with running(**FAST, faults=("close@4",)) as venue:
        async with connected(venue, STREAM) as socket:
            messages = [message async for message in socket]
        assert len(messages) == 4
        assert socket.close_code == 1001
        async with connected(venue, STREAM) as socket:
            await collect(socket, 10)
    assert len(venue.fired) == 1


async def test_row_26_abort_is_a_reset() -> None:
    async with running(**FAST, faults=("abort@4",)) as venue, connected(venue, STREAM) as socket:
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await collect(socket, 4)
    assert caught.value.rcvd is None
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_row_26_black_hole_answers_nothing() -> None:
    async with running(**FAST, faults=("black-hole@4",)) as venue:
        async with connected(venue, STREAM) as socket:
            await collect(socket, 3)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 0.1)
            pong = await socket.ping()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pong, 0.1)
            assert venue.stats.clients == 1
            async with connected(venue, STREAM) as other:
                await collect(other, 3)
        await until(lambda: venue.stats.clients == 0)


async def test_row_26_slices_reassemble_to_the_same() -> None:
    sizes: list[int] = []

    class Tap(asyncio.Protocol):
        """Notes the size of whatever a read gives."""

        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))

    options = {"symbols": 1, "rate": 50.0, "levels": 60, "faults": ("slices@2:size=3,count=4",)}
    async with running(**options) as venue:
        host, port = venue.ws_url.removeprefix("ws://").split(":")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Tap, host, int(port))
        transport.write(
            f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await until(lambda: sum(size <= 6 for size in sizes) > 200)
        transport.abort()
        await until(lambda: venue.stats.clients == 0)
    assert [strike.fault for strike in venue.fired] == ["slices"]
    assert breaks(await first(8, "slices@2", rate=20.0)) == []


async def test_row_18_big_frame_of_over_a_mebibyte() -> None:
    messages = await first(6, "big@3")
    big = json.loads(messages.pop(2))
    assert big["e"] not in ("depthUpdate", "serverShutdown")
    assert len(big["x"]) > 2**20
    assert breaks(messages) == []


async def test_row_16_unknown_event_and_row_17_stray_symbol() -> None:
    messages = await first(6, "unknown-event@2", "stray@4")
    unknown = json.loads(messages.pop(1))
    assert unknown["e"] == "novelty"
    stray = json.loads(messages.pop(3))
    assert stray["s"] == "STRAYBTCUSDT"
    assert breaks(messages) == []


async def test_row_21_shutdown_is_announced_to_all_and_then_done() -> None:
    async with running(**FAST, faults=("shutdown@3:seconds=0.2",)) as venue:
        combined = "/stream?streams=ethusdt@depth@100ms"
        async with connected(venue, STREAM) as raw, connected(venue, combined) as wrapped:
            bare = [json.loads(message) async for message in raw]
            named = [json.loads(message) async for message in wrapped]
        assert (raw.close_code, wrapped.close_code) == (1001, 1001)
        told = [place for place, event in enumerate(bare) if event["e"] == "serverShutdown"]
        assert len(told) == 1
        assert told[0] < len(bare) - 10, "data goes on until the end"
        events = [one["data"] for one in named if one["stream"] == "!serverShutdown"]
        assert [list(event) for event in events] == [["e", "E"]]


async def test_row_25_accept_close() -> None:
    async with running(**FAST, faults=("accept-close@2:count=2",)) as venue:
        outcomes = []
        for _ in range(4):
            async with connected(venue, STREAM) as socket:
                try:
                    await asyncio.wait_for(socket.recv(), PATIENCE)
                    outcomes.append(True)
                except websockets.ConnectionClosedOK:
                    outcomes.append(False)
    assert outcomes == [True, False, False, True]


async def test_row_28_ack_error() -> None:
    async with running(**FAST, faults=("ack-error@2",)) as venue, connected(venue, "/ws") as socket:
        request = {"method": "SUBSCRIBE", "params": ["ethusdt@depth@100ms"], "id": 1}
        assert "result" in await ask(socket, request)
        refused = await ask(socket, request | {"params": ["btcusdt@depth@100ms"], "id": 2})
        assert refused["error"]["code"] == 2
        assert refused["id"] == 2
        listed = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 3})
        assert listed["result"] == ["ethusdt@depth@100ms"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("429@2:retry=1", 429),
        ("418@2:retry=1", 418),
        ("403@2", 403),
        ("451@2", 451),
        ("500@2", 500),
    ],
)
async def test_rows_32_33_and_34_rest_refusals(fault: str, status: int) -> None:
    async with running(**FAST, faults=(fault,)) as venue:
        answers = [await get(venue, DEPTH) for _ in range(3)]
    lasting = status in (429, 418)
    assert [answer[0] for answer in answers] == [200, status, status if lasting else 200]
    assert answers[1][2].get("Retry-After") == ("1" if lasting else None)


async def test_row_32_a_limit_ends_after_its_time() -> None:
    async with running(**FAST, faults=("418@1:retry=1",)) as venue:
        assert (await get(venue, DEPTH))[0] == 418
        assert (await get(venue, "/api/v3/ping"))[0] == 418
        start = time.monotonic()
        while (await get(venue, DEPTH))[0] == 418:
            assert time.monotonic() - start < PATIENCE
            await asyncio.sleep(0.05)
        assert 0.8 < time.monotonic() - start < 3


async def test_row_34_html_and_slow_answers() -> None:
    async with running(**FAST, faults=("html@1", "slow-rest@2:seconds=0.3")) as venue:
        status, body, headers = await get(venue, DEPTH)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert body.startswith("<html>")
        start = time.monotonic()
        assert (await get(venue, DEPTH))[0] == 200
        assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("market", ["spot", "usdm"])
async def test_row_4_old_snapshot_cannot_be_joined(market: str) -> None:
    async with (
        running(**FAST, market=market, faults=("old-snapshot@1",)) as venue,
        connected(venue, STREAM) as socket,
    ):
        events = [json.loads(text) for text in await collect(socket, 5)]
        path = f"{venue.market.rest}/depth?symbol=BTCUSDT&limit=1000"
        (_, old, _), (_, new, _) = await get(venue, path), await get(venue, path)
    local = LocalBook(futures=market == "usdm")
    for event in events:
        local.event(event)
    assert old["lastUpdateId"] + 1 < events[0]["U"]
    assert not local.snapshot(old)
    assert new["lastUpdateId"] >= events[4]["u"]


async def test_faults_strike_each_symbol_by_itself_and_connections_once() -> None:
    path = "/ws/btcusdt@depth@100ms/ethusdt@depth@100ms"
    async with (
        running(**FAST, faults=("drop@3", "unknown-event@3")) as venue,
        connected(venue, path) as socket,
    ):
        await collect(socket, 30)
    assert sorted(strike.fault for strike in venue.fired) == ["drop", "drop", "unknown-event"]
    async with (
        running(**FAST, faults=("drop@3:symbol=ETHUSDT",)) as venue,
        connected(venue, path) as socket,
    ):
        await collect(socket, 30)
    assert [strike.where.split("@")[0] for strike in venue.fired] == ["ethusdt"]


async def test_inject_strikes_at_once() -> None:
    async with running(**FAST) as venue, connected(venue, STREAM) as socket:
        await collect(socket, 10)
        venue.inject("abort:symbol=BTCUSDT")
        with pytest.raises(websockets.ConnectionClosedError):
            await collect(socket, 100)
        assert [strike.fault for strike in venue.fired] == ["abort"]
        assert abs(venue.fired[0].at - time.time()) < PATIENCE
        with pytest.raises(ValueError, match="choose from BTCUSDT, ETHUSDT"):
            venue.inject("abort:symbol=NOSUCH")


async def test_slow_streams_suffer_faults_too() -> None:
    async with (
        running(**{**FAST, "market": "usdm"}, faults=("drop@2",)) as venue,
        connected(venue, "/ws/btcusdt@depth") as socket,
    ):
        events = [json.loads(text) for text in await collect(socket, 3)]
    assert events[1]["pu"] != events[0]["u"]
    assert events[2]["pu"] == events[1]["u"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dorp", ["no fault 'dorp'", "did you mean 'drop'"]),
        ("xyzzy", ["no fault 'xyzzy'", *FAULTS]),
        ("drop@0", ["N = '0'", "whole number from 1"]),
        ("drop@", ["N = ''"]),
        ("drop@x", ["N = 'x'"]),
        ("drop:colour=red", ["no key 'colour'", "count, every, symbol"]),
        ("drop:count", ["no key 'count'", "key=value"]),
        ("drop:count=0", ["count = '0'"]),
        ("silence:seconds=-1", ["seconds = '-1'"]),
        ("silence:seconds=inf", ["seconds = 'inf'"]),
        ("silence:mode=loud", ["mode = 'loud'", "lose, hold"]),
        ("badid:kind=ugly", ["kind = 'ugly'", "order, negative"]),
    ],
)
def test_bad_faults_are_named(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^'") as caught:
        parse_fault(text)
    assert all(word in str(caught.value) for word in (repr(text), *words))


def test_every_fault_can_be_asked_for_by_name_and_has_help() -> None:
    for name, help_text in FAULTS.items():
        fault = parse_fault(f"{name}@7:count=2,every=9,symbol=btcusdt")
        assert (fault.name, fault.at, fault.count, fault.every) == (name, 7, 2, 9)
        assert fault.symbol == "BTCUSDT"
        assert "\n" not in help_text
        assert fault.scope.value in help_text


def test_plan_counts_by_scope() -> None:
    plan = FaultPlan()
    plan.arm(parse_fault("500@2:symbol=AUSDT"))
    plan.arm(parse_fault("html@3"))
    struck = [
        [fault.name for fault, _ in plan.due(Scope.REST, symbol=symbol)]
        for symbol in ("BUSDT", "AUSDT", "BUSDT", "AUSDT", "AUSDT")
    ]
    assert struck == [[], [], ["html"], ["500"], []]
    plan.arm(parse_fault("close"))
    later = [plan.due(Scope.CONNECTION, key, key) for key in ("a", "b", "a")]
    assert [bool(due) for due in later] == [True, False, False]


def test_reference_agrees_that_a_repeated_level_ends_true() -> None:
    book = ReferenceBook()
    book.load(1, [("1.0", "71.0"), ("1.0", "1.0")], [])
    assert book.bids() == [("1.0", "1.0")]


@pytest.mark.parametrize(
    ("quantity", "zero"), [("12.50000000", "0.00000000"), ("107", "0"), ("0.5", "0.0")]
)
def test_a_deletion_is_a_plain_decimal_zero(quantity: str, zero: str) -> None:
    assert write_zero(quantity) == zero
