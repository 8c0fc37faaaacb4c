"""Carries out retention beside the recording: at every interval, what is past its time goes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from obframe.clock import Clock, Missed
from obframe.feeds import name_some
from obframe.protocols import Measurable, Storage
from obframe.retention import plan_storage
from obframe.settings import RetentionSettings, Size
from obframe.telling import Telling
from obframe.types import GapReason
from obframe.writer import StorageWriter

logger = logging.getLogger("obframe.recorder")

_AGAIN = 5.0
"""Seconds after which a pass that could not do all it wanted is repeated at the latest."""
_LEAP = 3600
"""Seconds of a leap ahead for which the clock is doubted, and for which nothing is deleted then."""


class Retainer:
    """Deletes what the storage no longer keeps, and tells sinks what they lose by it.

    Args:
        settings: How long rows are kept, and how much disk they may take.
        storage: Where they lie.
        writer: Calls the storage in its thread, between what it stores.
        telling: The sinks.
        is_resuming: Tells of a symbol whether it is to be left alone yet: its newest row still has
            to tell where the time since began.
        clock: Where time comes from.

    Attributes:
        counters: ``retention_failures``, and ``retention_by_bytes``: seconds that went to
            ``max_bytes``.
    """

    def __init__(
        self,
        settings: RetentionSettings,
        storage: Storage,
        writer: StorageWriter,
        telling: Telling,
        *,
        is_resuming: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._writer = writer
        self._telling = telling
        self._is_resuming = is_resuming
        self._clock = clock
        self._doubted_until = 0.0  # by the monotonic clock
        self._has_garbage = False  # rows were deleted whose space was not given back at once
        self.counters: Counter[str] = Counter()

    async def run(self, first_wanted: asyncio.Event) -> None:
        """Delete at every interval until cancelled; return at once when all is kept for ever.

        Args:
            first_wanted: Set when it is known what is recorded; nothing is deleted before.
        """
        settings = self._settings
        if not (settings.max_age or settings.max_bytes or settings.overrides):
            return
        await first_wanted.wait()
        if settings.max_bytes and not isinstance(self._storage, Measurable):
            logger.error("retention.max_bytes is of no effect: this storage tells no sizes")
        interval = float(settings.interval)
        while True:
            complete = False
            try:
                complete = await self.delete_old()
            except Exception as error:
                self.counters["retention_failures"] += 1
                logger.error("old rows could not be deleted, tried again later: %s", error)
            await asyncio.sleep(interval if complete else min(interval, _AGAIN))

    def doubt_clock(self, missed: Missed) -> None:
        """Keep what a clock that leapt ahead calls old, until it has had time to be set right."""
        leapt = missed.end - missed.start + 1
        if missed.reason is GapReason.CLOCK_STEP and leapt >= _LEAP:
            self._doubted_until = self._clock.monotonic() + _LEAP
            logger.warning(
                "retention: the clock leapt ahead by %d s; in case it is wrong, nothing is deleted "
                "for an hour",
                leapt,
            )

    async def delete_old(self) -> bool:
        """Delete what is not kept any longer; return whether every symbol could have its turn.

        Raises:
            StorageError: Something cannot be read or deleted, or its space not be given back.
        """
        if self._clock.monotonic() < self._doubted_until:
            return False
        storage, call = self._storage, self._writer.call
        stored = await call(storage.symbols)
        symbols = [symbol for symbol in stored if not self._is_resuming(symbol)]
        complete = len(symbols) == len(stored)
        # The cap takes the same seconds of all symbols, so it waits until all can have their turn.
        kept = self._settings if complete else replace(self._settings, max_bytes=Size(0))
        plan = partial(plan_storage, storage, symbols, kept, self._clock.time())
        cuts = await call(plan)
        if self._has_garbage and any(cut.cause == "bytes" for cut in cuts):
            # What went before still takes up space: while it does, rows would go for nothing.
            await self._reclaim()
            cuts = await call(plan)
        # Before this second nothing is left of any symbol; after it, symbols go one by one.
        line = 0 if self._settings.overrides else min((cut.before for cut in cuts), default=0)
        untold = await call(self._telling.find_untold, line)
        for cut in cuts:
            self._has_garbage = True
            await call(storage.delete_before, cut.symbol, cut.before)
            if cut.seconds and cut.before > line:
                self._telling.lose(cut.symbol, max(cut.before - cut.seconds, line), cut.before)
        self._telling.expire(untold, line)
        by_bytes = [cut for cut in cuts if cut.cause == "bytes"]
        if by_bytes:
            seconds = sum(cut.seconds for cut in by_bytes)
            self.counters["retention_by_bytes"] += seconds
            logger.warning(
                "the storage nears retention.max_bytes (%s): deleted %d s of %s, to %d",
                self._settings.max_bytes, seconds,
                name_some([cut.symbol for cut in by_bytes]), max(cut.before for cut in by_bytes),
            )  # fmt: skip
            await self._reclaim()
        return complete

    async def _reclaim(self) -> None:
        if isinstance(self._storage, Measurable):
            # Not by the writer's thread: rows must not wait for files being rewritten.
            await asyncio.to_thread(self._storage.reclaim)
        self._has_garbage = False
