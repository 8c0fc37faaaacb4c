"""The consumers of the pages on brokers run as they stand there, and see every row once."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from obframe import Snapshot
from obframe.registry import load
from obframe.vetting import SINK

Eventually: TypeAlias = Callable[[Callable[[], bool], str], None]

DOCS = Path(__file__).resolve().parent.parent / "docs"
T = 1_737_158_400
SYMBOLS = ("BTCUSDT", "kraken/BTC/USD")


def rows(start: int, end: int) -> list[Snapshot]:
    return [
        Snapshot(symbol, second, second, [("100.50", "1.5")], [("100.60", "2.0")])
        for second in range(start, end)
        for symbol in SYMBOLS
    ]


ADDRESSES = {
    "redis": "redis://127.0.0.1:6379/0",
    "nats": "nats://127.0.0.1:4222",
    "kafka": "127.0.0.1:9092",
}
SERVERS = {"redis": "valkey", "nats": "nats_server", "kafka": "kafka_cluster"}


@contextmanager
def running(source: str, folder: Path) -> Iterator[Callable[[int], bool]]:
    """Run a consumer; gives a function that tells whether it has printed so many lines."""
    program, out, err = (folder / name for name in ("consumer.py", "out", "err"))
    program.write_text(source)
    command = [sys.executable, "-u", "-W", "error", str(program)]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        consumer = subprocess.Popen(command, stdout=stdout, stderr=stderr)

    def has_printed(count: int) -> bool:
        assert consumer.poll() is None, err.read_text()
        return len(out.read_text().splitlines()) >= count

    try:
        yield has_printed
    finally:
        consumer.kill()
        consumer.wait()


@pytest.mark.parametrize("name", ADDRESSES)
async def test_the_consumer_of_the_page_sees_every_row_once(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, eventually: Eventually
) -> None:
    server: Any = request.getfixturevalue(SERVERS[name])
    address: str = server.servers if name == "kafka" else server.url
    (provider,) = load([name], kinds=[]).providers(SINK)
    chosen = {"url": address} if name == "redis" else {"servers": tuple(address.split(","))}
    page = (DOCS / f"sinks-{name}.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert source.count(ADDRESSES[name]) == 1
    source = source.replace(ADDRESSES[name], address)

    async with provider.open(provider.settings(**chosen)) as sink:
        await sink.write(rows(T, T + 20))
        with running(source, tmp_path) as has_printed:
            eventually(lambda: has_printed(40), "the rows of before are seen")
            await sink.write(rows(T + 10, T + 30))
            eventually(lambda: has_printed(60), "new rows are seen")
    lines = (tmp_path / "out").read_text().splitlines()
    for symbol in SYMBOLS:
        assert [line for line in lines if line.startswith(symbol + " ")] == [
            f"{symbol} {second} ['100.50', '1.5'] ['100.60', '2.0']" for second in range(T, T + 30)
        ]
