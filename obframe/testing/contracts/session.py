"""A feed at work under a contract: it runs, is listened to, and its venue is driven."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from obframe._core import DepthSnapshot, Level
from obframe.testing.contracts.market import Change, Market
from obframe.testing.contracts.venue import FeedRig
from obframe.testing.listener import FeedListener
from obframe.testing.waiting import until
from obframe.types import Instrument, StreamEvent


class Session:
    """Drives one feed and its venue.

    Args:
        rig: The feed under test and its venue.
        market: Makes up what happens there.
        patience: Seconds to wait for what must happen.
        quiet: Seconds to wait for what must not happen.

    Attributes:
        feed: Under test.
        venue: That it speaks to.
        instruments: The three that the rules use.
        unknown: One that the venue does not know, if any.
        listener: Hears all that the feed emits.
        task: The feed's ``run``; None while it is not called.
    """

    def __init__(
        self,
        rig: FeedRig,
        market: Market,
        patience: float,
        quiet: float,
    ) -> None:
        self.feed = rig.feed
        self.venue = rig.venue
        self.instruments = rig.instruments[:3]
        self.unknown = rig.unknown
        self.listener = FeedListener()
        self.task: asyncio.Task[None] | None = None
        self._market = market
        self._patience = patience
        self._quiet = quiet

    # -- the feed --------------------------------------------------------------------------------

    def start(self) -> asyncio.Task[None]:
        """Call the feed's ``run``."""
        self.task = asyncio.create_task(self.feed.run(self.listener), name="feed.run")
        return self.task

    async def open(self, *instruments: Instrument) -> None:
        """Subscribe the instruments, run the feed, and wait until it says ``SUBSCRIBED``."""
        self.feed.subscribe(list(instruments))
        self.start()
        await self.subscribed(*instruments)

    async def subscribed(self, *instruments: Instrument) -> None:
        """Wait until the streams of these are open."""
        for instrument in instruments:
            await self._opened(instrument)

    async def _opened(self, instrument: Instrument) -> None:
        symbol = instrument.symbol
        what = f"the feed should have said SUBSCRIBED of {symbol}, which is wanted and trades"
        await self.until(lambda: self.listener.stream(symbol) is not None, what, instrument)

    async def reopened(self, instrument: Instrument, since: int) -> None:
        """Wait until the stream was opened after the first ``since`` events."""
        await self.told(
            StreamEvent.SUBSCRIBED, instrument, since, "wanted, and run anew or subscribed again"
        )

    async def stop(self, patience: float) -> bool:
        """Cancel ``run``; return whether it ended within so many seconds."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=patience)
        return self.task.done()

    # -- the venue -------------------------------------------------------------------------------

    async def change(self, instrument: Instrument) -> Change:
        """Have the instrument's book change at the venue."""
        return await self._market.change(self.venue.change, instrument)

    async def lose(self, instrument: Instrument) -> Change:
        """Have it change, with the message lost."""
        return await self._market.change(self.venue.lose, instrument)

    async def arrived(self, instrument: Instrument, change: Change, since: int = 0) -> None:
        """Wait until an update with this change was emitted."""
        level = change.bids[0]
        await self.until(
            lambda: any(
                level in update.bids for update in self.listener.updates(instrument.symbol, since)
            ),
            f"an update of {instrument.symbol} with the bid {level} should have come, "
            "as the venue sent it",
            instrument,
        )

    # -- what must come about --------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], what: str, *about: Instrument) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: ``run`` ended, or the condition did not come about.
        """
        __tracebackhide__ = True
        ended = False

        def over() -> bool:
            nonlocal ended
            if condition():
                return True
            ended = self.task is not None and self.task.done()
            return ended

        try:
            await until(over, self._patience)
        except TimeoutError:
            told = "; ".join(self.listener.describe(each.symbol) for each in about)
            text = f"{what}, and did not within {self._patience:g} s"
            raise AssertionError(f"{text}. The feed told of {told}" if told else text) from None
        if ended:
            raise AssertionError(f"{what}, but run() {self._describe_end()}")

    async def told(self, event: StreamEvent, about: Instrument, since: int, when: str) -> None:
        """Wait until a status was told after the first ``since`` events."""
        symbol = about.symbol
        await self.until(
            lambda: self.listener.statuses(symbol, event, since=since),
            f"{when}: the feed should have said {event.name} of {symbol}",
            about,
        )

    async def snapshot(self, instrument: Instrument, since: int) -> DepthSnapshot:
        """Wait for a snapshot after the first ``since`` events."""
        symbol = instrument.symbol
        await self.until(
            lambda: self.listener.snapshots(symbol, since),
            f"the snapshot of {symbol} that was asked for should have come",
            instrument,
        )
        return self.listener.snapshots(symbol, since)[-1]

    async def settle(self) -> None:
        """Let what is under way arrive."""
        await asyncio.sleep(self._quiet)

    async def prove(self, instrument: Instrument) -> None:
        """Ask for a snapshot, and wait until the book that follows is the venue's.

        Raises:
            AssertionError: It is not; says where that got stuck.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while not await self._prove_once(instrument):
            if loop.time() > deadline:
                raise AssertionError(f"streams of {instrument.symbol} are opened anew for ever")

    async def _prove_once(self, instrument: Instrument) -> bool:
        """Try; a stream that is opened anew in the middle is no fault, and makes it try again."""
        await self.subscribed(instrument)
        mark = len(self.listener.events)
        self.feed.request_snapshot(instrument)
        await self.snapshot(instrument, mark)
        await self.subscribed(instrument)
        opened = self._streams(instrument)
        change = await self.change(instrument)
        await self.equal(
            instrument,
            f"after the snapshot and an update with the bid {change.bids[0]}",
            lambda: self._streams(instrument) > opened,
        )
        return self.is_true(instrument)

    def _streams(self, instrument: Instrument) -> int:
        return len(self.listener.statuses(instrument.symbol, StreamEvent.SUBSCRIBED))

    async def equal(
        self,
        instrument: Instrument,
        when: str,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait until the book that the feed's events give is the venue's, or something else is.

        Raises:
            AssertionError: It is not; says what differs.
        """
        what = f"{when}, the book of {instrument.symbol} should have become the venue's"
        try:
            await self.until(lambda: self.is_true(instrument) or unless(), what, instrument)
        except AssertionError as error:
            raise AssertionError(f"{error}. {self.compare(instrument)}") from None

    def is_true(self, instrument: Instrument) -> bool:
        """Tell whether the book that the feed's events give is the venue's."""
        book = self.listener.book(instrument.symbol)
        if book is None:
            return False
        return (book.bids(), book.asks()) == self._market.truth(instrument)

    def truth(self, instrument: Instrument) -> tuple[list[Level], list[Level]]:
        """Return both sides of the book as it is at the venue, best first."""
        return self._market.truth(instrument)

    def compare(self, instrument: Instrument) -> str:
        """Say how the book that the feed's events give differs from the venue's."""
        book = self.listener.book(instrument.symbol)
        if book is None:
            return "No snapshot joins the updates: see BookSynchronizer for the one rule"
        bids, asks = self._market.truth(instrument)
        return f"Bids: {book.bids()}, true: {bids}; asks: {book.asks()}, true: {asks}"

    def _describe_end(self) -> str:
        assert self.task is not None
        if self.task.cancelled():
            return "was cancelled"
        error = self.task.exception()
        return f"raised {type(error).__name__}: {error}" if error else "returned"
