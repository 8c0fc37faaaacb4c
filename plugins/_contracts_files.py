"""How the contract of sinks tests the files of rows."""

from __future__ import annotations

import contextlib
import csv
import gzip
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from obframe import SNAPSHOT_DEPTH, Level, Sink, Snapshot, snapshot_from_json
from obframe.testing.contracts import SinkContract
from obframe_plugins.files import FileSettings, open_csv, open_jsonl


class JsonLinesContract(SinkContract):
    """Lines of JSON, all in one file; an outage is a file where the directory was."""

    can_break = True
    most_blocking = 2.0  # while the disk syncs
    template = "{period}"
    max_bytes = 0
    compression: Literal["none", "gzip"] = "none"

    def settings(self, tmp_path: Path) -> FileSettings:
        """Return settings for files below the folder."""
        return FileSettings(
            path=str(tmp_path / "rows" / self.template),
            max_bytes=self.max_bytes,
            compression=self.compression,
        )

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        async with open_jsonl(self.settings(tmp_path)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return the rows of all files."""
        return [snapshot_from_json(line) for line in self.lines(tmp_path, "jsonl")]

    async def break_(self, tmp_path: Path) -> None:
        """Put the directory away, and a file in its place."""
        (tmp_path / "rows").rename(tmp_path / "away")
        (tmp_path / "rows").touch()

    async def mend(self, tmp_path: Path) -> None:
        """Bring the directory back."""
        (tmp_path / "rows").unlink()
        (tmp_path / "away").rename(tmp_path / "rows")

    def lines(self, tmp_path: Path, extension: str) -> list[bytes]:
        """Read what is finished and what grows, by name; again if a file is packed meanwhile."""
        folder = tmp_path / "rows"
        while True:
            paths = _list_files(folder, extension)
            with contextlib.suppress(FileNotFoundError):
                found = list(_read_lines(paths))
                if _list_files(folder, extension) == paths:
                    return found


def _list_files(folder: Path, extension: str) -> set[Path]:
    return {path for path in folder.rglob(f"*.{extension}*") if path.suffix != ".tmp"}


def _read_lines(paths: Collection[Path]) -> Iterator[bytes]:
    for path in sorted(paths, key=lambda path: str(path).replace(".part", "")):
        if path.suffix == ".part" and path.with_suffix(".gz").exists():
            continue
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            yield from file


class CsvContract(JsonLinesContract):
    """Lines of CSV, all in one file."""

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        """Open the sink."""
        async with open_csv(self.settings(tmp_path)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        """Return the rows of all files."""
        lines = [line.decode() for line in self.lines(tmp_path, "csv")]
        found = csv.DictReader(line for at, line in enumerate(lines) if not at or line != lines[0])
        return [_read_cells(cells) for cells in found]


def _read_cells(cells: dict[str, str]) -> Snapshot:
    sides: dict[str, list[Level]] = {"bid": [], "ask": []}
    for side, levels in sides.items():
        for number in range(1, SNAPSHOT_DEPTH + 1):
            price, quantity = cells[f"{side}{number}_price"], cells[f"{side}{number}_quantity"]
            if price:
                levels.append((price, quantity))
    return Snapshot(
        cells["symbol"], int(cells["update_id"]), int(cells["timestamp"]), *sides.values()
    )
