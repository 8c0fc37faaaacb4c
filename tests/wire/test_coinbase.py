"""The Coinbase feed on the wire: every message of the venue's documents, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from obframe import BookState, DepthSnapshot, GapReason, Instrument, StreamEvent
from obframe.sync import BookSynchronizer
from obframe_plugins.coinbase import CoinbaseFeed, CoinbaseSettings

TIME = "2023-02-09T20:32:50.714964855Z"
BTC, ETH, SOL = "BTC-USD", "ETH-USD", "SOL-USD"
BOOK = [("bid", "21921.73", "0.06317902"), ("bid", "21921.3", "0.02"), ("offer", "21921.74", "1")]
Levels = Sequence[tuple[str, str, str]]


def event(product: str, kind: str, levels: Levels) -> dict[str, Any]:
    updates = [
        {"side": side, "event_time": TIME, "price_level": price, "new_quantity": quantity}
        for side, price, quantity in levels
    ]
    return {"type": kind, "product_id": product, "updates": updates}


class Scene:
    """A scripted Coinbase, and a feed that talks to it.

    Attributes:
        silent: Products whose book is not sent when they are subscribed.
        complain: Returns what the venue complains of, given a command's products.
        early: Whether books come before the answer to the command, as they do at the venue.
    """

    def __init__(self, wire: Any) -> None:
        self.venue = wire.venue
        self.sink = wire.sink
        self.eventually = wire.eventually
        self.transport = wire.transport
        self.silent: set[str] = set()
        self.complain: Callable[[list[str]], str] = lambda products: ""
        self.early = True
        self.products: dict[str, dict[str, Any]] = {}
        self.numbers: dict[Any, int] = {}
        self.feed: CoinbaseFeed
        self.venue.on_command = self.answer
        self.venue.info = self.give_products

    async def give_products(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/api/v3/brokerage/market/products"
        named = request.query.getall("product_ids", list(self.products))
        found = [
            {"product_id": name, "status": "online", "trading_disabled": False, "alias": "",
             **self.products[name]}
            for name in named if name in self.products
        ]  # fmt: skip
        return web.json_response({"products": found, "num_products": len(found)})

    async def say(self, peer: Any, channel: str, *events: Any, skip: int = 0) -> int:
        """Send a message with the connection's next number; return the number."""
        number = self.numbers.get(peer, 0) + skip
        self.numbers[peer] = number + 1
        await peer.send({"channel": channel, "client_id": "", "timestamp": TIME,
                         "sequence_num": number, "events": list(events)})  # fmt: skip
        return number

    async def change(self, peer: Any, product: str, *levels: Any, skip: int = 0) -> int:
        made = event(product, "update", levels or [("bid", "21921.74", "0.5")])
        return await self.say(peer, "l2_data", made, skip=skip)

    async def book(self, peer: Any, product: str, levels: Levels = BOOK, skip: int = 0) -> int:
        return await self.say(peer, "l2_data", event(product, "snapshot", levels), skip=skip)

    async def beat(self, peer: Any, skip: int = 0) -> int:
        made = {"current_time": "2023-06-23 20:31:56 +0000 UTC", "heartbeat_counter": "3049"}
        return await self.say(peer, "heartbeats", made, skip=skip)

    async def list_subscriptions(self, peer: Any) -> int:
        level2 = sorted(peer.streams - {"heartbeats"})
        told = {"heartbeats": ["heartbeats"]} if "heartbeats" in peer.streams else {}
        return await self.say(
            peer, "subscriptions", {"subscriptions": {"level2": level2, **told} if level2 else told}
        )

    async def answer(self, peer: Any, command: dict[str, Any]) -> None:
        """Do as asked, as the venue does."""
        products = command.get("product_ids", [])
        if command["channel"] == "heartbeats":
            assert command == {"type": "subscribe", "channel": "heartbeats"}
            peer.streams.add("heartbeats")
            await self.list_subscriptions(peer)
            return
        assert command["channel"] == "level2"
        if complaint := self.complain(products):
            await peer.send({"type": "error", "message": complaint})
            return
        if command["type"] == "unsubscribe":
            peer.streams -= set(products)
            await self.list_subscriptions(peer)
            return
        new = [name for name in products if name not in peer.streams]
        peer.streams |= set(products)
        if not self.early:
            await self.list_subscriptions(peer)
        for name in new:
            if name not in self.silent:
                await self.book(peer, name)
        if self.early:
            await self.list_subscriptions(peer)

    @asynccontextmanager
    async def run(self, *products: str, **changes: Any) -> AsyncIterator[CoinbaseFeed]:
        if not self.products:
            self.products = {name: {} for name in products}
        short = {
            "ws_url": self.venue.ws_url, "rest_url": self.venue.rest_url,
            "transport": self.transport, "backoff_max": 0.05, "ack_timeout": 1.0,
            "open_timeout": 2.0, "request_timeout": 2.0,
        }  # fmt: skip
        self.feed = CoinbaseFeed(CoinbaseSettings(**(short | changes)), random.Random(7))
        self.feed.subscribe([Instrument(name) for name in products])
        task = asyncio.create_task(self.feed.run(self.sink.emit))
        try:
            yield self.feed
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                async with asyncio.timeout(3.0):
                    await task
            assert task.done()

    async def live(self, *products: str, peer: int = 0, count: int = 1) -> Any:
        """Wait until the books of the products came so often; return the connection."""
        for product in products:
            await self.books(product, count)
        return await self.venue.peer(peer)

    async def books(self, product: str, count: int = 1) -> list[DepthSnapshot]:
        found = self.sink.snapshots
        await self.eventually(lambda: len(found(product)) >= count, f"{count} books of {product}")
        return list(found(product))

    def commands(self, peer: Any, kind: str) -> list[list[str]]:
        """Return the products of the commands of a kind for level2."""
        return [x["product_ids"] for x in peer.commands
                if (x["type"], x["channel"]) == (kind, "level2")]  # fmt: skip

    async def count(self, name: str, least: int) -> None:
        await self.eventually(lambda: self.feed.counters()[name] >= least, f"{least} {name}")


@pytest.fixture
def scene(wire: Any) -> Scene:
    return Scene(wire)


def follow(scene: Scene, *products: str) -> dict[str, BookSynchronizer]:
    """Have synchronisers follow what the feed emits, and ask it for snapshots."""
    made = {name: BookSynchronizer(Instrument(name)) for name in products}

    def take(item: Any) -> None:
        if hasattr(item, "instruments"):
            for instrument in item.instruments:
                if instrument.symbol in made:
                    made[instrument.symbol].receive_status(item)
        elif isinstance(item, DepthSnapshot):
            made[item.symbol].receive_snapshot(item)
        else:
            made[item.symbol].receive_update(item)

    scene.sink.on_event = take
    return made


# -- books and numbers ---------------------------------------------------------------------------


async def test_a_whole_book_proves_itself_before_anything_changes(scene: Scene) -> None:
    syncs = follow(scene, BTC)
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.eventually(lambda: syncs[BTC].state is BookState.LIVE)
        book = syncs[BTC].book
        assert book is not None
        assert book.bids() == [("21921.73", "0.06317902"), ("21921.3", "0.02")]
        assert book.asks() == [("21921.74", "1")]
        assert book.covers(20)
        assert scene.sink.statuses(BTC)[:2] == [StreamEvent.CONNECTING, StreamEvent.SUBSCRIBED]
        await scene.change(peer, BTC, ("bid", "21921.73", "0"), ("offer", "21921.74", "2.50"))
        await scene.eventually(lambda: book.asks() == [("21921.74", "2.50")])
        assert book.bids() == [("21921.3", "0.02")]


@pytest.mark.parametrize("early", [True, False])
async def test_the_book_may_come_before_the_answer_or_after(scene: Scene, early: bool) -> None:
    scene.early = early
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        await scene.change(peer, BTC)
        await scene.eventually(lambda: len(scene.sink.updates(BTC)) == 2)
        assert scene.commands(peer, "subscribe") == [[BTC, ETH]]
        assert scene.sink.statuses(ETH) == [StreamEvent.CONNECTING, StreamEvent.SUBSCRIBED]


async def test_ids_go_on_from_the_book_whatever_lies_between(scene: Scene) -> None:
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        await scene.change(peer, ETH)
        await scene.beat(peer)
        await scene.change(peer, BTC)
        await scene.change(peer, ETH)
        await scene.change(peer, BTC)
        await scene.eventually(lambda: len(scene.sink.updates(BTC)) == 3)
        [snapshot] = scene.sink.snapshots(BTC)
        proof, one, two = scene.sink.updates(BTC)
        assert (len(proof), proof.prev_update_id) == (0, snapshot.last_update_id)
        assert proof.last_update_id == one.prev_update_id == snapshot.last_update_id + 1
        assert two.prev_update_id == one.last_update_id
        # All say the same time: ids go on from it.
        ids = [item.last_update_id for item in (snapshot, proof, one, two)]
        assert ids == [1675974770714964 + add for add in range(4)]
        assert (one.received_ns > 0, one.event_time_ms) == (True, 1675974770714)


async def test_update_ids_do_not_fall_from_connection_to_connection(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        for _ in range(20):
            await scene.change(peer, BTC)
        await scene.eventually(lambda: len(scene.sink.updates(BTC)) == 21)
        await peer.socket.close()
        await scene.books(BTC, 2)
        first, second = (snapshot.last_update_id for snapshot in scene.sink.snapshots(BTC))
        assert second > scene.sink.updates(BTC)[20].last_update_id > first


async def test_row_1_a_hole_costs_every_book_of_its_connection_and_no_other(scene: Scene) -> None:
    syncs = follow(scene, BTC, ETH, SOL)
    async with scene.run(BTC, ETH, SOL, products_per_connection=2):
        await scene.live(BTC, ETH, SOL)
        peers = {name: next(p for p in scene.venue.peers if name in p.streams) for name in syncs}
        assert peers[BTC] is peers[ETH] is not peers[SOL]
        await scene.change(peers[SOL], SOL)
        await scene.change(peers[BTC], BTC, skip=3)
        told = await scene.sink.until(ETH, StreamEvent.INVALID)
        assert told.reason is GapReason.SEQUENCE
        assert {item.symbol for item in told.instruments} == {BTC, ETH}
        assert "is missing" in told.detail
        await scene.live(BTC, ETH, count=2)
        await scene.eventually(lambda: all(s.state is BookState.LIVE for s in syncs.values()))
        # One command ends both, one begins both.
        assert scene.commands(peers[BTC], "unsubscribe") == [[BTC, ETH]]
        assert scene.commands(peers[BTC], "subscribe") == [[BTC, ETH], [BTC, ETH]]
        assert len(scene.sink.snapshots(SOL)) == 1
        assert scene.sink.told(SOL, StreamEvent.INVALID) == []
        counters = scene.feed.counters()
        assert (counters["sequence"], counters["lost_messages"]) == (1, 3)
        assert len(scene.venue.peers) == 2


async def test_row_1_a_hole_shows_by_the_next_heartbeat(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.beat(peer, skip=1)
        told = await scene.sink.until(BTC, StreamEvent.INVALID)
        assert told.reason is GapReason.SEQUENCE
        await scene.books(BTC, 2)


async def test_a_book_behind_a_hole_is_a_book_all_the_same(scene: Scene) -> None:
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        scene.silent = {ETH}
        await scene.book(peer, BTC, skip=1)
        await scene.books(BTC, 2)
        await scene.eventually(lambda: [ETH] in scene.commands(peer, "unsubscribe"))
        assert scene.commands(peer, "unsubscribe") == [[ETH]]


async def test_a_second_hole_soon_after_ends_the_connection(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.change(peer, BTC, skip=1)
        await scene.books(BTC, 2)
        await scene.change(peer, BTC, skip=1)
        lost = await scene.sink.until(BTC, StreamEvent.DISCONNECTED)
        assert lost.reason is GapReason.SEQUENCE
        await scene.live(BTC, peer=1, count=3)


async def test_row_2_old_numbers_are_ignored_and_counted(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.change(peer, BTC, ("bid", "1", "1"))
        scene.numbers[peer] -= 1
        await scene.change(peer, BTC, ("bid", "2", "2"))
        scene.numbers[peer] -= 2
        await scene.beat(peer)
        scene.numbers[peer] += 1
        await scene.change(peer, BTC, ("bid", "3", "3"))
        await scene.eventually(lambda: len(scene.sink.updates(BTC)) == 3)
        assert [u.bids for u in scene.sink.updates(BTC)[1:]] == [[("1", "1")], [("3", "3")]]
        assert scene.feed.counters()["old"] == 2
        assert scene.sink.told(BTC, StreamEvent.INVALID) == []


async def test_a_book_that_nobody_asked_for_replaces_the_one_before(scene: Scene) -> None:
    syncs = follow(scene, BTC)
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.book(peer, BTC, [("bid", "7", "7")])
        await scene.books(BTC, 2)
        assert scene.sink.told(BTC, StreamEvent.INVALID)[0].reason is GapReason.SEQUENCE
        book = syncs[BTC].book
        assert book is not None
        assert (syncs[BTC].state, book.bids(), book.asks()) == (BookState.LIVE, [("7", "7")], [])
        assert scene.commands(peer, "unsubscribe") == []


async def test_a_snapshot_on_request_is_a_new_subscription(scene: Scene) -> None:
    async with scene.run(BTC, ETH, SOL):
        peer = await scene.live(BTC, ETH, SOL)
        for name in (BTC, ETH, BTC):
            scene.feed.request_snapshot(Instrument(name))
        await scene.live(BTC, ETH, count=2)
        assert scene.commands(peer, "unsubscribe") == [[BTC, ETH]]
        assert len(scene.sink.snapshots(SOL)) == 1
        assert scene.sink.told(BTC, StreamEvent.INVALID) == []
        assert scene.feed.counters()["resubscribed"] == 2
        # One that is on its way need not be asked for.
        scene.silent = {BTC}
        scene.feed.request_snapshot(Instrument(BTC))
        await scene.eventually(lambda: len(scene.commands(peer, "subscribe")) == 3)
        scene.feed.request_snapshot(Instrument(BTC))
        await scene.book(peer, BTC)
        await scene.books(BTC, 3)
        assert len(scene.commands(peer, "unsubscribe")) == 2


async def test_what_comes_before_the_new_book_has_no_future(scene: Scene) -> None:
    syncs = follow(scene, BTC)
    async with scene.run(BTC):
        peer = await scene.live(BTC)

        async def linger(peer: Any, command: dict[str, Any]) -> None:
            if command["type"] == "unsubscribe":
                await scene.book(peer, BTC, [("bid", "1", "1")])  # crossed with the command
                await scene.change(peer, BTC, ("bid", "2", "2"))
            await scene.answer(peer, command)

        scene.venue.on_command = linger
        await scene.change(peer, BTC, skip=1)
        await scene.eventually(lambda: syncs[BTC].epoch == 2)
        book = syncs[BTC].book
        assert book is not None
        assert book.bids() == [("21921.73", "0.06317902"), ("21921.3", "0.02")]
        assert scene.feed.counters()["awaiting"] >= 2


# -- odd messages --------------------------------------------------------------------------------


async def test_row_11_an_odd_price_costs_its_own_book_only(scene: Scene) -> None:
    syncs = follow(scene, BTC, ETH)
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        await scene.change(peer, BTC, ("bid", "1", "1"), ("offer", "NaN", "1"))
        told = await scene.sink.until(BTC, StreamEvent.INVALID)
        assert told.reason is GapReason.INVALID
        assert "NaN" in told.detail
        await scene.books(BTC, 2)
        await scene.eventually(lambda: syncs[BTC].state is BookState.LIVE)
        assert scene.sink.told(ETH, StreamEvent.INVALID) == []
        assert scene.commands(peer, "unsubscribe") == [[BTC]]
        book = syncs[BTC].book
        assert book is not None
        assert ("1", "1") not in book.bids()


async def test_row_12_a_number_without_room_has_its_own_reason(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.change(peer, BTC, ("bid", "1", "9" * 40))
        told = await scene.sink.until(BTC, StreamEvent.INVALID)
        assert told.reason is GapReason.CAPACITY


async def test_row_15_garbage_costs_every_book_of_its_connection(scene: Scene) -> None:
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        await peer.send('{"channel":"l2_data","sequence_num":')
        scene.numbers[peer] += 1
        told = await scene.sink.until(ETH, StreamEvent.INVALID)
        assert told.reason is GapReason.INVALID
        await scene.live(BTC, ETH, count=2)
        await scene.beat(peer)
        await scene.count("heartbeats", 1)
        assert scene.feed.counters()["malformed"] == 1
        assert scene.feed.counters()["sequence"] == 0


async def test_row_3_a_message_without_a_number_costs_the_same(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await peer.send({"channel": "l2_data", "sequence_num": 1.5, "events": []})
        await scene.sink.until(BTC, StreamEvent.INVALID)
        scene.numbers[peer] += 1
        await scene.books(BTC, 2)


async def test_row_16_what_is_not_known_is_ignored_and_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        for _ in range(3):
            await scene.say(peer, "candles", {"type": "snapshot"})
            await scene.say(peer, "l2_data", event(BTC, "novelty", ()))
            await peer.send("[]")
        await scene.change(peer, BTC)
        await scene.eventually(lambda: len(scene.sink.updates(BTC)) == 2)
        assert scene.feed.counters()["unknown_events"] == 9
        assert caplog.text.count("type candles are ignored") == 1
        assert caplog.text.count("type l2_data novelty are ignored") == 1
        assert scene.sink.told(BTC, StreamEvent.INVALID) == []


async def test_row_17_a_product_that_nobody_wants_is_dropped_and_counted(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        await scene.change(peer, SOL)
        await scene.book(peer, ETH)
        await scene.change(peer, BTC)
        await scene.eventually(lambda: len(scene.sink.updates(BTC)) == 2)
        assert scene.feed.counters()["unsubscribed"] == 2
        assert scene.sink.snapshots(ETH) == []


async def test_row_18_a_book_over_the_limit_names_the_setting(scene: Scene) -> None:
    many = [("bid", f"{price}.00", "1.00000000") for price in range(1, 400)]
    async with scene.run(BTC, max_message_bytes=8192):
        peer = await scene.live(BTC)
        await scene.book(peer, BTC, many)
        lost = await scene.sink.until(BTC, StreamEvent.DISCONNECTED)
        assert "raise coinbase.max_message_bytes" in lost.detail
        await scene.live(BTC, peer=1, count=2)


# -- silence -------------------------------------------------------------------------------------


async def test_rows_22_and_24_heartbeats_are_no_sign_of_life_of_a_book(scene: Scene) -> None:
    async with scene.run(BTC, stale_after=0.2, idle_timeout=0.6):
        peer = await scene.live(BTC)

        async def beat() -> None:
            while True:
                with suppress(Exception):
                    await scene.beat(peer)
                await asyncio.sleep(0.05)

        beating = asyncio.create_task(beat())
        silent = await scene.sink.until(BTC, StreamEvent.SILENT)
        assert silent.reason is GapReason.SILENT
        lost = await scene.sink.until(BTC, StreamEvent.DISCONNECTED)
        beating.cancel()
        assert lost.reason is GapReason.SILENT
        await scene.live(BTC, peer=1, count=2)
        assert scene.feed.counters()["heartbeats"] > 2


async def test_data_after_silence_ends_it(scene: Scene) -> None:
    async with scene.run(BTC, stale_after=0.2, idle_timeout=5.0):
        peer = await scene.live(BTC)
        await scene.sink.until(BTC, StreamEvent.SILENT)
        await scene.change(peer, BTC)
        await scene.sink.until(BTC, StreamEvent.RESUMED)


async def test_row_23_a_book_that_never_comes_is_named_and_asked_for_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.silent = {ETH}
    async with scene.run(BTC, ETH, snapshot_timeout=0.3):
        peer = await scene.live(BTC)
        told = await scene.sink.until(ETH, StreamEvent.SNAPSHOT_FAILED)
        assert told.reason is GapReason.SNAPSHOT
        assert {item.symbol for item in told.instruments} == {ETH}
        assert f"{ETH}: it is subscribed but its whole book has not come" in caplog.text
        scene.silent = set()
        await scene.books(ETH)
        assert [ETH] in scene.commands(peer, "unsubscribe")
        assert [BTC] not in scene.commands(peer, "unsubscribe")


# -- commands ------------------------------------------------------------------------------------


async def test_the_first_command_asks_for_heartbeats(scene: Scene) -> None:
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        assert peer.commands[0] == {"type": "subscribe", "channel": "heartbeats"}
        assert peer.commands[1] == {
            "type": "subscribe", "channel": "level2", "product_ids": [BTC],
        }  # fmt: skip


@pytest.mark.parametrize("words", ["rate limit exceeded", "heartbeats are not to be had"])
async def test_heartbeats_refused_for_pace_are_asked_for_again(scene: Scene, words: str) -> None:
    async def refuse(peer: Any, command: dict[str, Any]) -> None:
        if len(peer.commands) == 1:
            await peer.send({"type": "error", "message": words})
        else:
            await scene.answer(peer, command)

    scene.venue.on_command = refuse
    async with scene.run(BTC):
        peer = await scene.live(BTC)
        channels = [command["channel"] for command in peer.commands]
        again = ["heartbeats"] if "rate" in words else []
        assert channels == ["heartbeats", *again, "level2"]


async def test_row_59_a_product_that_is_refused_is_found_and_the_others_go_on(scene: Scene) -> None:
    scene.products = {name: {} for name in (BTC, ETH, SOL, "NO-SUCH")}
    scene.complain = lambda names: "NO-SUCH is no product" if "NO-SUCH" in names else ""
    async with scene.run(BTC, ETH, "NO-SUCH", SOL):
        await scene.live(BTC, ETH, SOL)
        told = await scene.sink.until("NO-SUCH", StreamEvent.DISCONNECTED)
        assert "NO-SUCH is no product" in told.detail
        assert scene.feed.counters()["refused"] == 1


async def test_row_28_a_complaint_about_pace_is_no_refusal(scene: Scene) -> None:
    left = [2]

    def complain(names: list[str]) -> str:
        left[0] -= 1
        return "rate limit exceeded" if left[0] >= 0 else ""

    scene.complain = complain
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        assert scene.commands(peer, "subscribe") == [[BTC, ETH]] * 3
        assert scene.feed.counters()["rate_limited"] == 2
        assert scene.feed.counters()["refused"] == 0


async def test_too_many_books_on_a_connection_name_the_setting(scene: Scene) -> None:
    text = "too many L2 streams requested in a single session"
    scene.complain = lambda names: text if ETH in names else ""
    async with scene.run(BTC, ETH):
        await scene.live(BTC)
        told = await scene.sink.until(ETH, StreamEvent.DISCONNECTED)
        assert "lower coinbase.products_per_connection" in told.detail


async def test_what_the_answer_does_not_list_is_asked_for_alone(scene: Scene) -> None:
    async def forget(peer: Any, command: dict[str, Any]) -> None:
        if command["channel"] == "level2" and len(command["product_ids"]) > 1:
            command["product_ids"].remove(ETH)
        await scene.answer(peer, command)

    scene.venue.on_command = forget
    async with scene.run(BTC, ETH, ack_timeout=0.2):
        peer = await scene.live(BTC, ETH)
        assert [ETH] in scene.commands(peer, "subscribe")


async def test_no_answer_at_all_ends_the_connection(scene: Scene) -> None:
    async def ignore(peer: Any, command: dict[str, Any]) -> None:
        if len(scene.venue.peers) > 1:
            await scene.answer(peer, command)

    scene.venue.on_command = ignore
    async with scene.run(BTC, ack_timeout=0.1):
        lost = await scene.sink.until(BTC, StreamEvent.DISCONNECTED)
        assert "no answer to subscribe heartbeats" in lost.detail
        await scene.live(BTC, peer=1)


async def test_a_command_whose_answer_fell_into_a_hole_is_repeated(scene: Scene) -> None:
    async def lose(peer: Any, command: dict[str, Any]) -> None:
        if command["channel"] == "level2" and len(peer.commands) == 2:
            peer.streams |= set(command["product_ids"])
            await scene.beat(peer, skip=2)
        else:
            await scene.answer(peer, command)

    scene.venue.on_command = lose
    async with scene.run(BTC, ack_timeout=5.0):
        await scene.live(BTC)


async def test_commands_and_connections_keep_to_the_venues_pace(scene: Scene) -> None:
    names = [f"P{number}-USD" for number in range(9)]
    async with scene.run(*names, products_per_connection=1):
        await scene.live(*names)
        times = sorted(at for peer in scene.venue.peers for at in peer.times)
        assert len(times) == 18
        assert all(late - early > 0.95 for early, late in zip(times, times[8:], strict=False))


# -- what is wanted ------------------------------------------------------------------------------


async def test_row_62_products_are_spread_over_connections(scene: Scene) -> None:
    scene.products = {name: {} for name in (BTC, ETH, SOL, "ADA-USD")}
    async with scene.run(BTC, ETH, SOL, products_per_connection=2):
        await scene.live(BTC, ETH, SOL)
        assert sorted(len(peer.streams) for peer in scene.venue.peers) == [2, 3]
        scene.feed.subscribe([Instrument("ADA-USD")])
        await scene.books("ADA-USD")
        assert len(scene.venue.peers) == 2
        scene.feed.unsubscribe([Instrument(SOL), Instrument("ADA-USD")])
        peer = next(p for p in scene.venue.peers if SOL in p.streams)
        await scene.eventually(lambda: peer.closed)
        before = len(scene.sink.events)
        scene.feed.unsubscribe([Instrument(ETH)])
        other = next(p for p in scene.venue.peers if p is not peer)
        await scene.eventually(lambda: other.streams == {BTC, "heartbeats"})
        assert len(scene.sink.events) == before


async def test_a_product_that_comes_back_at_once_gets_a_new_book(scene: Scene) -> None:
    async with scene.run(BTC, ETH):
        peer = await scene.live(BTC, ETH)
        scene.feed.unsubscribe([Instrument(BTC)])
        scene.feed.subscribe([Instrument(BTC)])
        await scene.books(BTC, 2)
        assert scene.sink.statuses(BTC)[-1] is StreamEvent.SUBSCRIBED
        assert len(scene.sink.snapshots(ETH)) == 1
        assert scene.commands(peer, "unsubscribe") == [[BTC]]


async def test_row_25_accepting_and_closing_is_not_good_data(scene: Scene) -> None:
    async def close(peer: Any) -> None:
        await peer.socket.close()

    scene.venue.on_connect = close
    async with scene.run(BTC, backoff_max=30.0):
        await scene.eventually(lambda: scene.feed.counters()["connections"] >= 2)
        await asyncio.sleep(1.0)
        assert scene.feed.counters()["connections"] <= 8


# -- what is traded ------------------------------------------------------------------------------


async def test_row_31_products_that_do_not_trade_are_halted(scene: Scene) -> None:
    scene.products = {BTC: {}, ETH: {"trading_disabled": True}, SOL: {"status": "delisted"}}
    async with scene.run(BTC, ETH, SOL, status_poll=0.1, halted_poll=0.1):
        told = await scene.sink.until(ETH, StreamEvent.HALTED)
        assert (told.reason, told.detail) == (GapReason.HALTED, "trading in it is disabled")
        told = await scene.sink.until(SOL, StreamEvent.HALTED)
        assert told.detail == "its status is delisted"
        scene.products[ETH] = {}
        await scene.sink.until(ETH, StreamEvent.TRADING)
        assert scene.sink.told(BTC, StreamEvent.HALTED) == []


async def test_row_59_an_unknown_product_is_named(scene: Scene) -> None:
    scene.products = {BTC: {}, ETH: {}}
    async with scene.run(BTC, "eth-usd", "NO-SUCH", halted_poll=0.1):
        told = await scene.sink.until("eth-usd", StreamEvent.HALTED)
        assert told.reason is GapReason.UNKNOWN_SYMBOL
        assert told.detail == "Coinbase has no such symbol; did you mean ETH-USD?"
        await scene.sink.until("NO-SUCH", StreamEvent.DISCONNECTED)
        await scene.live(BTC)
        before = len(scene.sink.snapshots("NO-SUCH"))
        scene.products["NO-SUCH"] = {}
        await scene.sink.until("NO-SUCH", StreamEvent.TRADING)
        await scene.books("NO-SUCH", before + 1)


async def test_a_second_name_of_a_book_is_told_by_its_first(scene: Scene) -> None:
    scene.products = {BTC: {}, "BTC-USDC": {"alias": BTC}}
    async with scene.run("BTC-USDC"):
        told = await scene.sink.until("BTC-USDC", StreamEvent.HALTED)
        assert told.reason is GapReason.UNKNOWN_SYMBOL
        assert "record BTC-USD" in told.detail


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=503),
        lambda: web.Response(status=429, headers={"Retry-After": "0"}),
        lambda: web.Response(status=451, text="no"),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"products": []}),
        lambda: web.json_response({"products": [{"product_id": 7}]}),
    ],
)
async def test_row_34_without_the_list_recording_goes_on(
    scene: Scene, response: Callable[[], web.Response], caplog: pytest.LogCaptureFixture
) -> None:
    async def give(request: web.Request) -> web.StreamResponse:
        return response()

    scene.venue.info = give
    async with scene.run(BTC):
        await scene.live(BTC)
        await scene.count("rest_requests", 1)
        await scene.eventually(lambda: "cannot be looked up" in caplog.text)
        assert scene.sink.told(BTC, StreamEvent.HALTED) == []


# -- settings ------------------------------------------------------------------------------------


def test_row_57_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="ws_url") as caught:
        CoinbaseSettings(
            ws_url="http://x", products_per_connection=0, idle_timeout=-1.0,
            stale_after=5.0, max_message_bytes=1, proxy="socks://x", transport="pigeon",  # type: ignore[arg-type]
        )  # fmt: skip
    text = str(caught.value)
    for name in ("products_per_connection", "idle_timeout", "stale_after", "max_message_bytes",
                 "proxy", "transport"):  # fmt: skip
        assert name in text


def test_the_documents_messages_are_read_as_they_stand() -> None:
    from obframe_plugins._coinbase_wire import (  # noqa: PLC0415
        Complaint,
        Heartbeat,
        Subscribed,
        Unknown,
        read_notice,
    )

    def read(message: object) -> object:
        return read_notice(json.dumps(message).encode())

    frame = {"client_id": "", "timestamp": TIME, "sequence_num": 1}
    assert read({"channel": "heartbeats", **frame, "events": []}) == Heartbeat(1)
    channels = {"level2": [BTC], "heartbeats": ["heartbeats"]}
    told = read({"channel": "subscriptions", **frame, "events": [{"subscriptions": channels}]})
    assert told == Subscribed(
        1, {"level2": frozenset({BTC}), "heartbeats": frozenset({"heartbeats"})}
    )
    assert read({"channel": "subscriptions", **frame, "events": [7]}) == Subscribed(1, {})
    assert read({"type": "error", "message": "no"}) == Complaint(None, "no")
    assert read({"type": "error", "message": "no", "reason": "x"}) == Complaint(None, "no: x")
    assert read({"channel": "error", "events": [7], "sequence_num": True}) is not None
    assert read(7) == Unknown(None, "a bare int")
    assert read({"channel": "status", **frame}) == Unknown(1, "status")
    assert read({}) == Unknown(None, "without a type")
