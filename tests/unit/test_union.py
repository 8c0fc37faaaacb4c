"""Several symbol sources as one: their union, and what the trouble of one does to the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from obframe import Instrument, ObframeError
from obframe.testing.symbols import Watch, watching
from obframe.testing.waiting import until
from obframe.union import Union, unite


class Told:
    """A source that yields, raises or ends as the test says."""

    def __init__(self, *sets: str) -> None:
        self._next: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.watched = 0
        for each in sets:
            self.say(each)

    def say(self, what: str | Exception | None) -> None:
        self._next.put_nowait(what)

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        self.watched += 1
        while (what := await self._next.get()) is not None:
            if isinstance(what, Exception):
                raise what
            yield frozenset(Instrument(name) for name in what.split(",") if name)


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def united(**sources: Told) -> AsyncIterator[Watch]:
    """Watch several; nothing may be left running."""
    before = asyncio.all_tasks()
    async with watching(Union(sources, 0.05, no_sleep)) as watch:
        yield watch
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_the_union_follows_each_source() -> None:
    first, second = Told("A,B"), Told()
    async with united(first=first, second=second) as watch:
        await until(lambda: watch.told == ["A,B"])
        second.say("B,C")
        await until(lambda: watch.told[1:] == ["A,B,C"])
        first.say("")
        await until(lambda: watch.told[2:] == ["B,C"])
        first.say("C")  # wanted already
        first.say(None)
        second.say("")
        await until(lambda: watch.told[3:] == ["C"])
        assert not watch.task.done()
        second.say(None)
        await until(watch.task.done)
        watch.task.result()


async def test_a_source_that_fails_later_keeps_its_set_and_is_watched_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = Told("A"), Told("B")
    async with united(good=good, bad=bad) as watch:
        await until(lambda: watch.told and watch.told[-1] == "A,B")
        bad.say(RuntimeError("trouble"))
        await until(lambda: bad.watched == 2)
        good.say("A,C")
        await until(lambda: watch.told[-1] == "A,B,C")
        bad.say("D")
        await until(lambda: watch.told[-1] == "A,C,D")
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.message == "the symbol source bad failed, its set of symbols stands"


@pytest.mark.parametrize(
    ("last", "message"),
    [(RuntimeError("no list"), "bad failed: no list"), (None, "bad named no instruments")],
)
async def test_a_source_that_fails_at_first_is_told(last: Exception | None, message: str) -> None:
    bad = Told()
    bad.say(last)
    async with united(good=Told("A"), bad=bad) as watch:
        await until(watch.task.done)
        with pytest.raises(ObframeError, match=message):
            watch.task.result()


async def test_sources_that_end_at_once_give_all_they_want() -> None:
    sources = {name: Told(name) for name in "ABC"}
    for each in sources.values():
        each.say(None)
    async with united(**sources) as watch:
        await until(watch.task.done)
        assert watch.told[-1] == "A,B,C"


async def test_the_first_set_waits_for_every_source_but_not_for_long() -> None:
    slow, silent = Told(), Told()
    async with watching(Union({"one": Told("A"), "slow": slow}, 60.0)) as watch:
        await asyncio.sleep(0.05)
        assert watch.told == []
        slow.say("B")
        await watch.until("A,B")
    async with united(one=Told("A"), silent=silent) as watch:
        await watch.until("A")


async def test_a_second_watch_loses_no_set_of_the_first() -> None:
    first, second = Told("A"), Told("B")
    union = Union({"first": first, "second": second}, 0.05)
    async with watching(union) as watch:
        await watch.until("A,B")
    first.say("A,C")
    async with watching(union) as watch:
        await watch.until("A,B,C")


def test_one_source_stays_as_it_is() -> None:
    only = Told("A")
    assert unite({"only": only}) is only
