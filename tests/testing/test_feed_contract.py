"""The feed contract holds for a good feed, and each of its rules catches one that breaks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from obframe import Instrument
from obframe.testing.contracts import FeedContract, FeedRig, Rule

from .broken_feeds import BROKEN, INSTRUMENTS
from .catching import Broken, cases, check_caught
from .feeds import MemoryFeed, MemoryVenue


class TestMemory(FeedContract):
    can_drop = can_lose = can_garble = can_refuse = True
    feed: type[MemoryFeed] = MemoryFeed

    @asynccontextmanager
    async def make_feed(self, tmp_path: Path) -> AsyncIterator[FeedRig]:
        venue = MemoryVenue()
        yield FeedRig(self.feed(venue), INSTRUMENTS, venue, Instrument("NOSUCH"))


class Hasty(TestMemory):
    patience = prompt = 0.3
    quiet = 0.05
    most_blocking = 0.15
    __test__ = False


@pytest.mark.parametrize(("rule", "broken"), cases(BROKEN, FeedContract))
def test_the_contract_catches(rule: Rule, broken: Broken, tmp_path: Path) -> None:
    contract = Hasty()
    contract.feed = broken.part
    check_caught(contract, rule, broken.words, tmp_path)
