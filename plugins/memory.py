"""A storage that forgets: for trials, tests and runs that only feed sinks."""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from obframe import Gap, Mark, Provider, Record, Storage, StorageError, check_symbol, hookimpl
from obframe_plugins._checks import check_records, check_runs

OBFRAME_API = 1

_Run = TypeVar("_Run", Gap, Mark)


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """Nothing to set: rows live as long as the process."""


@dataclass(slots=True)
class _Rows:
    seconds: list[int] = field(default_factory=list)  # sorted
    values: dict[int, bytes] = field(default_factory=dict)


class MemoryStorage:
    """Rows, gaps and marks in this process's memory; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, _Rows] = {}
        self._gaps: dict[str, list[Gap]] = {}
        self._marks: dict[str, list[Mark]] = {}
        self._is_closed = False

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise StorageError("memory: the storage is closed")
            yield

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        """Store the records in one step.

        Returns:
            The records that were refused because their second was stored already.
        """
        check_records(records)
        refused = []
        with self._open():
            for record in records:
                rows = self._rows.setdefault(record.symbol, _Rows())
                if record.timestamp in rows.values:
                    refused.append(record)
                    continue
                rows.values[record.timestamp] = record.value
                insort(rows.seconds, record.timestamp)
        return refused

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        """Iterate over the rows of ``start <= timestamp <= end`` as they stand now."""
        check_symbol(symbol)
        with self._open():
            rows = self._rows.get(symbol, _Rows())
            window = rows.seconds[
                bisect_left(rows.seconds, start) : bisect_right(rows.seconds, end)
            ]
            return iter([Record(symbol, second, rows.values[second]) for second in window])

    def latest(self, symbol: str) -> Record | None:
        """Return the newest row of the symbol."""
        check_symbol(symbol)
        with self._open():
            rows = self._rows.get(symbol)
            if rows is None or not rows.seconds:
                return None
            return Record(symbol, rows.seconds[-1], rows.values[rows.seconds[-1]])

    def symbols(self) -> list[str]:
        """Return all symbols that have rows or gaps, sorted."""
        with self._open():
            stored = {symbol for symbol, rows in self._rows.items() if rows.seconds}
            return sorted(stored.union(symbol for symbol, gaps in self._gaps.items() if gaps))

    def delete_before(self, symbol: str, timestamp: int) -> None:
        """Delete rows, gaps and marks before ``timestamp``; what straddles it is cut."""
        check_symbol(symbol)
        with self._open():
            rows = self._rows.get(symbol)
            if rows is not None:
                count = bisect_left(rows.seconds, timestamp)
                for second in rows.seconds[:count]:
                    del rows.values[second]
                del rows.seconds[:count]
            if symbol in self._gaps:
                self._gaps[symbol] = _cut(self._gaps[symbol], timestamp)
            if symbol in self._marks:
                self._marks[symbol] = _cut(self._marks[symbol], timestamp)

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        """Record gaps; one that touches another of the same cause extends it."""
        check_runs(gaps)
        with self._open():
            for gap in gaps:
                _extend(self._gaps.setdefault(gap.symbol, []), gap)

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        """Return the gaps that have a second in ``start..end``, oldest first, uncut."""
        with self._open():
            return _within(self._gaps.get(symbol, []), start, end)

    def append_marks(self, marks: Sequence[Mark]) -> None:
        """Record marks; touching ones of the same kind become one."""
        check_runs(marks)
        with self._open():
            for mark in marks:
                _extend(self._marks.setdefault(mark.symbol, []), mark)

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:
        """Return the marks that have a second in ``start..end``, oldest first, uncut."""
        with self._open():
            return _within(self._marks.get(symbol, []), start, end)

    def close(self) -> None:
        """Forget everything. May be called twice."""
        with self._lock:
            self._is_closed = True
            self._rows.clear()
            self._gaps.clear()
            self._marks.clear()


def _extend(runs: list[_Run], run: _Run) -> None:
    start, end = run.start, run.end
    kept: list[_Run] = []
    for other in runs:
        # Past the bounds stand the labels, which must agree.
        if other[3:] == run[3:] and other.start <= end + 1 and other.end >= start - 1:
            start, end = min(start, other.start), max(end, other.end)
        else:
            kept.append(other)
    kept.append(run._replace(start=start, end=end))
    runs[:] = kept


def _within(runs: list[_Run], start: int, end: int) -> list[_Run]:
    return sorted(
        (run for run in runs if run.start <= end and run.end >= start),
        key=lambda run: (run.start, run.end, *run[3:]),
    )


def _cut(runs: list[_Run], timestamp: int) -> list[_Run]:
    return [run._replace(start=max(run.start, timestamp)) for run in runs if run.end >= timestamp]


@contextlib.asynccontextmanager
async def open_storage(settings: MemorySettings) -> AsyncIterator[Storage]:  # noqa: ARG001
    """Give an empty storage."""
    storage = MemoryStorage()
    try:
        yield storage
    finally:
        storage.close()


@hookimpl
def obframe_storages() -> Sequence[Provider[Storage]]:
    """Offer the storage ``memory``."""
    summary = "rows in memory, gone at the end"
    contract = "obframe_plugins._contracts:MemoryContract"
    return [Provider("memory", summary, MemorySettings, open_storage, contract=contract)]
