"""The websocket side of the venue, as clients of three libraries find it."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
import websockets

from obframe.testing.exchange_client import (
    FAST,
    PATIENCE,
    ask,
    collect,
    connected,
    receive,
    running,
    until,
)
from obframe.testing.exchange_control import Refusal, Subscriptions


async def test_raw_stream_carries_bare_events() -> None:
    async with running(**FAST) as venue, connected(venue, "/ws/btcusdt@depth@100ms") as socket:
        first, second = await receive(socket), await receive(socket)
    assert list(first) == ["e", "E", "s", "U", "u", "b", "a"]
    assert (first["e"], first["s"]) == ("depthUpdate", "BTCUSDT")
    assert second["U"] == first["u"] + 1
    assert all(isinstance(text, str) for level in first["b"] + first["a"] for text in level)


async def test_combined_stream_wraps_events_with_their_stream() -> None:
    path = "/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms"
    async with running(**FAST) as venue, connected(venue, path) as socket:
        messages = [json.loads(text) for text in await collect(socket, 10)]
    assert {message["stream"] for message in messages} == {
        "btcusdt@depth@100ms",
        "ethusdt@depth@100ms",
    }
    assert all(message["data"]["s"].lower() in message["stream"] for message in messages)


async def test_aiohttp_client_reads_the_same() -> None:
    async with running(**FAST) as venue, aiohttp.ClientSession() as session:
        url = venue.ws_url + "/stream?streams=ethusdt@depth@100ms"
        async with session.ws_connect(url) as socket:
            message = await socket.receive_json(timeout=PATIENCE)
    assert message["stream"] == "ethusdt@depth@100ms"


async def test_subscribe_list_and_unsubscribe() -> None:
    async with running(**FAST) as venue, connected(venue, "/ws") as socket:
        names = ["btcusdt@depth@100ms", "ethusdt@depth@100ms"]
        request = {"method": "SUBSCRIBE", "params": names, "id": 1}
        assert await ask(socket, request) == {"result": None, "id": 1}
        listed = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": "two"})
        assert listed == {"result": names, "id": "two"}
        request = {"method": "UNSUBSCRIBE", "params": names[:1], "id": 3}
        assert await ask(socket, request) == {"result": None, "id": 3}
        later = [json.loads(text) for text in await collect(socket, 10)]
    assert {event["s"] for event in later} == {"ETHUSDT"}


async def test_row_23_unknown_symbol_is_acknowledged_and_stays_silent() -> None:
    async with running(**FAST) as venue, connected(venue, "/stream") as socket:
        request = {"method": "SUBSCRIBE", "params": ["nosuch@depth@100ms"], "id": 1}
        assert await ask(socket, request) == {"result": None, "id": 1}
        seen = venue.stats.events
        await until(lambda: venue.stats.events > seen + 20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.05)


async def test_combined_property_can_be_changed() -> None:
    async with running(**FAST) as venue, connected(venue, "/ws/btcusdt@depth@100ms") as socket:
        get = {"method": "GET_PROPERTY", "params": ["combined"], "id": 1}
        assert (await ask(socket, get))["result"] is False
        await ask(socket, {"method": "SET_PROPERTY", "params": ["combined", True], "id": 2})
        assert "stream" in await receive(socket)


@pytest.mark.parametrize(
    ("request_text", "code", "word", "request_id"),
    [
        ("{nonsense", 3, "Invalid JSON", None),
        ("[]", 3, "Invalid JSON", None),
        ('{"method":"SUBSCRIB","params":["a"],"id":7}', 2, "unknown variant `SUBSCRIB`", 7),
        ('{"params":["a"],"id":7}', 2, "missing field `method`", 7),
        ('{"method":"SUBSCRIBE","params":["a"],"id":1.5}', 2, "request ID", None),
        ('{"method":"SUBSCRIBE","params":["a"],"id":true}', 2, "request ID", None),
        ('{"method":"SUBSCRIBE","params":[],"id":7}', 2, "params", 7),
        ('{"method":"SUBSCRIBE","params":[1],"id":7}', 2, "params", 7),
        ('{"method":"SUBSCRIBE","params":"a","id":7}', 2, "params", 7),
        ('{"method":"SUBSCRIBE","params":["a"],"id":7,"x":1}', 2, "too many parameters", 7),
        ('{"method":"GET_PROPERTY","params":["colour"],"id":7}', 0, "Unknown property", 7),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":7}', 1, "Boolean", 7),
    ],
)
def test_bad_requests_are_refused(
    request_text: str, code: int, word: str, request_id: int | None
) -> None:
    subscriptions = Subscriptions(False, ["old"])
    with pytest.raises(Refusal, match=word) as caught:
        subscriptions.answer(request_text)
    assert (caught.value.code, caught.value.request_id) == (code, request_id)
    assert list(subscriptions.streams) == ["old"]


async def test_refusal_has_the_wire_form() -> None:
    async with running(**FAST) as venue, connected(venue, "/ws") as socket:
        answer = await ask(socket, {"method": "DANCE", "id": 4})
    assert answer["id"] == 4
    assert answer["error"]["code"] == 2


async def test_row_62_over_1024_streams_are_refused() -> None:
    subscriptions = Subscriptions(True, [f"s{number}@depth" for number in range(1000)])
    more = [f"t{number}@depth" for number in range(25)]
    with pytest.raises(Refusal, match="1024"):
        subscriptions.answer(json.dumps({"method": "SUBSCRIBE", "params": more, "id": 1}))
    subscriptions.answer(json.dumps({"method": "SUBSCRIBE", "params": more[1:], "id": 2}))
    assert len(subscriptions.streams) == 1024


@pytest.mark.parametrize("ping", [False, True])
async def test_row_28_more_than_five_messages_a_second_end_in_1008(ping: bool) -> None:
    async with running(**FAST) as venue, connected(venue, "/ws") as socket:
        for number in range(6):
            if ping:
                await socket.ping()
            else:
                await socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        async with asyncio.timeout(PATIENCE):
            await socket.wait_closed()
    assert socket.close_code == 1008


async def test_five_messages_a_second_are_fine_and_ten_on_futures() -> None:
    for market, allowed in (("spot", 5), ("usdm", 10)):
        async with running(**FAST, market=market) as venue, connected(venue, "/ws") as socket:
            for number in range(allowed):
                answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": number})
                assert answer["id"] == number


async def test_futures_are_served_below_public_too() -> None:
    async with running(**FAST, market="usdm") as venue:
        path = "/public/stream?streams=btcusdt@depth@0ms/btcusdt@depth@100ms"
        async with connected(venue, path) as socket:
            messages = [json.loads(text) for text in await collect(socket, 6)]
    assert {message["stream"].partition("@")[2] for message in messages} == {
        "depth@0ms",
        "depth@100ms",
    }
    events = [message["data"] for message in messages if message["stream"].endswith("@0ms")]
    assert list(events[0]) == ["e", "E", "T", "s", "U", "u", "pu", "b", "a"]
    assert events[1]["pu"] == events[0]["u"]
    assert events[1]["U"] > events[0]["u"]


async def test_spot_has_no_public_prefix() -> None:
    async with running(**FAST) as venue:
        with pytest.raises(websockets.InvalidStatus):
            async with connected(venue, "/public/ws"):
                pass


async def test_venue_pings_and_parts_from_who_does_not_answer() -> None:
    options = {**FAST, "ping_seconds": 0.05, "pong_seconds": 0.15}
    async with running(**options) as venue, aiohttp.ClientSession() as session:
        async with session.ws_connect(venue.ws_url + "/ws", autoping=False) as deaf:
            kinds = []
            while (message := await deaf.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.PING:
                kinds.append(message.type)
        assert len(kinds) >= 2
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1008


async def test_pongs_keep_a_connection() -> None:
    options = {**FAST, "ping_seconds": 0.25, "pong_seconds": 0.3}
    async with running(**options) as venue, connected(venue, "/ws/btcusdt@depth@100ms") as socket:
        await collect(socket, 200)  # one second
        assert socket.close_code is None


async def test_row_21_connection_ends_with_its_life() -> None:
    options = {**FAST, "connection_seconds": 0.1}
    async with running(**options) as venue, connected(venue, "/ws") as socket:
        async with asyncio.timeout(PATIENCE):
            await socket.wait_closed()
    assert socket.close_code == 1001


async def test_slow_client_is_disconnected_before_memory_fills() -> None:
    options = {**FAST, "buffer_mib": 1.0, "faults": ("big:size=4000000,every=1",)}
    async with running(**options) as venue:
        host, port = venue.ws_url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(
            b"GET /ws/btcusdt@depth@100ms HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await until(lambda: venue.stats.slow_clients == 1)
        await until(lambda: venue.stats.clients == 0)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_row_25_connections_over_the_limit_are_refused() -> None:
    async with running(**FAST, connection_limit=2) as venue:
        for _ in range(2):
            async with connected(venue, "/ws"):
                pass
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with connected(venue, "/ws"):
                pass
    assert caught.value.response.status_code == 429


async def test_leaving_the_venue_closes_its_connections() -> None:
    async with running(**FAST) as venue, connected(venue, "/ws") as socket:
        await venue.__aexit__(None, None, None)
        async with asyncio.timeout(PATIENCE):
            await socket.wait_closed()
        assert socket.close_code == 1001
        assert venue.stats.clients == 0
