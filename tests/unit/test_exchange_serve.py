"""The venue as a process of its own: its start, its end, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import gzip
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import websockets

from obframe.testing.exchange import ExchangeOptions, serve
from obframe.testing.exchange_capture import CaptureSource
from obframe.testing.exchange_client import PATIENCE

PROGRAM = """
import asyncio, sys
from pathlib import Path
from obframe.testing.exchange import ExchangeOptions, serve
options = ExchangeOptions(rate=100.0, levels=50, record=Path(sys.argv[1]))
asyncio.run(serve(options, on_ready=lambda rest, ws: print(rest, ws, flush=True)))
"""


@asynccontextmanager
async def process(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            rest, ws = (await child.stdout.readline()).decode().split()
        assert rest.startswith("http://127.0.0.1:")
        yield child, ws
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_journal_outlives_the_process(tmp_path: Path, number: signal.Signals) -> None:
    async with (
        process(tmp_path / "journal") as (child, url),
        websockets.connect(url + "/ws/btcusdt@depth@100ms", max_queue=None) as socket,
    ):
        async with asyncio.timeout(PATIENCE):
            for _ in range(150):  # more than a second, so more than one flush
                await socket.recv()
        child.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            code = await child.wait()
            await socket.wait_closed()
    killed = number is signal.SIGKILL
    assert code == (-signal.SIGKILL if killed else 0)
    assert socket.close_code == (1006 if killed else 1001)
    path = tmp_path / "journal" / "btcusdt.gz"
    with gzip.open(path) as file:
        lines = sum(1 for _ in file)
    assert lines > (60 if killed else 150)
    source = CaptureSource([path], 0.0)
    while source.due() is not None:
        assert source.advance()
    assert source.depth("BTCUSDT").bids


async def test_serve_ends_with_the_captures_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(
        gzip.compress(
            b'1 {"lastUpdateId":5,"bids":[["1.0","1.0"]],"asks":[["2.0","1.0"]]}\n'
            b'2 {"stream":"ausdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"AUSDT",'
            b'"U":6,"u":7,"b":[["1.0","2.0"]],"a":[]}}\n'
        )
    )
    urls: asyncio.Queue[str] = asyncio.Queue()
    options = ExchangeOptions(captures=(path,), speed=0.0, at_end="exit")
    task = asyncio.create_task(serve(options, on_ready=lambda _, ws: urls.put_nowait(ws)))
    async with asyncio.timeout(PATIENCE):
        url = await urls.get()
        async with websockets.connect(url + "/ws/ausdt@depth") as socket:
            assert '"u":7' in str(await socket.recv())
            await task
            await socket.wait_closed()
    assert socket.close_code == 1001


async def test_a_taken_port_is_an_os_error(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match=str(port)):
        await serve(ExchangeOptions(port=port), on_ready=lambda *_: None)
    server.close()
    await server.wait_closed()
