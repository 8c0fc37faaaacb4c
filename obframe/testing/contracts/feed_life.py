"""How a feed begins and ends, and what it does when the venue fails it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from obframe.protocols import Feed
from obframe.testing.contracts.feed_factory import FeedFactory
from obframe.testing.contracts.rules import rule
from obframe.testing.listener import FeedListener
from obframe.testing.watching import Leftovers
from obframe.types import GapReason, StreamEvent


class LifeRules(FeedFactory):
    """The beginning and the end of ``run``, and trouble in between."""

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

    @rule(Feed, "can_drop")
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

    @rule(Feed, "can_drop")
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

    @rule(Feed, "can_lose")
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

    @rule(Feed, "can_garble")
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

    @rule(Feed.request_snapshot, "can_refuse")
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
