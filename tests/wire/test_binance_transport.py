"""What the seam to websocket libraries promises, whichever carries the connection."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve

from obframe import GapReason, StreamEvent
from obframe_plugins import _venue_settings, _websocket
from obframe_plugins.binance import BinanceSettings

SUBSCRIBED, DISCONNECTED = StreamEvent.SUBSCRIBED, StreamEvent.DISCONNECTED


async def test_the_library_that_was_asked_for_reads(wire: Any, caplog: Any) -> None:
    caplog.set_level("INFO", "obframe.binance")
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
    assert f"streams are read by {wire.transport}" in caplog.text
    assert peer.socket.request.headers["User-Agent"] == "obframe"
    assert "Sec-WebSocket-Extensions" not in peer.socket.request.headers


async def test_pings_are_answered_while_frames_come(wire: Any) -> None:
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
        for n in range(1, 4):
            await peer.send(wire.diff("BTCUSDT", n, n))
            async with asyncio.timeout(5):
                assert await (await peer.socket.ping(b"are you there")) >= 0
        await wire.sink.until_id("BTCUSDT", 3)


async def test_messages_of_one_read_have_its_time_and_a_ping_between_keeps_none_old(
    wire: Any,
) -> None:
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)

        def frame(n: int) -> bytes:
            data = json.dumps(wire.diff("BTCUSDT", n, n)).encode()
            return struct.pack(">BBH", 0x81, 126, len(data)) + data

        peer.socket.transport.write(frame(1) + frame(2) + bytes([0x89, 0]))
        await wire.sink.until_id("BTCUSDT", 2)
        await asyncio.sleep(0.05)
        peer.socket.transport.write(frame(3))
        await wire.sink.until_id("BTCUSDT", 3)
    first, second, third = (update.received_ns for update in wire.sink.updates("BTCUSDT"))
    assert first == second
    assert third - second >= 50_000_000


async def test_messages_are_bytes_of_the_receivers_own_whole_and_in_order(wire: Any) -> None:
    """However they come: as text, as binary, in pieces with a ping between, empty."""

    async def speak(peer: Any) -> None:
        await peer.socket.send("text")
        await peer.socket.send(b"binary")
        peer.socket.transport.write(b"\x01\x02pi" + bytes([0x89, 0]) + b"\x00\x01e\x80\x02ce")
        await peer.socket.send("")
        await peer.socket.send("x" * 70_000)

    wire.venue.on_connect = speak
    taken: list[Any] = []
    _, open_socket = _websocket.choose(wire.transport)
    options = _websocket.Options(2**20, 5.0, 1.0, None, "obframe")
    socket = await open_socket(wire.venue.ws_url, options, lambda data, _: taken.append(data))
    await wire.eventually(lambda: len(taken) == 5)
    await socket.close()
    assert [type(data) for data in taken] == [bytes] * 5
    assert taken == [b"text", b"binary", b"piece", b"", b"x" * 70_000]


async def test_fragments_count_together_towards_the_longest_message(wire: Any) -> None:
    async def flood(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        with suppress(Exception):
            await peer.socket.send(["x" * 1000] * 5)

    wire.venue.on_command = flood
    async with wire.run("BTCUSDT", max_message_bytes=2048):
        status = await wire.sink.until("BTCUSDT", DISCONNECTED)
    assert "binance.max_message_bytes" in status.detail


@pytest.mark.parametrize(
    "frames",
    [
        *(b"\x80\x01x", b"\x01\x01x\x81\x01y", b"\x83\x01x", b"\x81\x81abcdx"),
        *(b"\xc1\x02{}", b"\xa1\x02{}", b"\x91\x02{}"),
    ],
    ids=[
        *("continues nothing", "begins anew within a message", "unknown opcode", "masked"),
        *("reserved bit 1", "reserved bit 2", "reserved bit 3"),
    ],
)
async def test_frames_against_the_rules_end_the_connection(wire: Any, frames: bytes) -> None:
    async def speak(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        if len(wire.venue.peers) == 1:
            peer.socket.transport.write(frames)

    wire.venue.on_command = speak
    async with wire.run("BTCUSDT"):
        await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
    assert "closed by us with 1002" in wire.sink.told("BTCUSDT", DISCONNECTED)[0].detail


async def test_the_venues_close_code_and_words_are_told_at_once(wire: Any) -> None:
    async with wire.run("BTCUSDT"):
        peer = await wire.venue.subscribed(0)
        # The frame alone: TCP stays open, and is not waited for.
        peer.socket.transport.write(b"\x88\x0f" + struct.pack(">H", 1001) + b"Going far off")
        async with asyncio.timeout(0.9):
            status = await wire.sink.until("BTCUSDT", DISCONNECTED)
    assert "by the venue with 1001: Going far off" in status.detail
    assert status.reason is GapReason.DISCONNECTED


async def test_an_end_in_the_middle_of_the_opening_handshake_is_named(wire: Any) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with wire.run("BTCUSDT", ws_url=url):
        status = await wire.sink.until("BTCUSDT", DISCONNECTED)
    server.close()
    await server.wait_closed()
    assert "does not speak WebSocket" in status.detail


async def test_a_cancelled_opening_leaves_no_connection_behind(wire: Any) -> None:
    ended = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()
        ended.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    _, open_socket = _websocket.choose(wire.transport)
    options = _websocket.Options(2048, 30.0, 1.0, None, "obframe")
    opening = asyncio.ensure_future(open_socket(url, options, lambda *_: None))
    await wire.eventually(lambda: server.is_serving() and not opening.done())
    await asyncio.sleep(0.05)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(5):
        await ended.wait()
    server.close()
    await server.wait_closed()


async def test_certificates_are_checked(
    wire: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with serve(wire.venue._serve, "127.0.0.1", 0, ssl=context, compression=None) as server:
        url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with wire.run("BTCUSDT", ws_url=url):
            status = await wire.sink.until("BTCUSDT", DISCONNECTED)
            assert "TLS" in status.detail
            assert "certificate" in status.detail
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            peer = await wire.venue.subscribed(0)
            await peer.send(wire.diff("BTCUSDT", 1, 2))
            await wire.sink.until_id("BTCUSDT", 2)


def test_a_library_that_is_not_installed_is_named_with_the_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_venue_settings, "is_installed", lambda name: name == "websockets")
    with pytest.raises(ValueError, match=r"'picows', which is not installed.*obframe\[fast\]"):
        BinanceSettings(transport="picows")
    monkeypatch.setattr(_websocket, "is_installed", lambda name: name == "websockets")
    assert _websocket.choose("auto")[0] == "websockets"
    monkeypatch.undo()
    assert _websocket.choose("auto")[0] == "picows"
    with pytest.raises(ValueError, match="transport is 'carrier-pigeon'"):
        BinanceSettings(transport="carrier-pigeon")  # type: ignore[arg-type]
