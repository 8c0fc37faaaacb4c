"""What it costs to bring a second of 1,500 symbols to a broker on loopback, acknowledged.

Sink and a plain loop of the same library take turns on the same server, with other keys. Both make
the same messages of the same rows; the loop only sends them, in the way that is fastest for its
library, and neither knows what comes again nor looks at what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import confluent_kafka
import nats
import pytest
import redis.asyncio

from obframe import Provider, Snapshot, snapshot_to_json
from obframe.registry import load
from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer, skipping
from obframe.vetting import SINK

T = 1_737_158_400
SYMBOLS = [f"SYM{number:04}USDT" for number in range(1500)]
ROUNDS = 12

Send = Callable[[list[Snapshot]], Awaitable[None]]


def _second(second: int) -> list[Snapshot]:
    bids = [
        (f"{60000 - level}.{second % 100:02}000000", f"{level}.00015000") for level in range(20)
    ]
    asks = [
        (f"{60001 + level}.{second % 100:02}000000", f"{level}.00021000") for level in range(20)
    ]
    return [Snapshot(symbol, 40_000_000_000 + second, second, bids, asks) for symbol in SYMBOLS]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


async def _redis_loop(stack: AsyncExitStack, url: str) -> Send:
    client = redis.asyncio.Redis.from_url(url)
    stack.push_async_callback(client.aclose)

    async def send(rows: list[Snapshot]) -> None:
        for start in range(0, len(rows), 500):
            async with client.pipeline(transaction=True) as pipeline:
                for row in rows[start : start + 500]:
                    key, message = f"plain:{row.symbol}", snapshot_to_json(row)
                    pipeline.execute_command("XADD", key, row.timestamp, "json", message)
                await pipeline.execute()

    return send


async def _nats_loop(stack: AsyncExitStack, url: str) -> Send:
    client = await nats.connect(url)
    stack.push_async_callback(client.close)
    stream = client.jetstream()
    await stream.add_stream(name="PLAIN", subjects=["plain.*"])

    async def send(rows: list[Snapshot]) -> None:
        waiting = [
            await stream.publish_async(
                f"plain.{row.symbol}",
                snapshot_to_json(row),
                headers={"Nats-Msg-Id": f"{row.symbol}:{row.timestamp}"},
            )
            for row in rows
        ]
        await asyncio.gather(*waiting)

    return send


async def _kafka_loop(stack: AsyncExitStack, servers: str) -> Send:
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5,
            "compression.type": "lz4", "log_level": 0,
        }
    )  # fmt: skip
    stack.callback(producer.flush, 5)

    async def send(rows: list[Snapshot]) -> None:
        failed: list[Any] = []

        def report(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        for row in rows:
            producer.produce(
                "plain", key=row.symbol, value=snapshot_to_json(row), on_delivery=report
            )
        assert producer.flush(30) == 0
        assert not failed

    return send


BROKERS: dict[str, tuple[Callable[[Path], Any], Callable[..., Awaitable[Send]]]] = {
    "redis": (ValkeyServer, _redis_loop),
    "nats": (NatsServer, _nats_loop),
    "kafka": (lambda _: KafkaCluster(), _kafka_loop),
}


@pytest.mark.parametrize("name", BROKERS)
def test_a_second_of_1500_symbols(
    name: str, race: Any, gate: Any, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    make_server, make_loop = BROKERS[name]
    try:
        with skipping():
            server = make_server(tmp_path / name).__enter__()
    except pytest.skip.Exception as reason:
        gate.skipped[f"sink_{name}"] = str(reason)
        raise
    provider: Provider[Any]
    (provider,) = load([name], kinds=[]).providers(SINK)
    address: str = server.servers if name == "kafka" else server.url
    chosen = {"url": address} if name == "redis" else {"servers": tuple(address.split(","))}
    seconds = [_second(second) for second in range(T, T + ROUNDS + 4)]
    ours, theirs = iter(seconds), iter(seconds)
    stack = AsyncExitStack()
    try:
        sink = loop.run_until_complete(
            stack.enter_async_context(provider.open(provider.settings(timeout=30, **chosen)))
        )
        send = loop.run_until_complete(make_loop(stack, address))
        race(
            f"sink_{name}",
            work=lambda: loop.run_until_complete(sink.write(next(ours))),
            reference=lambda: loop.run_until_complete(send(next(theirs))),
            rounds=ROUNDS,
            units=len(SYMBOLS),
        )
    finally:
        loop.run_until_complete(stack.aclose())
        server.__exit__(None, None, None)
    result = gate.results[f"sink_{name}"]
    for who, microseconds in (("sink", result.measured), ("plain loop", result.reference)):
        print(f"{name}: {who}: {1e6 / microseconds:,.0f} rows/s")
