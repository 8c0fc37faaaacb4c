"""Row 21: the end of a connection that is announced, or due, costs nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import DepthUpdate, GapReason, StreamEvent
from obframe_plugins._binance_handover import Handover

CONNECTING, SUBSCRIBED = StreamEvent.CONNECTING, StreamEvent.SUBSCRIBED
DISCONNECTED = StreamEvent.DISCONNECTED

SHUTDOWN = {"e": "serverShutdown", "E": 1770123456789}


@asynccontextmanager
async def market(
    wire: Any, symbols: Sequence[str], lags: Sequence[float] = (0.0,)
) -> AsyncIterator[None]:
    """Send every symbol's contiguous events to all who subscribed them; each connection lags."""
    newest = dict.fromkeys(symbols, 0)
    rng = random.Random(5)
    loop = asyncio.get_running_loop()
    lines: dict[int, asyncio.Queue[tuple[float, Any]]] = {}
    senders: list[asyncio.Task[None]] = []

    async def send(peer: Any, line: asyncio.Queue[tuple[float, Any]]) -> None:
        with suppress(Exception):
            while True:
                due, message = await line.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await peer.send(message)

    async def trade() -> None:
        while True:
            for symbol in symbols:
                first = newest[symbol] + 1
                newest[symbol] += rng.randint(1, 5)
                message = wire.diff(symbol, first, newest[symbol])
                for number, peer in enumerate(wire.venue.peers):
                    if peer.closed or message["stream"] not in peer.streams:
                        continue
                    if number not in lines:
                        lines[number] = asyncio.Queue()
                        senders.append(asyncio.create_task(send(peer, lines[number])))
                    due = loop.time() + lags[number % len(lags)]
                    lines[number].put_nowait((due, message))
            await asyncio.sleep(0.005)

    trading = asyncio.create_task(trade())
    try:
        yield
    finally:
        for task in (trading, *senders):
            task.cancel()
        await asyncio.gather(trading, *senders, return_exceptions=True)


def assert_seamless(wire: Any, symbols: Sequence[str]) -> None:
    """Assert one unbroken stream per symbol: nothing is lost, and no loss is told."""
    for symbol in symbols:
        assert wire.sink.statuses(symbol) == [CONNECTING, SUBSCRIBED]
        reached = 0
        for update in wire.sink.updates(symbol):
            # A connection that lags repeats what the one before it said; a book ignores that.
            if update.last_update_id > reached:
                assert update.prev_update_id == reached or not reached
                reached = update.last_update_id
        assert reached > 20


@pytest.mark.parametrize("lags", [(0.0,), (0.05, 0.0), (0.0, 0.05), (0.08, 0.0, 0.03)], ids=str)
async def test_row_21_a_connection_is_handed_over_before_it_is_too_old(
    wire: Any, lags: Sequence[float]
) -> None:
    symbols = ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
    async with (
        wire.run(*symbols, connection_lifetime=0.3) as feed,
        market(wire, symbols, lags),
    ):
        await wire.eventually(lambda: feed.counters()["handovers"] >= 3, "three hand-overs")
        await wire.eventually(lambda: wire.venue.peers[0].closed, "the old one to be closed")
        assert feed.counters()["handovers_failed"] == 0
        assert feed.counters()["reconnects"] == 0
    assert_seamless(wire, symbols)


@pytest.mark.parametrize(
    "notice",
    [SHUTDOWN, {"stream": "!serverShutdown", "data": SHUTDOWN}, {"event": SHUTDOWN}],
    ids=["raw", "wrapped", "event"],
)
async def test_row_21_server_shutdown_brings_a_second_connection_at_once(
    wire: Any, notice: dict[str, Any]
) -> None:
    symbols = ["BTCUSDT", "ETHUSDT"]
    async with wire.run(*symbols) as feed, market(wire, symbols):
        await wire.eventually(lambda: len(wire.sink.ids("BTCUSDT")) > 20, "data")
        await wire.venue.peers[0].send(notice)
        await wire.eventually(lambda: feed.counters()["handovers"] == 1, "the hand-over")
        count = len(wire.sink.ids("BTCUSDT")) + 25
        await wire.eventually(lambda: len(wire.sink.ids("BTCUSDT")) > count, "more data")
    assert len(wire.venue.peers) == 2
    assert_seamless(wire, symbols)


async def test_row_21_a_server_that_announces_its_end_to_everyone_makes_no_hot_loop(
    wire: Any,
) -> None:
    async def announce(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        await peer.send(SHUTDOWN)

    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    wire.venue.on_command = announce
    symbols = ["BTCUSDT"]
    async with (
        wire.run(*symbols, backoff_max=60.0, rng=Longest()) as feed,
        market(wire, symbols),
    ):
        await wire.eventually(lambda: feed.counters()["handovers"] == 1, "the first")
        count = len(wire.sink.ids("BTCUSDT")) + 60
        await wire.eventually(lambda: len(wire.sink.ids("BTCUSDT")) > count, "0.3 s more")
        assert feed.counters()["connections"] == 2
    assert_seamless(wire, symbols)


async def test_row_21_streams_on_which_nothing_happens_do_not_stop_a_hand_over(
    wire: Any,
) -> None:
    symbols = ["BTCUSDT", "QUIETUSDT", "NEVERUSDT"]
    async with (
        wire.run(*symbols, connection_lifetime=0.6, handover_timeout=0.3) as feed,
        market(wire, ["BTCUSDT"]),
    ):
        peer = await wire.venue.subscribed(0, 3)
        await peer.send(wire.diff("QUIETUSDT", 1, 2))
        await wire.eventually(lambda: feed.counters()["handovers"] == 1, "the hand-over")
        peer = wire.venue.peers[-1]
        await peer.send(wire.diff("QUIETUSDT", 3, 4))
        await peer.send(wire.diff("NEVERUSDT", 1, 2))
        await wire.sink.until_id("QUIETUSDT", 4)
        await wire.sink.until_id("NEVERUSDT", 2)
    assert wire.sink.statuses("QUIETUSDT") == [CONNECTING, SUBSCRIBED]
    assert wire.sink.statuses("NEVERUSDT") == [CONNECTING, SUBSCRIBED]
    assert_seamless(wire, ["BTCUSDT"])


async def test_row_21_a_new_connection_without_data_is_not_taken(wire: Any) -> None:
    """A stream that flows on the old connection and is dead on the new one keeps the old one."""

    async def forget(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        if peer is wire.venue.peers[0]:
            return
        if len(wire.venue.peers) == 2:
            peer.streams.discard("ethusdt@depth@100ms")

    wire.venue.on_command = forget
    symbols = ["BTCUSDT", "ETHUSDT"]
    async with (
        wire.run(*symbols, connection_lifetime=0.2, handover_timeout=0.25) as feed,
        market(wire, symbols),
    ):
        await wire.eventually(lambda: feed.counters()["handovers"] >= 1, "the second try")
        assert feed.counters()["handovers_failed"] >= 1
    assert_seamless(wire, symbols)


async def test_row_21_a_failed_hand_over_leaves_the_old_connection_in_place(wire: Any) -> None:
    async def refuse(peer: Any) -> None:
        if 1 < len(wire.venue.peers) < 4:
            await peer.socket.close(1011)

    wire.venue.on_connect = refuse
    symbols = ["BTCUSDT", "ETHUSDT"]
    async with wire.run(*symbols, connection_lifetime=0.2) as feed, market(wire, symbols):
        await wire.eventually(lambda: feed.counters()["handovers"] >= 1, "the third try")
        assert feed.counters()["handovers_failed"] == 2
    assert_seamless(wire, symbols)


async def test_row_21_malformed_data_on_the_new_connection_spoils_only_that_one(
    wire: Any,
) -> None:
    async def spoil(peer: Any, command: dict[str, Any]) -> None:
        await peer.acknowledge(command)
        if len(wire.venue.peers) == 2:
            await peer.send(b'{"stream":')

    wire.venue.on_command = spoil
    symbols = ["BTCUSDT"]
    async with wire.run(*symbols, connection_lifetime=0.2) as feed, market(wire, symbols):
        await wire.eventually(lambda: feed.counters()["handovers"] >= 1, "the second try")
        assert feed.counters()["handovers_failed"] == 1
    assert_seamless(wire, symbols)


async def test_row_21_an_old_connection_that_dies_too_early_is_an_ordinary_loss(
    wire: Any,
) -> None:
    async def stall(peer: Any, command: dict[str, Any]) -> None:
        if len(wire.venue.peers) == 1:
            await peer.acknowledge(command)
        else:
            await wire.eventually(lambda: wire.venue.peers[0].closed, "the loss of the first")
            await peer.acknowledge(command)

    wire.venue.on_command = stall
    async with wire.run("BTCUSDT", connection_lifetime=0.2) as feed:
        peer = await wire.venue.subscribed(0)
        await peer.send(wire.diff("BTCUSDT", 1, 2))
        second = await wire.venue.peer(1)
        await wire.eventually(lambda: second.commands, "the second to be asked")
        await peer.socket.close(1001)
        status = await wire.sink.until("BTCUSDT", DISCONNECTED)
        await wire.sink.until("BTCUSDT", SUBSCRIBED, 2)
        await second.send(wire.diff("BTCUSDT", 9, 10))
        await wire.sink.until_id("BTCUSDT", 10)
        assert feed.counters()["handovers"] == 0
    assert status.reason is GapReason.DISCONNECTED
    assert wire.sink.statuses("BTCUSDT") == [
        CONNECTING, SUBSCRIBED, DISCONNECTED, CONNECTING, SUBSCRIBED,
    ]  # fmt: skip


async def test_row_21_what_was_joined_already_survives_the_early_death_of_the_old_one(
    wire: Any,
) -> None:
    async with wire.run("BTCUSDT", "ETHUSDT", connection_lifetime=0.2):
        first = await wire.venue.subscribed(0, 2)
        await first.send(wire.diff("BTCUSDT", 1, 2))
        await first.send(wire.diff("ETHUSDT", 1, 2))
        second = await wire.venue.subscribed(1, 2)
        for peer in (second, first):
            await peer.send(wire.diff("BTCUSDT", 3, 4))
        await second.send(wire.diff("BTCUSDT", 5, 6))
        await wire.sink.until_id("BTCUSDT", 4)
        await wire.eventually(lambda: wire.feed.counters()["messages"] >= 7, "all to be read")
        await first.socket.close(1001)
        await wire.sink.until("ETHUSDT", SUBSCRIBED, 2)
        await wire.sink.until_id("BTCUSDT", 6)
    assert wire.sink.statuses("BTCUSDT") == [CONNECTING, SUBSCRIBED]
    assert wire.sink.ids("BTCUSDT") == [2, 4, 6]
    assert DISCONNECTED in wire.sink.statuses("ETHUSDT")


@given(data=st.data())
def test_row_21_two_connections_join_without_a_seam_in_any_interleaving(data: Any) -> None:
    """Whatever the pace of the two, every event is delivered, in order, old ones aside."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=30))
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    updates = [
        DepthUpdate("X", end - size + 1, end, end - size, [], [])
        for size, end in zip(sizes, ends, strict=True)
    ]
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_join(data, updates))
    finally:
        loop.close()


async def _join(data: Any, updates: list[DepthUpdate]) -> None:
    old_stream = SimpleNamespace(open=True, last_id=None)
    new_stream = SimpleNamespace(open=True, last_id=None)
    old: Any = SimpleNamespace(streams={"X": old_stream})
    new: Any = SimpleNamespace(streams={"X": new_stream})
    begin = data.draw(st.integers(1, len(updates) - 1), label="old is here at the start")
    joined = data.draw(st.integers(0, len(updates) - 1), label="new begins here")
    # The new stream begins at the latest with what the old one delivers next.
    joined = min(joined, begin)
    delivered = [update.last_update_id for update in updates[:begin]]
    old_stream.last_id = delivered[-1]
    handover = Handover(old, lambda update: delivered.append(update.last_update_id))
    handover.attach(new)
    handover.check()
    old_left, new_left = updates[begin:], updates[joined:]
    while not handover.done.done() and (old_left or new_left):
        take_new = bool(new_left) and (not old_left or data.draw(st.booleans()))
        if take_new:
            handover.hold(new_left.pop(0))
        else:
            update = old_left.pop(0)
            old_stream.last_id = update.last_update_id
            handover.pass_on(update)
    assert handover.done.done()
    for update in handover.release("X") + new_left:
        if update.last_update_id > delivered[-1]:
            assert update.prev_update_id == delivered[-1]
            delivered.append(update.last_update_id)
    assert delivered == [update.last_update_id for update in updates]
