"""Reading a ``Storage``: rows, coverage, and what is known of both."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from obframe._core import Snapshot
from obframe.errors import DecodeError, StorageError, UnknownSymbol
from obframe.protocols import BatchScan, Storage
from obframe.times import check_range
from obframe.trust import Trust, judge
from obframe.types import Gap, GapReason, Record, RowBatch, check_symbol

_BATCH_ROWS: Final = 512


class Row(NamedTuple):
    """One stored row; either ``snapshot`` or ``error`` is there, never both.

    Attributes:
        symbol: The instrument's symbol.
        timestamp: Unix seconds, from the key.
        snapshot: The book at that second.
        error: Why the stored value is not a row that can be trusted.
        trust: What the marks beside the row say of it.
    """

    symbol: str
    timestamp: int
    snapshot: Snapshot | None
    error: DecodeError | None
    trust: Trust = Trust.LIVE


def decode(record: Record, trust: Trust = Trust.LIVE) -> Row:
    """Decode one stored record; what cannot be decoded becomes an explicit error."""
    symbol, timestamp, value = record
    try:
        snapshot = Snapshot.unpack(value, symbol)
    except DecodeError as error:
        return Row(symbol, timestamp, None, error, trust)
    if snapshot.timestamp != timestamp:
        return Row(symbol, timestamp, None, misplaced(snapshot.timestamp, timestamp), trust)
    return Row(symbol, timestamp, snapshot, None, trust)


def misplaced(second: int, key: int) -> DecodeError:
    """Return the error for a value of another second than its key's."""
    return DecodeError(f"the value is of second {second}, its key of {key}")


def rows(storage: Storage, symbol: str, start: int, end: int) -> Iterator[Row]:
    """Iterate over the rows of ``start <= timestamp <= end``, oldest first, with their trust.

    A value that cannot be decoded is a ``Row`` with its error: nothing is left out in silence.
    Close the iterator or exhaust it to release what the storage holds for it.

    Raises:
        QueryError: The range is upside down or not of this world.
        StorageError: A part cannot be read.
    """
    check_range(symbol, start, end)
    return _decoded(storage, symbol, batches(storage, symbol, start, end))


def _decoded(storage: Storage, symbol: str, found: Iterator[RowBatch]) -> Iterator[Row]:
    try:
        for timestamps, values in found:
            # After the rows: what is known of a row is recorded before it, or later.
            marks = storage.marks(symbol, timestamps[0], timestamps[-1])
            trust: Iterable[Trust] = itertools.repeat(Trust.LIVE)
            if marks:
                trust = judge(timestamps, marks)
            for second, value, each in zip(timestamps, values, trust, strict=False):
                yield decode(Record(symbol, second, value), each)
    finally:
        close(found)


def latest(storage: Storage, symbol: str) -> Row | None:
    """Return the newest row of a symbol with its trust, None when there is none.

    Raises:
        StorageError: It cannot be read.
    """
    record = storage.latest(symbol)
    if record is None:
        return None
    marks = storage.marks(symbol, record.timestamp, record.timestamp)
    return decode(record, judge([record.timestamp], marks)[0])


def batches(storage: Storage, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
    """Iterate over the stored rows of ``start <= timestamp <= end`` in batches, oldest first.

    Close the iterator or exhaust it to release what the storage holds for it. When a part cannot
    be read, the rows before it come first, then the error.

    Raises:
        StorageError: A part cannot be read.
    """
    if isinstance(storage, BatchScan):
        return storage.scan_batches(symbol, start, end)
    return _gather(storage.scan(symbol, start, end))


def _gather(records: Iterator[Record]) -> Iterator[RowBatch]:
    failure: StorageError | None = None
    try:
        while failure is None:
            timestamps, values = [], []
            try:
                for _, second, value in itertools.islice(records, _BATCH_ROWS):
                    timestamps.append(second)
                    values.append(value)
            except StorageError as error:
                failure = error
            if timestamps:
                yield RowBatch(timestamps, values)
            elif failure is None:
                return
        raise failure
    finally:
        close(records)


def close(iterator: Iterator[object]) -> None:
    """Release what an iterator over stored rows holds; an exhausted one holds nothing."""
    end = getattr(iterator, "close", None)
    if end is not None:
        end()


def start_of_last(storage: Storage, symbol: str, start: int, end: int, count: int) -> int:
    """Return the second from which ``start..end`` holds its last ``count`` rows.

    Goes back from ``end`` in growing steps: it reads little more than those rows.

    Returns:
        The second of the first of those rows; ``start`` when there are fewer.

    Raises:
        QueryError: The range is upside down or not of this world.
        StorageError: A part cannot be read.
    """
    check_range(symbol, start, end)
    missing, step, last = count, count, end
    while last >= start:
        first = max(last - step + 1, start)
        records = storage.scan(symbol, first, last)
        try:
            seconds = deque((record.timestamp for record in records), maxlen=missing)
        finally:
            close(records)
        missing -= len(seconds)
        if not missing:
            return seconds[0]
        last, step = first - 1, step * 2
    return start


def check_stored(storage: Storage, symbol: str) -> None:
    """Raise unless rows or gaps of the symbol are stored.

    Raises:
        SymbolError: The symbol cannot be part of a key.
        UnknownSymbol: Nothing is; the message names what comes close.
    """
    check_symbol(symbol)
    stored = storage.symbols()
    if symbol not in stored:
        raise UnknownSymbol(symbol, stored)


class Span(NamedTuple):
    """A run of seconds; both ends are inside it."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        """Number of seconds in the run."""
        return self.end - self.start + 1


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a range is stored, and why the rest is not.

    Attributes:
        symbol: The instrument's symbol.
        start: First second of the range.
        end: Last second of the range.
        stored: Seconds that have a row.
        missing: Runs without a row, oldest first.
        gaps: The recorded gaps that have a second in the range, uncut, oldest first.
        unexplained: Runs without a row of which no gap tells, oldest first.
    """

    symbol: str
    start: int
    end: int
    stored: int
    missing: tuple[Span, ...]
    gaps: tuple[Gap, ...]
    unexplained: tuple[Span, ...]

    @property
    def expected(self) -> int:
        """Seconds in the range."""
        return self.end - self.start + 1

    @property
    def missing_seconds(self) -> int:
        """Seconds without a row."""
        return self.expected - self.stored

    @property
    def unexplained_seconds(self) -> int:
        """Seconds without a row of which no gap tells."""
        return sum(span.seconds for span in self.unexplained)

    @property
    def causes(self) -> dict[GapReason, int]:
        """Seconds of the range that the gaps of each cause tell of, the most first."""
        seconds = Counter[GapReason]()
        for gap in self.gaps:
            seconds[gap.reason] += min(gap.end, self.end) - max(gap.start, self.start) + 1
        return dict(seconds.most_common())


class MissingSeconds:
    """Finds the runs of seconds without a row while the rows of a range go by.

    Args:
        start: First second of the range.
        end: Last second of the range.

    Attributes:
        stored: Rows seen.
    """

    def __init__(self, start: int, end: int) -> None:
        self.stored = 0
        self._start, self._end = start, end
        self._expected = start
        self._missing: list[Span] = []

    def add(self, timestamps: Sequence[int]) -> None:
        """Take the seconds of further rows, at least one, oldest first."""
        self.stored += len(timestamps)
        first, last = timestamps[0], timestamps[-1]
        if last - first + 1 == len(timestamps):  # none is missing between them
            timestamps = [first]
        for second in timestamps:
            if second > self._expected:
                self._missing.append(Span(self._expected, second - 1))
            self._expected = second + 1
        self._expected = last + 1

    def coverage(self, symbol: str, gaps: Sequence[Gap]) -> Coverage:
        """Tell of the whole range, once all of its rows went by.

        Args:
            symbol: Whose rows.
            gaps: The recorded gaps of the range, read after the rows: one that was recorded
                meanwhile explains what was missing before.
        """
        missing = list(self._missing)
        if self._expected <= self._end:
            missing.append(Span(self._expected, self._end))
        unexplained = tuple(subtract(missing, gaps))
        bounds = self._start, self._end
        return Coverage(symbol, *bounds, self.stored, tuple(missing), tuple(gaps), unexplained)


def coverage(storage: Storage, symbol: str, start: int, end: int) -> Coverage:
    """Tell which seconds of ``start..end`` are stored, and which of the rest no gap explains.

    Raises:
        QueryError: The range is upside down or not of this world.
        StorageError: A part cannot be read.
    """
    check_range(symbol, start, end)
    seconds = MissingSeconds(start, end)
    found = batches(storage, symbol, start, end)
    try:
        for timestamps, _ in found:
            seconds.add(timestamps)
    finally:
        close(found)
    return seconds.coverage(symbol, storage.gaps(symbol, start, end))


def subtract(spans: Sequence[Span], told: Sequence[Gap | Span]) -> Iterator[Span]:
    """Yield what is left of the spans without what is told of; both come oldest first."""
    index = 0
    reach = 0  # what is told overlaps: how far those that began already go
    for start, end in spans:
        first = start
        while index < len(told) and told[index].start <= end:
            run = told[index]
            if reach >= first:
                first = reach + 1
            if run.start > first:
                yield Span(first, min(run.start - 1, end))
                first = run.start
            reach = max(reach, run.end)
            index += 1
        first = max(first, reach + 1)
        if first <= end:
            yield Span(first, end)
