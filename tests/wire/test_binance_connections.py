"""Connections that break, stall, refuse or flood: what is told, and that the feed comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response

from obframe import GapReason, Instrument, StreamEvent
from obframe_plugins import binance

CONNECTING, SUBSCRIBED = StreamEvent.CONNECTING, StreamEvent.SUBSCRIBED
DISCONNECTED, SILENT, RESUMED = StreamEvent.DISCONNECTED, StreamEvent.SILENT, StreamEvent.RESUMED


class WatchedRandom(random.Random):
    """Notes the bounds of the delays that are drawn, and draws the shortest."""

    def __init__(self) -> None:
        super().__init__(1)
        self.bounds: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        """Return the lower bound; note the upper one of a delay."""
        if a == 0.0:
            self.bounds.append(b)
        return a


async def test_row_62_streams_are_sharded_and_each_connection_speaks_for_its_own(
    wire: Any,
) -> None:
    symbols = [f"S{n:02}USDT" for n in range(25)]
    async with wire.run(*symbols, streams_per_connection=10) as feed:
        peers = [await wire.venue.subscribed(n, count) for n, count in ((0, 5), (1, 5), (2, 5))]
        await wire.eventually(lambda: sum(len(p.streams) for p in peers) == 25, "25 streams")
        for symbol in symbols:
            await wire.sink.until(symbol, SUBSCRIBED)
        assert sorted(len(peer.streams) for peer in peers) == [5, 10, 10]
        lost = next(peer for peer in peers if len(peer.streams) == 5)
        hit = {name.split("@")[0].upper() for name in lost.streams}
        await lost.socket.close(1001)
        await wire.sink.until(min(hit), SUBSCRIBED, 2)
        for symbol in symbols:
            assert (DISCONNECTED in wire.sink.statuses(symbol)) == (symbol in hit)
        new = [f"NEW{n}USDT" for n in range(6)]
        wire.venue.statuses |= dict.fromkeys(new, "TRADING")
        feed.subscribe([Instrument(symbol) for symbol in new])
        await wire.sink.until("NEW4USDT", SUBSCRIBED)
        await wire.venue.subscribed(4, 1)
    assert max(len(peer.streams) for peer in wire.venue.peers) == 10


@pytest.mark.parametrize(("count", "what"), [(1, "1 stream"), (2, "2 streams")])
async def test_a_lost_connection_is_told_with_what_it_carried(
    wire: Any, caplog: pytest.LogCaptureFixture, count: int, what: str
) -> None:
    symbols = [f"S{n}USDT" for n in range(count)]
    async with wire.run(*symbols):
        peer = await wire.venue.subscribed(0, count)
        for symbol in symbols:
            await wire.sink.until(symbol, SUBSCRIBED)
        await peer.socket.close(1001)
        await wire.sink.until(symbols[0], SUBSCRIBED, 2)
    said = [r.getMessage() for r in caplog.records if " is lost: " in r.getMessage()]
    assert said
    assert all(text.startswith(f"a connection of {what} is lost: ") for text in said)


async def test_control_messages_are_batched_bounded_and_paced(wire: Any) -> None:
    symbols = [f"SYMBOL{n:04}USDT" for n in range(450)]
    async with wire.run(*symbols, streams_per_connection=1024, control_interval=0.1):
        peer = await wire.venue.subscribed(0, 450)
        await wire.sink.until(symbols[-1], SUBSCRIBED)
    sizes = [len(command["params"]) for command in peer.commands]
    assert sum(sizes) == 450
    assert max(sizes) <= 200
    assert max(len(json.dumps(command)) for command in peer.commands) < 8000
    waits = [after - before for before, after in zip(peer.times, peer.times[1:], strict=False)]
    assert min(waits) > 0.09
    assert [command["id"] for command in peer.commands] == list(range(1, len(sizes) + 1))


@pytest.mark.parametrize("form", ["flat", "nested", "without-id"])
async def test_row_28_a_refused_batch_is_split_and_the_refused_symbol_named(
    wire: Any, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(peer: Any, command: dict[str, Any]) -> None:
        if "badusdt@depth@100ms" not in command["params"]:
            await peer.acknowledge(command)
            return
        error = {"code": 2, "msg": "Invalid request: unknown stream"}
        if form == "nested":
            await peer.send({"error": error, "id": command["id"]})
        elif form == "flat":
            await peer.send(error | {"id": command["id"]})
        else:
            await peer.send(error)

    wire.venue.on_command = refuse
    symbols = ["AUSDT", "BUSDT", "BADUSDT", "CUSDT", "DUSDT", "EUSDT", "FUSDT"]
    async with wire.run(*symbols, blocked_retry=0.2) as feed:
        peer = await wire.venue.subscribed(0, 6)
        for symbol in symbols:
            if symbol != "BADUSDT":
                await wire.sink.until(symbol, SUBSCRIBED)
        status = await wire.sink.until("BADUSDT", DISCONNECTED)
        wire.venue.on_command = type(peer).acknowledge
        await wire.sink.until("BADUSDT", SUBSCRIBED)
    assert "unknown stream" in status.detail
    assert status.instruments == {Instrument("BADUSDT")}
    assert feed.counters()["refused"] >= 1
    named = [r.getMessage() for r in caplog.records if "refused the stream" in r.getMessage()]
    assert all("BADUSDT" in line for line in named)
    assert named
    assert len(wire.venue.peers) == 1
    assert DISCONNECTED not in wire.sink.statuses("AUSDT")


async def test_row_28_close_1008_slows_down_and_finds_the_stream_that_causes_it(
    wire: Any,
) -> None:
    async def cut(peer: Any, command: dict[str, Any]) -> None:
        if "badusdt@depth@100ms" in command["params"]:
            await peer.socket.close(1008, "Invalid request")
        else:
            await peer.acknowledge(command)

    wire.venue.on_command = cut
    symbols = ["AUSDT", "BUSDT", "BADUSDT", "CUSDT", "DUSDT", "EUSDT", "FUSDT"]
    async with wire.run(*symbols, control_interval=0.01, blocked_retry=60.0) as feed:
        await wire.eventually(lambda: feed.counters()["refused"] == 1, "the refusal")
        await wire.eventually(lambda: len(wire.venue.peers[-1].streams) == 6, "the other six")
        last = wire.venue.peers[-1]
    assert 3 <= len(wire.venue.peers) <= 6
    waits = [after - before for before, after in zip(last.times, last.times[1:], strict=False)]
    assert all(wait > 0.019 for wait in waits), "slower than at first"
    assert "1008" in wire.sink.told("AUSDT", DISCONNECTED)[0].detail


async def test_an_unanswered_subscription_is_sent_again_and_then_given_up(wire: Any) -> None:
    async def ignore(peer: Any, command: dict[str, Any]) -> None:
        if len(wire.venue.peers) > 1:
            await peer.acknowledge(command)

    wire.venue.on_command = ignore
    async with wire.run("BTCUSDT", ack_timeout=0.05):
        await wire.sink.until("BTCUSDT", SUBSCRIBED)
    assert [command["id"] for command in wire.venue.peers[0].commands] == [1, 2, 3]
    lost = wire.sink.told("BTCUSDT", DISCONNECTED)[0]
    assert lost.reason is GapReason.SILENT
    assert "no answer to SUBSCRIBE" in lost.detail


async def test_row_18_a_message_over_the_limit_names_the_setting_and_backs_off(
    wire: Any,
) -> None:
    async def flood(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        with suppress(Exception):
            await peer.send(wire.diff("BTCUSDT", 1, 2, [("1.0", "1.0")] * 1000))

    wire.venue.on_command = flood
    rng = WatchedRandom()
    async with wire.run("BTCUSDT", max_message_bytes=2048, backoff_max=60.0, rng=rng) as feed:
        await wire.sink.until("BTCUSDT", DISCONNECTED, 5)
        status = wire.sink.told("BTCUSDT", DISCONNECTED)[0]
    assert "binance.max_message_bytes" in status.detail
    assert "2048" in status.detail
    assert status.reason is GapReason.DISCONNECTED
    assert rng.bounds[:4] == [0.5, 1.0, 2.0, 4.0], "growing, so no hot loop"
    assert feed.counters()["messages"] < 20


async def test_row_19_a_compressed_frame_is_refused_without_being_unpacked(wire: Any) -> None:
    async def bomb(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        if len(wire.venue.peers) == 1:
            # FIN, RSV1 ("compressed"), text; it was never negotiated.
            peer.socket.transport.write(bytes([0xC1, 126, 0x04, 0x00]) + bytes(1024))

    wire.venue.on_command = bomb
    async with wire.run("BTCUSDT"):
        await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
    assert "closed" in wire.sink.told("BTCUSDT", DISCONNECTED)[0].detail
    offered = wire.venue.peers[0].socket.request.headers
    assert "Sec-WebSocket-Extensions" not in offered


async def test_row_22_silence_is_told_then_the_connection_is_opened_anew(wire: Any) -> None:
    async with wire.run("BTCUSDT", stale_after=0.1, idle_timeout=0.4) as feed:
        peer = await wire.venue.subscribed(0)
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
    assert wire.sink.statuses("BTCUSDT")[:6] == [
        CONNECTING, SUBSCRIBED, SILENT, DISCONNECTED, CONNECTING, SUBSCRIBED,
    ]  # fmt: skip
    silent, lost, again = wire.sink.told("BTCUSDT")[2:5]
    assert silent.reason is lost.reason is again.reason is GapReason.SILENT
    assert "no data for 0.4 s" in lost.detail
    assert feed.counters()["reconnects"] == 1


async def test_data_after_silence_resumes_the_same_stream(wire: Any) -> None:
    async with wire.run("BTCUSDT", "ETHUSDT", stale_after=0.1, idle_timeout=5.0):
        peer = await wire.venue.subscribed(0, 2)
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        await wire.sink.until("BTCUSDT", SILENT)
        await peer.send(wire.diff("ETHUSDT", 1, 2))
        status = await wire.sink.until("BTCUSDT", RESUMED)
        await wire.sink.until_id("ETHUSDT", 2)
    assert status.reason is None
    assert status.instruments == {Instrument("BTCUSDT"), Instrument("ETHUSDT")}
    assert len(wire.venue.peers) == 1
    position = wire.sink.events.index(status)
    assert wire.sink.events[position + 1] is wire.sink.updates("ETHUSDT")[0]


async def test_row_23_a_stream_without_any_data_is_named_and_asked_for_once_more(
    wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def chatter(peer: Any) -> None:
        for n in range(1, 10_000):
            await peer.send(wire.diff("BTCUSDT", n, n))
            await asyncio.sleep(0.01)

    async with wire.run("BTCUSDT", "XYZUSDT", first_data_timeout=0.15) as feed:
        peer = await wire.venue.subscribed(0, 2)
        talk = asyncio.create_task(chatter(peer))
        await wire.eventually(lambda: len(peer.commands) >= 3, "the second request")
        await wire.sink.until_id("BTCUSDT", wire.sink.ids("BTCUSDT")[-1] + 40)
        talk.cancel()
    name = ["xyzusdt@depth@100ms"]
    assert [(c["method"], c["params"]) for c in peer.commands[1:]] == [
        ("UNSUBSCRIBE", name),
        ("SUBSCRIBE", name),
    ]
    warnings = [r.getMessage() for r in caplog.records if "sent nothing" in r.getMessage()]
    assert len(warnings) == 1
    assert "xyzusdt@depth@100ms" in warnings[0]
    assert wire.sink.statuses("XYZUSDT") == [CONNECTING, SUBSCRIBED], "its state is kept"
    assert feed.counters()["resubscribed"] == 1


async def test_row_24_heartbeats_and_answers_are_no_sign_of_life(wire: Any) -> None:
    async def heartbeat(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        with suppress(Exception):
            while True:
                await peer.socket.ping()
                await peer.send({"result": None, "id": 77})
                await peer.send({"e": "heartbeat"})
                await asyncio.sleep(0.01)

    wire.venue.on_command = heartbeat
    async with wire.run("BTCUSDT", stale_after=0.1, idle_timeout=0.3):
        status = await wire.sink.until("BTCUSDT", DISCONNECTED)
    assert status.reason is GapReason.SILENT


async def test_row_25_accept_and_close_in_a_loop_backs_off_and_keeps_to_the_limit(
    wire: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def close(peer: Any) -> None:
        await peer.socket.close(1000)

    wire.venue.on_connect = close
    monkeypatch.setattr(binance, "MOST_CONNECTIONS", 8)
    rng = WatchedRandom()
    async with wire.run("BTCUSDT", backoff_max=60.0, rng=rng) as feed:
        await wire.eventually(lambda: "the most the venue allows" in caplog.text, "the limit")
        assert feed.counters()["connections"] == 8
    assert len(wire.venue.peers) == 8
    assert rng.bounds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert wire.sink.statuses("BTCUSDT")[:4] == [CONNECTING, DISCONNECTED] * 2


async def test_row_25_only_good_data_for_long_enough_resets_the_back_off(wire: Any) -> None:
    async def speak(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        number = len(wire.venue.peers)
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        if number == 3:
            await asyncio.sleep(0.4)
            await peer.send(wire.diff("BTCUSDT", 3, 4))
        await peer.socket.close(1000)

    wire.venue.on_command = speak
    rng = WatchedRandom()
    async with wire.run("BTCUSDT", stable_after=0.3, backoff_max=60.0, rng=rng):
        await wire.sink.until("BTCUSDT", DISCONNECTED, 5)
    assert rng.bounds[:4] == [0.5, 1.0, 0.5, 1.0]


async def test_row_26_a_reset_connection_is_opened_anew(wire: Any) -> None:
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        await wire.sink.until_id("BTCUSDT", 2)
        peer.socket.transport.abort()
        await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
    lost = wire.sink.told("BTCUSDT", DISCONNECTED)[0]
    assert lost.reason is GapReason.DISCONNECTED


async def test_row_26_a_black_hole_is_left_by_the_time_out(wire: Any) -> None:
    """The server accepts and never answers the opening handshake."""
    holes: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        holes.append(writer)
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with wire.run("BTCUSDT", ws_url=url, open_timeout=0.1):
        status = await wire.sink.until("BTCUSDT", DISCONNECTED, 2)
    server.close()
    await server.wait_closed()
    assert "did not open within 0.1 s" in status.detail
    assert "binance.ws_url" in status.detail


async def test_row_26_one_byte_slices_are_put_together(wire: Any) -> None:
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
        peer.socket.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        for n in (1, 2):
            payload = json.dumps(wire.diff("BTCUSDT", n, n, [("1.0", "1.0")] * 20)).encode()
            half = len(payload) // 2
            # Two fragments, of which each byte is a packet.
            for first, part in ((0x01, payload[:half]), (0x80, payload[half:])):
                for byte in bytes([first, 126, *len(part).to_bytes(2, "big")]) + part:
                    peer.socket.transport.write(bytes([byte]))
                    await asyncio.sleep(0)
        await wire.sink.until_id("BTCUSDT", 2)
    assert wire.sink.ids("BTCUSDT") == [1, 2]
    assert DISCONNECTED not in wire.sink.statuses("BTCUSDT")


async def test_row_27_tls_failure_is_named_and_backs_off(wire: Any) -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rng = WatchedRandom()
    urls = {"ws_url": f"wss://127.0.0.1:{port}", "rest_url": f"https://127.0.0.1:{port}"}
    async with wire.run("BTCUSDT", rng=rng, backoff_max=60.0, **urls) as feed:
        status = await wire.sink.until("BTCUSDT", DISCONNECTED, 3)
        await wire.eventually(lambda: feed.counters()["rest_errors"] > 1, "REST tries")
    server.close()
    await server.wait_closed()
    assert "TLS" in status.detail
    assert "binance.ws_url" in status.detail
    assert {0.5, 1.0, 2.0} <= set(rng.bounds)


async def test_row_27_a_refused_connection_is_named(wire: Any) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    async with wire.run("BTCUSDT", ws_url=f"ws://127.0.0.1:{port}"):
        status = await wire.sink.until("BTCUSDT", DISCONNECTED)
    assert "cannot be reached" in status.detail
    assert str(port) in status.detail


async def test_row_27_dns_failure_is_named_and_other_connections_go_on(
    wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    url = "ws://stream.venue.invalid"
    async with wire.run("BTCUSDT", ws_url=url, rest_url="http://api.venue.invalid") as feed:
        status = await wire.sink.until("BTCUSDT", DISCONNECTED, 2)
        await wire.eventually(lambda: feed.counters()["rest_errors"] > 1, "REST tries")
    assert "stream.venue.invalid" in status.detail
    assert "cannot be resolved" in status.detail


async def test_row_27_a_proxy_that_refuses_is_named(wire: Any) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with wire.run("BTCUSDT", ws_url="ws://stream.venue.invalid", proxy=proxy):
        status = await wire.sink.until("BTCUSDT", DISCONNECTED)
    server.close()
    await server.wait_closed()
    assert "proxy" in status.detail
    assert "502" in status.detail
    assert "binance.proxy" in status.detail


async def test_streams_and_snapshots_go_through_the_proxy_that_is_set(wire: Any) -> None:
    seen: list[bytes] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.split(b"\r\n")[0])
        connect = head.startswith(b"CONNECT")
        url = wire.venue.ws_url if connect else wire.venue.rest_url
        above, below = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        if connect:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            below.write(head)
        await asyncio.gather(pipe(reader, below), pipe(above, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    wire.venue.books["BTCUSDT"] = wire.book(5)
    far = {"ws_url": "ws://stream.venue.invalid", "rest_url": "http://api.venue.invalid"}
    async with wire.run("BTCUSDT", proxy=proxy, **far) as feed:
        await wire.sink.until("BTCUSDT", SUBSCRIBED)
        feed.request_snapshot(Instrument("BTCUSDT"))
        await wire.eventually(lambda: wire.sink.snapshots("BTCUSDT"), "the snapshot")
    server.close()
    await server.wait_closed()
    assert b"CONNECT stream.venue.invalid:80 HTTP/1.1" in seen
    assert any(line.startswith(b"GET http://api.venue.invalid/api/v3/") for line in seen)


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (451, {}, "binance.ws_url"),
        (403, {}, "binance.ws_url"),
        (429, {"Retry-After": "30"}, "waiting 30 s"),
        (418, {}, "waiting 120 s"),
    ],
)
async def test_row_33_a_stream_host_that_turns_us_away_is_left_alone_for_long(
    wire: Any,
    status: int,
    headers: dict[str, str],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*args: Any) -> Response:
        return Response(status, HTTPStatus(status).phrase, Headers(headers), b"")

    wire.venue.on_handshake = refuse
    caplog.set_level(logging.WARNING, "obframe.binance")
    async with wire.run("BTCUSDT", blocked_retry=30.0) as feed:
        told = await wire.sink.until("BTCUSDT", DISCONNECTED)
        await wire.eventually(lambda: "next try in" in caplog.text, "the log")
        assert feed.counters()["connections"] == 1
    assert str(status) in told.detail
    assert said in told.detail
    assert "next try in 120.0 s" in caplog.text or "next try in 30.0 s" in caplog.text


async def test_row_32_a_refusal_of_one_connection_holds_back_all_new_ones(wire: Any) -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    def refuse_first(*args: Any) -> Response | None:
        times.append(loop.time())
        if len(times) > 1:
            return None
        return Response(429, "Too Many Requests", Headers({"Retry-After": "1"}), b"")

    wire.venue.on_handshake = refuse_first
    wire.venue.statuses = {"AUSDT": "TRADING", "BUSDT": "TRADING"}
    async with wire.run("AUSDT", streams_per_connection=1) as feed:
        await wire.sink.until("AUSDT", DISCONNECTED)
        feed.subscribe([Instrument("BUSDT")])
        await wire.sink.until("BUSDT", SUBSCRIBED)
        await wire.sink.until("AUSDT", SUBSCRIBED)
    assert min(times[1:]) - times[0] >= 0.99


async def test_row_56_a_fault_behind_emit_hits_its_own_connection_only(wire: Any) -> None:
    def fail(event: Any) -> None:
        if getattr(event, "symbol", "") == "BADUSDT":
            raise RuntimeError("a fault of ours")

    wire.sink.on_event = fail
    async with wire.run("BADUSDT", "BTCUSDT", streams_per_connection=1):
        await wire.sink.until("BADUSDT", SUBSCRIBED)
        await wire.sink.until("BTCUSDT", SUBSCRIBED)
        by_stream = {min(peer.streams): peer for peer in wire.venue.peers}
        await by_stream["badusdt@depth@100ms"].send(wire.diff("BADUSDT", 1, 2))
        status = await wire.sink.until("BADUSDT", DISCONNECTED)
        await wire.sink.until("BADUSDT", SUBSCRIBED, 2)
        await by_stream["btcusdt@depth@100ms"].send(wire.diff("BTCUSDT", 1, 2))
        await wire.sink.until_id("BTCUSDT", 2)
    assert status.reason is GapReason.INTERNAL
    assert wire.sink.statuses("BTCUSDT") == [CONNECTING, SUBSCRIBED]


async def test_cancelling_closes_every_connection_promptly_and_run_may_be_called_again(
    wire: Any,
) -> None:
    loop = asyncio.get_running_loop()
    async with wire.run("BTCUSDT", "ETHUSDT", streams_per_connection=1) as feed:
        peers = [await wire.venue.subscribed(0), await wire.venue.subscribed(1)]
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await wire.sink.until(symbol, SUBSCRIBED, 1)
        with pytest.raises(RuntimeError, match="runs already"):
            await feed.run(wire.sink.emit)
        began = loop.time()
    assert loop.time() - began < 1.0
    await wire.eventually(lambda: all(peer.closed for peer in peers), "the venue to see it")
    assert all(peer.socket.close_code == 1000 for peer in peers)
    again = asyncio.create_task(feed.run(wire.sink.emit))
    await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
    await wire.sink.until("ETHUSDT", SUBSCRIBED, 2)
    again.cancel()
    with suppress(asyncio.CancelledError):
        await again
