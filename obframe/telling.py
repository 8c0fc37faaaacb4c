"""All sinks of one run: started together, given what is sampled and stored, ended within a time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from obframe._core import Snapshot
from obframe.backfill import StoredOutbox
from obframe.errors import ObframeError, StorageError
from obframe.outbox import LiveOutbox
from obframe.positions import Positions
from obframe.protocols import Storage
from obframe.settings import RecorderSettings
from obframe.sinks import SinkPart, SinkRunner
from obframe.types import Record

logger = logging.getLogger("obframe.sinks")

_OPENING = 1.0
"""Seconds in which a sink may refuse the start; later it is a failure of the sink's own."""


class Telling:
    """Tells every sink, none of which holds up the recorder or another.

    Args:
        parts: The sinks by name.
        storage: Where rows are read back from, and, if it has a place, positions kept.
        settings: Bounds and times.
        now: The present Unix second.

    Raises:
        StorageError: A delivery position cannot be read.

    Attributes:
        abandoned: Names of the sinks that had not ended when their time was over.
    """

    def __init__(
        self,
        parts: Mapping[str, SinkPart],
        storage: Storage,
        settings: RecorderSettings,
        *,
        now: int,
    ) -> None:
        self._settings = settings
        self._runners: list[SinkRunner] = []
        self._live: list[LiveOutbox] = []
        self._stored: list[StoredOutbox] = []
        self.abandoned: list[str] = []
        positions = Positions(_state_directory(storage, settings))
        for name, part in parts.items():
            counters: Counter[str] = Counter()
            outbox: LiveOutbox | StoredOutbox
            if part.backfill:
                if positions.path(name) is None:
                    logger.warning(
                        "sink %s: the storage has no place for its delivery position, which ends "
                        "with this run; recorder.state names a directory for it", name,
                    )  # fmt: skip
                outbox = StoredOutbox(
                    name,
                    storage,
                    positions,
                    rows=settings.sink_queue_rows,
                    now=now,
                    start=settings.sink_start,
                    counters=counters,
                )
                self._stored.append(outbox)
            else:
                outbox = LiveOutbox(settings.sink_queue_rows, counters)
                self._live.append(outbox)
            self._runners.append(SinkRunner(name, part, outbox, settings, counters))

    @property
    def wants_live(self) -> bool:
        """Whether any sink takes snapshots as they are sampled."""
        return bool(self._live)

    async def start(self) -> None:
        """Open all sinks, each in its thread; recording does not wait for one that is slow.

        Raises:
            ObframeError: A sink refuses its settings or its place.
        """
        for runner in self._runners:
            runner.start()
        opened = [runner.opened for runner in self._runners]
        try:
            await _wait(opened, min(_OPENING, self._settings.sink_timeout))
        except BaseException:
            for runner in self._runners:
                runner.close()
            raise
        refused = [one.exception() for one in opened if not one.cancel() and one.exception()]
        if refused:
            await self.close(1.0)
            error = refused[0]
            assert isinstance(error, ObframeError)
            raise error

    def offer_live(self, snapshots: Sequence[Snapshot]) -> None:
        """Hand over one second's snapshots as they were sampled. Never blocks."""
        for outbox in self._live:
            outbox.offer(snapshots)

    def offer_stored(self, records: Sequence[Record], refused: Collection[int]) -> None:
        """Hand over rows that the storage has, whole seconds in order. Never blocks.

        Args:
            records: The rows.
            refused: Seconds in which the storage had some before.
        """
        for outbox in self._stored:
            outbox.offer(records, refused)

    def watch(self) -> None:
        """Name what is stuck; called once a second."""
        for runner in self._runners:
            runner.watch()

    def find_untold(self, before: int) -> list[int | None]:
        """Return, for each sink with back-fill, its first stored second before this one not told.

        Blocks.

        Raises:
            StorageError: The storage cannot be read.
        """
        return [outbox.find_untold(before) for outbox in self._stored]

    def expire(self, untold: Sequence[int | None], before: int) -> None:
        """Count as lost what ``find_untold`` found and retention has deleted since."""
        for outbox, first in zip(self._stored, untold, strict=True):
            if first is not None:
                outbox.expire(first, before)

    def lose(self, symbol: str, first: int, before: int) -> None:
        """Count as lost what retention has deleted of one symbol before it was told."""
        for outbox in self._stored:
            outbox.lose(symbol, first, before)

    async def close(self, timeout: float) -> None:
        """Let each sink be told what waits and be closed, for so long."""
        for runner in self._runners:
            runner.close()
        await _wait([runner.finished for runner in self._runners], timeout)
        for runner in self._runners:
            self._tell_end(runner)

    def _tell_end(self, runner: SinkRunner) -> None:
        name, counters = runner.name, runner.counters
        if not runner.finished.done():
            runner.abandon()
            self.abandoned.append(f"sink {name}")
            logger.error("sink %s has not ended in time and is left behind", name)
        if counters["dropped"]:
            counts = counters["dropped"], counters["written"]
            logger.warning("sink %s: %d snapshots dropped, %d written", name, *counts)
        if runner.outbox.lag:
            logger.warning(
                "sink %s is %d s behind: the next run goes on there", name, runner.outbox.lag
            )

    def counters(self) -> list[tuple[str, Mapping[str, int]]]:
        """Return the counters of each sink by its part's name, with ``lag_seconds``."""
        return [
            (f"sink.{runner.name}", {**runner.counters, "lag_seconds": runner.outbox.lag})
            for runner in self._runners
        ]

    def describe(self) -> str:
        """Say what is the matter with each sink that is behind or in trouble."""
        told = ""
        for runner in self._runners:
            lag = runner.outbox.lag
            if runner.trouble or lag > 1:
                told += f", sink {runner.name} {lag} s behind"
                told += f" ({runner.trouble})" if runner.trouble else ""
        return told


async def _wait(futures: Sequence[Future[None]], timeout: float) -> None:
    """Wait until all are done, but no longer; they belong to other threads."""
    if futures:
        await asyncio.to_thread(wait, futures, timeout)


def _state_directory(storage: Storage, settings: RecorderSettings) -> Path | None:
    if settings.state:
        directory = Path(settings.state).expanduser()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"recorder.state: {directory} cannot be made: {error}"
            raise StorageError(reason, str(directory)) from error
        return directory
    beside = getattr(storage, "state_directory", None)
    return None if beside is None else Path(beside) / "sinks"
