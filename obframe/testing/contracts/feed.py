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

from obframe.testing.contracts.feed_life import LifeRules
from obframe.testing.contracts.feed_told import ToldRules
from obframe.testing.contracts.feed_wanted import WantedRules


class FeedContract(LifeRules, ToldRules, WantedRules):
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
