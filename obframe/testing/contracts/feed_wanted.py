"""What a feed streams: what is wanted, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from obframe.protocols import Feed
from obframe.testing.contracts.feed_factory import FeedFactory
from obframe.testing.contracts.rules import rule
from obframe.testing.listener import symbols_of
from obframe.types import StreamEvent
from obframe.vetting import FEED, check_protocol

_AT_ONCE = 0.1
"""Seconds within which a method that returns at once has returned."""


class WantedRules(FeedFactory):
    """How a feed follows what is wanted."""

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
