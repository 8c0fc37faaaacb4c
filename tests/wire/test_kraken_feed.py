"""The Kraken feed against the venue on loopback: what goes wrong, and what is then right again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from obframe import (
    BookState,
    GapReason,
    Instrument,
    StateChange,
)
from obframe.books import BookManager
from obframe.feeds import FeedSet
from obframe.testing.exchange import ExchangeOptions, KrakenExchange
from obframe_plugins.kraken import KrakenFeed, KrakenSettings

BTC, ETH = "kraken/BTC/USD", "kraken/ETH/USD"
DEADLINE = 10.0
STILL = 1e-6
"""A rate at which nothing happens by itself: the market moves by ``Desk.advance`` only."""
PATIENT: dict[str, Any] = {"ack_timeout": 60.0, "snapshot_timeout": 60.0}
"""For what must not be done anew, however long the machine takes."""
QUICK: dict[str, Any] = {
    "backoff_max": 0.05,
    "control_interval": 0.02,
    "ack_timeout": 1.0,
    "snapshot_timeout": 1.0,
    "open_timeout": 2.0,
    "transport": "websockets",
}


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 (the condition may be anything)
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"{what} did not come within {DEADLINE:g} s")


class Desk:
    """A venue, a feed that talks to it, and the books that it keeps."""

    def __init__(self, venue: KrakenExchange, symbols: tuple[str, ...], **changes: Any) -> None:
        self.venue = venue
        self.settings = KrakenSettings(**({"ws_url": venue.ws_url} | QUICK | changes))
        self.feed = KrakenFeed(self.settings, random.Random(7))
        self.changes: list[StateChange] = []
        self.books = BookManager(
            FeedSet({"kraken": self.feed}, "kraken"), on_change=self.changes.append
        )
        self.books.subscribe(*map(Instrument.parse, symbols))

    def clients(self) -> list[Any]:
        return list(self.venue.clients)

    def state(self, symbol: str) -> BookState:
        return self.books.get(symbol).state

    def counts(self, name: str) -> int:
        return self.feed.counters()[name]

    def changes_of(self, symbol: str) -> list[StateChange]:
        return [change for change in self.changes if change.instrument.symbol == symbol]

    async def advance(self, events: int) -> None:
        """Have so many events happen, each symbol's in turn, and wait until the feed has them."""
        for _ in range(events):
            event = self.venue.source.advance()
            self.venue.moments[event.symbol] += 1
            self.venue.publish(event, self.venue.moments[event.symbol])
        self.venue.flush()

        def taken() -> bool:
            return self.counts("checksums") == self.counts("snapshots") + self.venue.stats.messages

        await eventually(taken, f"{self.venue.stats.messages} checked updates")

    def is_right(self, symbol: str) -> bool:
        """Tell whether a book is the venue's, as it is now."""
        book = self.books.get(symbol).book
        truth = self.venue.depth(symbol.removeprefix("kraken/"))
        return (
            book is not None
            and book.bids(20) == truth.bids[:20]
            and book.asks(20) == truth.asks[:20]
            and max(book.bid_count, book.ask_count) <= self.settings.depth
        )

    async def until_live(self, *symbols: str) -> None:
        def live() -> bool:
            return all(self.state(symbol) is BookState.LIVE for symbol in symbols)

        await eventually(live, f"{symbols} live")

    async def until_lost(self, symbol: str, reason: GapReason) -> StateChange:
        def found() -> list[StateChange]:
            return [change for change in self.changes_of(symbol) if change.reason is reason]

        await eventually(found, f"{symbol} lost for {reason}")
        return found()[-1]

    async def until_right(self, *symbols: str) -> None:
        """Wait until each book is the venue's, which moves on meanwhile."""
        right = set()

        def all_right() -> bool:
            right.update(filter(self.is_right, symbols))
            return right == set(symbols)

        await eventually(all_right, f"the true books of {symbols}")


@asynccontextmanager
async def desk(
    *faults: str, symbols: tuple[str, ...] = (BTC, ETH), rate: float = 50.0, **changes: Any
) -> AsyncIterator[Desk]:
    options = ExchangeOptions(
        venue="kraken", symbols=("BTC/USD", "ETH/USD", "XRP/USD"), rate=rate, faults=faults
    )
    async with KrakenExchange(options) as venue:
        made = Desk(venue, symbols, **changes)
        task = asyncio.create_task(made.books.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            made.books.close()


@pytest.mark.parametrize("transport", ["websockets", "picows"])
@pytest.mark.parametrize("depth", [25, 100])
async def test_books_come_live_and_stay_the_venues(transport: str, depth: int) -> None:
    async with desk(transport=transport, depth=depth, rate=200.0) as it:
        await it.until_live(BTC, ETH)
        await eventually(lambda: it.counts("checksums") > 300)
        await it.until_right(BTC, ETH)
        assert it.counts("checksum_mismatches") == 0
        assert [change.new for change in it.changes_of(BTC)] == [
            BookState.CONNECTING,
            BookState.SYNCING,
            BookState.LIVE,
        ]
        assert it.books.counters["errors"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("checksum@5", GapReason.CHECKSUM),
        ("drop@5", GapReason.CHECKSUM),
        ("garbage@5", GapReason.INVALID),
        ("truncate@5", GapReason.INVALID),
        ("nan@5:value=NaN", GapReason.INVALID),
        ("nan@5:value=-1", GapReason.INVALID),
        ("nan@5:value=1e400,field=quantity", GapReason.INVALID),
    ],
)
async def test_rows_11_15_29_a_bad_message_costs_its_symbol_a_new_snapshot(
    fault: str, reason: GapReason
) -> None:
    joined = fault + ("," if ":" in fault else ":") + "symbol=BTC/USD"
    async with desk(joined) as it:
        lost = await it.until_lost(BTC, reason)
        assert lost.new is BookState.RESYNCING
        await it.until_live(BTC, ETH)
        await it.until_right(BTC, ETH)
        assert it.counts("connections") == 1
        assert it.counts("resubscribed") >= 1
        if not fault.startswith("garbage"):  # which names no symbol, and may have been anybody's
            assert {change.new for change in it.changes_of(ETH)} <= {
                BookState.CONNECTING,
                BookState.SYNCING,
                BookState.LIVE,
            }


async def test_row_29_messages_without_checksums_are_taken_and_counted() -> None:
    faults = "no-checksum@3:count=5", "no-checksum@20:kind=absent,count=5"
    async with desk(*faults, symbols=(BTC,)) as it:
        await eventually(lambda: it.counts("unchecked") == 10)
        await it.until_right(BTC)
        assert it.counts("resubscribed") == 0


async def test_a_duplicate_changes_nothing() -> None:
    async with desk("dup@5:count=20", rate=STILL, **PATIENT) as it:
        await it.until_live(BTC, ETH)
        for _ in range(30):
            await it.advance(3)
            assert it.is_right(BTC)
            assert it.is_right(ETH)
        assert len(it.venue.fired) == 2 * 20
        assert it.venue.stats.messages == 2 * (30 + 20)
        assert it.counts("checksum_mismatches") == 0
        assert it.counts("resubscribed") == 0


async def test_rows_16_and_17_what_is_not_ours_is_passed_over() -> None:
    async with desk("unknown-event@3", "stray@5") as it:
        await eventually(lambda: it.counts("unknown_events") and it.counts("unsubscribed"))
        await it.until_right(BTC, ETH)
        assert it.counts("resubscribed") == 0
        assert it.books.counters["unsubscribed"] == 0


@pytest.mark.parametrize("fault", ["close@5", "abort@5"])
async def test_row_26_a_lost_connection_is_opened_anew(fault: str) -> None:
    async with desk(fault) as it:
        lost = await it.until_lost(BTC, GapReason.DISCONNECTED)
        assert lost.new is BookState.RECONNECTING
        await eventually(lambda: it.counts("connections") == 2)
        await it.until_live(BTC, ETH)
        await it.until_right(BTC, ETH)


async def test_row_22_a_connection_without_a_word_goes_stale_and_is_given_up() -> None:
    async with desk("black-hole@5", stale_after=1.5, idle_timeout=2.5) as it:
        stale = await it.until_lost(BTC, GapReason.SILENT)
        assert stale.new is BookState.STALE
        assert "not even a heartbeat" in stale.detail
        await eventually(lambda: it.counts("connections") == 2)
        await it.until_live(BTC, ETH)
        assert it.counts("silences") == 1


async def test_row_24_heartbeats_are_no_sign_of_life_of_a_symbol() -> None:
    fault = "silence@5:symbol=BTC/USD,seconds=1.5"
    async with desk(fault, probe_after=0.4, snapshot_timeout=0.5) as it:
        lost = await it.until_lost(BTC, GapReason.SILENT)
        assert "snapshot" in lost.detail
        await it.until_live(BTC)
        await it.until_right(BTC, ETH)
        assert it.counts("probes") >= 1
        assert it.counts("connections") == 1
        assert len(it.changes_of(ETH)) == 3, "whoever spoke was left alone"


async def test_a_book_that_is_merely_quiet_is_confirmed_and_costs_nothing() -> None:
    async with desk(symbols=(BTC,), rate=0.2, probe_after=0.3) as it:
        await it.until_live(BTC)
        await eventually(lambda: it.counts("probes") >= 2 and it.counts("snapshots") >= 3)
        assert len(it.changes_of(BTC)) == 3
        assert it.state(BTC) is BookState.LIVE
        await it.until_right(BTC)


async def test_row_31_a_halted_pair_is_told_and_comes_back() -> None:
    async with desk("halt@5:symbol=BTC/USD,seconds=1") as it:
        halted = await it.until_lost(BTC, GapReason.HALTED)
        assert (halted.new, halted.detail) == (BookState.HALTED, "its status is cancel_only")
        await it.until_live(BTC)
        await it.until_right(BTC, ETH)
        assert len(it.changes_of(ETH)) == 3


async def test_row_31_maintenance_of_the_venue_halts_all_of_it() -> None:
    async with desk("maintenance@5:seconds=0.5") as it:
        for symbol in (BTC, ETH):
            halted = await it.until_lost(symbol, GapReason.HALTED)
            assert halted.detail == "the status of the whole venue is maintenance"
        await it.until_live(BTC, ETH)
        await it.until_right(BTC, ETH)


async def test_row_59_a_pair_that_does_not_exist_is_named_and_the_others_run() -> None:
    wanted = (BTC, "kraken/BTCUSD", "kraken/XBT/USD", "kraken/NO/PE")
    async with desk(symbols=wanted) as it:
        await it.until_live(BTC)
        for symbol, hint in zip(
            wanted[1:], ("mean BTC/USD?", "mean BTC/USD?", "like BTC/USD"), strict=True
        ):
            view = it.books.get(symbol)
            assert (view.state, view.cause) == (BookState.HALTED, GapReason.UNKNOWN_SYMBOL)
            assert hint in view.detail


async def test_row_25_accept_and_close_in_a_loop_is_met_with_back_off() -> None:
    async with desk("accept-close@1:count=4", backoff_max=0.2) as it:
        await it.until_live(BTC, ETH)
        assert it.counts("connections") == 5
        assert it.counts("reconnects") == 4


async def test_row_28_a_refused_subscription_is_told_and_tried_again() -> None:
    async with desk("ack-error@1", blocked_retry=0.3) as it:
        lost = await it.until_lost(BTC, GapReason.CONNECTING)
        await eventually(lambda: it.counts("refused") == 2)
        assert lost is not None
        await it.until_live(BTC, ETH)
        assert it.counts("connections") == 1


async def test_row_28_too_many_requests_slow_us_down() -> None:
    async with desk("msg-rate@1:count=2") as it:
        await it.until_live(BTC, ETH)
        assert it.counts("rate_limited") >= 2
        assert it.counts("refused") == 0


async def test_symbols_come_and_go_while_it_runs() -> None:
    async with desk(symbols=(BTC,)) as it:
        await it.until_live(BTC)
        it.books.subscribe(Instrument.parse(ETH), Instrument.parse("kraken/XRP/USD"))
        await it.until_live(ETH, "kraken/XRP/USD")
        it.books.unsubscribe(Instrument.parse(BTC))
        await eventually(lambda: not any("BTC/USD" in client.books for client in it.clients()))
        it.books.subscribe(Instrument.parse(BTC))
        await it.until_live(BTC)
        await it.until_right(BTC, ETH)
        assert it.counts("connections") == 1
        it.books.unsubscribe(*(Instrument.parse(symbol) for symbol in (BTC, ETH)))
        it.books.unsubscribe(Instrument.parse("kraken/XRP/USD"))
        await eventually(lambda: it.venue.stats.clients == 0, "nobody is connected any more")


async def test_what_goes_and_comes_back_at_once_has_a_book_again() -> None:
    async with desk(symbols=(BTC, ETH)) as it:
        await it.until_live(BTC)
        for _ in range(5):
            it.books.unsubscribe(Instrument.parse(BTC))
            it.books.subscribe(Instrument.parse(BTC))
            await asyncio.sleep(0.01)
        await it.until_live(BTC)
        await it.until_right(BTC, ETH)


async def test_many_symbols_are_spread_over_connections() -> None:
    symbols = (BTC, ETH, "kraken/XRP/USD")
    async with desk(symbols=symbols, symbols_per_connection=1) as it:
        await it.until_live(*symbols)
        assert it.venue.stats.clients == 3
        it.books.unsubscribe(Instrument.parse(ETH))
        await eventually(lambda: it.venue.stats.clients == 2)
        await it.until_right(BTC, "kraken/XRP/USD")


async def test_a_book_that_is_asked_for_is_subscribed_anew() -> None:
    async with desk() as it:
        await it.until_live(BTC, ETH)
        it.books.resynchronise_all(GapReason.SUSPENDED, "the machine slept")
        await eventually(lambda: it.counts("resubscribed") == 2)
        await it.until_live(BTC, ETH)
        await it.until_right(BTC, ETH)


async def test_row_18_a_message_over_the_limit_names_the_setting() -> None:
    async with desk(max_message_bytes=65_536, depth=1000, symbols=(BTC,)) as it:
        await it.until_live(BTC)
    settings = {"max_message_bytes": 65_536}
    options = ExchangeOptions(venue="kraken", symbols=2_000, rate=1.0, levels=5)
    async with KrakenExchange(options) as venue:
        made = Desk(venue, (BTC,), **settings)
        task = asyncio.create_task(made.books.run())
        await eventually(
            lambda: any("kraken.max_message_bytes" in c.detail for c in made.changes), "the name"
        )
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_row_27_a_host_that_cannot_be_reached_is_named_with_the_setting() -> None:
    async with desk(ws_url="ws://127.0.0.1:9", symbols=(BTC,)) as it:
        await eventually(lambda: it.counts("reconnects") >= 2)
        assert "set kraken.ws_url" in it.books.get(BTC).detail


async def test_the_settings_name_every_mistake() -> None:
    with pytest.raises(ValueError, match="depth is 10; use 25, 100") as caught:
        KrakenSettings(depth=10, ws_url="http://x", proxy="x", stale_after=99.0, ping_interval=0.0)
    for name in ("ws_url", "proxy", "stale_after", "ping_interval"):
        assert name in str(caught.value)


async def test_one_run_at_a_time() -> None:
    async with desk() as it:
        await it.until_live(BTC)
        with pytest.raises(RuntimeError, match="runs already"):
            await it.feed.run(lambda _event: None)
