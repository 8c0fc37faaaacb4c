"""Reading windows: stored bytes into columns, by the core, in one pass and bounded memory."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Final, SupportsIndex

from obframe._core import ColumnDecoder
from obframe.errors import CapacityError, DecodeError, QueryError
from obframe.frames import load_numpy
from obframe.protocols import Storage
from obframe.query import MissingSeconds, Row, batches, close, misplaced
from obframe.times import check_range
from obframe.trust import marked
from obframe.types import MAX_TIMESTAMP, SNAPSHOT_DEPTH, RowBatch
from obframe.window import LEVELS, Window

_PART_ROWS: Final = 131_072
_LARGEST: Final = 2**63 - 1
_MOST_LEVELS: Final = 65_535


def read_window(
    storage: Storage,
    symbol: str,
    start: int,
    end: int,
    *,
    depth: int = SNAPSHOT_DEPTH,
    floats: bool = False,
    skip_damaged: bool = False,
) -> Window:
    """Read the rows of ``start <= timestamp <= end`` into columns.

    Args:
        storage: Where they are.
        symbol: Whose.
        start: First second.
        end: Last second.
        depth: Levels a side, the best ones.
        floats: Decode prices and quantities to float64, each the nearest to its decimal, instead
            of exact integers.
        skip_damaged: Leave rows that cannot be decoded out and list them in ``refused``, instead
            of raising.

    Raises:
        DecodeError: A row is stored and cannot be decoded.
        CapacityError: Integers of 64 bits do not hold a value exactly at the scale that the window
            needs.
        QueryError: The range is upside down or not of this world, or the depth is no count.
        StorageError: A part cannot be read.
        MissingExtra: NumPy is not installed.

    Cost: an hour takes a few milliseconds; the memory is that of the rows stored, about 660 bytes
    each, not that of the range. Over 131,072 rows it takes twice as much for a moment.
    """
    check_range(symbol, start, end)
    _check_count("depth", depth, _MOST_LEVELS, "number of levels")
    reading = _Reading(symbol, start, end, depth, floats, skip_damaged)
    found = batches(storage, symbol, start, end)
    try:
        for batch in found:
            reading.add(batch)
    finally:
        close(found)
    return reading.finish(storage)


class Windows:
    """Windows that follow each other through a range, each read when it is asked for.

    Has a length, so that whatever shows progress knows the end; may be iterated over again.

    Args:
        storage: Where the rows are.
        symbol: Whose.
        start: First second.
        end: Last second.
        seconds: Of one window; the last may be shorter.
        options: Of ``read_window``.

    Raises:
        QueryError: The range, the length or the depth cannot be asked for.
    """

    def __init__(
        self,
        storage: Storage,
        symbol: str,
        start: int,
        end: int,
        seconds: int = 3600,
        **options: Any,
    ) -> None:
        check_range(symbol, start, end)
        _check_count("seconds", seconds, MAX_TIMESTAMP, "length of a window")
        _check_count("depth", options.get("depth", 1), _MOST_LEVELS, "number of levels")
        self._storage = storage
        self._symbol = symbol
        self._starts = range(start, end + 1, seconds)
        self._end = end
        self._options = options

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Window]:
        for start in self._starts:
            end = min(start + self._starts.step - 1, self._end)
            yield read_window(self._storage, self._symbol, start, end, **self._options)


def _check_count(what: str, count: SupportsIndex, most: int, meaning: str) -> None:
    try:
        good = 1 <= operator.index(count) <= most
    except TypeError:
        good = False
    if not good:
        raise QueryError(what, str(count), f"is no {meaning}; give 1 to {most}")


class _Part:
    """Columns with room for so many rows. Memory that no row reaches is never touched."""

    def __init__(self, room: int, depth: int, floats: bool) -> None:
        np = load_numpy()
        kind = np.float64 if floats else np.int64
        # One block, for what is given back as a whole is had again without the kernel's help.
        block = np.empty((len(LEVELS), room, depth), kind)
        self.columns: dict[str, Any] = dict(zip(LEVELS, block, strict=True))
        self.columns |= {
            "timestamp": np.empty(room, np.int64),
            "update_id": np.empty(room, np.uint64),
            "bid_count": np.empty(room, np.uint16),
            "ask_count": np.empty(room, np.uint16),
        }
        self.keys = np.empty(room, np.int64)
        self.decoder = ColumnDecoder(
            depth,
            **{name: self.columns[name] for name in LEVELS},
            timestamps=self.columns["timestamp"],
            update_ids=self.columns["update_id"],
            bid_counts=self.columns["bid_count"],
            ask_counts=self.columns["ask_count"],
        )
        self.scales = (0, 0)

    @property
    def room(self) -> int:
        return self.decoder.capacity - len(self.decoder)

    def settle(self) -> None:
        """Keep what is filled; no more rows come."""
        count = len(self.decoder)
        self.scales = (self.decoder.price_scale, self.decoder.quantity_scale)
        roomy = 2 * count < self.decoder.capacity
        del self.decoder  # it holds the buffers
        for name, column in (*self.columns.items(), ("", self.keys)):
            kept = column[:count].copy() if roomy else column[:count]
            if name:
                self.columns[name] = kept
            else:
                self.keys = kept


class _Reading:
    """One window under way."""

    def __init__(
        self, symbol: str, start: int, end: int, depth: int, floats: bool, skip_damaged: bool
    ) -> None:
        self._symbol = symbol
        self._start, self._end = start, end
        self._depth, self._floats, self._skip_damaged = depth, floats, skip_damaged
        self._seconds = MissingSeconds(start, end)
        self._refused: list[Row] = []
        self._parts = [self._make_part(start)]

    def _make_part(self, start: int) -> _Part:
        room = max(min(self._end - start + 1, _PART_ROWS), 1)
        return _Part(room, self._depth, self._floats)

    def add(self, batch: RowBatch) -> None:
        """Decode rows behind those before."""
        timestamps, values = batch
        self._seconds.add(timestamps)
        at = 0
        while at < len(values):
            part = self._parts[-1]
            if not part.room:
                part.settle()
                self._parts.append(part := self._make_part(timestamps[at]))
            error: DecodeError | None = None
            before = len(part.decoder)
            try:
                part.decoder.extend(values[at : at + part.room])
            except DecodeError as caught:
                error = caught
            except CapacityError as caught:
                second = timestamps[at + (caught.row or 0)]
                raise self._too_wide(caught.field, caught.value, caught.limit, second) from caught
            taken = len(part.decoder) - before
            part.keys[before : before + taken] = timestamps[at : at + taken]
            at += taken
            if error is not None:
                self._refuse(timestamps[at], error)
                at += 1

    def _too_wide(self, field: str, value: str, limit: str, second: int) -> CapacityError:
        mend = f"{limit}; read the window with floats=True, or its rows with rows()"
        return CapacityError(f"{self._symbol} at {second}", field, value, mend)

    def _refuse(self, second: int, error: DecodeError) -> None:
        if not self._skip_damaged:
            reason = f"{self._symbol} at {second}: {error.reason}; skip_damaged=True passes over it"
            raise DecodeError(reason, error.offset) from error
        plain = DecodeError(error.reason, error.offset)
        self._refused.append(Row(self._symbol, second, None, plain))

    def finish(self, storage: Storage) -> Window:
        """Put the parts together; marks and gaps are read after the rows they speak of."""
        np = load_numpy()
        self._parts[-1].settle()
        scales = [max(part.scales[kind] for part in self._parts) for kind in range(2)]
        keys = self._join([part.keys for part in self._parts])
        columns = {
            name: self._join([self._rescaled(part, name, scales) for part in self._parts])
            for name in self._parts[0].columns
        }
        self._parts.clear()
        wrong = np.flatnonzero(columns["timestamp"] != keys)
        for index in wrong:
            second = int(keys[index])
            self._refuse(second, misplaced(int(columns["timestamp"][index]), second))
        if len(wrong):
            columns = {name: np.delete(column, wrong, 0) for name, column in columns.items()}
        timestamp = columns["timestamp"]
        trust = np.zeros(len(timestamp), np.uint8)
        marks = storage.marks(self._symbol, self._start, self._end)
        for first, last, flag in marked(timestamp, marks):
            trust[first:last] |= int(flag)
        gaps = storage.gaps(self._symbol, self._start, self._end)
        for column in (*columns.values(), trust):
            column.flags.writeable = False
        return Window(
            self._symbol,
            self._seconds.coverage(self._symbol, gaps),
            trust=trust,
            price_scale=None if self._floats else scales[0],
            quantity_scale=None if self._floats else scales[1],
            refused=tuple(sorted(self._refused, key=lambda row: row.timestamp)),
            **columns,
        )

    def _join(self, columns: list[Any]) -> Any:
        np = load_numpy()
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    def _rescaled(self, part: _Part, name: str, scales: list[int]) -> Any:
        """Take a column out of a part, at the window's scale."""
        column = part.columns[name]
        kind = 0 if name.endswith("_prices") else 1
        if name not in LEVELS or self._floats or part.scales[kind] == scales[kind]:
            return column
        factor = 10 ** (scales[kind] - part.scales[kind])
        largest = int(column.max(initial=0))
        if largest * factor > _LARGEST:
            row = int(column.max(axis=1).argmax())
            value = f"{largest}e-{part.scales[kind]}"
            limit = f"at {scales[kind]} decimals, which later rows need, it exceeds 64 bits"
            raise self._too_wide(name, value, limit, int(part.keys[row]))
        return column * factor
