"""Who blocks the loop is named, who is held up by a busy machine is not; leftovers are told."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from obframe import DepthSnapshot, DepthUpdate, FeedStatus, Instrument, StreamEvent
from obframe.testing import FeedListener, Leftovers, LoopWatch
from obframe.testing.running import run_to_end

BTC = frozenset({Instrument("BTCUSDT")})


def waste_time() -> None:
    time.sleep(0.2)


async def test_the_watch_names_who_blocks() -> None:
    with LoopWatch() as watch:
        await asyncio.sleep(0.03)
        waste_time()
        await asyncio.sleep(0.03)
    assert 0.1 < watch.longest.seconds < 0.3
    assert "test_watching.py" in watch.longest.where
    assert "waste_time" in watch.longest.where


async def test_a_loop_that_turns_is_not_blocked() -> None:
    with LoopWatch() as watch:
        for _ in range(20):
            await asyncio.sleep(0.01)
    assert watch.longest.seconds < 0.15


async def test_leftovers_are_told_until_they_are_gone() -> None:
    left = Leftovers()
    assert left.describe() == []
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="stays")
    thread.start()
    task = asyncio.create_task(asyncio.sleep(10))
    pair = socket.socketpair()
    assert await left.wait(0.05) == [
        "2 open sockets", "a task that runs sleep", "the thread 'stays'",
    ]  # fmt: skip
    over.set()
    task.cancel()
    for end in pair:
        end.close()
    await asyncio.to_thread(thread.join)
    assert await left.wait(5.0) == []


def test_work_that_does_not_end_is_ended_and_told() -> None:
    cancelled: list[str] = []

    async def stay(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(name)

    async def work() -> None:
        asyncio.get_running_loop().create_task(stay("beside"))
        await stay("inside")

    with pytest.raises(TimeoutError, match=r"not at its end after 0\.05 s"):
        run_to_end(work(), 0.05)
    assert cancelled == ["inside", "beside"]


def test_a_time_out_of_the_work_is_its_own() -> None:
    async def work() -> None:
        raise TimeoutError("of the venue")

    with pytest.raises(TimeoutError, match="of the venue"):
        run_to_end(work(), 5)


def update(first: int, last: int, prev: int) -> DepthUpdate:
    return DepthUpdate("BTCUSDT", first, last, prev, [("1", str(last))], [])


def test_a_listener_joins_a_book_and_finds_breaks() -> None:
    listener = FeedListener()
    assert listener.book("BTCUSDT") is None
    assert listener.stream("BTCUSDT") is None
    listener(FeedStatus(StreamEvent.SUBSCRIBED, BTC))
    listener(update(1, 5, 0))
    listener(DepthSnapshot("BTCUSDT", 6, [("1", "6"), ("2", "9")], [("3", "1")]))
    assert listener.book("BTCUSDT") is None, "no update joins the snapshot yet"
    listener(update(6, 8, 5))
    book = listener.book("BTCUSDT")
    assert book is not None
    assert (book.update_id, book.bids()) == (8, [("2", "9"), ("1", "8")])
    assert listener.breaks("BTCUSDT") == []
    listener(update(12, 13, 11))
    assert listener.breaks("BTCUSDT") == ["BTCUSDT: an update to 13 after 11 follows one to 8"]
    assert listener.book("BTCUSDT") is None, "it does not go over a gap"
    listener(FeedStatus(StreamEvent.DISCONNECTED, BTC))
    assert listener.stream("BTCUSDT") is None
    told = "BTCUSDT: … snapshot 6, update 5..8, update 11..13, disconnected"
    assert listener.describe("BTCUSDT", most=4) == told
    assert listener.describe("ETHUSDT") == "ETHUSDT: nothing"
