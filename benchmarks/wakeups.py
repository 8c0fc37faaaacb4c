"""What it costs to read a paced stream over TLS, and what letting messages gather adds and saves.

A server of its own process sends one depth message after the other, each at its time, on one
connection; the client parses it. ``python benchmarks/wakeups.py`` prints CPU a message and the time
from the sending of a message to its parsing; ``gather`` is what obframe does not do: to stop
reading for a millisecond after each read, so that one wake-up finds more.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import multiprocessing
import os
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from load import make_certificate

from obframe import parse_depth_update
from obframe.testing.exchange_loop import LoopSource
from obframe.testing.exchange_market import MARKETS
from obframe_plugins import _websocket

WARM_UP = 1.0
HOLD = 0.0009
"""Seconds; both event loops wait in whole milliseconds, and make one of it."""
_EVENT = b'{"e":"depthUpdate","E":'


def serve(ports: Any, rate: int, seconds: float, pem: Path) -> None:
    """Send messages at this rate to whoever connects; each begins with its time."""
    picows = importlib.import_module("picows")
    source = LoopSource(MARKETS["spot"], 100, 1, 10.0, 1000, 50)
    tails = [source.advance().data[len(_EVENT) + 13 :] for _ in range(5000)]

    class Listener(picows.WSListener):  # type: ignore[misc, name-defined]
        def on_ws_connected(self, transport: Any) -> None:
            self.task = asyncio.get_running_loop().create_task(send(transport))

    async def send(transport: Any) -> None:
        start, sent = time.monotonic(), 0
        while not transport.is_disconnected:
            while sent < (time.monotonic() - start) * rate:
                event = b"%b%d%b" % (_EVENT, time.monotonic_ns(), tails[sent % len(tails)])
                transport.send(picows.WSMsgType.TEXT, event)
                sent += 1
            await asyncio.sleep(0)

    async def run() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
        server = await picows.ws_create_server(lambda _: Listener(), "127.0.0.1", 0, ssl=context)
        ports.put(server.sockets[0].getsockname()[1])
        await asyncio.sleep(seconds + 3)

    asyncio.run(run())


def find_transport(socket: Any) -> asyncio.ReadTransport:
    """Return what is below a connection of either library."""
    if hasattr(socket, "_connection"):
        return socket._connection.transport  # type: ignore[no-any-return]
    return socket._transport.underlying_transport  # type: ignore[no-any-return]


async def read(
    port: int, library: str, seconds: float, gather: bool
) -> tuple[float, float, float, float]:
    """Return microseconds of CPU a message, messages a read, and delays: median and p99 in ms."""
    delays: list[int] = []
    reads = set()

    transport: asyncio.ReadTransport | None = None
    loop = asyncio.get_running_loop()

    def take(data: bytes, read_ns: int) -> None:
        parse_depth_update(data)
        if gather and transport is not None and read_ns not in reads:
            transport.pause_reading()
            loop.call_later(HOLD, transport.resume_reading)
        reads.add(read_ns)
        sent = int(data[len(_EVENT) : data.index(b",", len(_EVENT))])
        delays.append(time.monotonic_ns() - sent)

    _, open_socket = _websocket.choose(library)
    options = _websocket.Options(2**23, 5.0, 1.0, None, "obframe")
    socket = await open_socket(f"wss://127.0.0.1:{port}", options, take)
    transport = find_transport(socket)
    await asyncio.sleep(WARM_UP)
    delays.clear()
    reads.clear()
    before = time.process_time()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await socket.wait()
    spent = time.process_time() - before
    count, delays = len(delays), sorted(delays)
    middle, late = delays[count // 2] / 1e6, delays[count * 99 // 100] / 1e6
    gather = False
    socket.mute()
    await socket.close()
    return spent / count * 1e6, count / len(reads), middle, late


def main() -> int:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rates", type=int, nargs="*", default=[200, 2000, 5000, 15_000])
    chosen = parser.parse_args()
    print(
        f"{'event loop':12}{'transport':12}{'messages/s':>11}  {'gather':7}{'us/message':>11}"
        f"{'a read':>8}{'delay, median':>15}{'p99':>10}"
    )
    uvloop = importlib.import_module("uvloop")
    with make_certificate() as pem:
        os.environ["SSL_CERT_FILE"] = str(pem)
        for event_loop, library, rate, gather in itertools.product(
            ("asyncio", "uvloop"), ("websockets", "picows"), chosen.rates, (False, True)
        ):
            ports: Any = multiprocessing.Queue()
            arguments = (ports, rate, chosen.seconds + WARM_UP, pem)
            server = multiprocessing.Process(target=serve, args=arguments)
            server.start()
            factory = uvloop.new_event_loop if event_loop == "uvloop" else None
            try:
                with asyncio.Runner(loop_factory=factory) as runner:
                    cpu, together, middle, late = runner.run(
                        read(ports.get(), library, chosen.seconds, gather)
                    )
            finally:
                server.terminate()
                server.join()
            print(
                f"{event_loop:12}{library:12}{rate:11,}  {'yes' if gather else 'no':7}{cpu:11.1f}"
                f"{together:8.2f}{middle:12.3f} ms{late:7.3f} ms",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
