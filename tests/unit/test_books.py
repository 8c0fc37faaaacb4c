"""The book manager: one symbol's trouble stays its own, and everything can be watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from obframe import (
    BookState,
    DepthSnapshot,
    DepthUpdate,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
)
from obframe.books import BookManager
from obframe.sync import BookSynchronizer
from obframe.testing.feed import ScriptedFeed
from obframe.testing.waiting import until

BTC, ETH = Instrument("BTCUSDT"), Instrument("ETHUSDT")


def update(
    symbol: str, first: int, last: int, bids: list[tuple[str, str]] | None = None
) -> DepthUpdate:
    return DepthUpdate(symbol, first, last, first - 1, bids or [], [])


def snapshot(symbol: str, last: int) -> DepthSnapshot:
    return DepthSnapshot(symbol, last, [("100.0", "1")], [("101.0", "1")])


@asynccontextmanager
async def managed(
    *instruments: Instrument,
) -> AsyncIterator[tuple[ScriptedFeed, BookManager, list[StateChange]]]:
    feed = ScriptedFeed()
    changes: list[StateChange] = []
    manager = BookManager(feed, on_change=changes.append)
    manager.subscribe(*instruments)
    task = asyncio.create_task(manager.run())
    await feed.started()
    try:
        yield feed, manager, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        manager.close()


def bring_live(feed: ScriptedFeed, *symbols: str) -> None:
    feed.say(StreamEvent.SUBSCRIBED, *symbols)
    for symbol in symbols:
        feed.send(update(symbol, 11, 12))
        feed.send(snapshot(symbol, 11))


async def test_two_books_come_live_and_are_read() -> None:
    async with managed(BTC, ETH) as (feed, manager, _):
        bring_live(feed, "BTCUSDT", "ETHUSDT")
        view = manager.get("BTCUSDT")
        assert view.state is BookState.LIVE
        assert view.book is not None
        assert view.book.bids() == [("100.0", "1")]
        taken = view.snapshot()
        assert taken is not None
        assert taken.update_id == 12
        assert feed.requested == [BTC, ETH]
        assert manager.states() == {BookState.LIVE: 2}
        with pytest.raises(KeyError):
            manager.get("NOPE")


async def test_one_symbols_gap_touches_no_other() -> None:
    async with managed(BTC, ETH) as (feed, manager, _):
        bring_live(feed, "BTCUSDT", "ETHUSDT")
        feed.send(update("BTCUSDT", 20, 21))
        assert manager.get("BTCUSDT").cause is GapReason.SEQUENCE
        assert manager.get("ETHUSDT").state is BookState.LIVE


async def test_row_17_an_event_for_a_symbol_not_subscribed_is_dropped_and_counted() -> None:
    async with managed(BTC) as (feed, manager, _):
        feed.send(update("DOGEUSDT", 1, 2), snapshot("DOGEUSDT", 1))
        assert manager.counters["unsubscribed"] == 2
        assert [sync.instrument for sync in manager.synchronizers] == [BTC]


async def test_row_56_what_is_no_feed_event_is_refused_at_the_boundary(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with managed(BTC) as (feed, manager, _):
        bring_live(feed, "BTCUSDT")
        feed.send({"u": 1})  # type: ignore[arg-type]
        assert manager.counters["unknown"] == 1
        assert "dict" in caplog.text
        assert manager.get("BTCUSDT").state is BookState.LIVE


async def test_row_56_a_feed_that_dies_is_started_anew_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("obframe.feeds._RESTART_FIRST", 0.001)
    async with managed(BTC) as (feed, manager, changes):
        bring_live(feed, "BTCUSDT")
        feed.fail(RuntimeError("the venue spoke in tongues"))
        await until(lambda: feed.starts == 2)
        assert manager.counters["feed_restarts"] == 1
        assert "spoke in tongues" in caplog.text
        view = manager.get("BTCUSDT")
        assert (view.state, view.cause) == (BookState.RECONNECTING, GapReason.INTERNAL)
        assert "spoke in tongues" in changes[-1].detail
        bring_live(feed, "BTCUSDT")
        assert manager.get("BTCUSDT").state is BookState.LIVE


async def test_a_feed_that_ends_leaves_no_book_live() -> None:
    async with managed(BTC) as (feed, manager, _):
        bring_live(feed, "BTCUSDT")
        feed.fail(None)
        await until(lambda: manager.get("BTCUSDT").state is not BookState.LIVE)
        assert manager.get("BTCUSDT").book is None


async def test_watch_sees_the_latest_and_slows_nobody() -> None:
    async with managed(BTC) as (feed, manager, _):
        seen: list[tuple[BookState, int | None]] = []

        async def follow() -> None:
            async for view in manager.watch("BTCUSDT"):
                seen.append((view.state, view.book.update_id if view.book else None))

        task = asyncio.create_task(follow())
        await asyncio.sleep(0)
        bring_live(feed, "BTCUSDT")
        for i in range(13, 513):
            feed.send(update("BTCUSDT", i, i))
        await until(lambda: seen[-1] == (BookState.LIVE, 512))
        assert len(seen) == 2, "what lay between was never queued"
        manager.unsubscribe(BTC)
        await task
        assert seen[-1] == (BookState.UNSUBSCRIBED, None)
        assert feed.wanted == set()


async def test_subscribing_twice_keeps_the_book() -> None:
    async with managed(BTC) as (feed, manager, _):
        bring_live(feed, "BTCUSDT")
        manager.subscribe(BTC, ETH)
        assert manager.get("BTCUSDT").state is BookState.LIVE
        assert feed.wanted == {BTC, ETH}


async def test_latency_is_measured_from_the_receipt() -> None:
    async with managed(BTC) as (feed, manager, _):
        bring_live(feed, "BTCUSDT")
        event = update("BTCUSDT", 13, 13)
        event.received_ns = 1
        feed.send(event)
        assert manager.latency.count == 1
        assert manager.latency.maximum > 1_000


async def test_every_change_of_state_is_told_in_order() -> None:
    async with managed(BTC) as (feed, _, changes):
        feed.say(StreamEvent.CONNECTING, "BTCUSDT")
        bring_live(feed, "BTCUSDT")
        feed.say(StreamEvent.DISCONNECTED, "BTCUSDT", reason=GapReason.DISCONNECTED, detail="reset")
        assert [change.new for change in changes] == [
            BookState.CONNECTING,
            BookState.SYNCING,
            BookState.LIVE,
            BookState.RECONNECTING,
        ]
        assert changes[-1].detail == "reset"


async def test_row_31_a_feed_started_anew_has_to_say_again_what_is_halted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new run of a feed knows nothing of the old one's words: it would never say TRADING."""
    monkeypatch.setattr("obframe.feeds._RESTART_FIRST", 0.001)
    async with managed(BTC) as (feed, manager, _):
        bring_live(feed, "BTCUSDT")
        feed.say(StreamEvent.HALTED, "BTCUSDT", reason=GapReason.HALTED)
        feed.fail(RuntimeError("gone"))
        await until(lambda: feed.starts == 2)
        view = manager.get("BTCUSDT")
        assert (view.state, view.cause) == (BookState.RECONNECTING, GapReason.INTERNAL)
        bring_live(feed, "BTCUSDT")
        assert manager.get("BTCUSDT").state is BookState.LIVE


class StubbornFeed(ScriptedFeed):
    """Cannot be asked for a snapshot at first."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 2

    def request_snapshot(self, instrument: Instrument) -> None:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("not now")
        super().request_snapshot(instrument)


async def test_row_56_a_request_that_raises_is_asked_again_and_touches_no_other_book(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("obframe.feeds._ASK_AGAIN", 0.001)
    feed = StubbornFeed()
    manager = BookManager(feed)
    manager.subscribe(BTC, ETH)
    task = asyncio.create_task(manager.run())
    await feed.started()
    feed.say(StreamEvent.SUBSCRIBED, "BTCUSDT", "ETHUSDT")
    feed.send(update("BTCUSDT", 11, 12), update("ETHUSDT", 11, 12))
    await until(lambda: feed.requested.count(BTC) == 1 and feed.requested.count(ETH) == 1)
    assert (feed.starts, manager.counters["errors"]) == (1, 2)
    assert "not now" in caplog.text
    feed.send(snapshot("BTCUSDT", 11))
    assert manager.get("BTCUSDT").state is BookState.LIVE
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    manager.close()


async def test_one_book_that_fails_at_a_tick_touches_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tick = BookSynchronizer.tick

    def fail_for_btc(sync: BookSynchronizer, now: float) -> None:
        if sync.instrument == BTC:
            raise MemoryError("no room")
        tick(sync, now)

    monkeypatch.setattr(BookSynchronizer, "tick", fail_for_btc)
    async with managed(BTC, ETH) as (feed, manager, _):
        bring_live(feed, "BTCUSDT")
        feed.say(StreamEvent.SUBSCRIBED, "ETHUSDT")
        for now in range(5):
            manager.tick(float(now))
        assert manager.get("BTCUSDT").cause is GapReason.INTERNAL
        assert ETH in feed.requested, "the tick went on to the next book"
        assert "no room" in caplog.text


async def test_row_37_a_lost_time_takes_live_books_only_and_hides_no_other_cause() -> None:
    async with managed(BTC, ETH) as (feed, manager, _):
        bring_live(feed, "BTCUSDT", "ETHUSDT")
        feed.say(StreamEvent.DISCONNECTED, "ETHUSDT", reason=GapReason.DISCONNECTED)
        manager.resynchronise_all(GapReason.CLOCK_STEP, "the wall clock stepped")
        assert manager.get("BTCUSDT").cause is GapReason.CLOCK_STEP
        assert manager.get("ETHUSDT").cause is GapReason.DISCONNECTED


async def test_books_that_change_alike_share_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    many = [Instrument(f"S{i:03}") for i in range(50)]
    names = [item.symbol for item in many]
    async with managed(*many) as (feed, manager, changes):
        bring_live(feed, *names)
        manager.tick(0.0)
        feed.say(StreamEvent.DISCONNECTED, *names, reason=GapReason.DISCONNECTED, detail="reset")
    lines = [record.getMessage() for record in caplog.records if record.name == "obframe.books"]
    start = ", ".join(names[:10]) + " and 40 more: "
    assert lines == [
        start + "unsubscribed -> syncing",
        start + "syncing -> live",
        start + "live -> reconnecting (disconnected): reset",
    ]
    assert len(changes) == 150


async def test_the_log_tells_what_led_to_a_loss_before_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with managed(BTC, ETH) as (feed, manager, _):
        bring_live(feed, "BTCUSDT", "ETHUSDT")
        feed.say(
            StreamEvent.HALTED, "ETHUSDT", reason=GapReason.UNKNOWN_SYMBOL, detail="no such symbol"
        )
        manager.tick(0.0)
    lines = [record.getMessage() for record in caplog.records if record.name == "obframe.books"]
    assert lines == [
        "ETHUSDT: unsubscribed -> syncing",
        "ETHUSDT: syncing -> live",
        "ETHUSDT: live -> halted (unknown_symbol): no such symbol",
        "BTCUSDT: unsubscribed -> syncing",
        "BTCUSDT: syncing -> live",
    ]


async def test_a_state_that_stays_what_it_was_is_not_logged_as_a_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with managed(BTC) as (feed, manager, changes):
        feed.say(StreamEvent.CONNECTING, "BTCUSDT")
        for detail in ("refused", "refused again"):
            feed.say(StreamEvent.DISCONNECTED, "BTCUSDT", detail=detail)
        manager.tick(0.0)
        assert manager.get("BTCUSDT").detail == "refused again"
    lines = [record.getMessage() for record in caplog.records if record.name == "obframe.books"]
    assert lines == ["BTCUSDT: unsubscribed -> connecting"]
    assert [change.detail for change in changes] == ["", "refused", "refused again"]
