"""What a feed is tested against: a venue that the contract drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from obframe._core import Level
from obframe.protocols import Feed
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
        """Change the book as ``change`` does, and lose the message on its way (``can_lose``)."""
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
        instruments: Three or more that the venue knows, by the venue's own names: a feed is told no
            others, and speaks of no others.
        venue: Listening.
        unknown: One that the venue does not know; None: the rule about such is skipped.
    """

    feed: Feed
    instruments: Sequence[Instrument]
    venue: FeedVenue
    unknown: Instrument | None = None
