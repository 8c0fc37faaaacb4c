"""Several symbol sources as one: their union, and what the trouble of one does to the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest

from obframe import Instrument, ObframeError, SymbolSource
from obframe.testing.waiting import until
from obframe.union import Union, unite


def names(instruments: frozenset[Instrument]) -> str:
    return ",".join(sorted(instrument.symbol for instrument in instruments))


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


@asynccontextmanager
async def watching(
    sources: Mapping[str, SymbolSource],
) -> AsyncIterator[tuple[list[str], asyncio.Task[None]]]:
    seen: list[str] = []

    async def no_sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    async def watch() -> None:
        async for each in Union(sources, no_sleep).watch():
            seen.append(names(each))

    before = asyncio.all_tasks()
    task = asyncio.create_task(watch())
    try:
        yield seen, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ObframeError):
            await task
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_the_union_follows_each_source() -> None:
    first, second = Told("A,B"), Told()
    async with watching({"first": first, "second": second}) as (seen, task):
        await until(lambda: seen == ["A,B"])
        second.say("B,C")
        await until(lambda: seen[1:] == ["A,B,C"])
        first.say("")
        await until(lambda: seen[2:] == ["B,C"])
        first.say("C")  # wanted already
        first.say(None)
        second.say("")
        await until(lambda: seen[3:] == ["C"])
        assert not task.done()
        second.say(None)
        await until(task.done)
        task.result()


async def test_a_source_that_fails_later_keeps_its_set_and_is_watched_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = Told("A"), Told("B")
    async with watching({"good": good, "bad": bad}) as (seen, _):
        await until(lambda: seen and seen[-1] == "A,B")
        bad.say(RuntimeError("trouble"))
        await until(lambda: bad.watched == 2)
        good.say("A,C")
        await until(lambda: seen[-1] == "A,B,C")
        bad.say("D")
        await until(lambda: seen[-1] == "A,C,D")
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.message == "the symbol source bad failed, its set of symbols stands"


@pytest.mark.parametrize(
    ("last", "message"),
    [(RuntimeError("no list"), "bad failed: no list"), (None, "bad named no instruments")],
)
async def test_a_source_that_fails_at_first_is_told(last: Exception | None, message: str) -> None:
    bad = Told()
    bad.say(last)
    async with watching({"good": Told("A"), "bad": bad}) as (_, task):
        await until(task.done)
        with pytest.raises(ObframeError, match=message):
            task.result()


async def test_sources_that_end_at_once_give_all_they_want() -> None:
    sources = {name: Told(name) for name in "ABC"}
    for each in sources.values():
        each.say(None)
    async with watching(sources) as (seen, task):
        await until(task.done)
        assert seen[-1] == "A,B,C"


def test_one_source_stays_as_it_is() -> None:
    only = Told("A")
    assert unite({"only": only}) is only
