"""The Coinbase on loopback: held against the venue's documents, and the feed against it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import websockets

from obframe import GapReason, Instrument
from obframe.books import BookManager
from obframe.feeds import FeedSet
from obframe.testing.exchange import CoinbaseExchange, ExchangeOptions
from obframe.testing.reference import ReferenceBook
from obframe.types import BookState, StateChange
from obframe_plugins.coinbase import CoinbaseFeed, CoinbaseSettings

DEADLINE = 10.0
BTC, ETH = "BTC-USD", "ETH-USD"
QUICK = {"backoff_max": 0.05, "ack_timeout": 2.0}


async def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"{what} did not come within {DEADLINE:g} s")


@asynccontextmanager
async def serving(*faults: str, **more: Any) -> AsyncIterator[CoinbaseExchange]:
    parameters = {"symbols": (BTC, ETH), "rate": 100.0, "levels": 60} | more
    options = ExchangeOptions(venue="coinbase", faults=faults, **parameters)
    async with CoinbaseExchange(options) as venue:
        yield venue


class Desk:
    """A feed that talks to the venue, and the books that it keeps."""

    def __init__(self, venue: CoinbaseExchange, **changes: Any) -> None:
        urls = {"ws_url": venue.ws_url, "rest_url": venue.rest_url}
        self.venue = venue
        self.feed = CoinbaseFeed(CoinbaseSettings(**(urls | QUICK | changes)), random.Random(7))
        self.changes: list[StateChange] = []
        self.books = BookManager(
            FeedSet({"coinbase": self.feed}, "coinbase"), on_change=self.changes.append
        )

    def state(self, symbol: str) -> BookState:
        return self.books.get(symbol).state

    def lives(self, symbol: str) -> int:
        return sum(c.new is BookState.LIVE for c in self.changes if c.instrument.symbol == symbol)

    async def live(self, symbol: str, times: int = 1) -> None:
        await eventually(lambda: self.lives(symbol) >= times, f"{symbol} live {times} times")

    def reasons(self, symbol: str) -> set[GapReason | None]:
        return {
            change.reason
            for change in self.changes
            if change.instrument.symbol == symbol and change.old is BookState.LIVE
        }

    async def struck(self, name: str) -> None:
        await eventually(lambda: name in {each.fault for each in self.venue.fired}, name)

    def check(self, symbol: str) -> None:
        """Compare with the venue's book; to be called when nothing is under way."""
        book, truth = self.books.get(symbol).book, self.venue.depth(symbol)
        assert book is not None
        assert (book.bids(), book.asks()) == (list(truth.bids), list(truth.asks))


@asynccontextmanager
async def following(venue: CoinbaseExchange, *symbols: str, **changes: Any) -> AsyncIterator[Desk]:
    desk = Desk(venue, **changes)
    desk.books.subscribe(*map(Instrument.parse, symbols))
    task = asyncio.create_task(desk.books.run())
    ticking = asyncio.create_task(tick(desk.books))
    try:
        yield desk
    finally:
        for each in (task, ticking):
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each
        desk.books.close()


async def tick(books: BookManager) -> None:
    while True:
        await asyncio.sleep(0.05)
        books.tick(asyncio.get_running_loop().time())


# -- by the documents ----------------------------------------------------------------------------


async def test_it_speaks_as_the_documents_say() -> None:
    async with serving() as venue, websockets.connect(venue.ws_url, max_size=None) as socket:
        for channel, products in (("heartbeats", []), ("level2", [BTC, ETH])):
            await socket.send(
                json.dumps({"type": "subscribe", "channel": channel, "product_ids": products})
            )
        books = {BTC: ReferenceBook(), ETH: ReferenceBook()}
        seen: set[str] = set()
        numbers = []
        async with asyncio.timeout(DEADLINE):
            while len(numbers) < 60 or "heartbeats" not in seen:
                message = json.loads(await socket.recv())
                assert list(message) == [
                    "channel", "client_id", "timestamp", "sequence_num", "events"
                ]  # fmt: skip
                numbers.append(message["sequence_num"])
                seen.add(message["channel"])
                [event] = message["events"]
                if message["channel"] == "l2_data":
                    sides = [
                        [(x["price_level"], x["new_quantity"]) for x in event["updates"]
                         if x["side"] == side]
                        for side in ("bid", "offer")
                    ]  # fmt: skip
                    book = books[event["product_id"]]
                    (book.load if event["type"] == "snapshot" else book.apply)(0, *sides)
                elif message["channel"] == "subscriptions":
                    told = event["subscriptions"]
        assert numbers == list(range(len(numbers)))
        assert seen == {"l2_data", "subscriptions", "heartbeats"}
        assert told == {"level2": [BTC, ETH], "heartbeats": ["heartbeats"]}
        assert all(len(book.bids(20)) == 20 and not book.crossed for book in books.values())
        for request, words in (
            ("7", "malformed"), ('{"type":"subscribe","channel":"level3"}', "not a channel"),
            ('{"type":"subscribe","channel":"level2","product_ids":["X-Y"]}', "X-Y is not"),
        ):  # fmt: skip
            await socket.send(request)
            while (message := json.loads(await socket.recv())).get("type") != "error":
                pass
            assert words in message["message"]


async def test_it_parts_from_who_does_not_subscribe() -> None:
    async with serving() as venue, websockets.connect(venue.ws_url) as socket:
        for client in venue.clients:
            client.began -= 60
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), DEADLINE)


async def test_it_lists_its_products() -> None:
    async with serving() as venue, aiohttp.ClientSession() as session:
        url = venue.rest_url + "/api/v3/brokerage/market/products"
        async with session.get(url, params=[("product_ids", BTC), ("product_ids", "X-Y")]) as reply:
            [product] = (await reply.json())["products"]
        assert (product["product_id"], product["trading_disabled"]) == (BTC, False)
        async with session.get(url, params={"get_all_products": "true"}) as reply:
            assert (await reply.json())["num_products"] == 2


# -- the feed against it -------------------------------------------------------------------------


async def test_books_are_the_venues() -> None:
    async with serving() as venue, following(venue, BTC, "coinbase/ETH-USD") as desk:
        await desk.live(BTC)
        await desk.live("coinbase/ETH-USD")
        await eventually(lambda: venue.stats.messages > 200)
        assert desk.books.get("coinbase/ETH-USD").state is BookState.LIVE
        assert desk.reasons(BTC) == set()


@pytest.mark.parametrize(
    ("fault", "reason", "both"),
    [
        ("drop@20", GapReason.SEQUENCE, True),
        ("garbage@20", GapReason.INVALID, True),
        ("truncate@20", GapReason.INVALID, True),
        ("nan@20", GapReason.INVALID, False),
        ("close@20", GapReason.DISCONNECTED, True),
        ("abort@20", GapReason.DISCONNECTED, True),
    ],
)
async def test_rows_1_11_15_26_a_fault_costs_what_it_may_have_hit(
    fault: str, reason: GapReason, both: bool
) -> None:
    async with serving(f"{fault}:symbol={BTC}") as venue, following(venue, BTC, ETH) as desk:
        await desk.live(BTC, 2)
        assert desk.reasons(BTC) == {reason}
        if both:
            await desk.live(ETH, 2)
            assert desk.reasons(ETH) == {reason}
        else:
            assert desk.lives(ETH) == 1


@pytest.mark.parametrize("fault", ["dup@20", "unknown-event@20", "stray@20", "error@20"])
async def test_rows_2_16_17_what_is_harmless_costs_nothing(fault: str) -> None:
    async with serving(fault) as venue, following(venue, BTC, ETH) as desk:
        await desk.struck(fault.partition("@")[0])
        sent = venue.stats.messages
        await eventually(lambda: venue.stats.messages > sent + 40)
        assert desk.lives(BTC) == desk.lives(ETH) == 1
        assert desk.reasons(BTC) == set()
        counters = desk.feed.counters()
        counted = {"dup": "old", "unknown-event": "unknown_events", "stray": "unsubscribed"}
        if (name := counted.get(fault.partition("@")[0])) is not None:
            assert counters[name] >= 1


async def test_rows_22_and_24_a_venue_that_only_beats_is_silent() -> None:
    faults = [f"silence@20:seconds=3,symbol={name}" for name in (BTC, ETH)]
    async with serving(*faults) as venue:
        limits = {"stale_after": 0.5, "idle_timeout": 1.5}
        async with following(venue, BTC, ETH, **limits) as desk:
            await desk.struck("silence")
            await eventually(lambda: desk.state(BTC) is BookState.STALE)
            await desk.live(BTC, 2)
            assert desk.reasons(BTC) == {GapReason.SILENT}
            assert desk.feed.counters()["heartbeats"] >= 1


async def test_row_28_refusals_are_tried_again() -> None:
    async with serving("msg-rate", "ack-error@2") as venue, following(venue, BTC, ETH) as desk:
        await desk.live(BTC)
        await desk.live(ETH)


async def test_row_31_a_halt_has_its_reason() -> None:
    async with serving(f"halt@30:seconds=2,symbol={ETH}") as venue:
        polls = {"status_poll": 0.2, "halted_poll": 0.2}
        async with following(venue, BTC, ETH, **polls) as desk:
            await eventually(lambda: desk.state(ETH) is BookState.HALTED)
            await desk.live(ETH, 2)
            assert desk.lives(BTC) == 1


async def test_row_59_a_product_that_does_not_exist_is_named() -> None:
    async with serving() as venue, following(venue, BTC, "NO-SUCH") as desk:
        await desk.live(BTC)
        await eventually(lambda: desk.state("NO-SUCH") is BookState.HALTED)
        assert desk.books.get("NO-SUCH").cause is GapReason.UNKNOWN_SYMBOL


async def test_a_hole_in_the_middle_leaves_the_venues_book() -> None:
    """Once the market stands still, what is held is the whole true book, digit for digit."""
    faults = (f"drop@30:symbol={BTC}", f"dup@10:every=7,symbol={ETH}")
    async with serving(*faults, levels=300) as venue, following(venue, BTC, ETH) as desk:
        await desk.live(BTC, 2)
        await desk.live(ETH, 2)
        venue.market.cancel()
        for client in venue.clients:
            client.say("heartbeats", b'{"heartbeat_counter":"1"}', "")
        venue.flush()
        before = desk.feed.counters()["heartbeats"]
        await eventually(lambda: desk.feed.counters()["heartbeats"] > before)
        desk.check(BTC)
        desk.check(ETH)
