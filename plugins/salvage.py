"""Save what can be read of a damaged database into a new one; the damaged one stays untouched.

Run it as ``python -m obframe_plugins.salvage DAMAGED NEW``. The library's own repair drops every
file that has one bad block; this steps over the bad block and takes the rest of the file.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    ObframeError,
    Record,
    StorageError,
    StoreCorrupt,
    SymbolError,
    check_symbol,
)
from obframe_plugins._files import link_files
from obframe_plugins._layout import Layout
from obframe_plugins._ledger import Ledger, read_format
from obframe_plugins._rocks import RowDatabase, repair
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

_BATCH = 1000
_STEPS = 10_000
_END = b"\xff" * 140
_ANY_TIME = (0, 10**10)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was saved.

    Attributes:
        rows: Rows written to the new database.
        holes: Unreadable places that were stepped over.
        foreign: Keys that are not ``symbol:seconds``, left out.
    """

    rows: int
    holes: int
    foreign: int


def salvage(damaged: str, new: str) -> Salvaged:
    """Copy every readable row, gap and mark of a damaged store into a new one.

    Args:
        damaged: Path of the damaged row database. Nothing in it is changed.
        new: Path where nothing lies yet.

    Raises:
        StoreLocked: A process still writes the damaged one.
        StorageError: ``new`` exists, or not even the list of files can be rebuilt.
    """
    source, target = Layout(damaged), Layout(new)
    if not source.rows.is_dir():
        raise StorageError(f"{source}: no such directory", str(source))
    if target.rows.exists() or target.side.exists():
        raise StorageError(f"{target}: exists already; choose a new path", str(target))
    lock = source.lock_writer(create=False)
    with contextlib.ExitStack() as stack:
        if lock is not None:
            stack.callback(os.close, lock)
        source.check_unlocked()
        database = stack.enter_context(_view(source))
        storage = RocksStorage.open(RocksSettings(path=str(target.rows)))
        stack.callback(storage.close)
        result = _copy_rows(database, storage)
        _copy_ledger(source, storage)
        return result


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


def _copy_rows(database: RowDatabase, storage: RocksStorage) -> Salvaged:
    symbols = _known_symbols(database)
    rows = holes = foreign = 0
    position = b""
    oldest = MAX_TIMESTAMP  # where the search in a symbol begins
    while True:
        try:
            cursor = database.cursor(position, _END)
            try:
                while found := cursor.read(_BATCH):
                    records = [record for item in found if (record := _record(*item)) is not None]
                    foreign += len(found) - len(records)
                    rows += len(records) - len(storage.append(records))
                    oldest = min([oldest, *(record.timestamp for record in records)])
                    position = found[-1][0]
            finally:
                cursor.close()
            return Salvaged(rows, holes, foreign)
        except StoreCorrupt:
            holes += 1
            beyond = _beyond(database, position, symbols, oldest)
            if beyond is None:
                return Salvaged(rows, holes, foreign)
            position = beyond


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
            symbol = key.partition(b":")[0]
            found.add(symbol)
            key = database.first_from(symbol + b";")
    with contextlib.suppress(StoreCorrupt):
        last = database.last_until(_END)
        while last is not None:
            symbol = last[0].partition(b":")[0]
            found.add(symbol)
            last = database.last_until(symbol + b":")
    return sorted(found, key=lambda symbol: symbol + b":")


def _record(key: bytes, value: bytes) -> Record | None:
    symbol, _, digits = key.partition(b":")
    if len(digits) != 10 or not digits.isdigit():
        return None
    with contextlib.suppress(UnicodeDecodeError, SymbolError):
        return Record(check_symbol(symbol.decode()), int(digits), value)
    return None


def _copy_ledger(source: Layout, storage: RocksStorage) -> None:
    if read_format(source.ledger) is None:
        return
    ledger = Ledger(source.ledger, writable=False)
    try:
        for symbol in {*storage.symbols(), *ledger.symbols()}:
            storage.append_gaps(ledger.gaps(symbol, *_ANY_TIME))
            storage.append_marks(ledger.marks(symbol, *_ANY_TIME))
    finally:
        ledger.close()


def main(arguments: Sequence[str]) -> int:
    """Run ``salvage`` for a person; return the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m obframe_plugins.salvage DAMAGED NEW\n")
        return 2
    try:
        result = salvage(*arguments)
    except ObframeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(
        f"{arguments[1]}: {result.rows} rows saved, {result.holes} unreadable places passed over, "
        f"{result.foreign} foreign keys left out\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
