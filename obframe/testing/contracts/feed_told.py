"""What a feed tells: updates, snapshots, statuses and counters."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

from obframe.protocols import Feed
from obframe.testing.contracts.feed_factory import FeedFactory
from obframe.testing.contracts.rules import rule
from obframe.testing.watching import LoopWatch
from obframe.types import StreamEvent


class ToldRules(FeedFactory):
    """What a feed tells, and how."""

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
