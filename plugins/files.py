"""Sinks ``jsonl`` and ``csv``: every stored row as a line of a file, once, whole, in order.

A row's file is told by its own second, not by when it came. A file that grows ends in ``.part``; it
loses that when its period is over and the first row of the next is there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from obframe import PluginError, Provider, Sink, Snapshot, hookimpl
from obframe_plugins._row_files import RowFiles
from obframe_plugins._row_lines import CSV, JSONL, LineFormat
from obframe_plugins._row_paths import PathTemplate, Rotation, check_template

OBFRAME_API = 1


@dataclass(frozen=True, slots=True)
class FileSettings:
    """What both sinks are told.

    Raises:
        ValueError: The path does not keep periods apart, or a number is negative.
    """

    path: str = field(
        default="obframe-rows/{period}",
        metadata={
            "help": "Path of the files, without extension: `{period}` is the hour or day in UTC; "
            "`{symbol}` gives each symbol files of its own, at one fsync a second each."
        },
    )
    rotate: Rotation = field(default="hour", metadata={"help": "How long a file's period is."})
    max_bytes: int = field(
        default=0,
        metadata={
            "help": "Size, before compression, past which a period goes on in another file; 0: "
            "none."
        },
    )
    compression: Literal["none", "gzip"] = field(
        default="none", metadata={"help": "What finished files are compressed with."}
    )

    def __post_init__(self) -> None:
        check_template(self.path)
        if self.max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {self.max_bytes}")


class FileSink:
    """Appends rows to files.

    It blocks while it writes, for the thread is its own.
    """

    def __init__(self, files: RowFiles) -> None:
        self._files = files

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Append the rows that are not there yet; on the disk when it returns."""
        self._files.append(snapshots)


@contextmanager
def _hold(name: str, directory: Path) -> Iterator[None]:
    """Keep others from writing the same files.

    Raises:
        PluginError: Another process does, or the directory cannot be written.
    """
    setting = f"{name}.path"
    lock = directory / f".obframe-{name}.lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        reason = f"{directory} cannot be written: {error.strerror}"
        raise PluginError(name, reason, f"choose another {setting}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = f"another process writes files into {directory}"
            raise PluginError(name, reason, f"stop it, or choose another {setting}") from error
        yield
    finally:
        os.close(handle)


@asynccontextmanager
async def _open(name: str, lines: LineFormat, settings: FileSettings) -> AsyncIterator[Sink]:
    paths = PathTemplate(settings.path, settings.rotate)
    with (
        _hold(name, paths.directory),
        closing(
            RowFiles(
                paths,
                lines,
                max_bytes=settings.max_bytes,
                compress=settings.compression == "gzip",
            )
        ) as files,
    ):
        yield FileSink(files)


@asynccontextmanager
async def open_jsonl(settings: FileSettings) -> AsyncIterator[Sink]:
    """Open the sink ``jsonl``."""
    async with _open("jsonl", JSONL, settings) as sink:
        yield sink


@asynccontextmanager
async def open_csv(settings: FileSettings) -> AsyncIterator[Sink]:
    """Open the sink ``csv``."""
    async with _open("csv", CSV, settings) as sink:
        yield sink


@hookimpl
def obframe_sinks() -> Sequence[Provider[Sink]]:
    """Offer ``jsonl`` and ``csv``."""
    return [
        Provider(
            "jsonl",
            "rows as lines of JSON in files",
            FileSettings,
            open_jsonl,
            backfill=True,
            contract="obframe_plugins._contracts_files:JsonLinesContract",
        ),
        Provider(
            "csv",
            "rows as lines of CSV in files",
            FileSettings,
            open_csv,
            backfill=True,
            contract="obframe_plugins._contracts_files:CsvContract",
        ),
    ]
