"""What a feed's author gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from obframe.testing.contracts.market import Market
from obframe.testing.contracts.rules import Contract
from obframe.testing.contracts.session import Session
from obframe.testing.contracts.venue import FeedRig


class FeedFactory(Contract):
    """What the author of a feed gives: a factory and flags.

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
