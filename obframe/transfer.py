"""Rows to files and back: JSON lines, CSV and Parquet, every digit as it is stored.

A file's ending says its form: ``.jsonl``, ``.csv``, ``.parquet``, and ``.jsonl.gz``, ``.csv.gz``.
The layouts of JSON and CSV are those of ``obframe.layout``, which the sinks write too. In Parquet a
side is a list of structs of two texts: as numbers, trailing zeros and so the row's bytes were lost.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

from obframe._core import Level, Snapshot
from obframe.errors import DecodeError, InvalidEvent, ObframeError
from obframe.frames import require
from obframe.layout import (
    SNAPSHOT_COLUMNS,
    snapshot_from_json,
    snapshot_to_cells,
    snapshot_to_json,
)
from obframe.protocols import Storage
from obframe.query import close, rows
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, SNAPSHOT_DEPTH, Record, check_symbol

ENDINGS: Final = (".jsonl", ".csv", ".parquet", ".jsonl.gz", ".csv.gz")

_BATCH: Final = 1_000
_GROUP: Final = 20_000
"""Rows of a row group in Parquet: a few megabytes in memory."""
_PIECE: Final = 1 << 20
_HEAD: Final = 3  # columns of CSV before the levels


class FormatUnknown(ObframeError):
    """The ending of a file is none that rows can be read from or written to."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: what form is it? End its name in {', '.join(ENDINGS)}")


class Exported(NamedTuple):
    """What was written.

    Attributes:
        rows: Rows in the file.
        undecodable: Stored values that are no rows, left out.
    """

    rows: int
    undecodable: int


class Imported(NamedTuple):
    """What was read.

    Attributes:
        rows: Rows stored.
        known: Rows that were stored already, byte for byte.
        different: Rows whose second holds another row: what was stored stays.
        wrong: Why each line or row that is none was left out, with where it stands; the first ones.
        wrong_rows: How many of them there were.
    """

    rows: int
    known: int
    different: int
    wrong: list[str]
    wrong_rows: int


def ending_of(path: Path) -> str:
    """Return the ending that says the form.

    Raises:
        FormatUnknown: It has none of them.
    """
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if path.name.endswith(ending):
            return ending
    raise FormatUnknown(path)


# -- out -----------------------------------------------------------------------------------------


class _Writer(Protocol):
    def write(self, snapshots: Sequence[Snapshot]) -> None: ...


class _JsonWriter:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, snapshots: Sequence[Snapshot]) -> None:
        self._file.writelines(snapshot_to_json(each) + b"\n" for each in snapshots)


class _CsvWriter:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._text = io.StringIO()
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(SNAPSHOT_COLUMNS)
        self._flush()

    def write(self, snapshots: Sequence[Snapshot]) -> None:
        self._rows.writerows(snapshot_to_cells(each) for each in snapshots)
        self._flush()

    def _flush(self) -> None:
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()


class _ParquetWriter:
    def __init__(self, file: IO[bytes]) -> None:
        arrow, parquet = _arrow()
        level = arrow.struct([("price", arrow.string()), ("quantity", arrow.string())])
        self._arrow = arrow
        self._schema = arrow.schema(
            [
                ("symbol", arrow.string()),
                ("timestamp", arrow.int64()),
                ("update_id", arrow.uint64()),
                ("bids", arrow.list_(level)),
                ("asks", arrow.list_(level)),
            ]
        )
        self._held: list[Snapshot] = []
        self._parquet = parquet.ParquetWriter(
            file, self._schema, compression="zstd", write_page_checksum=True
        )

    def write(self, snapshots: Sequence[Snapshot]) -> None:
        self._held += snapshots
        if len(self._held) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        held, self._held = self._held, []
        columns = [
            [each.symbol for each in held],
            [each.timestamp for each in held],
            [each.update_id for each in held],
            *(
                [
                    [{"price": price, "quantity": quantity} for price, quantity in side]
                    for side in sides
                ]
                for sides in ([each.bids for each in held], [each.asks for each in held])
            ),
        ]
        arrays = [
            self._arrow.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._parquet.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        if self._held:
            self._flush()
        self._parquet.close()


@contextmanager
def _writing(path: Path) -> Iterator[_Writer]:
    """Open a file to be written whole: it has its name only when all is in it."""
    ending = ending_of(path)
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as file:
            if ending == ".parquet":
                with closing(_ParquetWriter(file)) as parquet:
                    yield parquet
            else:
                form = _JsonWriter if ending.startswith(".jsonl") else _CsvWriter
                if ending.endswith(".gz"):
                    with gzip.GzipFile(path.name, "wb", fileobj=file, mtime=0) as packed:
                        yield form(packed)  # type: ignore[arg-type]
                else:
                    yield form(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        mend = "give a file in a folder that can be written and has room"
        raise ObframeError(f"{path}: cannot be written: {reason}; {mend}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def export_rows(
    storage: Storage,
    symbols: Iterable[str],
    start: int,
    end: int,
    path: Path,
    *,
    count: Callable[[str, int], None] = lambda _symbol, _rows: None,
) -> Exported:
    """Write the rows of ``start <= timestamp <= end`` to a file, symbol after symbol.

    Args:
        storage: Any.
        symbols: Whose rows.
        start: First Unix second.
        end: Last Unix second.
        path: The file; its ending says the form. It is replaced only by a whole one.
        count: Told whose rows were written, and how many more.

    Raises:
        FormatUnknown: The ending says no form.
        MissingExtra: Parquet needs a library that is not installed.
        StorageError: A part cannot be read; no file is left.
        ObframeError: The file cannot be written.
    """
    written = undecodable = 0
    with _writing(path) as file:
        for symbol in symbols:
            found = rows(storage, symbol, start, end)
            try:
                while batch := list(islice(found, _BATCH)):
                    good = [row.snapshot for row in batch if row.snapshot is not None]
                    file.write(good)
                    written += len(good)
                    undecodable += len(batch) - len(good)
                    count(symbol, len(batch))
            finally:
                close(found)
    return Exported(written, undecodable)


# -- in ------------------------------------------------------------------------------------------

_Found = Snapshot | str
"""A row, or why there is none and where."""


def _storable(snapshot: Snapshot) -> Snapshot:
    """Return a row that can have a key.

    Raises:
        ValueError: Its symbol or its second cannot be part of one.
    """
    check_symbol(snapshot.symbol)
    if not MIN_TIMESTAMP <= snapshot.timestamp <= MAX_TIMESTAMP:
        raise ValueError(f"timestamp {snapshot.timestamp} is not Unix seconds of ten digits")
    return snapshot


def _read_json(file: IO[bytes]) -> Iterator[_Found]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield _storable(snapshot_from_json(line))
            except (DecodeError, ValueError) as error:
                yield f"line {number}: {error}"


def _read_csv(file: IO[bytes]) -> Iterator[_Found]:
    lines = csv.reader(line.decode() for line in file)
    headings = next(lines, [])
    if tuple(headings[: len(SNAPSHOT_COLUMNS)]) != SNAPSHOT_COLUMNS:
        yield f"line 1: the headings are not {', '.join(SNAPSHOT_COLUMNS[:5])}, …"
        return
    for cells in lines:
        try:
            if len(cells) < len(SNAPSHOT_COLUMNS):
                raise ValueError(f"{len(cells)} cells where {len(SNAPSHOT_COLUMNS)} are needed")
            symbol, timestamp, update_id = cells[:_HEAD]
            sides = [_read_side(cells[at : at + 2 * SNAPSHOT_DEPTH]) for at in (_HEAD, _HEAD + 40)]
            yield _storable(Snapshot(symbol, int(update_id), int(timestamp), *sides))
        except (ValueError, OverflowError, InvalidEvent) as error:
            yield f"line {lines.line_num}: {error}"


def _read_side(cells: Sequence[str]) -> list[Level]:
    pairs = list(zip(cells[::2], cells[1::2], strict=True))
    count = next((at for at, pair in enumerate(pairs) if pair == ("", "")), len(pairs))
    if any(pair != ("", "") for pair in pairs[count:]):
        raise ValueError(f"level {count + 1} is empty, and one behind it is not")
    return pairs[:count]


def _read_parquet(file: IO[bytes]) -> Iterator[_Found]:
    number = 0
    for batch in _parquet_batches(file):
        for row in batch:
            number += 1
            try:
                sides = [[(each["price"], each["quantity"]) for each in row[s]] for s in _SIDES]
                yield _storable(Snapshot(row["symbol"], row["update_id"], row["timestamp"], *sides))
            except (KeyError, TypeError, ValueError, OverflowError, InvalidEvent) as error:
                yield f"row {number}: {type(error).__name__}: {error}"


def _parquet_batches(file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    arrow, parquet = _arrow()
    try:
        whole = parquet.ParquetFile(file, page_checksum_verification=True)
        for batch in whole.iter_batches(_BATCH):
            yield batch.to_pylist()
    except arrow.ArrowException as error:
        raise OSError(f"no Parquet, or damaged: {error}") from error


_SIDES: Final = ("bids", "asks")


@contextmanager
def _reading(path: Path) -> Iterator[Iterator[_Found]]:
    ending = ending_of(path)
    try:
        with path.open("rb") as file:
            if ending == ".parquet":
                yield _read_parquet(file)
                return
            read = _read_json if ending.startswith(".jsonl") else _read_csv
            if ending.endswith(".gz"):
                with gzip.open(file) as unpacked:
                    # Its checksum stands at the end: unchecked, wrong digits would be stored.
                    while unpacked.read(_PIECE):
                        pass
                    unpacked.seek(0)
                    yield read(unpacked)  # type: ignore[arg-type]
            else:
                yield read(file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        reason, mend = str(error), "it is damaged, or not what its ending says: export it anew"
        if isinstance(error, OSError) and error.strerror:
            reason, mend = error.strerror, "check its path, and who may read it"
        raise ObframeError(f"{path}: cannot be read: {reason}; {mend}") from error


def import_rows(
    storage: Storage,
    path: Path,
    *,
    count: Callable[[int], None] = lambda _rows: None,
) -> Imported:
    """Store the rows of a file; what is stored already stays as it is.

    Args:
        storage: Open for writing.
        path: The file; its ending says the form.
        count: Told how many more rows were read.

    Raises:
        FormatUnknown: The ending says no form.
        MissingExtra: Parquet needs a library that is not installed.
        StorageError: The storage does not take them; those before are stored.
        ObframeError: The file cannot be read.
    """
    stored = known = different = wrong_rows = 0
    wrong: list[str] = []
    with _reading(path) as found:
        while batch := list(islice(found, _BATCH)):
            records = []
            for each in batch:
                if isinstance(each, str):
                    wrong_rows += 1
                    wrong += [f"{path}: {each}"] if len(wrong) < _NAMED else []
                else:
                    records.append(Record(each.symbol, each.timestamp, each.pack()))
            refused = storage.append(records)
            stored += len(records) - len(refused)
            for record in refused:
                same = record in storage.scan(record.symbol, record.timestamp, record.timestamp)
                known += same
                different += not same
            count(len(batch))
    return Imported(stored, known, different, wrong, wrong_rows)


_NAMED: Final = 20


def _arrow() -> tuple[Any, Any]:
    """Import pyarrow.

    Raises:
        MissingExtra: It is not installed.
    """
    what = "Parquet"
    return require("pyarrow", "arrow", what), require("pyarrow.parquet", "arrow", what)
