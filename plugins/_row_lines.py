"""One row a line, as JSON or CSV, and which row a line is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from obframe import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    SNAPSHOT_COLUMNS,
    Snapshot,
    snapshot_to_cells,
    snapshot_to_json,
)


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How rows stand in a file.

    Attributes:
        extension: Of the files, without dot.
        header: The first line of each file, with its end; empty for none.
        encode: Gives the line of a snapshot, with its end.
        read_key: Gives symbol and second of a line without its end; raises ``ValueError`` for what
            is no line of a row.
    """

    extension: str
    header: bytes
    encode: Callable[[Snapshot], bytes]
    read_key: Callable[[bytes], tuple[str, int]]


class _Key(msgspec.Struct):
    symbol: str
    timestamp: int


_decode_key = msgspec.json.Decoder(_Key).decode


def _encode_json(snapshot: Snapshot) -> bytes:
    return snapshot_to_json(snapshot) + b"\n"


def _read_json_key(line: bytes) -> tuple[str, int]:
    try:
        key = _decode_key(line)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    return key.symbol, _check_second(key.timestamp)


def _to_csv(cells: list[object]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _encode_csv(snapshot: Snapshot) -> bytes:
    return _to_csv(snapshot_to_cells(snapshot))


def _read_csv_key(line: bytes) -> tuple[str, int]:
    try:
        (cells,) = csv.reader([line.decode()], strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if len(cells) != len(SNAPSHOT_COLUMNS):
        raise ValueError(f"{len(cells)} cells, not {len(SNAPSHOT_COLUMNS)}")
    return cells[0], _check_second(int(cells[1]))


def _check_second(second: int) -> int:
    if not MIN_TIMESTAMP <= second <= MAX_TIMESTAMP:
        raise ValueError(f"{second} is no Unix second")
    return second


JSONL: Final = LineFormat("jsonl", b"", _encode_json, _read_json_key)
CSV: Final = LineFormat("csv", _to_csv(list(SNAPSHOT_COLUMNS)), _encode_csv, _read_csv_key)
