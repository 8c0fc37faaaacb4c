"""Every stored row for a sink, from a position on: queued as it is stored, or read back.

The recorder's event loop puts in, the sink's thread takes out; neither waits for the other.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, Literal

from obframe.errors import StoreCorrupt
from obframe.outbox import Batch, Bell
from obframe.positions import Positions
from obframe.protocols import Storage
from obframe.query import decode
from obframe.types import MIN_TIMESTAMP, Record

logger = logging.getLogger("obframe.sinks")

_WINDOW_ROWS: Final = 10_000
"""Rows read back at once: some 15 MB."""
_SAVE_EVERY: Final = 1.0
_BREATH: Final = 1.0
"""Most seconds that reading back pauses between two windows."""
_by_second = attrgetter("timestamp")


class StoredOutbox:
    """Every stored row, at least once, in order, from a position on that outlives the process.

    What the storage has acknowledged is queued as it comes. Of what lies before the queue (the
    time before this run, or what a full queue let go) windows are read back from the storage.
    ``position`` says up to where all is told, ``base`` after which second all is in the queue;
    while the one lies before the other there is something to read back. Both are seconds that the
    storage has done with, so that nothing can come into being behind them.

    Args:
        name: The sink's.
        storage: Where rows are read back from.
        positions: Where the position is kept.
        rows: Rows held at most; one second is always held.
        now: The present Unix second: later ones are this run's.
        start: Where a sink without a position begins.
        counters: Counts ``backfilled``, ``spilled``, ``lost_seconds``, ``undecodable``,
            ``unreadable`` stretches of a symbol, ``position_failures``.

    Raises:
        StorageError: The position cannot be read or written.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        positions: Positions,
        *,
        rows: int,
        now: int,
        start: Literal["now", "oldest"],
        counters: Counter[str],
    ) -> None:
        self.bell = Bell()
        self._name = name
        self._storage = storage
        self._positions = positions
        self._rows = rows
        self._counters = counters
        self._lock = threading.Lock()
        self._queue: deque[list[Record]] = deque()
        self._held = 0
        self._base = self._newest = now
        kept = positions.load(name)
        if kept is None:
            kept = now if start == "now" else 0
        self._position = min(kept, now)
        self._saved: int | None = None
        self._save_next = 0.0
        self._save_trouble = False
        self._horizon: int | None = None
        self._window: deque[list[Record]] = deque()  # read back, one second each
        self._window_end = 0
        self._symbols: tuple[int, list[str]] = (-1, [])
        self._looked_at = 0
        self._damaged: set[str] = set()

    @property
    def position(self) -> int:
        """The second up to which every stored row was told."""
        return self._position

    @property
    def lag(self) -> int:
        """Seconds between the newest stored row and the position."""
        return max(self._newest - self._position, 0)

    # -- the recorder's side ---------------------------------------------------------------------

    def offer(self, records: Sequence[Record], refused: Collection[int] = ()) -> None:
        """Put in rows that the storage has acknowledged, whole seconds in order. Never blocks.

        Args:
            records: The rows.
            refused: Seconds in which the storage had some rows before: these are read back.
        """
        with self._lock:
            for second, rows in groupby(records, _by_second):
                self._newest = max(self._newest, second)
                if self._horizon is None or second <= self._horizon or second in refused:
                    # Rows of an earlier run may stand there: the storage knows what is true.
                    while self._queue:
                        self._spill()
                    self._base = max(self._base, second)
                    continue
                self._base = max(self._base, self._horizon)  # the clock has passed it
                self._queue.append(list(rows))
                self._held += len(self._queue[-1])
            while self._held > self._rows and len(self._queue) > 1:
                self._spill()
        self.bell.ring()

    def _spill(self) -> None:
        gone = self._queue.popleft()
        self._held -= len(gone)
        self._base = max(self._base, gone[0].timestamp)
        self._counters["spilled"] += len(gone)

    def find_untold(self, before: int) -> int | None:
        """Return the first second before this one with stored rows that were not told. Blocks.

        Raises:
            StorageError: The storage cannot be read.
        """
        position = self._position
        if position >= min(before - 1, self._base):
            return None
        last = min(before - 1, self._base)
        return self._first_row(self._storage.symbols(), position + 1, last)

    def expire(self, first: int, before: int) -> None:
        """Take note that rows were deleted that had not been told, from ``first`` on."""
        with self._lock:
            first, last = max(first, self._position + 1), min(before - 1, self._base)
            if first > last:
                return
            self._position = last
            self._counters["lost_seconds"] += last - first + 1
        logger.error(
            "sink %s: retention deleted the rows of %d to %d before they could be delivered; they "
            "are lost to it (retention.max_age)",
            self._name, first, last,
        )  # fmt: skip

    def lose(self, symbol: str, first: int, before: int) -> None:
        """Take note that rows of one symbol, from ``first`` on, were deleted; others go on."""
        first, last = max(first, self._position + 1), min(before - 1, self._base)
        if first <= last:
            self._counters["lost_seconds"] += last - first + 1
            logger.error(
                "sink %s: retention deleted rows of %s from %d to %d before they could be "
                "delivered; they are lost to it",
                self._name, symbol, first, last,
            )  # fmt: skip

    # -- the sink's side -------------------------------------------------------------------------

    async def next(self, rows: int) -> Batch | None:
        """Return the oldest rows not told yet, whole seconds of about so many rows.

        Raises:
            StorageError: Rows cannot be read back.
        """
        if self._horizon is None:
            horizon = await asyncio.to_thread(self._find_horizon)
            with self._lock:
                self._horizon = horizon
                self._newest = max(self._newest, self._base)
        while True:
            with self._lock:
                position, base = self._position, self._base
                queued = _take(self._queue, rows) if position >= base else None
            if queued is not None:
                self._window.clear()
                return self._batch(queued) if queued else None
            while self._window and self._window[0][0].timestamp <= position:
                self._window.popleft()
            if self._window:
                taken = _take(self._window, rows)
                is_all = taken[-1].timestamp == self._window[-1][0].timestamp
                return self._batch(taken, self._window_end if is_all else None, stored=True)
            began = time.monotonic()
            found, end = await asyncio.to_thread(self._read_window, position, base)
            if not found:
                self._advance(end)
                continue
            self._window.extend(list(each) for _, each in groupby(found, _by_second))
            self._window_end = end
            await asyncio.sleep(min(time.monotonic() - began, _BREATH))

    def _batch(
        self, records: Sequence[Record], second: int | None = None, *, stored: bool = False
    ) -> Batch:
        snapshots = []
        last = records[-1].timestamp
        for row in map(decode, records):
            if row.snapshot is not None:
                snapshots.append(row.snapshot)
            elif row.timestamp > self._looked_at:  # the same comes again when the sink fails
                self._counters["undecodable"] += 1
                logger.error("sink %s: %s:%d is passed over: %s", self._name, *row[:2], row.error)
        self._looked_at = max(self._looked_at, last)
        return Batch(snapshots, last if second is None else second, stored)

    def told(self, batch: Batch) -> None:
        """Move the position past it."""
        if batch.stored:
            self._counters["backfilled"] += len(batch.snapshots)
        self._advance(batch.second)

    def _advance(self, second: int) -> None:
        with self._lock:
            self._position = max(self._position, second)
            while self._queue and self._queue[0][0].timestamp <= self._position:
                self._held -= len(self._queue.popleft())

    def give_up(self, batch: Batch) -> bool:  # noqa: ARG002 (of an interface)
        """Do nothing: it comes again."""
        return False

    async def save(self, *, now: bool = False) -> None:
        """Keep the position on disk, at most once a second; a failure is told and passes."""
        if self._position == self._saved or not (now or time.monotonic() >= self._save_next):
            return
        self._save_next = time.monotonic() + _SAVE_EVERY
        position = self._position
        try:
            await asyncio.to_thread(self._positions.save, self._name, position)
        except OSError as error:
            self._counters["position_failures"] += 1
            if not self._save_trouble:
                logger.error("sink %s: its position cannot be kept: %s", self._name, error)
            self._save_trouble = True
        else:
            self._saved, self._save_trouble = position, False

    def close(self) -> None:
        """Do nothing: what is left is told in the next run."""

    # -- reading back; blocks --------------------------------------------------------------------

    def _find_horizon(self) -> int:
        """Return the newest second of any symbol: up to it rows may be of earlier runs."""
        latest = (self._storage.latest(symbol) for symbol in self._storage.symbols())
        return max((record.timestamp for record in latest if record is not None), default=0)

    def _read_window(self, position: int, base: int) -> tuple[list[Record], int]:
        """Read the next rows in ``position < second <= base``.

        Returns:
            The rows by second, and up to where these are all.
        """
        known, symbols = self._symbols
        if known != base:
            symbols = self._storage.symbols()
            self._symbols = base, symbols
        start = max(position + 1, MIN_TIMESTAMP)
        end = min(max(start + _WINDOW_ROWS // max(len(symbols), 1) - 1, start), base)
        found: list[Record] = []
        for symbol in symbols:
            try:
                found += self._storage.scan(symbol, start, end)
            except StoreCorrupt as error:
                self._pass_over(symbol, start, end, error)
        if found:
            found.sort(key=_by_second)
            return found, end
        first = self._first_row(symbols, end + 1, base)
        return [], base if first is None else first - 1

    def _first_row(self, symbols: Iterable[str], start: int, end: int) -> int | None:
        """Return the first second that has a row of any symbol."""
        start = max(start, MIN_TIMESTAMP)
        first: int | None = None
        for symbol in symbols:
            if start > end:
                break
            try:
                rows = self._storage.scan(symbol, start, end)
                row = next(rows, None)
                close = getattr(rows, "close", None)
                if close is not None:
                    close()
            except StoreCorrupt as error:
                self._pass_over(symbol, start, end, error)
                continue
            if row is not None:
                first, end = row.timestamp, row.timestamp - 1
        return first

    def _pass_over(self, symbol: str, start: int, end: int, error: StoreCorrupt) -> None:
        """Take note of rows that are damaged; those of other symbols are told all the same."""
        self._counters["unreadable"] += 1
        if symbol not in self._damaged:
            logger.error(
                "sink %s: rows of %s between %d and %d cannot be read back, and are passed over: "
                "%s", self._name, symbol, start, end, error,
            )  # fmt: skip
        self._damaged.add(symbol)


def _take(seconds: deque[list[Record]], rows: int) -> list[Record]:
    """Return the first second, and those after it that fit into so many rows."""
    taken: list[Record] = []
    for each in seconds:
        if taken and len(taken) + len(each) > rows:
            break
        taken += each
    return taken
