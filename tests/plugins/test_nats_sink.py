"""The sink ``nats`` with a real server, which is killed, hangs and comes back after its window."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import unquote

import nats
import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig

from obframe import PluginError, SinkError, Snapshot, snapshot_from_json, snapshot_id
from obframe.testing.brokers import NatsServer
from obframe_plugins._nats_link import Link, StreamPlan, token_of
from obframe_plugins.nats import NatsSettings, open_sink

T = 1_737_158_400


def row(symbol: str, second: int) -> Snapshot:
    return Snapshot(symbol, second, second, [("100.50", "1.5")], [("100.60", f"{second}.0")])


def rows(symbols: Iterable[str], start: int, end: int) -> list[Snapshot]:
    return [row(symbol, second) for second in range(start, end) for symbol in symbols]


@asynccontextmanager
async def opened(server: NatsServer, **settings: Any) -> AsyncIterator[Any]:
    async with open_sink(NatsSettings(servers=(server.url,), **settings)) as sink:
        yield sink


async def messages(server: NatsServer, stream: str = "OBFRAME") -> list[Any]:
    """Everything in the stream, as a consumer gets it."""
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        wanted = ConsumerConfig(ack_policy=AckPolicy.NONE)
        consumer = await jetstream.pull_subscribe(">", stream=stream, config=wanted)
        left = (await consumer.consumer_info()).num_pending or 0
        found: list[Any] = []
        while len(found) < left:
            found += await consumer.fetch(left - len(found), timeout=5)
        return found
    finally:
        await client.close()


async def stored(server: NatsServer) -> list[Snapshot]:
    found = []
    for message in await messages(server):
        snapshot = snapshot_from_json(message.data)
        assert message.headers["Nats-Msg-Id"] == snapshot_id(snapshot)
        assert unquote(message.subject.removeprefix("obframe.")) == snapshot.symbol
        found.append(snapshot)
    return found


async def test_rows_stand_on_the_subject_of_their_symbol(nats_server: NatsServer) -> None:
    symbols = ["BTCUSDT", "kraken/BTC/USD", "BRK.B", "币安人生USDT", "a*b>c%d_e-f$"]
    given = rows(symbols, T, T + 3)
    async with opened(nats_server) as sink:
        await sink.write(given)
    assert await stored(nats_server) == given
    subjects = {message.subject for message in await messages(nats_server)}
    assert {"obframe.BTCUSDT", "obframe.kraken/BTC/USD", "obframe.BRK%2EB"} <= subjects


async def test_the_other_format_is_the_stored_bytes(nats_server: NatsServer) -> None:
    async with opened(nats_server, format="msgpack", subject="a.books-{symbol}.b") as sink:
        await sink.write([row("BTCUSDT", T)])
    (message,) = await messages(nats_server)
    assert (message.subject, message.data) == ("a.books-BTCUSDT.b", row("BTCUSDT", T).pack())


async def test_the_stream_is_made_as_the_settings_say(nats_server: NatsServer) -> None:
    limits = {"max_bytes": 10_000_000, "max_rows_per_symbol": 5, "max_age": 3600}
    async with opened(nats_server, stream="ROWS", duplicate_window=600, **limits) as sink:
        await sink.write(rows(["A"], T, T + 9))
    client = await nats.connect(nats_server.url)
    info = await client.jetstream().stream_info("ROWS")
    await client.close()
    config = info.config
    assert (config.subjects, config.max_bytes, config.max_age) == (["obframe.*"], 10_000_000, 3600)
    assert (config.duplicate_window, config.max_msgs_per_subject) == (600, 5)
    assert info.state.messages == 5


async def test_row_54_what_comes_again_is_recognised(nats_server: NatsServer) -> None:
    given = rows(["A", "B"], T, T + 4)
    async with opened(nats_server) as sink:
        await sink.write(given[:3])
        await sink.write(given)
        await sink.write(given[2:])
        assert sink.counters == Counter(written=8, duplicates=9)
    async with opened(nats_server) as sink:
        await sink.write(given)
        assert sink.counters == Counter(written=0, duplicates=8)
    assert sorted(await stored(nats_server), key=snapshot_id) == sorted(given, key=snapshot_id)


async def test_row_54_a_killed_server_loses_nothing_and_gets_nothing_twice(
    nats_server: NatsServer,
) -> None:
    """The stream forgets message ids before the server is back: what is there is looked up."""
    window = 0.2
    async with opened(nats_server, timeout=2, duplicate_window=window) as sink:
        done = 0
        for round_number in range(5):
            for _ in range(3):
                await sink.write(rows(["A", "B"], T + done, T + done + 1))
                done += 1
            writing = asyncio.create_task(sink.write(rows(["A", "B"], T + done, T + done + 2)))
            for _ in range(round_number * 4):
                await asyncio.sleep(0)
            nats_server.kill()
            await asyncio.gather(writing, return_exceptions=True)
            with pytest.raises(SinkError, match="nats: "):
                await sink.write(rows(["A", "B"], T + done, T + done + 3))
            await asyncio.sleep(window * 1.5)
            nats_server.start()
            await sink.write(rows(["A", "B"], T + done, T + done + 3))
            done += 3
    found = await stored(nats_server)
    for symbol in ("A", "B"):
        assert [each for each in found if each.symbol == symbol] == rows([symbol], T, T + done)


async def test_row_54_a_recorder_that_comes_back_after_the_window_sends_nothing_twice(
    nats_server: NatsServer,
) -> None:
    given = rows(["A", "B"], T, T + 50)
    async with opened(nats_server, duplicate_window=0.2) as sink:
        await sink.write(given[:70])
    await asyncio.sleep(0.5)
    async with opened(nats_server, duplicate_window=0.2) as sink:
        await sink.write(given)
        assert sink.counters == Counter(written=30, duplicates=70)
    assert await stored(nats_server) == given


async def test_a_row_that_was_never_delivered_may_come_late(nats_server: NatsServer) -> None:
    async with opened(nats_server) as sink:
        await sink.write([row("A", T), row("A", T + 2)])
    async with opened(nats_server) as sink:
        await sink.write([row("A", T + 1), row("A", T + 2)])
        assert sink.counters == Counter(written=1, duplicates=1)
    assert [each.timestamp - T for each in await stored(nats_server)] == [0, 2, 1]


async def test_a_cancelled_write_leaves_a_sink_that_works(nats_server: NatsServer) -> None:
    async with opened(nats_server) as sink:
        await sink.write([row("A", T)])
        nats_server.freeze()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sink.write(rows(["A"], T + 1, T + 400)), 0.2)
        nats_server.thaw()
        await sink.write(rows(["A"], T + 1, T + 400))
    assert await stored(nats_server) == rows(["A"], T, T + 400)


async def test_a_server_that_hangs_is_an_error_in_time(nats_server: NatsServer) -> None:
    async with opened(nats_server, timeout=1) as sink:
        await sink.write([row("A", T)])
        nats_server.freeze()
        for _ in range(2):
            with pytest.raises(SinkError, match=r"not acknowledged|no server can be used"):
                await asyncio.wait_for(sink.write([row("A", T + 1)]), 5)
        nats_server.thaw()
        await sink.write([row("A", T + 1)])
    assert await stored(nats_server) == rows(["A"], T, T + 2)


async def test_reading_back_goes_on_where_it_was_broken_off(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_ids = Link.read_ids

    async def read_some(link: Link, *arguments: Any) -> AsyncIterator[Any]:
        count = 0
        async for place, message_id in read_ids(link, *arguments):
            read.append(message_id)
            yield place, message_id
            count += 1
            if count == 40:
                raise SinkError("no time left")

    given = rows(["A", "B"], T, T + 50)
    async with opened(nats_server) as sink:
        await sink.write(given)
    monkeypatch.setattr(Link, "read_ids", read_some)
    async with opened(nats_server) as sink:
        for _ in range(2):
            with pytest.raises(SinkError, match="no time left"):
                await sink.write([*given, row("A", T + 50)])
        await sink.write([*given, row("A", T + 50)])
        assert sink.counters == Counter(duplicates=100, written=1)
    assert sorted(read) == sorted(map(snapshot_id, given)), "what was read is not read again"


async def test_ids_that_cannot_be_read_back_in_time_are_told(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(nats_server) as sink:
        await sink.write(rows(["A"], T, T + 50))
    monkeypatch.setattr("obframe_plugins._nats_link._READ_AT_ONCE", 10)
    async with opened(nats_server, timeout=0.5) as sink:
        clock = SimpleNamespace(monotonic=iter([0.0, 0.1, 0.2, 0.6]).__next__)
        monkeypatch.setattr("obframe_plugins._nats_link.time", clock)
        with pytest.raises(SinkError, match=r"30 more message ids .* nats\.timeout"):
            await sink.write([row("A", T)])


async def test_a_stream_that_was_made_anew_is_looked_through_anew(
    nats_server: NatsServer,
) -> None:
    async with opened(nats_server) as sink:
        await sink.write(rows(["A"], T, T + 5))
        client = await nats.connect(nats_server.url)
        await client.jetstream().delete_stream("OBFRAME")
        await client.close()
        with pytest.raises(SinkError, match="must have the subjects"):
            await sink.write(rows(["A"], T + 5, T + 6))
        await sink.write(rows(["A"], T, T + 7))
    assert await stored(nats_server) == rows(["A"], T, T + 7)


async def test_the_next_server_is_tried(nats_server: NatsServer, tmp_path: Path) -> None:
    nobody = NatsServer(tmp_path / "nobody").url
    async with open_sink(NatsSettings(servers=(nobody, nats_server.url, nobody))) as sink:
        for second in range(T, T + 3):
            await sink.write([row("A", second)])
    assert len(await stored(nats_server)) == 3


async def test_row_54_a_server_that_lags_behind_hides_no_row(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer reads from any server of the stream, which may not have the last rows yet.

    Such a server says that there is nothing for it to give, and gives it when it has it.
    """
    given = rows(["A", "B"], T, T + 5)
    async with opened(nats_server, duplicate_window=0.2) as sink:
        await sink.write(given)
        written = time.monotonic()
    consumer_info = JetStreamContext.PullSubscription.consumer_info

    async def lag(consumer: Any) -> Any:
        info = await consumer_info(consumer)
        assert info.num_pending == len(given)
        info.num_pending = 0
        return info

    # The ids must be forgotten: else the server drops what comes again, whatever the sink does.
    await asyncio.sleep(written + 0.5 - time.monotonic())
    with monkeypatch.context() as patch:
        patch.setattr(JetStreamContext.PullSubscription, "consumer_info", lag)
        async with opened(nats_server, duplicate_window=0.2) as sink:
            await sink.write([*given, row("A", T + 5)])
            assert sink.counters == Counter(written=1, duplicates=len(given))
    assert await stored(nats_server) == [*given, row("A", T + 5)]


async def test_a_server_that_never_gives_what_the_leader_has_is_told(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(nats_server) as sink:
        await sink.write(rows(["A"], T, T + 3))

    told = AsyncMock(return_value=SimpleNamespace(num_pending=0))

    async def fetch(*_: Any, timeout: float, **__: Any) -> list[Any]:
        await asyncio.sleep(timeout)
        raise NatsTimeout

    monkeypatch.setattr(JetStreamContext.PullSubscription, "consumer_info", told)
    monkeypatch.setattr(JetStreamContext.PullSubscription, "fetch", fetch)
    async with opened(nats_server, timeout=0.3) as sink:
        with pytest.raises(SinkError, match=r"message ids .*stream OBFRAME are to be read back"):
            await sink.write([row("A", T + 3)])


async def test_subscribers_without_the_stream_get_nothing_but_rows(
    nats_server: NatsServer,
) -> None:
    """To learn what is under way the sink sends what the stream refuses; it looks like a row."""
    client = await nats.connect(nats_server.url)
    subscription = await client.subscribe("obframe.>")
    await client.flush()
    for _ in range(2):
        async with opened(nats_server) as sink:
            await sink.write([row("A", T)])
    await client.flush()
    got = []
    while subscription.pending_msgs:
        got.append(await subscription.next_msg())
    await client.close()
    assert {(message.subject, snapshot_from_json(message.data)) for message in got} == {
        ("obframe.A", row("A", T))
    }
    assert await stored(nats_server) == [row("A", T)]


class Cluster:
    """Three servers, each row on all of them."""

    def __init__(self, folder: Path) -> None:
        routes = [NatsServer(folder).port for _ in range(3)]
        urls = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
        self.servers = {
            f"node{number}": NatsServer(
                folder / f"node{number}", "--name", f"node{number}", "--cluster_name", "test",
                "--cluster", f"nats://127.0.0.1:{port}", "--routes", urls,
            )
            for number, port in enumerate(routes)
        }  # fmt: skip

    def settings(self, *names: str) -> NatsSettings:
        """How to reach these servers, or all. What was sent is soon forgotten by its id."""
        urls = tuple(self.servers[name].url for name in names or self.servers)
        return NatsSettings(
            servers=urls, replication=3, duplicate_window=1, timeout=1,  # type: ignore[arg-type]
        )  # fmt: skip

    async def leader(self) -> str:
        """Return the name of the server that leads the stream."""
        client = await nats.connect(self.servers["node0"].url)
        try:
            cluster = (await client.jetstream().stream_info("OBFRAME")).cluster
            assert cluster is not None
            return str(cluster.leader)
        finally:
            await client.close()


@pytest.fixture
def cluster(nats_server: NatsServer, tmp_path: Path) -> Iterator[Cluster]:
    """Return a running cluster; it is killed at the end."""
    nats_server.stop()  # it is there to skip the test where there is none
    made = Cluster(tmp_path)
    with contextlib.ExitStack() as stack:
        for server in made.servers.values():
            stack.enter_context(server)
        yield made


async def write_until_taken(sink: Any, snapshots: list[Snapshot]) -> None:
    """Do what the framework does."""
    deadline = time.monotonic() + 40
    while True:
        try:
            return await sink.write(snapshots)
        except SinkError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_row_54_a_cluster_that_loses_servers_loses_no_row(cluster: Cluster) -> None:
    """One server after the other is killed and comes back."""
    done = 0
    async with open_sink(cluster.settings()) as sink:
        for victim in cluster.servers.values():
            for _ in range(10):
                await write_until_taken(sink, rows(["A", "B"], T + done, T + done + 1))
                done += 1
            batch = rows(["A", "B"], T + done, T + done + 20)
            writing = asyncio.create_task(write_until_taken(sink, batch))
            await asyncio.sleep(0)
            victim.kill()
            await writing
            done += 20
            victim.start()
        for _ in range(10):
            await write_until_taken(sink, rows(["A", "B"], T + done, T + done + 1))
            done += 1
    found = await stored(cluster.servers["node0"])
    for symbol in ("A", "B"):
        assert [each for each in found if each.symbol == symbol] == rows([symbol], T, T + done)


@pytest.mark.slow
async def test_row_54_what_a_leader_without_its_peers_has_taken_is_waited_for(
    cluster: Cluster,
) -> None:
    """It stores such rows when its peers are back, long after their ids are forgotten."""
    async with open_sink(cluster.settings()) as sink:
        await write_until_taken(sink, rows(["A"], T, T + 10))
    leader = await cluster.leader()
    peers = [server for name, server in cluster.servers.items() if name != leader]
    given = rows(["A"], T, T + 20)
    async with open_sink(cluster.settings(leader)) as sink:
        await write_until_taken(sink, given[:11])
        for peer in peers:
            peer.freeze()
        with pytest.raises(SinkError, match="9 of 9 rows were not acknowledged"):
            await sink.write(given[11:])
        with pytest.raises(SinkError, match="sent before are still under way"):
            await sink.write(given[11:])
        for peer in peers:
            peer.thaw()
        await write_until_taken(sink, given[11:])
    assert await stored(cluster.servers[leader]) == given


# -- streams of others -------------------------------------------------------------------------


async def make_stream(server: NatsServer, **config: Any) -> None:
    client = await nats.connect(server.url)
    wanted = {"name": "OBFRAME", "subjects": ["obframe.*"], **config}
    await client.jetstream().add_stream(StreamConfig(**wanted))
    await client.close()


async def test_a_stream_that_forgets_too_soon_is_refused(nats_server: NatsServer) -> None:
    await make_stream(nats_server, duplicate_window=60)
    async with opened(nats_server) as sink:
        with pytest.raises(SinkError, match=r"knows message ids for 60 s, 120 s are wanted.*lower"):
            await sink.write([row("A", T)])
    async with opened(nats_server, duplicate_window=60) as sink:
        await sink.write([row("A", T)])


async def test_a_stream_of_other_subjects_is_named(nats_server: NatsServer) -> None:
    await make_stream(nats_server, subjects=["other.*"], duplicate_window=120)
    async with opened(nats_server) as sink:
        with pytest.raises(SinkError, match=r"OBFRAME must have the subjects obframe\.\*"):
            await sink.write([row("A", T)])


async def test_a_stream_is_not_made_when_that_is_not_wanted(nats_server: NatsServer) -> None:
    async with opened(nats_server, create=False) as sink:
        with pytest.raises(SinkError, match=r"no stream OBFRAME; make it .*nats\.create"):
            await sink.write([row("A", T)])


async def test_a_queue_is_written_and_not_read(nats_server: NatsServer) -> None:
    retention = RetentionPolicy.WORK_QUEUE
    await make_stream(nats_server, retention=retention, duplicate_window=120)
    for _ in range(2):
        async with opened(nats_server) as sink:
            await sink.write(rows(["A"], T, T + 5))
    assert sink.counters == Counter(written=0, duplicates=5)


async def test_a_server_without_jetstream_is_named(tmp_path: Path) -> None:
    class Plain(NatsServer):
        def command(self) -> list[str]:
            return super().command()[:5]

    with Plain(tmp_path / "plain") as server:
        async with opened(server) as sink:
            with pytest.raises(SinkError, match="JetStream must be enabled"):
                await sink.write([row("A", T)])


async def test_a_full_stream_that_refuses_is_named(nats_server: NatsServer) -> None:
    await make_stream(nats_server, max_msgs=5, discard=DiscardPolicy.NEW, duplicate_window=120)
    async with opened(nats_server) as sink:
        with pytest.raises(SinkError, match=r"maximum messages exceeded; look at the limits"):
            await sink.write(rows(["A"], T, T + 9))


# -- users, secrets, settings ------------------------------------------------------------------


async def test_passwords_and_tokens_are_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = ""
    with NatsServer(tmp_path / "nats", "--user", "recorder", "--pass", "geheim/1") as server:
        for wrong in ("", "falsch"):
            async with opened(server, username="recorder", password=wrong) as sink:
                with pytest.raises(SinkError, match=r"check nats\.servers and the user") as caught:
                    await sink.write([row("A", T)])
            told += str(caught.value)
        url = server.url.replace("://", "://recorder:geheim%2F1@")
        for settings in (
            NatsSettings(servers=(url,)),
            NatsSettings(servers=(server.url,), username="recorder", password="geheim/1"),
        ):
            assert "geheim" not in repr(settings)
            async with open_sink(settings) as sink:
                await sink.write([row("A", T)])
        server.kill()
        async with open_sink(NatsSettings(servers=(url,))) as sink:
            with pytest.raises(SinkError) as caught:
                await sink.write([row("A", T)])
        told += str(caught.value)
    with NatsServer(tmp_path / "token", "--auth", "geheim2") as server:
        async with opened(server, token="geheim2") as sink:
            await sink.write([row("A", T)])
        url = server.url.replace("://", "://geheim2@")
        async with open_sink(NatsSettings(servers=(url,))) as sink:
            await sink.write([row("A", T)])
    told += caplog.text
    assert "geheim" not in told
    assert "falsch" not in told


async def test_an_nkey_is_a_way_in(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    key_file, configuration = tmp_path / "user.nk", tmp_path / "server.conf"
    key_file.write_bytes(seed)
    user = nkeys.from_seed(bytearray(seed)).public_key.decode()
    configuration.write_text(f"authorization {{ users = [ {{ nkey: {user} }} ] }}\n")
    with NatsServer(tmp_path / "nats", "-c", str(configuration)) as server:
        async with opened(server, nkey_file=str(key_file)) as sink:
            await sink.write([row("A", T)])
        async with opened(server) as sink:
            with pytest.raises(SinkError, match=r"check nats\.servers and the user"):
                await sink.write([row("A", T)])


async def test_certificates_are_checked(tmp_path: Path, certificate: Path) -> None:
    tls = ("--tls", "--tlscert", str(certificate), "--tlskey", str(certificate))
    with NatsServer(tmp_path / "nats", *tls) as server:
        url = server.url.replace("nats:", "tls:")
        async with open_sink(NatsSettings(servers=(url,), ca_file=str(certificate))) as sink:
            await sink.write([row("A", T)])
        async with open_sink(NatsSettings(servers=(url,))) as sink:
            with pytest.raises(SinkError, match="certificate verify failed"):
                await sink.write([row("A", T)])


@pytest.mark.parametrize("name", ["credentials_file", "nkey_file", "ca_file"])
async def test_a_file_that_is_not_there_is_told_at_the_start(name: str) -> None:
    with pytest.raises(PluginError, match=rf"nats\..*{name}"):
        async with open_sink(NatsSettings(**{name: "/nowhere/file"})):  # type: ignore[arg-type]
            pass


def test_mistakes_in_the_settings_are_told_at_once_and_without_the_password() -> None:
    with pytest.raises(ValueError, match="servers has a part before @") as caught:
        NatsSettings(
            servers=("nats://u:geheim#1@host:1",), subject="a.*.{symbol}", stream="A.B",
            max_bytes=-1, max_age=60, duplicate_window=61,  # type: ignore[arg-type]
        )  # fmt: skip
    told = str(caught.value)
    assert "geheim" not in told
    for name in ("subject", "stream", "max_bytes", "duplicate_window"):
        assert f"{name} is" in told
    with pytest.raises(ValueError, match=r"must hold \{symbol\}"):
        NatsSettings(subject="rows")
    with pytest.raises(ValueError, match="servers is empty"):
        NatsSettings(servers=())


async def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.js", None)
    with pytest.raises(PluginError, match=r"pip install 'obframe\[nats\]'"):
        async with open_sink(NatsSettings()):
            pass


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=":"), min_size=1))
def test_a_symbol_is_one_token_and_comes_back(symbol: str) -> None:
    token = token_of(symbol)
    assert token.isascii()
    assert not set(token) & set(" .*>\t\r\n")
    assert unquote(token) == symbol


def test_the_wildcard_takes_whole_tokens() -> None:
    plan = StreamPlan("S", "a.b-{symbol}.{symbol}.c", True, 1, 0, 0, 0, 120)
    assert plan.subjects == "a.*.*.c"
    assert plan.subject_of("X.Y") == "a.b-X%2EY.X%2EY.c"
