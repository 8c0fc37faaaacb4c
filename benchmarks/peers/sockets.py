"""From the socket to the updated book: obframe, cryptofeed and unicorn on one stream.

A venue of its own process serves a loop of events; one client after the other follows it, each in
a process of its own, with the websocket library it comes with and its own way to take a message.
``python benchmarks/peers/sockets.py`` prints CPU a message; all books have to end at the update id
of the last message. The peers' books are those of ``clients.py``, without the parts that ask the
exchange for symbols.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from clients import Cryptofeed, Unicorn

WARM_UP = 4.0
CLIENTS = {
    "obframe, picows, uvloop": ("obframe", "picows", "uvloop"),
    "obframe, picows": ("obframe", "picows", "asyncio"),
    "obframe, websockets": ("obframe", "websockets", "asyncio"),
    "cryptofeed": ("cryptofeed", "websockets", "asyncio"),
    "unicorn-binance-local-depth-cache": ("unicorn", "websockets", "asyncio"),
}


class ManyCryptofeed(Cryptofeed):
    """A book of any symbol: the handler finds it by the name in the message."""

    def name(self, symbol: str) -> None:
        """Let messages of this symbol reach the book."""
        self.symbol = symbol
        self.feed._l2_book[symbol] = self.feed._l2_book["BTCUSDT"]
        self.feed.last_update_id[symbol] = self.feed.last_update_id["BTCUSDT"]

    def apply(self, raw: Any) -> None:
        super().apply(raw)
        self.update_id = self.feed.last_update_id[self.symbol]


async def follow_obframe(
    urls: dict[str, str], names: list[str], transport: str, measure: Callable[[], Any]
) -> Any:
    """Follow with the feed and the books that ``obframe run`` uses."""
    from obframe import Instrument  # noqa: PLC0415
    from obframe.books import BookManager  # noqa: PLC0415
    from obframe_plugins.binance import BinanceFeed, BinanceSettings  # noqa: PLC0415

    settings = BinanceSettings(**urls, transport=transport, rest_weight_per_minute=10**9)
    books = BookManager(BinanceFeed(settings))
    books.subscribe(*(Instrument(name) for name in names))
    task = asyncio.create_task(books.run())
    result = await measure(lambda: books.counters["updates"])
    assert set(books.states()) == {"live"}, books.states()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return result


async def follow_peer(
    urls: dict[str, str], names: list[str], peer: str, measure: Callable[[], Any]
) -> Any:
    """Follow with a peer's book behind the library by which it reads."""
    connect = importlib.import_module("websockets").connect
    kind = ManyCryptofeed if peer == "cryptofeed" else Unicorn
    kind.require()
    streams = "/".join(f"{name.lower()}@depth@100ms" for name in names)
    books: dict[str, Any] = {}
    waiting: dict[str, list[Any]] = {name: [] for name in names}
    ends: dict[str, int] = {}
    count = 0

    async def read(socket: Any) -> None:
        nonlocal count
        async for message in socket:
            symbol = message[11 : message.index("@")].upper()
            count += 1
            book = books.get(symbol)
            if book is None:
                waiting[symbol].append(message)
            else:
                book.apply(message)

    url = f"{urls['ws_url']}/stream?streams={streams}"
    async with connect(url, compression=None, max_queue=None) as socket:
        task = asyncio.create_task(read(socket))
        await asyncio.sleep(0.5)
        for name in names:
            where = f"{urls['rest_url']}/api/v3/depth?symbol={name}&limit=1000"
            raw = await asyncio.to_thread(lambda at=where: urllib.request.urlopen(at).read())
            book = kind()
            book.load(raw)
            if isinstance(book, ManyCryptofeed):
                book.name(name)
            for message in waiting[name]:
                if json.loads(message)["data"]["u"] > book.update_id:
                    book.apply(message)
            books[name] = book
        result = await measure(lambda: count)
        assert not task.done(), task.result()
        ends.update({name: book.update_id for name, book in books.items()})
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return result


def work(name: str, urls: dict[str, str], names: list[str], seconds: float) -> None:
    """Follow as one client; print microseconds a message and messages a second."""
    what, transport, event_loop = CLIENTS[name]

    async def measure(count: Callable[[], int]) -> tuple[float, float]:
        await asyncio.sleep(WARM_UP)
        first, spent, began = count(), time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        messages = count() - first
        cpu = time.process_time() - spent
        return cpu / messages * 1e6, messages / (time.monotonic() - began)

    factory = importlib.import_module("uvloop").new_event_loop if event_loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        if what == "obframe":
            result = runner.run(follow_obframe(urls, names, transport, measure))
        else:
            result = runner.run(follow_peer(urls, names, what, measure))
    print(json.dumps(result))


def main() -> int:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        name, urls, names = chosen.work
        work(name, json.loads(urls), names.split(","), chosen.seconds)
        return 0
    command = [sys.executable, "-P", "-m", "obframe", "exchange", "--port", "0", "--format", "json"]
    command += ["--symbols", str(chosen.symbols), "--loop", "100", "--weight-limit", "1000000000"]
    names = ["BTCUSDT", "ETHUSDT", *(f"SIM{n:04}USDT" for n in range(1, chosen.symbols - 1))]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CLIENTS}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as venue:
        try:
            assert venue.stdout is not None
            urls = venue.stdout.readline()
            for _ in range(chosen.rounds):
                for name, results in found.items():
                    worker = [sys.executable, __file__, "--seconds", str(chosen.seconds)]
                    worker += ["--work", name, urls, ",".join(names)]
                    done = subprocess.run(worker, capture_output=True, text=True, check=False)
                    if done.returncode:
                        sys.stderr.write(f"{name}: {done.stderr[-2000:]}\n")
                        continue
                    results.append(json.loads(done.stdout.splitlines()[-1]))
        finally:
            venue.terminate()
    print("| client | messages/s | CPU a message | times obframe's |\n| --- | ---: | ---: | ---: |")
    least = None
    for name, results in found.items():
        if not results:
            print(f"| {name} | failed | | |")
            continue
        cost, rate = sorted(results)[len(results) // 2]
        least = least or cost
        library = name if name in CLIENTS and "obframe" not in name else "obframe"
        title = f"{name} {version(library)}" if library != "obframe" else name
        print(f"| {title} | {rate:,.0f} | {cost:.1f} us | {cost / least:.1f}x |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
