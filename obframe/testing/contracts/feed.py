"""The rules of ``obframe.Feed``, each as one test.

A feed is tested against a venue that the contract drives. Its author writes a small venue that
speaks the wire's language on loopback, and subclasses ``FeedContract``::

    class Venue(FeedVenue):
        async def change(self, instrument, bids, asks):
            ...  # into the venue's book, and out to whoever is subscribed

    class TestMine(FeedContract):
        can_drop = True

        @asynccontextmanager
        async def make_feed(self, tmp_path):
            async with Venue() as venue:
                feed = MyFeed(MySettings(url=venue.url))
                yield FeedRig(feed, [Instrument(name) for name in venue.symbols], venue)
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from obframe.protocols import Feed
from obframe.testing.contracts.market import Market
from obframe.testing.contracts.rules import Contract, rule
from obframe.testing.contracts.session import Session
from obframe.testing.contracts.venue import FeedRig
from obframe.testing.listener import FeedListener, symbols_of
from obframe.testing.watching import Leftovers, LoopWatch
from obframe.types import GapReason, StreamEvent
from obframe.vetting import FEED, check_protocol

_AT_ONCE = 0.1
"""Seconds within which a method that returns at once has returned."""


class FeedContract(Contract):
    """Every rule that a feed must keep; subclass it as ``Test…``.

    Attributes:
        can_drop: The venue can break its connections: ``FeedVenue.drop``.
        can_lose: The venue can lose a message on its way: ``FeedVenue.lose``.
        can_garble: The venue can send garbage: ``FeedVenue.garble``.
        can_refuse: The venue can refuse snapshots: ``FeedVenue.refuse_snapshots``.
        price_decimals: Decimals of the prices that the contract makes up.
        quantity_decimals: Decimals of its quantities.
        most_levels: Levels a side that its books may grow to.
        prompt: Seconds in which a cancelled ``run`` must end.
        most_blocking: Seconds for which the event loop may stand still at most.
    """

    can_drop = False
    can_lose = False
    can_garble = False
    can_refuse = False
    price_decimals = 2
    quantity_decimals = 8
    most_levels = 10
    prompt = 2.0
    most_blocking = 0.25

    def make_feed(self, tmp_path: Path) -> AbstractAsyncContextManager[FeedRig]:
        """Return an async context manager around a new feed and a new venue for it.

        The feed should wait for little: short back-off, short time-outs.
        """
        raise NotImplementedError(f"{type(self).__name__}.make_feed is needed to test the feed")

    @asynccontextmanager
    async def _session(self, tmp_path: Path) -> AsyncIterator[Session]:
        async with self.make_feed(tmp_path) as rig:
            assert len(rig.instruments) >= 3, "make_feed must give three instruments or more"
            market = Market(self.price_decimals, self.quantity_decimals, self.most_levels)
            await market.open(rig.venue.change, rig.instruments)
            session = Session(rig, market, self.patience, self.quiet)
            try:
                yield session
            finally:
                if session.task is not None:
                    await session.stop(self.prompt)

    # What is wanted

    @rule(Feed)
    async def test_is_a_feed(self, tmp_path: Path) -> None:
        """It has every method of the protocol, async where the protocol is."""
        async with self.make_feed(tmp_path) as rig:
            check_protocol(rig.feed, FEED, type(rig.feed).__name__)

    @rule(Feed.subscribe)
    async def test_what_is_subscribed_before_run_is_streamed(self, tmp_path: Path) -> None:
        """Instruments subscribed before ``run`` are streamed as soon as it runs."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            for instrument in (first, second):
                await session.arrived(instrument, await session.change(instrument))

    @rule(Feed.subscribe)
    async def test_what_is_subscribed_during_run_is_streamed(self, tmp_path: Path) -> None:
        """Instruments subscribed while it runs are streamed too."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first)
            session.feed.subscribe([second])
            await session.subscribed(second)
            for instrument in (first, second):
                await session.arrived(instrument, await session.change(instrument))

    @rule(Feed.subscribe)
    async def test_subscribing_again_changes_nothing(self, tmp_path: Path) -> None:
        """Wanting what is wanted already leaves its stream as it is."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            mark = len(session.listener.events)
            session.feed.subscribe([first])
            await session.settle()
            await session.arrived(first, await session.change(first))
            told = session.listener.statuses(first.symbol, since=mark)
            assert not told, f"the stream was open, and {session.listener.describe(first.symbol)}"
            assert session.listener.breaks(first.symbol) == []

    @rule(Feed.unsubscribe)
    async def test_what_is_unsubscribed_is_silent(self, tmp_path: Path) -> None:
        """From the return of ``unsubscribe`` no update or snapshot of the instrument comes."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            await session.arrived(first, await session.change(first))
            await session.change(first)
            mark = len(session.listener.events)
            session.feed.unsubscribe([first])
            await session.change(first)
            await session.arrived(second, await session.change(second))
            await session.settle()
            await session.change(first)
            await session.arrived(second, await session.change(second))
            listener = session.listener
            late = [*listener.updates(first.symbol, mark), *listener.snapshots(first.symbol, mark)]
            assert not late, f"unsubscribed, and yet {listener.describe(first.symbol)}"

    @rule(Feed.unsubscribe)
    async def test_what_was_unsubscribed_can_be_wanted_again(self, tmp_path: Path) -> None:
        """An instrument subscribed again gets a new stream and a new snapshot."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            await session.prove(first)
            session.feed.unsubscribe([first])
            await session.change(first)
            await session.settle()
            mark = len(session.listener.events)
            session.feed.subscribe([first])
            await session.reopened(first, mark)
            await session.prove(first)

    @rule(Feed.unsubscribe)
    async def test_what_is_not_wanted_can_be_unsubscribed(self, tmp_path: Path) -> None:
        """Unsubscribing what was never wanted is no error and disturbs nobody."""
        async with self._session(tmp_path) as session:
            first, second, third = session.instruments
            session.feed.unsubscribe([third])
            await session.open(first, second)
            session.feed.unsubscribe([third])
            await session.settle()
            for instrument in (first, second):
                await session.arrived(instrument, await session.change(instrument))

    @rule(Feed.unsubscribe)
    async def test_coming_and_going_leaves_the_others_alone(self, tmp_path: Path) -> None:
        """Subscribing and unsubscribing some never breaks the streams of the others."""
        async with self._session(tmp_path) as session:
            first, second, third = session.instruments
            await session.open(first, second)
            await session.prove(second)
            mark = len(session.listener.events)
            session.feed.unsubscribe([first])
            session.feed.subscribe([third])
            await session.subscribed(third)
            session.feed.unsubscribe([third])
            session.feed.subscribe([first])
            await session.settle()
            await session.subscribed(first)
            await session.arrived(second, await session.change(second))
            told = session.listener.statuses(
                second.symbol, StreamEvent.DISCONNECTED, StreamEvent.INVALID, since=mark
            )
            assert not told, f"others came and went, and {session.listener.describe(second.symbol)}"
            assert session.listener.breaks(second.symbol) == []
            assert session.is_true(second), "its book is not the venue's any more"

    @rule(Feed)
    async def test_only_what_is_wanted_is_emitted(self, tmp_path: Path) -> None:
        """Every event is about instruments that are subscribed, by their symbol."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            for instrument in session.instruments:
                await session.change(instrument)
            await session.prove(first)
            await session.settle()
            seen = {symbol for event in session.listener.events for symbol in symbols_of(event)}
            assert seen == {first.symbol}, f"{first.symbol} alone is wanted"
            named = session.listener.statuses(first.symbol)
            assert all(status.instruments == {first} for status in named)

    @rule(Feed.subscribe)
    async def test_subscribing_returns_at_once(self, tmp_path: Path) -> None:
        """``subscribe``, ``unsubscribe`` and ``request_snapshot`` wait for nothing."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first)
            feed = session.feed
            calls: dict[str, Callable[[], object]] = {
                "subscribe": lambda: feed.subscribe([second]),
                "request_snapshot": lambda: feed.request_snapshot(second),
                "unsubscribe": lambda: feed.unsubscribe([second]),
            }
            took = dict.fromkeys(calls, 1e9)
            for _ in range(3):
                for name, call in calls.items():
                    began = time.perf_counter()
                    call()
                    # The shortest of three: a busy machine is no fault of the feed.
                    took[name] = min(took[name], time.perf_counter() - began)
                    await asyncio.sleep(0.02)
            slow = {
                name: f"{seconds:.3f} s" for name, seconds in took.items() if seconds > _AT_ONCE
            }
            assert not slow, f"the event loop stands still meanwhile: {slow}"

    # What is told

    @rule(Feed)
    async def test_subscribed_comes_before_the_first_event(self, tmp_path: Path) -> None:
        """``SUBSCRIBED`` is told when the stream is open: before its first update or snapshot."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            for instrument in (first, second):
                await session.prove(instrument)
                events = session.listener.of(instrument.symbol)
                kinds = [getattr(event, "event", "data") for event in events]
                assert kinds.index(StreamEvent.SUBSCRIBED) < kinds.index("data"), f"it told {kinds}"

    @rule(Feed)
    async def test_updates_join_one_another(self, tmp_path: Path) -> None:
        """``prev_update_id`` is the ``last_update_id`` before it, on an unbroken stream."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            for number in range(20):
                await session.change((first, second)[number % 2])
            for instrument in (first, second):
                await session.arrived(instrument, await session.change(instrument))
                assert session.listener.breaks(instrument.symbol) == []

    @rule(Feed)
    async def test_update_ids_only_grow(self, tmp_path: Path) -> None:
        """Each update's ids lie in order: ``prev < first <= last``."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            for _ in range(5):
                await session.arrived(first, await session.change(first))
            for update in session.listener.updates(first.symbol):
                ids = update.prev_update_id, update.first_update_id, update.last_update_id
                assert ids[0] < ids[1] <= ids[2], f"prev, first and last are {ids}"

    @rule(Feed)
    async def test_digits_come_as_the_venue_wrote_them(self, tmp_path: Path) -> None:
        """Prices and quantities are exact, trailing zeros included."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            for _ in range(5):
                change = await session.change(first)
                await session.arrived(first, change)
                updates = session.listener.updates(first.symbol)
                bids = {level for update in updates for level in update.bids}
                asks = {level for update in updates for level in update.asks}
                assert set(change.bids) <= bids
                assert set(change.asks) <= asks

    @rule(Feed)
    async def test_the_books_are_those_of_the_venue(self, tmp_path: Path) -> None:
        """Snapshot and updates together give the venue's book, level by level."""
        async with self._session(tmp_path) as session:
            pair = session.instruments[:2]
            await session.open(*pair)
            for instrument in pair:
                await session.prove(instrument)
            for number in range(40):
                await session.change(pair[number % 2])
            for instrument in pair:
                await session.equal(instrument, "after 20 changes")

    @rule(Feed.run)
    async def test_emit_is_called_in_the_loops_thread(self, tmp_path: Path) -> None:
        """``emit`` is called in the thread of the event loop, and in no other."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.prove(first)
            others = session.listener.threads - {threading.get_ident()}
            assert not others, f"emit was called in {len(others)} other threads"

    @rule(Feed.run)
    async def test_the_loop_is_not_blocked(self, tmp_path: Path) -> None:
        """The event loop never stands still for longer than ``most_blocking``."""
        async with self._session(tmp_path) as session:
            first, second, third = session.instruments
            with LoopWatch() as watch:
                await session.open(first, second)
                await session.prove(first)
                session.feed.subscribe([third])
                await session.prove(third)
                await session.change(third)
                session.feed.unsubscribe([second])
                await session.settle()
                await session.stop(self.prompt)
            longest = watch.longest
            assert longest.seconds <= self.most_blocking, (
                f"it stood still for {longest.seconds:.2f} s in {longest.where}"
            )

    @rule(Feed.counters)
    async def test_counters_only_grow(self, tmp_path: Path) -> None:
        """Counters are whole numbers by name, count what happens, and never go back."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            seen = [dict(session.feed.counters())]
            await session.open(first)
            await session.prove(first)
            seen.append(dict(session.feed.counters()))
            await session.stop(self.prompt)
            seen.append(dict(session.feed.counters()))
            mark = len(session.listener.events)
            session.start()
            await session.reopened(first, mark)
            await session.arrived(first, await session.change(first), mark)
            seen.append(dict(session.feed.counters()))
            for counters in seen:
                for name, count in counters.items():
                    assert isinstance(name, str), f"{name!r} is no name"
                    assert type(count) is int, f"{name} is {count!r}, no whole number"
                    assert count >= 0, f"{name} is {count}"
            for old, new in itertools.pairwise(seen):
                back = {
                    name: (old[name], new.get(name))
                    for name in old
                    if new.get(name, -1) < old[name]
                }
                assert not back, f"counters went back, from and to: {back}"
            assert sum(seen[1].values()) > sum(seen[0].values()), "messages came, nothing counted"

    # Snapshots

    @rule(Feed.request_snapshot)
    async def test_a_snapshot_comes_when_asked_for(self, tmp_path: Path) -> None:
        """A snapshot that is asked for is delivered through ``emit``, as the venue has it."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            for instrument in (first, second):
                mark = len(session.listener.events)
                session.feed.request_snapshot(instrument)
                snapshot = await session.snapshot(instrument, mark)
                true = session.truth(instrument)
                assert (snapshot.bids, snapshot.asks) == true, "the venue's book, best first"

    @rule(Feed.request_snapshot)
    async def test_a_snapshot_joins_the_stream(self, tmp_path: Path) -> None:
        """A snapshot's id lies where the updates of the open stream can go on from."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            for _ in range(3):
                await session.arrived(first, await session.change(first))
            await session.prove(first)

    @rule(Feed.request_snapshot)
    async def test_asking_twice_is_asking_once(self, tmp_path: Path) -> None:
        """Asking for a snapshot that is queued already brings one, not two."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.prove(first)
            await session.settle()
            mark = len(session.listener.events)
            for _ in range(3):
                session.feed.request_snapshot(first)
            await session.snapshot(first, mark)
            await session.settle()
            came = len(session.listener.snapshots(first.symbol, mark))
            assert came == 1, f"asked three times in a row, and {came} snapshots came"

    @rule(Feed.request_snapshot)
    async def test_a_request_ends_with_the_subscription(self, tmp_path: Path) -> None:
        """What is unsubscribed gets no snapshot any more, whether asked for before or after."""
        async with self._session(tmp_path) as session:
            first, second, third = session.instruments
            await session.open(first, second)
            mark = len(session.listener.events)
            session.feed.request_snapshot(first)
            session.feed.unsubscribe([first])
            session.feed.request_snapshot(first)
            session.feed.request_snapshot(third)
            await session.prove(second)
            await session.settle()
            for instrument in (first, third):
                late = session.listener.snapshots(instrument.symbol, mark)
                assert not late, f"{instrument.symbol} is not wanted, and its snapshot came"

    # Beginning and end

    @rule(Feed.run)
    @pytest.mark.parametrize("when", ["at once", "while it streams"])
    async def test_cancelling_ends_run_promptly(self, tmp_path: Path, when: str) -> None:
        """A cancelled ``run`` ends within ``prompt`` seconds, by ``CancelledError``."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            if when == "at once":
                session.feed.subscribe([first])
                session.start()
                await asyncio.sleep(0)
            else:
                await session.open(first)
                await session.prove(first)
            ended = await session.stop(self.prompt)
            assert ended, f"run() did not end within {self.prompt:g} s"
            assert session.task is not None
            assert session.task.cancelled(), (
                "run() was cancelled, and the cancellation did not come out"
            )

    @rule(Feed.run)
    async def test_run_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """When ``run`` has ended, its tasks, threads and sockets are gone."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            before = Leftovers()
            await session.open(first, second)
            await session.prove(first)
            session.feed.request_snapshot(second)
            await session.stop(self.prompt)
            left = await before.wait(self.prompt)
            assert not left, f"left behind by run(): {', '.join(left)}"

    @rule(Feed.run)
    async def test_nothing_is_emitted_after_the_end(self, tmp_path: Path) -> None:
        """When ``run`` has ended, ``emit`` is called no more."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.prove(first)
            await session.change(first)
            await session.stop(self.prompt)
            mark = len(session.listener.events)
            await session.change(first)
            await session.settle()
            assert session.listener.events[mark:] == [], session.listener.describe(first.symbol)

    @rule(Feed.run)
    async def test_run_can_be_called_again(self, tmp_path: Path) -> None:
        """Called again after its end, ``run`` opens new streams of what is wanted."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            await session.prove(first)
            await session.stop(self.prompt)
            session.feed.unsubscribe([second])
            await session.change(first)
            mark = len(session.listener.events)
            session.start()
            await session.reopened(first, mark)
            await session.prove(first)
            assert session.listener.of(second.symbol, mark) == [], "unsubscribed in the meantime"

    @rule(Feed.run)
    async def test_run_is_refused_while_it_runs(self, tmp_path: Path) -> None:
        """A second ``run`` at the same time raises, and the first goes on as if nothing was."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            mark = len(session.listener.events)
            second = asyncio.create_task(session.feed.run(FeedListener()))
            await asyncio.wait({second}, timeout=self.prompt)
            refused = second.done() and second.exception() is not None
            second.cancel()
            await asyncio.wait({second}, timeout=self.prompt)
            assert refused, "two runs at once would share streams and requests"
            await session.arrived(first, await session.change(first), mark)
            assert session.listener.statuses(first.symbol, since=mark) == []

    # Trouble

    @rule(Feed, needs="can_drop")
    async def test_a_lost_connection_is_told(self, tmp_path: Path) -> None:
        """``DISCONNECTED`` is told of a stream that broke, ``SUBSCRIBED`` before the next event."""
        async with self._session(tmp_path) as session:
            first, second, _ = session.instruments
            await session.open(first, second)
            await session.arrived(first, await session.change(first))
            mark = len(session.listener.events)
            await session.venue.drop()
            for instrument in (first, second):
                symbol = instrument.symbol
                for event in (StreamEvent.DISCONNECTED, StreamEvent.SUBSCRIBED):
                    await session.told(event, instrument, mark, "the connection broke")
                await session.arrived(instrument, await session.change(instrument), mark)
                kinds = [
                    getattr(event, "event", "data") for event in session.listener.of(symbol, mark)
                ]
                lost = kinds.index(StreamEvent.DISCONNECTED)
                opened = kinds.index(StreamEvent.SUBSCRIBED)
                assert lost < opened < kinds.index("data", lost), f"it told {kinds}"

    @rule(Feed, needs="can_drop")
    async def test_what_was_missed_while_away_is_not_hidden(self, tmp_path: Path) -> None:
        """After a lost connection a snapshot is the venue's book of now."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.prove(first)
            mark = len(session.listener.events)
            await session.venue.drop()
            for _ in range(3):
                await session.change(first)
            await session.reopened(first, mark)
            await session.prove(first)

    @rule(Feed, needs="can_lose")
    async def test_a_lost_message_is_not_hidden(self, tmp_path: Path) -> None:
        """An update lost on its way shows: ``prev_update_id`` does not fit, or a status says so."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.prove(first)
            mark = len(session.listener.events)
            await session.lose(first)
            change = await session.change(first)
            told = (StreamEvent.INVALID, StreamEvent.DISCONNECTED)
            listener, symbol = session.listener, first.symbol

            def shown() -> bool:
                return bool(listener.breaks(symbol) or listener.statuses(symbol, *told, since=mark))

            def hidden() -> bool:
                late = listener.updates(symbol, mark)
                return any(change.bids[0] in update.bids for update in late) and not shown()

            await session.until(
                lambda: shown() or hidden(),
                "the next update, or its refusal, should have come",
                first,
            )
            assert shown(), (
                f"the venue lost an update, and the feed told of {listener.describe(symbol)}"
            )
            await session.settle()
            await session.prove(first)

    @rule(Feed, needs="can_garble")
    async def test_garbage_is_told_and_survived(self, tmp_path: Path) -> None:
        """Garbage may have been an update: the loss is told as ``INVALID`` or ``DISCONNECTED``."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.prove(first)
            mark = len(session.listener.events)
            await session.venue.garble(first)
            told = (StreamEvent.INVALID, StreamEvent.DISCONNECTED)
            await session.until(
                lambda: session.listener.statuses(first.symbol, *told, since=mark),
                "garbage came where an update was due: the feed should have said so",
                first,
            )
            await session.settle()
            await session.prove(first)

    @rule(Feed.request_snapshot, needs="can_refuse")
    async def test_a_refused_snapshot_is_tried_until_it_comes(self, tmp_path: Path) -> None:
        """A snapshot that cannot be had is told, and tried again without being asked for again."""
        async with self._session(tmp_path) as session:
            first, *_ = session.instruments
            await session.open(first)
            await session.venue.refuse_snapshots(True)
            mark = len(session.listener.events)
            session.feed.request_snapshot(first)
            listener, symbol = session.listener, first.symbol
            await session.told(
                StreamEvent.SNAPSHOT_FAILED, first, mark, "the venue refused the snapshot"
            )
            await session.venue.refuse_snapshots(False)
            await session.until(
                lambda: listener.snapshots(symbol, mark),
                "the venue gives snapshots again: the one asked for should have come",
                first,
            )

    @rule(Feed.subscribe)
    async def test_an_unknown_instrument_is_named(self, tmp_path: Path) -> None:
        """What the venue does not know is told as ``UNKNOWN_SYMBOL``; the others are streamed."""
        async with self._session(tmp_path) as session:
            unknown = session.unknown
            if unknown is None:
                pytest.skip("make_feed names no unknown instrument")
            first, *_ = session.instruments
            session.feed.subscribe([unknown])
            await session.open(first)
            await session.prove(first)
            await session.until(
                lambda: any(
                    status.reason is GapReason.UNKNOWN_SYMBOL
                    for status in session.listener.statuses(unknown.symbol)
                ),
                f"the venue does not know {unknown.symbol}: a status should say UNKNOWN_SYMBOL",
                unknown,
            )
