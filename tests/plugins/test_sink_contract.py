"""The sinks of ours that need no server keep the contract; the others have files of their own."""

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


class TestJsonLines(SinkContract):
    most_blocking = 2.0  # a sink may block its own loop while the disk syncs
    template = "{period}"
    max_bytes = 0
    compression: Literal["none", "gzip"] = "none"

    def settings(self, tmp_path: Path) -> FileSettings:
        return FileSettings(
            path=str(tmp_path / "rows" / self.template),
            max_bytes=self.max_bytes,
            compression=self.compression,
        )

    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        async with open_jsonl(self.settings(tmp_path)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        return [snapshot_from_json(line) for line in self.lines(tmp_path, "jsonl")]

    def lines(self, tmp_path: Path, extension: str) -> list[bytes]:
        """Read what is finished and what grows, by name; again if a file is packed meanwhile."""
        folder = tmp_path / "rows"
        while True:
            paths = list_files(folder, extension)
            with contextlib.suppress(FileNotFoundError):
                found = list(read_lines(paths))
                if list_files(folder, extension) == paths:
                    return found


def list_files(folder: Path, extension: str) -> set[Path]:
    return {path for path in folder.rglob(f"*.{extension}*") if path.suffix != ".tmp"}


def read_lines(paths: Collection[Path]) -> Iterator[bytes]:
    for path in sorted(paths, key=lambda path: str(path).replace(".part", "")):
        if path.suffix == ".part" and path.with_suffix(".gz").exists():
            continue
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            yield from file


class TestSmallPackedFilesOfEachSymbol(TestJsonLines):
    template = "{symbol}/{period}"
    max_bytes = 20_000
    compression = "gzip"


class TestCsv(TestJsonLines):
    @asynccontextmanager
    async def make_sink(self, tmp_path: Path) -> AsyncIterator[Sink]:
        async with open_csv(self.settings(tmp_path)) as sink:
            yield sink

    async def read_back(self, tmp_path: Path) -> Sequence[Snapshot]:
        lines = [line.decode() for line in self.lines(tmp_path, "csv")]
        found = csv.DictReader(line for at, line in enumerate(lines) if not at or line != lines[0])
        return [read_cells(cells) for cells in found]


def read_cells(cells: dict[str, str]) -> Snapshot:
    sides: dict[str, list[Level]] = {"bid": [], "ask": []}
    for side, levels in sides.items():
        for number in range(1, SNAPSHOT_DEPTH + 1):
            price, quantity = cells[f"{side}{number}_price"], cells[f"{side}{number}_quantity"]
            if price:
                levels.append((price, quantity))
    return Snapshot(
        cells["symbol"], int(cells["update_id"]), int(cells["timestamp"]), *sides.values()
    )
