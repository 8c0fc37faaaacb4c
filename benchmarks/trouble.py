"""Sinks and an observer in trouble: a plugin that misbehaves in all ways at once.

The benchmark and the test of isolation load it, each in a folder where it counts as installed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

from obframe import Provider, Snapshot, hookimpl

Act: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Settings:
    """None."""


class Sink:
    """Does something else than to take snapshots."""

    def __init__(self, act: Act) -> None:
        self.act = act

    async def write(self, _snapshots: Sequence[Snapshot]) -> None:
        """Misbehave."""
        await self.act()


async def forever() -> None:
    """Never return; a time-out ends it."""
    await asyncio.Event().wait()


async def sleeper() -> None:
    """Block the thread."""
    time.sleep(3600)  # noqa: ASYNC251 (that is what is tested)


async def stubborn() -> None:
    """Never return, whatever comes."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def raiser() -> None:
    """Raise each time, and flood the log."""
    logging.getLogger("raiser").warning("no " * 100)
    raise RuntimeError("no")


def opener(act: Act) -> Callable[[Settings], AbstractAsyncContextManager[Sink]]:
    """Return what opens a sink that acts so."""

    @asynccontextmanager
    async def open_sink(_settings: Settings) -> AsyncIterator[Sink]:
        yield Sink(act)

    return open_sink


@asynccontextmanager
async def shut(_settings: Settings) -> AsyncIterator[Sink]:
    """Never open."""
    await asyncio.Event().wait()
    yield Sink(forever)


@hookimpl
def obframe_sinks() -> list[Provider[Sink]]:
    """Offer each, live only and with back-fill."""
    acts = (forever, sleeper, stubborn, raiser)
    offers = [
        Provider(f"{act.__name__}{kind}", "trouble", Settings, opener(act), backfill=bool(kind))
        for act in acts
        for kind in ("", "-kept")
    ]
    return [*offers, Provider("shut", "never opens", Settings, shut)]


@hookimpl
def obframe_run_started() -> None:
    """Raise."""
    raise RuntimeError("no")
