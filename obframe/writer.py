"""Between the sampler and a storage: a bounded queue, one thread, and the ledger of gaps.

The sampler hands over rows, gaps and marks and goes on; a thread of the writer's own makes the
blocking calls. While storage is in trouble rows are held up to a bound, then they become gaps.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from obframe.errors import StorageError
from obframe.gaplog import GapLog
from obframe.protocols import Storage
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Gap, GapReason, Mark, MarkKind, Record

logger = logging.getLogger("obframe.writer")

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", Gap, Mark)

_RETRY_FIRST = 0.25
_RETRY_MAX = 5.0
_BATCH_ROWS = 20_000


@dataclass(slots=True)
class _Resume:
    """Account for the time since a symbol was last recorded."""

    symbol: str
    first: int
    reason: GapReason


@dataclass(slots=True)
class _Job:
    """What one turn of the thread stores.

    Of each symbol, its gaps lie before its records. Stored in that order, a crash in between leaves
    no second that neither tells of.
    """

    resumes: list[_Resume] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    stored: list[Record] = field(default_factory=list)  # done with; some may have been refused
    refused: set[int] = field(default_factory=set)  # the seconds of those

    def __bool__(self) -> bool:
        return bool(self.resumes or self.records or self.gaps or self.marks)


class StorageWriter:
    """Stores rows, gaps and marks in order, off the event loop.

    Args:
        storage: The backend.
        queue_rows: Rows held while the storage cannot take them.
        on_gap: Called on the event loop with every gap that has ended.
        on_stored: Called on the event loop with the rows of whole seconds, in order, once the
            storage has them, and the seconds in which it had some before.

    Attributes:
        counters: ``rows`` acknowledged, ``already_stored``, ``overflowed``, ``failures``, and
            ``unstorable``: gaps and marks that the backend cannot take at all.
        gap_seconds: Lost seconds by reason.
        trouble: The storage's error while it lasts, else None.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        queue_rows: int,
        on_gap: Callable[[Gap], None] | None = None,
        on_stored: Callable[[Sequence[Record], Collection[int]], None] | None = None,
    ) -> None:
        self._storage = storage
        self._queue_rows = queue_rows
        self._on_gap = on_gap or (lambda _: None)
        self._on_stored = on_stored
        self._jobs: deque[_Job] = deque()
        self._next = _Job()
        self._queued_rows = 0
        self._gaps = GapLog(self._on_gap)
        self._wake = asyncio.Event()
        self._closing = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="obframe-storage", daemon=True)
        self.counters: Counter[str] = Counter()
        self.gap_seconds: Counter[GapReason] = Counter()
        self.trouble: str | None = None
        self._resuming: set[str] = set()
        self._horizons: dict[str, int] = {}  # newest second known, where that is ahead of the clock

    @property
    def queued_rows(self) -> int:
        """Rows that are not acknowledged yet."""
        return self._queued_rows

    # -- the sampler's side ----------------------------------------------------------------------

    def resume(self, symbol: str, first: int, reason: GapReason) -> None:
        """Record the time between the last second known of the symbol and ``first`` as a gap.

        Args:
            symbol: Recorded from now on.
            first: The first second that the sampler will account for.
            reason: Why nothing was recorded before.
        """
        self._next.resumes.append(_Resume(symbol, first, reason))
        self._resuming.add(symbol)

    def is_resuming(self, symbol: str) -> bool:
        """Tell whether the time before the symbol's first second is yet to be accounted for."""
        return symbol in self._resuming

    def add_gap(self, symbol: str, start: int, end: int, reason: GapReason, detail: str) -> None:
        """Account for seconds that have no row; both ends inside."""
        self.gap_seconds[reason] += end - start + 1
        self._gaps.add(symbol, start, end, reason, detail)

    def close_gap(self, symbol: str) -> None:
        """End the symbol's open gap, and hand it over: what resumes later must find it told."""
        self._gaps.close(symbol)
        self._next.gaps.extend(self._gaps.take(0))
        self._flush()

    def submit(self, second: int, records: Sequence[Record], marks: Sequence[Mark]) -> None:
        """Hand over one second's rows and marks. Never blocks.

        Rows that do not fit the queue become gaps with reason ``disk``.
        """
        fits = max(self._queue_rows - self._queued_rows, 0)
        if fits < len(records):
            detail = self.trouble or "storage is slower than the rows come"
            for record in records[fits:]:
                self.counters["overflowed"] += 1
                stamp = record.timestamp
                self.add_gap(record.symbol, stamp, stamp, GapReason.DISK, detail)
            records = records[:fits]
            stored = {record.symbol for record in records}
            marks = [m for m in marks if m.symbol in stored or m.kind is MarkKind.EPOCH]
        for record in records:
            self._gaps.close(record.symbol)
        self._queued_rows += len(records)
        self._next.records.extend(records)
        self._next.marks.extend(marks)
        # Instalments are of use while storage takes them; held up, they would only pile up.
        flows = self.trouble is None and len(self._jobs) < 3
        self._next.gaps.extend(self._gaps.take(second if flows else 0))
        self._flush()

    def _flush(self) -> None:
        if not self._next:
            return
        last = self._jobs[-1] if len(self._jobs) > 1 else None  # the first may be under way
        job, self._next = self._next, _Job()
        if (
            last is not None
            and len(last.records) + len(job.records) <= _BATCH_ROWS
            and not job.resumes  # what is known changes with each job
            and not (job.gaps and last.records)
        ):
            last.records += job.records
            last.gaps += job.gaps
            last.marks += job.marks
        else:
            self._jobs.append(job)
        self._wake.set()

    # -- the storage's side ----------------------------------------------------------------------

    async def run(self) -> None:
        """Store what is handed over until ``close``; then what is left, and return."""
        self._thread.start()
        try:
            await self._store_all()
        finally:
            self._calls.put(None)

    async def _store_all(self) -> None:
        delay = _RETRY_FIRST
        while True:
            if not self._jobs:
                if self._closing:
                    if not self._flush_gaps():
                        return
                    continue
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._store(self._jobs[0])
            except Exception as error:
                self._report_trouble(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_MAX)
            else:
                if self.trouble is not None:
                    logger.warning("storage works again, %d rows held", self._queued_rows)
                    self.trouble = None
                delay = _RETRY_FIRST
                job = self._jobs.popleft()
                if job.stored and self._on_stored is not None:
                    self._on_stored(job.stored, job.refused)

    def close(self) -> None:
        """End all gaps and let ``run`` return once everything handed over is stored."""
        self._closing = True
        self._wake.set()

    def _flush_gaps(self) -> bool:
        self._gaps.close_all()
        self._next.gaps.extend(self._gaps.take(0))
        self._flush()
        return bool(self._jobs)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the writer's thread, after those called before."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(function(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)

        self._calls.put(work)
        return await asyncio.wrap_future(done)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _report_trouble(self, error: Exception) -> None:
        self.counters["failures"] += 1
        text = f"{type(error).__name__}: {error}"
        if self.trouble != text:
            if isinstance(error, StorageError):
                logger.error("storage failed, rows are held and tried again: %s", error)
            else:
                logger.error("storage failed, rows are held and tried again", exc_info=error)
        self.trouble = text

    async def _store(self, job: _Job) -> None:
        """Store one job; what has been stored is taken out, so that a retry does only the rest."""
        while job.resumes:
            gap = await self._account_for(job.resumes[0])
            self._resuming.discard(job.resumes.pop(0).symbol)
            if gap is not None:
                self.gap_seconds[gap.reason] += gap.seconds
                self._on_gap(gap)
        if self._horizons:
            job.gaps = await self.call(self._cut_told, job.gaps)
        if job.gaps:
            await self._store_runs(self._storage.append_gaps, job.gaps)
            job.gaps = []
        if job.marks:
            await self._store_runs(self._storage.append_marks, job.marks)
            job.marks = []
        if job.records:
            try:
                refused = await self.call(self._storage.append, job.records)
            except StorageError:
                raise
            except Exception:
                logger.exception("a row cannot be stored; each is tried alone")
                await self._store_singly(job)
            else:
                self._acknowledge(job, job.records, refused)
                job.records = []

    async def _store_singly(self, job: _Job) -> None:
        """Store what can be stored; what a backend cannot take at all becomes a gap."""
        while job.records:
            record = job.records[0]
            try:
                refused = await self.call(self._storage.append, [record])
            except StorageError:
                raise
            except Exception as error:
                stamp, detail = record.timestamp, f"{type(error).__name__}: {error}"
                self.add_gap(record.symbol, stamp, stamp, GapReason.INTERNAL, detail)
                self._queued_rows -= 1
            else:
                self._acknowledge(job, [record], refused)
            job.records.pop(0)

    async def _store_runs(self, store: Callable[[list[R]], None], runs: list[R]) -> None:
        """Store gaps or marks; one that a backend cannot take at all must not hold up the rest."""
        try:
            await self.call(store, runs)
        except StorageError:
            raise
        except Exception as error:
            if len(runs) == 1:
                self.counters["unstorable"] += 1
                logger.error("%s cannot be stored and is dropped: %s", runs[0], error)
                return
            for run in runs:
                await self._store_runs(store, [run])

    def _acknowledge(self, job: _Job, records: Sequence[Record], refused: Sequence[Record]) -> None:
        job.stored += records
        self._queued_rows -= len(records)
        self.counters["rows"] += len(records) - len(refused)
        if refused:
            job.refused.update(record.timestamp for record in refused)
            self.counters["already_stored"] += len(refused)
            logger.warning(
                "%d rows refused, their seconds were stored before; first %s:%d",
                len(refused),
                refused[0].symbol,
                refused[0].timestamp,
            )

    # -- what is known from before ---------------------------------------------------------------

    async def _account_for(self, resume: _Resume) -> Gap | None:
        try:
            return await self.call(self._account, resume)
        except StorageError:
            raise
        except Exception:
            logger.exception("%s: the time before this run is not accounted for", resume.symbol)
            return None

    def _account(self, resume: _Resume) -> Gap | None:
        """Record the time since the symbol's newest second as a gap. Blocks."""
        symbol, first = resume.symbol, resume.first
        latest = self._storage.latest(symbol)
        known = 0 if latest is None else latest.timestamp
        for gap in self._storage.gaps(symbol, known, MAX_TIMESTAMP):
            known = max(known, gap.end)
        if known >= first:
            logger.warning(
                "%s: there are rows or gaps up to %d, yet the clock stands at %d: what is stored "
                "stays",
                symbol, known, first,
            )  # fmt: skip
            self._horizons[symbol] = known
            known = self._newest_before(symbol, first)
        if not 0 < known < first - 1:
            return None
        gap = Gap(symbol, known + 1, first - 1, resume.reason)
        self._storage.append_gaps([gap])
        return gap

    def _newest_before(self, symbol: str, second: int) -> int:
        """Return the newest second before this one that has a row or a gap, 0 if none. Blocks."""
        start, span = second, 64
        while start > MIN_TIMESTAMP:
            start, span = max(second - span, MIN_TIMESTAMP), span * 8
            spans = self._told_spans(symbol, start, second - 1)
            if spans:
                return min(max(end for _, end in spans), second - 1)
        return 0

    def _told_spans(self, symbol: str, start: int, end: int) -> list[tuple[int, int]]:
        """Return the rows and gaps of a range as runs of seconds, oldest first. Blocks."""
        spans = [(gap.start, gap.end) for gap in self._storage.gaps(symbol, start, end)]
        stamps = [record.timestamp for record in self._storage.scan(symbol, start, end)]
        return sorted([*spans, *zip(stamps, stamps, strict=True)])

    def _cut_told(self, gaps: Sequence[Gap]) -> list[Gap]:
        """Return what of the gaps neither rows nor gaps told before. Blocks.

        Rows need no such care: storage keeps a second that it has, and a row that comes true in a
        second once given up as lost is worth more than its absence.
        """
        untold = []
        for gap in gaps:
            start = gap.start
            if start <= self._horizons.get(gap.symbol, 0):
                for first, last in self._told_spans(gap.symbol, gap.start, gap.end):
                    if first > start:
                        untold.append(gap._replace(start=start, end=first - 1))
                    start = max(start, last + 1)
            if start <= gap.end:
                untold.append(gap._replace(start=start))
        return untold
