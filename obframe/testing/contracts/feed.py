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
                yield FeedRig(feed, [Instrument("BTCUSDT"), Instrument("ETHUSDT")], venue)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from obframe._core import Level
from obframe.protocols import Feed
from obframe.testing.contracts.rules import Contract
from obframe.types import Instrument


class FeedVenue:
    """A venue on loopback that a contract drives; its author subclasses it.

    Its books are empty at first. ``change`` is all that every venue must have; the other methods
    are each needed where the contract's flag of the same meaning is set.
    """

    async def change(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change the instrument's book, and send the change to whoever is subscribed to it.

        Args:
            instrument: Whose book.
            bids: ``(price, quantity)`` texts: absolute quantities by price; a quantity of zero
                deletes the level.
            asks: The same for asks.
        """
        raise NotImplementedError(f"{type(self).__name__}.change is needed to test the feed")

    async def drop(self) -> None:
        """Break every connection, as a network does (``can_drop``). New ones are welcome."""
        raise NotImplementedError(f"{type(self).__name__}.drop is needed by can_drop")

    async def lose(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        """Change the book as ``change`` does, but have the message lost on its way (``can_lose``)."""
        raise NotImplementedError(f"{type(self).__name__}.lose is needed by can_lose")

    async def garble(self, instrument: Instrument) -> None:
        """Send what is no message of the venue's language where one is due (``can_garble``)."""
        raise NotImplementedError(f"{type(self).__name__}.garble is needed by can_garble")

    async def refuse_snapshots(self, refused: bool) -> None:
        """Refuse every request of a snapshot from now on, or no longer (``can_refuse``)."""
        raise NotImplementedError(f"{type(self).__name__}.refuse_snapshots is needed by can_refuse")


@dataclass(frozen=True, slots=True)
class FeedRig:
    """A feed and the venue that it speaks to.

    Attributes:
        feed: Not running, nothing subscribed.
        instruments: Three or more that the venue knows.
        venue: Listening.
        unknown: One that the venue does not know; None: the rule about such is skipped.
    """

    feed: Feed
    instruments: Sequence[Instrument]
    venue: FeedVenue
    unknown: Instrument | None = None


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
