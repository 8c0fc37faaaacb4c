"""The Coinbase feed and its synchronisers beside reference books, whatever the line does."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from typing import Any, NoReturn

from hypothesis import given
from hypothesis import strategies as st

from obframe import DepthSnapshot, DepthUpdate, FeedStatus, GapReason, Instrument
from obframe.sync import BookSynchronizer
from obframe.testing.reference import ReferenceBook
from obframe.testing.strategies import levels
from obframe.types import BookState
from obframe_plugins._coinbase_context import Context, Counters, Limits
from obframe_plugins._coinbase_settings import CoinbaseSettings
from obframe_plugins._coinbase_shard import Shard
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._websocket import Closed, Options, Take

PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD")


class Line:
    """A venue without a network: it numbers what it says, and loses or repeats it when told to."""

    def __init__(self) -> None:
        self.truth = {name: ReferenceBook() for name in PRODUCTS}
        self.heard = {name: ReferenceBook() for name in PRODUCTS}
        self.take: Take | None = None
        self.streams: set[str] = set()
        self.number = 0
        self.heard_last = b""
        self.ended: asyncio.Future[None] | None = None
        self.fate = "pass"
        self.delay = 0.0

    # -- as a socket -----------------------------------------------------------------------------

    async def open(self, url: str, options: Options, take: Take) -> Line:
        self.take, self.number, self.streams, self.heard_last = take, 0, set(), b""
        self.ended = asyncio.get_running_loop().create_future()
        return self

    async def send(self, text: str) -> None:
        # It takes its time, and says more meanwhile.
        asyncio.get_running_loop().call_later(self.delay, self.obey, self.ended, json.loads(text))

    def obey(self, socket: object, command: dict[str, Any]) -> None:
        if socket is not self.ended:
            return
        products = command.get("product_ids", [])
        if command["channel"] == "level2":
            if command["type"] == "subscribe":
                for name in products:
                    if name not in self.streams:
                        self.streams.add(name)
                        self.say_book(name)
            else:
                self.streams.difference_update(products)
        told = {"level2": sorted(self.streams), "heartbeats": ["heartbeats"]}
        self.say("subscriptions", {"subscriptions": told})

    async def wait(self) -> NoReturn:
        assert self.ended is not None
        await self.ended
        raise Closed("closed by the line")

    def mute(self) -> None:
        self.take = None

    async def close(self) -> None:
        self.mute()

    def break_off(self) -> None:
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)

    # -- as a venue ------------------------------------------------------------------------------

    def say(self, channel: str, *events: Any) -> bool:
        """Say something; return whether it was heard."""
        message = {"channel": channel, "sequence_num": self.number, "events": list(events)}
        self.number += 1
        data = json.dumps(message).encode()
        fate, self.fate = self.fate, "pass"
        if self.take is None or self.ended is None or self.ended.done():
            return False
        if fate == "cut":
            self.deliver(data[: len(data) // 2])
        elif fate != "drop":
            self.deliver(data)
            self.heard_last = data
            if fate == "twice":
                self.deliver(data)
        return fate not in ("cut", "drop")

    def deliver(self, data: bytes) -> None:
        if self.take is not None and self.ended is not None and not self.ended.done():
            try:
                self.take(data, 1)
            except Exception as error:
                self.ended.set_exception(error)
                self.ended.exception()

    def say_book(self, name: str) -> None:
        book = self.truth[name]
        if self.say("l2_data", event("snapshot", name, book.bids(), book.asks())):
            self.heard[name].load(0, book.bids(), book.asks())

    def change(self, name: str, bids: Any, asks: Any) -> None:
        self.truth[name].apply(0, bids, asks)
        if name in self.streams and self.say("l2_data", event("update", name, bids, asks)):
            self.heard[name].apply(0, bids, asks)


def event(kind: str, name: str, bids: Any, asks: Any) -> dict[str, Any]:
    sides = ("bid", bids), ("offer", asks)
    updates = [
        {"side": side, "price_level": price, "new_quantity": quantity}
        for side, found in sides
        for price, quantity in found
    ]
    return {"type": kind, "product_id": name, "updates": updates}


class Books:
    """Synchronisers that follow the feed, each book beside what the line has truly told of it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.syncs = {name: BookSynchronizer(Instrument(name)) for name in PRODUCTS}
        self.ids = Counter[str]()

    def emit(self, item: DepthUpdate | DepthSnapshot | FeedStatus) -> None:
        if isinstance(item, FeedStatus):
            assert item.reason is not GapReason.INTERNAL, item.detail
            for instrument in item.instruments:
                self.syncs[instrument.symbol].receive_status(item)
        elif isinstance(item, DepthSnapshot):
            self.syncs[item.symbol].receive_snapshot(item)
        else:
            assert item.last_update_id >= self.ids[item.symbol], "an update id fell"
            self.ids[item.symbol] = item.last_update_id
            self.syncs[item.symbol].receive_update(item)

    def check(self) -> int:
        """Compare every proven book; return how many there are."""
        proven = 0
        for name, sync in self.syncs.items():
            if sync.state is BookState.LIVE:
                assert sync.book is not None
                heard = self.line.heard[name]
                assert (sync.book.bids(), sync.book.asks()) == (heard.bids(), heard.asks()), name
                proven += 1
        return proven

    def are_true(self) -> bool:
        found = ((sync.book, self.line.truth[name]) for name, sync in self.syncs.items())
        return all(
            book is not None and (book.bids(), book.asks()) == (truth.bids(), truth.asks())
            for book, truth in found
        )


steps = st.lists(
    st.tuples(
        st.sampled_from(["pass"] * 6 + ["drop", "twice", "cut", "again", "break", "book", "beat"]),
        st.sampled_from(PRODUCTS),
        levels(4),
        levels(4),
    ),
    max_size=40,
)


async def play(script: list[tuple[str, str, Any, Any]], delay: float) -> None:
    line = Line()
    line.delay = delay
    for name in PRODUCTS:
        line.truth[name].load(0, [("1.0", "1")], [("7.0", "1")])
    books = Books(line)
    many = RollingLimit(10**9, 1.0)
    context = Context(
        CoinbaseSettings(backoff_max=0.0001, ack_timeout=0.02, snapshot_timeout=0.05),
        Counters(), Limits(many, many), random.Random(1), books.emit, line.open, {},
    )  # fmt: skip
    shard = Shard(context, [Instrument(name) for name in PRODUCTS])
    task = asyncio.create_task(shard.run())
    try:
        for fate, name, bids, asks in script:
            for _ in range(3):
                await asyncio.sleep(0)
            if fate == "break":
                line.break_off()
            elif fate == "again" and line.heard_last:
                line.deliver(line.heard_last)  # an old number
            elif fate == "beat":
                line.say("heartbeats", {"heartbeat_counter": "1"})
            elif fate == "book":
                if name in line.streams:
                    line.say_book(name)
            else:
                line.fate = fate
                line.change(name, bids, asks)
                line.fate = "pass"
            books.check()
        async with asyncio.timeout(5):  # in the end they are the truth, not only what was told
            while books.check() < len(PRODUCTS) or not books.are_true():
                await asyncio.sleep(0.002)
                line.say("heartbeats", {})
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await context.drain()


@given(steps, st.sampled_from([0.0, 0.0002]))
def test_a_live_book_is_what_the_line_has_told_and_comes_back_after_anything(
    script: list[tuple[str, str, Any, Any]], delay: float
) -> None:
    asyncio.run(play(script, delay))
