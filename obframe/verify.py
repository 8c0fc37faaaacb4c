"""Looks through all that is stored, and says of each thing that is not as it must be."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from itertools import islice, pairwise
from typing import Final, NamedTuple

from obframe._core import ColumnDecoder
from obframe.errors import CapacityError, DecodeError, StoreCorrupt
from obframe.protocols import Measurable, Storage
from obframe.query import Row, Span, close, decode, subtract
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, SNAPSHOT_DEPTH, Gap, Record

_BATCH: Final = 1024


class Fault(StrEnum):
    """What can be wrong with what is stored."""

    UNREADABLE = "unreadable"  # a part of the files is damaged: what lies there is not known
    UNDECODABLE = "undecodable"  # a value that is no row, or one of another second than its key
    ORDER = "order"  # levels are not best first, or a price is there twice
    EMPTY_LEVEL = "empty_level"  # a level without a price or a quantity
    CROSSED = "crossed"  # the best bid is at or above the best ask
    FOREIGN_KEY = "foreign_key"  # a key that is not of the form symbol:seconds
    UNEXPLAINED = "unexplained"  # seconds without a row of which no gap tells
    CONTRADICTED = "contradicted"  # seconds that have a row although a gap says that they have none


ERRORS: Final = frozenset(
    {Fault.UNREADABLE, Fault.UNDECODABLE, Fault.ORDER, Fault.EMPTY_LEVEL, Fault.CROSSED}
)
"""Faults that make data wrong or missing; the rest is to be known, and can be right."""


class Finding(NamedTuple):
    """One thing that is not as it must be; both ends are inside it.

    Attributes:
        symbol: Whose rows.
        start: First Unix second.
        end: Last Unix second.
        fault: What is wrong.
        detail: The same in words, with the values.
    """

    symbol: str
    start: int
    end: int
    fault: Fault
    detail: str


def verify_keys(storage: Storage) -> Iterator[Finding]:
    """Look at what is stored beside the rows, and whether the symbols can be listed at all.

    Yields:
        Findings of no symbol; ``unreadable`` when the symbols cannot be listed.
    """
    try:
        usage = storage.usage() if isinstance(storage, Measurable) else None
        storage.symbols()
    except StoreCorrupt as error:
        detail = f"{error} (which symbols there are cannot be read: name those to be verified)"
        yield Finding("", MIN_TIMESTAMP, MAX_TIMESTAMP, Fault.UNREADABLE, detail)
        return
    if usage is not None and usage.foreign_keys:
        count = usage.foreign_keys
        detail = f"{count} key{'s' * (count != 1)} not of the form symbol:seconds"
        yield Finding("", MIN_TIMESTAMP, MAX_TIMESTAMP, Fault.FOREIGN_KEY, detail)


def verify(
    storage: Storage,
    symbol: str,
    start: int = MIN_TIMESTAMP,
    end: int = MAX_TIMESTAMP,
    *,
    count: Callable[[int], None] = lambda _rows: None,
) -> Iterator[Finding]:
    """Look at every row of ``start <= timestamp <= end`` and at the ledger beside them.

    Args:
        storage: Any.
        symbol: Whose rows.
        start: First Unix second.
        end: Last Unix second.
        count: Told how many rows were read, again and again.

    Yields:
        What is wrong, oldest first for the rows, then what the ledger has to say.

    Raises:
        StorageError: The storage cannot be read at all; a damaged part is a finding instead.
    """
    checker = _Checker(symbol)
    spans: list[Span] = []  # seconds with a row, and those that cannot be read
    unreadable: list[Span] = []
    position = start
    while position <= end:
        records = storage.scan(symbol, position, end)
        try:
            while batch := list(islice(records, _BATCH)):
                yield from checker.check(batch)
                _extend(spans, [record.timestamp for record in batch])
                position = batch[-1].timestamp + 1
                count(len(batch))
            break
        except StoreCorrupt as error:
            # The batch that met the damage is lost: it is read again up to there, row by row.
            for record in _until_damage(storage, symbol, position, end):
                yield from checker.check([record])
                _extend(spans, [record.timestamp])
                position = record.timestamp + 1
                count(1)
            beyond = _next_readable(storage, symbol, position, end)
            hole = Span(position, beyond - 1)
            unreadable.append(hole)
            detail = f"{error} (nothing between these two seconds can be read)"
            yield Finding(symbol, *hole, Fault.UNREADABLE, detail)
            position = beyond
        finally:
            close(records)
    if spans:
        gaps = storage.gaps(symbol, spans[0].start, spans[-1].end)
        yield from _check_ledger(symbol, spans, gaps, unreadable)


def _until_damage(storage: Storage, symbol: str, start: int, end: int) -> Iterator[Record]:
    records = storage.scan(symbol, start, end)
    try:
        yield from records
    except StoreCorrupt:
        return
    finally:
        close(records)


def _next_readable(storage: Storage, symbol: str, damaged: int, end: int) -> int:
    """Return the first second from which on reading works again, ``end + 1`` when none does."""

    def is_readable(second: int) -> bool:
        records = storage.scan(symbol, second, end)
        try:
            next(records, None)
        except StoreCorrupt:
            return False
        else:
            return True
        finally:
            close(records)

    bad, step = damaged, 1
    while bad + step <= end and not is_readable(bad + step):
        bad, step = bad + step, step * 2
    if bad + step > end and not is_readable(end):
        return end + 1
    good = min(bad + step, end)
    while good - bad > 1:
        middle = (bad + good) // 2
        if is_readable(middle):
            good = middle
        else:
            bad = middle
    return good


def _extend(spans: list[Span], seconds: Sequence[int]) -> None:
    for second in seconds:
        if spans and spans[-1].end == second - 1:
            spans[-1] = Span(spans[-1].start, second)
        else:
            spans.append(Span(second, second))


class _Checker:
    """Checks rows by their prices as integers; those that do not fit, one by one."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        items = _BATCH * SNAPSHOT_DEPTH
        self._bids, self._asks = array("q", bytes(8 * items)), array("q", bytes(8 * items))
        self._bid_sizes, self._ask_sizes = (
            array("d", bytes(8 * items)),
            array("d", bytes(8 * items)),
        )
        self._bid_counts, self._ask_counts = (array("H", bytes(2 * _BATCH)) for _ in range(2))
        self._seconds = array("q", bytes(8 * _BATCH))
        self._updates = array("Q", bytes(8 * _BATCH))
        self._decoder = ColumnDecoder(
            bid_prices=self._bids,
            ask_prices=self._asks,
            bid_quantities=self._bid_sizes,
            ask_quantities=self._ask_sizes,
            bid_counts=self._bid_counts,
            ask_counts=self._ask_counts,
            timestamps=self._seconds,
            update_ids=self._updates,
        )

    def check(self, batch: Sequence[Record]) -> Iterator[Finding]:
        self._decoder.clear()
        try:
            self._decoder.extend([record.value for record in batch])
        except (DecodeError, CapacityError):
            for record in batch:
                yield from self._check_slowly(decode(record))
            return
        for at, record in enumerate(batch):
            if self._is_plain(at, record.timestamp):
                continue
            yield from self._check_slowly(decode(record))

    def _is_plain(self, at: int, second: int) -> bool:
        bids, asks = self._bid_counts[at], self._ask_counts[at]
        if bids > SNAPSHOT_DEPTH or asks > SNAPSHOT_DEPTH or self._seconds[at] != second:
            return False
        first = at * SNAPSHOT_DEPTH
        bid, ask = self._bids[first : first + bids], self._asks[first : first + asks]
        return (
            all(map(operator.gt, bid, bid[1:]))
            and all(map(operator.lt, ask, ask[1:]))
            and not (bids and asks and bid[0] >= ask[0])
            and not (bids and bid[-1] <= 0)
            and not (asks and ask[0] <= 0)
            and 0.0 not in self._bid_sizes[first : first + bids]
            and 0.0 not in self._ask_sizes[first : first + asks]
        )

    def _check_slowly(self, row: Row) -> Iterator[Finding]:
        def found(fault: Fault, detail: str) -> Finding:
            return Finding(self._symbol, row.timestamp, row.timestamp, fault, detail)

        if row.snapshot is None:
            yield found(Fault.UNDECODABLE, str(row.error))
            return
        best: list[Decimal] = []
        for side, levels, is_better in (
            ("bid", row.snapshot.bids, operator.gt),
            ("ask", row.snapshot.asks, operator.lt),
        ):
            prices = [Decimal(price) for price, _ in levels]
            best += prices[:1]
            for at, (upper, lower) in enumerate(pairwise(prices), 1):
                if not is_better(upper, lower):
                    detail = f"{side} {at} is {levels[at - 1][0]}, {side} {at + 1} {levels[at][0]}"
                    yield found(Fault.ORDER, detail)
                    break
            for at, (price, quantity) in enumerate(levels, 1):
                if not (Decimal(price) > 0 and Decimal(quantity) > 0):
                    yield found(Fault.EMPTY_LEVEL, f"{side} {at} is {quantity} at {price}")
                    break
        if len(best) == 2 and row.snapshot.bids and row.snapshot.asks and best[0] >= best[1]:
            detail = f"best bid {row.snapshot.bids[0][0]}, best ask {row.snapshot.asks[0][0]}"
            yield found(Fault.CROSSED, detail)


def _check_ledger(
    symbol: str, spans: Sequence[Span], gaps: Sequence[Gap], unreadable: Sequence[Span]
) -> Iterator[Finding]:
    missing = [Span(before.end + 1, after.start - 1) for before, after in pairwise(spans)]
    told = sorted([Span(gap.start, gap.end) for gap in gaps] + list(unreadable))
    for start, end in subtract(missing, told):
        detail = f"{end - start + 1} s without a row, and no gap tells why"
        yield Finding(symbol, start, end, Fault.UNEXPLAINED, detail)
    at = 0
    for gap in gaps:
        while at < len(spans) and spans[at].end < gap.start:
            at += 1
        both = []
        for span in islice(spans, at, None):
            if span.start > gap.end:
                break
            both.append(Span(max(span.start, gap.start), min(span.end, gap.end)))
        if both:
            seconds = sum(span.seconds for span in both)
            detail = f"{seconds} s have a row although a gap ({gap.reason}) tells of none"
            yield Finding(symbol, both[0].start, both[-1].end, Fault.CONTRADICTED, detail)
