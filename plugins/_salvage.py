"""Save what can be read of a damaged database into a new one; the damaged one stays untouched.

The library's own repair drops every file that has one bad block; this steps over the bad block and
takes the rest of the file.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    Gap,
    GapReason,
    Record,
    Repaired,
    Span,
    StorageError,
    StoreCorrupt,
    Tell,
    subtract,
)
from obframe_plugins._files import link_files
from obframe_plugins._keys import parse_key
from obframe_plugins._layout import Layout
from obframe_plugins._ledger import Ledger, newest_acknowledged, read_format
from obframe_plugins._rocks import RowDatabase, repair
from obframe_plugins._writing import RocksSettings, RocksStorage

_BATCH = 1000
_GETS = 256
_STEPS = 10_000
_END = b"\xff" * 140
_ANY_TIME = (0, 10**10)
_TOGETHER = 60  # seconds within which the newest rows of symbols recorded together lie
_DETAIL = "stored, and lost with a damaged file"


def salvage(source: Layout, target: Layout, tell: Tell = lambda _done, _of: None) -> Repaired:
    """Copy every readable row, gap and mark of a damaged store into a new one.

    Seconds between two rows of a symbol that lie in an unreadable place, and those that were
    acknowledged after the newest row, become gaps with the reason ``damaged``.

    Args:
        source: The damaged store. Nothing in it is changed.
        target: Where nothing lies yet.
        tell: Told how many rows were saved.

    Raises:
        StoreLocked: A process still writes the damaged one.
        StorageError: The target exists, or not even the list of files can be rebuilt.
    """
    if not source.rows.is_dir():
        raise StorageError(
            f"{source}: no such directory; set rocksdb.path to the damaged store", str(source)
        )
    if target.rows.exists() or target.side.exists():
        raise StorageError(f"{target}: exists already; choose a new path", str(target))
    source.check_logs()
    lock = source.lock_writer(create=False)
    with contextlib.ExitStack() as stack:
        if lock is not None:
            stack.callback(os.close, lock)
        source.check_unlocked()
        database = stack.enter_context(_view(source))
        storage = RocksStorage.open(RocksSettings(path=str(target.rows)))
        stack.enter_context(_whole_or_nothing(target))
        stack.callback(storage.close)
        acknowledged = newest_acknowledged(source.acknowledged)
        copy = _Copy(database, storage, acknowledged, tell)
        copy.run()
        lost = list(_find_losses(storage, copy.holes, _first_seconds(database), acknowledged))
        adopted = _copy_ledger(source, storage)
        if adopted is not None:
            # In a store of ours every second has a row, or a gap that says why not.
            lost += _find_unexplained(storage, adopted)
        return Repaired(copy.rows, len(copy.holes), copy.foreign, _tell(storage, lost))


@contextlib.contextmanager
def _whole_or_nothing(target: Layout) -> Iterator[None]:
    """Remove what was begun when the repair does not come to its end: it would pass for a store."""
    try:
        yield
    except BaseException:
        shutil.rmtree(target.rows, ignore_errors=True)
        shutil.rmtree(target.side, ignore_errors=True)
        raise


@contextlib.contextmanager
def _view(source: Layout) -> Iterator[RowDatabase]:
    path = str(source.rows)
    with contextlib.ExitStack() as stack:
        try:
            database = stack.enter_context(RowDatabase.open_view(path, tolerant=True))
        except StoreCorrupt:
            # The list of files is damaged: have it rebuilt, over links, so that the repair moves
            # and deletes links only.
            links = stack.enter_context(tempfile.TemporaryDirectory(prefix="obframe-salvage-"))
            link_files(path, links)
            repair(links)
            database = stack.enter_context(RowDatabase.open_view(links, tolerant=True))
        yield database


class _Copy:
    """Copies rows in the order of their keys, stepping over what cannot be read.

    Attributes:
        rows: Rows copied.
        foreign: Keys that are not ``symbol:seconds``, left out.
        holes: Unreadable places: the last key before each, and the first one after it.
    """

    def __init__(
        self, database: RowDatabase, storage: RocksStorage, acknowledged: int, tell: Tell
    ) -> None:
        self._database = database
        self._acknowledged = acknowledged
        self._storage = storage
        self._tell = tell
        self.rows = 0
        self.foreign = 0
        self.holes: list[tuple[bytes, bytes | None]] = []

    def run(self) -> None:
        """Copy all."""
        symbols = _known_symbols(self._database)
        position: bytes | None = b""
        oldest = MAX_TIMESTAMP  # where the search in a symbol begins
        while position is not None:
            last = position
            try:
                cursor = self._database.cursor(position, _END)
                try:
                    while found := cursor.read(_BATCH):
                        oldest = min(oldest, self._store(found))
                        last = found[-1][0]
                finally:
                    cursor.close()
                return
            except StoreCorrupt:
                position = _beyond(self._database, last, symbols, oldest)
                self.holes.append((last, position))
                self._fetch(last, position, symbols)

    def _fetch(self, before: bytes, after: bytes | None, symbols: Sequence[bytes]) -> None:
        """Copy the rows in a hole that can be got one by one.

        Files overlap, and one bad block keeps a search from all that lies there in other files.
        """
        keys = [key for file in self._database.files() for key in (file.first, file.last)]
        for symbol in symbols:  # what is in the log only is in no file
            with contextlib.suppress(StoreCorrupt):
                found = self._database.last_until(symbol + b";")
                keys.append(found[0] if found is not None else b"")
        bounds = [parsed[1] for key in keys if (parsed := parse_key(key)) is not None]
        if not bounds:
            return
        if self._acknowledged:
            bounds.append(self._acknowledged)
        for symbol in symbols:
            first = _key(symbol, min(bounds))
            last = _key(symbol, max(bounds))
            low, high = max(first, before), min(last, after or last)
            if low > high:
                continue
            seconds = range(int(low[-10:]), int(high[-10:]) + 1)
            for start in range(0, len(seconds), _GETS):
                wanted = [_key(symbol, second) for second in seconds[start : start + _GETS]]
                self._store(self._get(wanted))

    def _get(self, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        try:
            values = self._database.get_many(keys)
        except StoreCorrupt:
            if len(keys) == 1:
                return []
            middle = len(keys) // 2
            return self._get(keys[:middle]) + self._get(keys[middle:])
        return [(key, value) for key, value in zip(keys, values, strict=True) if value is not None]

    def _store(self, found: Sequence[tuple[bytes, bytes]]) -> int:
        records = [record for item in found if (record := _record(*item)) is not None]
        self.foreign += len(found) - len(records)
        self.rows += len(records) - len(self._storage.append(records))
        self._tell(self.rows, 0)
        return min((record.timestamp for record in records), default=MAX_TIMESTAMP)


def _first_seconds(database: RowDatabase) -> dict[str, int]:
    """Return the second of each symbol's first row, as far as the list of files tells."""
    found: dict[str, int] = {}
    for file in database.files():
        for key in (file.first, file.last):
            if (parsed := parse_key(key)) is not None:
                symbol, second = parsed
                found[symbol] = min(second, found.get(symbol, second))
    return found


def _find_losses(
    storage: RocksStorage,
    holes: Sequence[tuple[bytes, bytes | None]],
    first: Mapping[str, int],
    acknowledged: int,
) -> Iterator[Gap]:
    """Yield what lies in unreadable places, and what was acknowledged after the newest row.

    Args:
        storage: The new one, with all that was saved.
        holes: The unreadable places.
        first: The second of the first row, of the symbols of which it is known.
        acknowledged: The newest second that was acknowledged.
    """
    newest = {
        symbol: row.timestamp
        for symbol in storage.symbols()
        if (row := storage.latest(symbol)) is not None
    }
    last = max(newest.values(), default=0)
    cut_short = {symbol for symbol, second in newest.items() if second >= last - _TOGETHER}
    if acknowledged <= last:
        cut_short.clear()
    for before, after in holes:
        known, following = parse_key(before), parse_key(after or b"")
        if following is not None and (known is None or known[0] != following[0]):
            symbol, second = following
            yield Gap(symbol, first.get(symbol, second), second - 1, GapReason.DAMAGED, _DETAIL)
        if known is None:
            continue
        symbol, second = known
        if following is not None and following[0] == symbol:
            yield Gap(symbol, second + 1, following[1] - 1, GapReason.DAMAGED, _DETAIL)
        elif acknowledged > second:
            cut_short.add(symbol)
    for symbol in sorted(cut_short):
        yield Gap(symbol, newest[symbol] + 1, acknowledged, GapReason.DAMAGED, _DETAIL)


def _find_unexplained(storage: RocksStorage, adopted: int) -> Iterator[Gap]:
    for symbol in storage.symbols():
        newest = 0
        for row in storage.scan(symbol, adopted + 1, MAX_TIMESTAMP):
            if newest and row.timestamp > newest + 1:
                yield Gap(symbol, newest + 1, row.timestamp - 1, GapReason.DAMAGED, _DETAIL)
            newest = row.timestamp


def _tell(storage: RocksStorage, lost: Sequence[Gap]) -> list[Gap]:
    """Record as gaps those of the seconds that neither rows nor other gaps tell of."""
    untold = []
    for gap in sorted(lost):
        if gap.start > gap.end:
            continue
        told = [Span(other.start, other.end) for other in storage.gaps(*gap[:3])]
        told += _stored(storage, *gap[:3])
        for start, end in subtract([Span(gap.start, gap.end)], sorted(told)):
            untold.append(gap._replace(start=start, end=end))
    untold = sorted(set(untold))
    storage.append_gaps(untold)
    return untold


def _stored(storage: RocksStorage, symbol: str, start: int, end: int) -> list[Span]:
    return [Span(row.timestamp, row.timestamp) for row in storage.scan(symbol, start, end)]


def _beyond(
    database: RowDatabase, position: bytes, symbols: list[bytes], oldest: int
) -> bytes | None:
    """Return the first readable key that a search beyond an unreadable place finds."""
    for symbol, seconds in _searches(position, symbols, oldest):
        unreadable = None
        for second in seconds:
            try:
                key = database.first_from(_key(symbol, second))
            except StoreCorrupt:
                unreadable = second
                continue
            if unreadable is not None:
                key = _nearest(database, symbol, unreadable, second)
            if key is None or key > position:
                return key
    return None


def _key(symbol: bytes, second: int) -> bytes:
    return b"%s:%010d" % (symbol, second)


def _nearest(database: RowDatabase, symbol: bytes, unreadable: int, readable: int) -> bytes | None:
    """Return the first readable key after a place that is not, given a second on either side."""
    while readable - unreadable > 1:
        middle = (unreadable + readable) // 2
        try:
            database.first_from(_key(symbol, middle))
            readable = middle
        except StoreCorrupt:
            unreadable = middle
    return database.first_from(_key(symbol, readable))


def _searches(
    position: bytes, symbols: list[bytes], oldest: int
) -> Iterator[tuple[bytes, Iterator[int]]]:
    """Yield the symbols at and after a position, each with seconds at which to look."""
    symbol, _, digits = position.partition(b":")
    if digits.isdigit():
        yield symbol, _later(int(digits) + 1, 1)
    for later in symbols:
        if later + b":" > symbol + b":":
            yield later, itertools.chain([MIN_TIMESTAMP], _later(oldest, 8))


def _later(second: int, step: int) -> Iterator[int]:
    for _ in range(_STEPS):
        if second > MAX_TIMESTAMP:
            return
        yield second
        second += step
    while second <= MAX_TIMESTAMP:
        yield second
        step *= 2
        second += step


def _known_symbols(database: RowDatabase) -> list[bytes]:
    """Return the symbols that can be found from both ends, in the order of their keys."""
    found: set[bytes] = set()
    with contextlib.suppress(StoreCorrupt):
        key = database.first_from(b"")
        while key is not None:
            symbol, colon, _ = key.partition(b":")
            found.add(symbol)
            key = database.first_from(symbol + b";" if colon else key + b"\0")
    with contextlib.suppress(StoreCorrupt):
        last = database.last_until(_END)
        while last is not None:
            symbol, colon, _ = last[0].partition(b":")
            found.add(symbol)
            before = symbol + colon
            last = database.last_until(before, before.__ne__)
    return sorted(found, key=lambda symbol: symbol + b":")


def _record(key: bytes, value: bytes) -> Record | None:
    row = parse_key(key)
    return None if row is None else Record(*row, value)


def _copy_ledger(source: Layout, storage: RocksStorage) -> int | None:
    """Copy gaps and marks.

    Returns:
        The newest second of rows that were there before the ledger; None when there is no ledger.
    """
    if read_format(source.ledger) is None:
        return None
    ledger = Ledger(source.ledger, writable=False)
    try:
        for symbol in {*storage.symbols(), *ledger.symbols()}:
            storage.append_gaps(ledger.gaps(symbol, *_ANY_TIME))
            storage.append_marks(ledger.marks(symbol, *_ANY_TIME))
        return ledger.adopted
    finally:
        ledger.close()
