"""The second's tick: scheduled on the monotonic clock, labelled by the wall clock."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from obframe.types import GapReason

STEP_THRESHOLD = 0.5
"""Seconds by which the wall clock must part from the monotonic one to count as a step."""


class Clock(Protocol):
    """Where time comes from; injected so that tests own it."""

    def time(self) -> float:
        """Return the wall clock in Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that is never set and stands still in suspend."""
        ...

    def boottime(self) -> float:
        """Return seconds of a clock that is never set and goes on in suspend."""
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Wait until ``monotonic()`` has reached the deadline."""
        ...


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        """Return the wall clock in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return CLOCK_BOOTTIME in seconds where the system has it, else the monotonic clock."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    async def sleep_until(self, deadline: float) -> None:
        """Wait until ``monotonic()`` has reached the deadline."""
        left = deadline - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)


class Missed(NamedTuple):
    """Seconds for which no tick can be given, both ends inside it."""

    start: int
    end: int
    reason: GapReason
    detail: str


class Tick(NamedTuple):
    """One second to account for.

    Attributes:
        second: The label, Unix seconds; None when there is only a loss to report.
        lag: Seconds of wall clock from the label to now.
        missed: The seconds lost since the tick before, if any.
        relived: The wall clock was set back: the label, or what is missed, was given before.
        resync: Time was lost (step forward, suspend) in a way that leaves no book proven.
    """

    second: int | None
    lag: float
    missed: Missed | None = None
    relived: bool = False
    resync: bool = False


async def ticks(clock: Clock, late_tolerance: float = 0.5) -> AsyncIterator[Tick]:
    """Yield every wall-clock second once, on time, with an account of those that were lost.

    The schedule is absolute (no drift): each deadline is computed from the label, not from the
    tick before. The offset between wall and monotonic clock is taken anew at every tick, so that a
    slewed wall clock is followed; when it jumps, that is a step.

    Args:
        clock: Where time comes from.
        late_tolerance: Seconds after its label within which a tick is still given.
    """
    offset = clock.time() - clock.monotonic()
    asleep = clock.boottime() - clock.monotonic()
    label = math.floor(clock.time()) + 1
    newest = label - 1
    while True:
        await clock.sleep_until(label - offset)
        wall, monotonic, boottime = clock.time(), clock.monotonic(), clock.boottime()
        step = (wall - monotonic) - offset
        slept = (boottime - monotonic) - asleep
        offset, asleep = wall - monotonic, boottime - monotonic
        now = math.floor(wall)
        if step >= STEP_THRESHOLD:
            if slept >= STEP_THRESHOLD:
                reason, detail = GapReason.SUSPENDED, f"the machine slept for {slept:.1f} s"
            else:
                reason, detail = GapReason.CLOCK_STEP, f"the wall clock stepped by {step:+.1f} s"
            start = max(label, newest + 1)
            missed = Missed(start, now, reason, detail) if start <= now else None
            yield Tick(None, wall - now, missed, resync=True)
            newest = max(newest, now)
            label = now + 1
        elif step <= -STEP_THRESHOLD and now < newest:
            detail = f"the wall clock stepped by {step:+.1f} s; these seconds were recorded before"
            again = Missed(now + 1, newest, GapReason.CLOCK_STEP, detail)
            yield Tick(None, 0.0, again, relived=True)
            label = now + 1
        elif wall < label:
            continue  # the wall clock was slewed back a little
        else:
            late = wall - now > late_tolerance
            lost_to = now if late else now - 1
            missed = None
            if label <= lost_to:
                detail = f"the tick came {wall - label:.2f} s late"
                if lost_to > newest:
                    start = max(label, newest + 1)
                    missed = Missed(start, lost_to, GapReason.STALLED, detail)
            if late:
                yield Tick(None, wall - label, missed)
            else:
                yield Tick(now, wall - now, missed, relived=now <= newest)
            newest = max(newest, now)
            label = now + 1
