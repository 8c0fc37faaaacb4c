"""Several venues in one run: who speaks for whom, and nobody for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import pytest

from obframe import (
    BookState,
    DepthSnapshot,
    DepthUpdate,
    FeedStatus,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
    SymbolError,
)
from obframe.books import BookManager
from obframe.feeds import FeedSet, Venues
from obframe.testing.feed import ScriptedFeed
from obframe.testing.waiting import until

BTC = Instrument("BTCUSDT")
KRAKEN_BTC = Instrument.parse("kraken/BTC/USD")
KRAKEN_ETH = Instrument.parse("kraken/ETH/USD")


@pytest.mark.parametrize(
    ("text", "venue", "native"),
    [
        ("BTCUSDT", "", "BTCUSDT"),
        ("kraken/BTC/USD", "kraken", "BTC/USD"),
        ("binance/BTCUSDT", "binance", "BTCUSDT"),
        ("my-venue_2/X", "my-venue_2", "X"),
        ("BTC/USD", "", "BTC/USD"),
        ("1inch/usd", "", "1inch/usd"),
        ("Kraken/BTC/USD", "", "Kraken/BTC/USD"),
        ("/BTC", "", "/BTC"),
        ("币安人生USDT", "", "币安人生USDT"),
    ],
)
def test_an_instrument_is_read_as_people_type_it(text: str, venue: str, native: str) -> None:
    instrument = Instrument.parse(text)
    assert (instrument.symbol, instrument.venue, instrument.native) == (text, venue, native)


@pytest.mark.parametrize("text", ["kraken/", "kraken/../x", "kraken/BTC:USD", "", "kraken/B\nT"])
def test_row_58_a_venue_does_not_help_a_symbol_into_a_key(text: str) -> None:
    with pytest.raises(SymbolError):
        Instrument.parse(text)


def test_a_symbol_has_to_begin_with_its_venue() -> None:
    with pytest.raises(SymbolError, match="does not begin with it"):
        Instrument("BTC/USD", "kraken")


def test_a_bare_symbol_is_of_the_default_venue_and_every_mistake_is_named() -> None:
    venues = Venues(["binance", "kraken"], "binance")
    assert venues.resolve(BTC) == ("binance", "BTCUSDT")
    assert venues.resolve(KRAKEN_BTC) == ("kraken", "BTC/USD")
    assert list(venues.refusals(["BTCUSDT", "kraken/BTCUSDT", "kraken/BTC/USD"])) == []
    problems = list(venues.refusals(["BTCUSDT", "binance/BTCUSDT", "okx/BTC-USDT"]))
    assert "'binance/BTCUSDT'" in problems[0]
    assert "same book as 'BTCUSDT'" in problems[0]
    assert "'okx', which is not loaded (loaded: binance, kraken)" in problems[1]
    (problem,) = Venues(["coinbase", "kraken"]).refusals(["BTC-USD"])
    assert "names no venue" in problem
    assert "coinbase/BTC-USD" in problem
    assert "--feed" in problem


# -- in a run -------------------------------------------------------------------------------------


class Broken(ScriptedFeed):
    """Cannot even be asked."""

    refusals = 1

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("not today")
        super().subscribe(instruments)

    def counters(self) -> Mapping[str, int]:
        raise RuntimeError("lost count")


@asynccontextmanager
async def managed(
    *instruments: Instrument, kraken: ScriptedFeed | None = None
) -> AsyncIterator[tuple[ScriptedFeed, ScriptedFeed, BookManager, list[StateChange]]]:
    feeds = {"binance": ScriptedFeed(), "kraken": kraken or ScriptedFeed()}
    changes: list[StateChange] = []
    manager = BookManager(FeedSet(feeds, "binance"), on_change=changes.append)
    manager.subscribe(*instruments)
    task = asyncio.create_task(manager.run())
    for feed in feeds.values():
        if feed.wanted:
            await feed.started()
    try:
        yield feeds["binance"], feeds["kraken"], manager, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        manager.close()


def bring_live(feed: ScriptedFeed, *symbols: str) -> None:
    feed.say(StreamEvent.SUBSCRIBED, *symbols)
    for symbol in symbols:
        feed.send(DepthUpdate(symbol, 11, 12, 10, [], []))
        feed.send(DepthSnapshot(symbol, 11, [("100.0", "1")], [("101.0", "1")]))


async def test_each_feed_hears_and_speaks_its_own_names() -> None:
    async with managed(BTC, KRAKEN_BTC) as (binance, kraken, manager, changes):
        assert binance.wanted == {BTC}
        assert kraken.wanted == {Instrument("BTC/USD")}
        bring_live(binance, "BTCUSDT")
        bring_live(kraken, "BTC/USD")
        assert kraken.requested == [Instrument("BTC/USD")]
        view = manager.get("kraken/BTC/USD")
        assert view.state is BookState.LIVE
        assert view.instrument == KRAKEN_BTC
        row = view.snapshot()
        assert row is not None
        assert row.symbol == "kraken/BTC/USD", "rows bear the stored name"
        assert {change.instrument for change in changes} == {BTC, KRAKEN_BTC}
        manager.unsubscribe(KRAKEN_BTC)
        assert kraken.wanted == set()
        assert manager.get("BTCUSDT").state is BookState.LIVE


async def test_the_default_venue_may_be_named_and_its_rows_then_are_too() -> None:
    named = Instrument.parse("binance/BTCUSDT")
    async with managed(named) as (binance, _, manager, _):
        assert binance.wanted == {BTC}
        bring_live(binance, "BTCUSDT")
        row = manager.get("binance/BTCUSDT").snapshot()
        assert row is not None
        assert row.symbol == "binance/BTCUSDT"


async def test_row_56_what_names_another_venues_symbol_is_refused_and_counted() -> None:
    async with managed(BTC, KRAKEN_BTC) as (binance, kraken, manager, _):
        bring_live(binance, "BTCUSDT")
        bring_live(kraken, "BTC/USD")
        kraken.send(
            DepthUpdate("BTCUSDT", 50, 50, 49, [], []),
            DepthSnapshot("BTCUSDT", 60, [], []),
            DepthUpdate("kraken/BTC/USD", 13, 13, 12, [], []),
        )
        kraken.say(StreamEvent.DISCONNECTED, "BTCUSDT")
        kraken.send(FeedStatus(StreamEvent.SILENT, frozenset({"BTCUSDT"})))  # type: ignore[arg-type]
        kraken.send("BTCUSDT")  # type: ignore[arg-type]
        assert manager.get("BTCUSDT").state is BookState.LIVE
        view = manager.get("BTCUSDT").book
        assert view is not None
        assert view.update_id == 12
        counts = manager.feed_counters()
        assert (counts["kraken.unsubscribed"], counts["kraken.unknown"]) == (3, 2)
        assert counts["binance.starts"] == 1
        assert "binance.unsubscribed" not in counts


async def test_garbage_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with managed(BTC, KRAKEN_BTC) as (_, kraken, manager, _):
        for _ in range(1000):
            kraken.send(None)  # type: ignore[arg-type]
        assert manager.counters["unknown"] == 1000
        assert len([line for line in caplog.records if "NoneType" in line.getMessage()]) == 10


async def test_a_feed_that_raises_is_started_anew_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("obframe.feeds._RESTART_FIRST", 0.001)
    async with managed(BTC, KRAKEN_BTC) as (binance, kraken, manager, changes):
        bring_live(binance, "BTCUSDT")
        bring_live(kraken, "BTC/USD")
        seen = len(changes)
        kraken.fail(RuntimeError("the venue spoke in tongues"))
        await until(lambda: kraken.starts == 2)
        assert [change.instrument for change in changes[seen:]] == [KRAKEN_BTC]
        assert "the feed kraken failed" in changes[-1].detail
        assert manager.get("kraken/BTC/USD").cause is GapReason.INTERNAL
        assert (binance.starts, manager.get("BTCUSDT").state) == (1, BookState.LIVE)
        assert manager.feed_counters()["kraken.feed_restarts"] == 1
        assert "the feed kraken failed" in caplog.text
        bring_live(kraken, "BTC/USD")
        assert manager.get("kraken/BTC/USD").state is BookState.LIVE


async def test_a_feed_that_ends_or_cannot_be_asked_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("obframe.feeds._ASK_AGAIN", 0.001)
    kraken = Broken()
    async with managed(BTC, KRAKEN_BTC, kraken=kraken) as (binance, _, manager, _):
        bring_live(binance, "BTCUSDT")
        view = manager.get("kraken/BTC/USD")
        assert (view.state, view.cause) == (BookState.CONNECTING, GapReason.CONNECTING)
        assert "not today" in view.detail
        await until(lambda: kraken.wanted == {Instrument("BTC/USD")})
        await kraken.started()
        assert manager.feed_counters()["binance.starts"] == 1, "though kraken cannot count"
        kraken.fail(None)
        await until(lambda: "come to its end" in manager.get("kraken/BTC/USD").detail)
        assert manager.get("BTCUSDT").state is BookState.LIVE


async def test_a_feed_that_nobody_wants_is_not_run_before_somebody_does() -> None:
    async with managed(BTC) as (binance, kraken, manager, _):
        await asyncio.sleep(0)
        assert (binance.starts, kraken.starts) == (1, 0)
        manager.subscribe(KRAKEN_ETH)
        await kraken.started()
        bring_live(kraken, "ETH/USD")
        assert manager.get("kraken/ETH/USD").state is BookState.LIVE


async def test_what_no_feed_speaks_for_is_halted_and_says_why() -> None:
    okx, twin = Instrument.parse("okx/BTC-USDT"), Instrument.parse("binance/BTCUSDT")
    async with managed(okx, BTC, twin) as (binance, _, manager, changes):
        assert binance.wanted == {BTC}
        bring_live(binance, "BTCUSDT")
        view = manager.get("okx/BTC-USDT")
        assert (view.state, view.cause) == (BookState.HALTED, GapReason.UNKNOWN_SYMBOL)
        assert "loaded: binance, kraken" in view.detail
        view = manager.get("binance/BTCUSDT")
        assert (view.state, view.cause) == (BookState.HALTED, GapReason.UNSUBSCRIBED)
        assert "same book as 'BTCUSDT'" in view.detail
        assert {change.instrument for change in changes} == {okx, twin, BTC}
        manager.tick(0.0)
        manager.unsubscribe(okx, twin)
        assert binance.wanted == {BTC}
        assert manager.get("BTCUSDT").state is BookState.LIVE
