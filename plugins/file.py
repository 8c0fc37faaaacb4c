"""Symbol source ``file``: the symbols that a file names, followed while it changes."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from obframe import ConfigError, Duration, Instrument, Problem, Provider, SymbolSource, hookimpl
from obframe_plugins._symbol_file import MOST_BYTES, parse_file
from obframe_plugins._symbol_lists import Sleep, follow

OBFRAME_API = 1

logger = logging.getLogger("obframe.file")

_KEY = "file.path"
_Signature: TypeAlias = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class FileSettings:
    """Settings of the symbol source ``file``.

    Raises:
        ValueError: The path is empty or the interval 0.
    """

    path: str = field(
        default="symbols.txt",
        metadata={
            "help": "File to read: a symbol a line, `#` before comments; `.json`: a list; "
            "`.toml`: the key `symbols`."
        },
    )
    interval: Duration = field(
        default=Duration(1),
        metadata={"help": "Time between two looks; a change holds once it was seen at two."},
    )

    def __post_init__(self) -> None:
        if not self.path or "\0" in self.path:
            raise ValueError(f"path {self.path!r} is no path of a file")
        if self.interval <= 0:
            raise ValueError("interval must be more than 0")


class FileSymbols:
    """Yields the symbols of a file, and again when they change.

    A change that is no good list changes nothing: it is told, and the set of before stands. A file
    that was written to since the last look is left alone until the next, so that one being written
    is not read in the middle.

    Args:
        path: The file.
        interval: Seconds between two looks.
        sleep: Waits for them.

    Raises:
        ConfigError: The file cannot be read or is no good list; it holds every mistake.
    """

    def __init__(self, path: str, interval: float = 1.0, sleep: Sleep = asyncio.sleep) -> None:
        self._path = path
        self._interval = interval
        self._sleep = sleep
        self._mistake: ConfigError | None = None
        self._seen = self._taken = _look(path)
        self._held = _read(path)

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield the set, and again whenever it changes."""
        held = await asyncio.to_thread(self._begin)
        path, interval = self._path, self._interval
        async for now in follow(path, held, self.read, interval, self._sleep, logger):
            yield now

    def _begin(self) -> frozenset[Instrument]:
        now = _look(self._path)
        if now != self._taken:
            self._take(now)
        return self._held

    def read(self) -> frozenset[Instrument]:
        """Look at the file and return the set that holds now. Blocks.

        Raises:
            ConfigError: What the file was last changed to is no good list.
        """
        now = _look(self._path)
        before, self._seen = self._seen, now
        if now != self._taken and now == before:
            self._take(now)
        if self._mistake is not None:
            raise self._mistake
        return self._held

    def _take(self, now: _Signature | None) -> None:
        try:
            held, mistake = _read(self._path), None
        except ConfigError as error:
            held, mistake = self._held, error
        # What was written while it was read, is read when it has come to rest.
        self._seen = _look(self._path)
        if self._seen == now:
            self._held, self._mistake, self._taken = held, mistake, now


def _look(path: str) -> _Signature | None:
    """Return what differs when a file was written or replaced; None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: str) -> frozenset[Instrument]:
    try:
        # What is no plain file may have no end, or keep its reader waiting for ever.
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError([Problem(path, _KEY, "is no plain file: give a file of symbols")])
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        mend = "write a symbol a line into it, or name another file by file.path"
        raise ConfigError(
            [Problem(path, _KEY, f"cannot be read: {error.strerror}; {mend}")]
        ) from error
    return parse_file(path, content, _KEY)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@asynccontextmanager
async def open_file(settings: FileSettings) -> AsyncIterator[SymbolSource]:
    """Open the source: its first reading must be good."""
    interval = float(settings.interval)
    yield await asyncio.to_thread(FileSymbols, settings.path, interval)


@hookimpl
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:
    """Offer ``file``."""
    summary = "the symbols that a file names, followed while it changes"
    contract = "obframe_plugins._contracts_symbols:FileContract"
    return [Provider("file", summary, FileSettings, open_file, contract=contract)]
