"""The sink ``redis`` with a real Valkey, which is killed, hangs, fills up and comes back."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from obframe import PluginError, SinkError, Snapshot, snapshot_from_json
from obframe.testing.brokers import ValkeyServer
from obframe_plugins._redis_sink import Limits, Stream, Verdict, judge
from obframe_plugins.redis import RedisSettings, open_sink

T = 1_737_158_400


def row(symbol: str, second: int) -> Snapshot:
    return Snapshot(symbol, second, second, [("100.50", "1.5")], [("100.60", f"{second}.0")])


def rows(symbols: Iterable[str], start: int, end: int) -> list[Snapshot]:
    return [row(symbol, second) for second in range(start, end) for symbol in symbols]


class Consumer:
    """Reads streams as anybody would."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self.client = client

    async def read(self, symbol: str, key: str = "obframe:{}") -> list[Snapshot]:
        entries = await self.client.xrange(key.format(symbol))
        for identity, fields in entries:
            found = snapshot_from_json(fields[b"json"])
            assert identity == f"{found.timestamp}-0".encode()
            assert found.symbol == symbol
        return [snapshot_from_json(fields[b"json"]) for _, fields in entries]

    async def late(self, symbol: str) -> dict[int, Snapshot]:
        found: Any = self.client.hgetall(f"obframe:{symbol}:late")
        return {int(k): snapshot_from_json(v) for k, v in (await found).items()}


@pytest.fixture
async def consumer(valkey: ValkeyServer) -> AsyncIterator[Consumer]:
    retry = Retry(NoBackoff(), 3)  # over restarts of the server
    client = redis.asyncio.Redis.from_url(valkey.url, retry=retry)
    yield Consumer(client)
    await client.aclose()


@asynccontextmanager
async def opened(server: ValkeyServer, **settings: Any) -> AsyncIterator[Any]:
    async with open_sink(RedisSettings(url=server.url, **settings)) as sink:
        yield sink


async def test_rows_stand_under_the_id_of_their_second_in_the_stream_of_their_symbol(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    symbols = ["BTCUSDT", "kraken/BTC/USD", "BRK.B", "币安人生USDT", "BTC-USD_1%2"]
    async with opened(valkey) as sink:
        await sink.write(rows(symbols, T, T + 3))
    for symbol in symbols:
        assert await consumer.read(symbol) == rows([symbol], T, T + 3)


async def test_the_other_format_is_the_stored_bytes(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    async with opened(valkey, format="msgpack", key="books.{symbol}.rows") as sink:
        await sink.write([row("BTCUSDT", T)])
    ((_, fields),) = await consumer.client.xrange("books.BTCUSDT.rows")
    assert fields == {b"msgpack": row("BTCUSDT", T).pack()}


async def test_row_54_what_comes_again_is_recognised(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    given = rows(["A", "B"], T, T + 4)
    async with opened(valkey) as sink:
        await sink.write(given[:3])
        await sink.write(given)
        await sink.write(given[2:])
        assert sink.counters == {"written": 8, "duplicates": 3 + 6}
    async with opened(valkey) as sink:
        await sink.write(given)
        assert sink.counters == {"duplicates": 8}
    assert [*await consumer.read("A"), *await consumer.read("B")] == sorted(
        given, key=lambda each: (each.symbol, each.timestamp)
    )


async def test_row_54_a_killed_server_loses_nothing_and_gets_nothing_twice(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    async with opened(valkey, timeout=2) as sink:
        done = 0
        for round_number in range(5):
            for _ in range(3):
                await sink.write(rows(["A", "B"], T + done, T + done + 1))
                done += 1
            # The answer to this one is lost, whether the server took it or not.
            writing = asyncio.create_task(sink.write(rows(["A", "B"], T + done, T + done + 2)))
            for _ in range(round_number):
                await asyncio.sleep(0)
            valkey.kill()
            await asyncio.gather(writing, return_exceptions=True)
            with pytest.raises(SinkError, match=r"redis: .*check redis\.url"):
                await sink.write(rows(["A", "B"], T + done, T + done + 2))
            valkey.start()
            await sink.write(rows(["A", "B"], T + done, T + done + 2))
            done += 2
    for symbol in ("A", "B"):
        assert await consumer.read(symbol) == rows([symbol], T, T + done)
        assert await consumer.late(symbol) == {}


async def test_a_cancelled_write_leaves_a_sink_that_works(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    async with opened(valkey) as sink:
        await sink.write([row("A", T)])
        valkey.freeze()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sink.write(rows(["A"], T + 1, T + 400)), 0.2)
        valkey.thaw()
        await sink.write(rows(["A"], T + 1, T + 400))
    assert await consumer.read("A") == rows(["A"], T, T + 400)


async def test_a_server_that_hangs_is_an_error_in_time(valkey: ValkeyServer) -> None:
    async with opened(valkey, timeout=1) as sink:
        await sink.write([row("A", T)])
        valkey.freeze()
        with pytest.raises(SinkError, match=r"redis\.timeout"):
            await asyncio.wait_for(sink.write([row("A", T + 1)]), 5)
        valkey.thaw()
        await sink.write([row("A", T + 1)])


async def test_a_late_row_is_kept_beside_its_stream_once(
    valkey: ValkeyServer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(valkey) as sink:
        await sink.write([row("A", T), row("A", T + 2), row("B", T)])
        await sink.write([row("A", T + 1), row("B", T + 1)])
        await sink.write([row("A", T + 1)])
        assert sink.counters == {"written": 4, "late": 1, "duplicates": 1}
    assert [each.timestamp for each in await consumer.read("A")] == [T, T + 2]
    assert await consumer.late("A") == {T + 1: row("A", T + 1)}
    assert caplog.text.count(f"A:{T + 1}") == 1
    assert "obframe:A:late" in caplog.text


async def test_another_row_of_the_second_stays(
    valkey: ValkeyServer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    other = Snapshot("A", 1, T, [("7", "7")], [])
    async with opened(valkey) as sink:
        await sink.write([other])
        await sink.write([row("A", T)])
        assert sink.counters["conflicts"] == 1
    assert await consumer.read("A") == [other]
    assert f"another row than A:{T}" in caplog.text


async def test_what_a_consumer_deleted_does_not_come_again(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    async with opened(valkey) as sink:
        await sink.write(rows(["A"], T, T + 3))
        await consumer.client.xdel("obframe:A", f"{T + 1}-0", f"{T + 2}-0")
        await sink.write(rows(["A"], T + 1, T + 4))
        assert sink.counters["removed"] == 2
    assert [each.timestamp for each in await consumer.read("A")] == [T, T + 3]
    assert await consumer.late("A") == {}


@pytest.mark.parametrize(
    "limits",
    [{"max_length": 100}, {"max_length": 0, "max_age": 100}, {"max_length": 100, "max_age": 50}],
)
async def test_streams_are_cut_and_rows_older_than_the_cut_are_done_with(
    valkey: ValkeyServer, consumer: Consumer, limits: dict[str, int]
) -> None:
    async with opened(valkey, **limits) as sink:
        for start in range(T, T + 2000, 100):
            await sink.write(rows(["A"], start, start + 100))
        await sink.write(rows(["A"], T, T + 10))
        assert sink.counters["expired"] == 10
        assert sink.counters["late"] == 0
    kept = await consumer.read("A")
    assert 50 <= len(kept) < 400, "Valkey cuts by whole nodes"
    assert kept == rows(["A"], T + 2000 - len(kept), T + 2000)


async def test_no_limit_keeps_every_row(valkey: ValkeyServer, consumer: Consumer) -> None:
    async with opened(valkey, max_length=0) as sink:
        await sink.write(rows(["A"], T, T + 1500))
    assert await consumer.read("A") == rows(["A"], T, T + 1500)


async def test_a_full_server_takes_no_row_after_one_it_refused(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    async with opened(valkey) as sink:
        await sink.write([row("A", T)])
        await consumer.client.config_set("maxmemory", "1")
        with pytest.raises(
            SinkError, match="used memory > 'maxmemory'; raise maxmemory on the server"
        ):
            await sink.write(rows(["A", "B"], T + 1, T + 3))
        await consumer.client.config_set("maxmemory", "0")
        await sink.write(rows(["A", "B"], T + 1, T + 3))
        assert sink.counters == {"written": 5}
    assert await consumer.read("A") == rows(["A"], T, T + 3)


async def test_of_a_batch_all_is_taken_or_nothing(valkey: ValkeyServer, consumer: Consumer) -> None:
    rights = "+@stream +@hash +@transaction +@connection +info ~obframe:A"
    await consumer.client.execute_command(*f"ACL SETUSER recorder on >x {rights}".split())
    async with opened(valkey, username="recorder", password="x") as sink:
        with pytest.raises(SinkError, match="see the rights that"):
            await sink.write([row("A", T), row("B", T), row("A", T + 1)])
        assert await consumer.read("A") == []
        await consumer.client.execute_command("ACL", "SETUSER", "recorder", "~obframe:*")
        await sink.write([row("A", T), row("B", T), row("A", T + 1)])
    assert await consumer.read("A") == rows(["A"], T, T + 2)


async def test_a_key_of_another_program_is_named(valkey: ValkeyServer, consumer: Consumer) -> None:
    await consumer.client.set("obframe:A", "mine")
    async with opened(valkey) as sink:
        with pytest.raises(SinkError, match=r"obframe:A: WRONGTYPE.*choose another redis\.key"):
            await sink.write([row("A", T), row("B", T)])
    assert await consumer.client.get("obframe:A") == b"mine"


# -- how safe is safe --------------------------------------------------------------------------


async def test_rows_are_on_the_disk_when_that_is_asked_for(
    valkey: ValkeyServer, consumer: Consumer
) -> None:
    await consumer.client.config_set("appendfsync", "no")
    for _ in range(2):  # the second time, on another connection, it is there already, and no safer
        async with opened(valkey, fsync=True, timeout=1) as sink:
            with pytest.raises(SinkError, match=r"were not on the server's disk.*appendfsync"):
                await sink.write([row("A", T)])
    await consumer.client.config_set("appendfsync", "everysec")
    async with opened(valkey, fsync=True) as sink:
        await sink.write([row("A", T)])
        assert sink.counters == {"duplicates": 1}
        await sink.write([row("A", T + 1)])
    valkey.kill()
    valkey.start()
    assert await consumer.read("A") == rows(["A"], T, T + 2)


async def test_replicas_that_are_not_there_are_missed(valkey: ValkeyServer) -> None:
    for _ in range(2):
        async with opened(valkey, replicas=1, timeout=1) as sink:
            with pytest.raises(SinkError, match="0 of 1 replicas had the rows"):
                await sink.write([row("A", T)])


async def test_replicas_that_are_there_have_every_row(
    valkey: ValkeyServer, tmp_path: Any, consumer: Consumer
) -> None:
    follower = ValkeyServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(valkey.port))
    with follower:
        client = redis.asyncio.Redis.from_url(follower.url)
        async with opened(valkey, replicas=1) as sink, client:
            for second in range(T, T + 20):
                for _ in range(100):  # until the replica has joined
                    try:
                        await sink.write([row("A", second)])
                        break
                    except SinkError:
                        await asyncio.sleep(0.05)
                assert await Consumer(client).read("A") == rows(["A"], T, second + 1)


async def test_a_server_that_forgets_is_warned_of(
    valkey: ValkeyServer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    await consumer.client.config_set("appendonly", "no")
    await consumer.client.config_set("maxmemory", "100mb")
    await consumer.client.config_set("maxmemory-policy", "allkeys-lru")
    async with opened(valkey) as sink:
        await sink.write([row("A", T)])
        await sink.write([row("A", T + 1)])
    assert caplog.text.count("keeps no append-only file") == 1
    assert caplog.text.count("drops whole streams") == 1


# -- users, secrets, settings ------------------------------------------------------------------


async def test_users_need_little_and_passwords_are_not_told(
    valkey: ValkeyServer, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rights = "~obframe:* +@stream +@hash +@transaction +@connection +info +wait +waitaof"
    command = f"ACL SETUSER recorder on >geheim/1 {rights}"
    await consumer.client.execute_command(*command.split())
    url = valkey.url.replace("://", "://recorder:geheim%2F1@")
    for settings in (
        RedisSettings(url=url, fsync=True),
        RedisSettings(url=valkey.url, username="recorder", password="geheim/1"),
    ):
        assert "geheim" not in repr(settings)
        async with open_sink(settings) as sink:
            await sink.write([row("A", T), row("A", T + 1)])
            await sink.write([row("A", T)])
    wrong = RedisSettings(url=valkey.url, username="recorder", password="falsch")
    async with open_sink(wrong) as sink:
        with pytest.raises(SinkError, match=r"check redis\.username and redis\.password") as caught:
            await sink.write([row("A", T)])
    told = f"{caught.value} {caplog.text}"
    assert "geheim" not in told
    assert "falsch" not in told


async def test_certificates_are_checked(
    valkey: ValkeyServer, consumer: Consumer, certificate: Path
) -> None:
    """The Valkey of the tests is built without TLS: what ends it here passes on plain bytes."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_server(join, "127.0.0.1", 0, ssl=context) as server:
        url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_sink(RedisSettings(url=url, ca_file=str(certificate))) as sink:
            await sink.write([row("A", T)])
        async with open_sink(RedisSettings(url=url)) as sink:
            with pytest.raises(SinkError, match="certificate verify failed"):
                await sink.write([row("A", T + 1)])
    assert await consumer.read("A") == [row("A", T)]


def test_mistakes_in_the_settings_are_told_at_once_and_without_the_password() -> None:
    with pytest.raises(ValueError, match="url has a part before @") as caught:
        RedisSettings(url="redis://u:geheim#1@host:1", key="x", max_length=-1, timeout=0)  # type: ignore[arg-type]
    told = str(caught.value)
    assert "geheim" not in told
    for name in ("key", "max_length", "timeout"):
        assert f"{name} is" in told
    with pytest.raises(ValueError, match="url is 'http://host'; use redis://"):
        RedisSettings(url="http://host")


async def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(PluginError, match=r"pip install 'obframe\[redis\]'"):
        async with open_sink(RedisSettings()):
            pass


# -- the rule ------------------------------------------------------------------------------------

PLACES = st.tuples(st.integers(T, T + 9), st.integers(0, 1))


@given(st.integers(T, T + 9), st.none() | st.binary(max_size=2), st.binary(min_size=1, max_size=2),
       st.none() | PLACES, PLACES | st.just((0, 0)), st.booleans())  # fmt: skip
def test_a_row_is_counted_as_delivered_only_where_it_is_or_may_have_been(
    second: int, found: bytes | None, message: bytes, first: Any, deleted: Any, trims: bool
) -> None:
    stream = Stream(first, (T + 9, 0), deleted)
    verdict = judge(second, found, message, stream, Limits(10 if trims else 0, 0))
    if found is not None:
        assert verdict is (Verdict.DUPLICATE if found in (b"", message) else Verdict.CONFLICT)
    elif verdict is Verdict.REMOVED:
        assert deleted >= (second, 0)
    elif verdict is Verdict.EXPIRED:
        assert trims
        assert first is None or first > (second, 0)
    else:
        assert verdict is Verdict.LATE
        assert not trims or (first is not None and first <= (second, 0))
