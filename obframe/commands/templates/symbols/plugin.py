"""Symbol source ``myplugin``: the lines of a text file that is watched."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from obframe import Instrument, ObframeError, Provider, SymbolSource, hookimpl

OBFRAME_API = 1  # the version of obframe's hooks and protocols that this is written for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SymbolsSettings:
    """Settings of the symbol source: the section ``[myplugin]``.

    Raises:
        ValueError: A value cannot be used.
    """

    path: str = field(
        default="symbols.txt",
        metadata={"help": "The file: a symbol on each line; what stands after a # is a remark."},
    )
    interval: float = field(
        default=1.0, metadata={"help": "Seconds between two looks at the file."}
    )

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is empty; name a file")
        if not (math.isfinite(self.interval) and self.interval > 0):
            raise ValueError(f"interval must be more than 0 and finite, got {self.interval}")


class FileSymbols:
    """Looks at the file again and again, and tells of every change.

    Args:
        path: The file.
        interval: Seconds between two looks.
    """

    def __init__(self, path: Path, interval: float) -> None:
        self._path = path
        self._interval = interval

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield what the file names, and again when that has changed.

        A file that cannot be used any more changes nothing; that is logged once.

        Raises:
            ObframeError: It cannot be used at the start, when there is nothing to go on with.
        """
        wanted = await self._read()
        yield wanted
        trouble = ""
        while True:
            await asyncio.sleep(self._interval)
            try:
                found = await self._read()
            except ObframeError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    logger.warning("%s; the symbols stay as they are", trouble)
                continue
            trouble = ""
            if found != wanted:
                wanted = found
                yield wanted

    async def _read(self) -> frozenset[Instrument]:
        try:
            # In a thread: the disk may take its time, and the event loop must not wait for it.
            text = await asyncio.to_thread(self._path.read_text, encoding="utf-8")
            return read_symbols(text)
        except OSError as error:
            why = f"{self._path} cannot be read: {error.strerror}"
            mend = "write a symbol on each line of it, or name another file by"
            raise ObframeError(f"{why}; {mend} myplugin.path") from error
        except ValueError as error:  # it is not UTF-8, or a line is no symbol
            raise ObframeError(f"myplugin: {self._path}: {error}") from error


def read_symbols(text: str) -> frozenset[Instrument]:
    """Read the symbols of a file.

    Raises:
        SymbolError: A line holds what is no symbol.
        ValueError: There is none.
    """
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    symbols = frozenset(Instrument.parse(line) for line in lines if line)
    if not symbols:
        raise ValueError("it names no symbol; write one on a line, such as BTCUSDT")
    return symbols


@asynccontextmanager
async def open_source(settings: SymbolsSettings) -> AsyncIterator[SymbolSource]:
    """Open the symbol source."""
    yield FileSymbols(Path(settings.path), settings.interval)


@hookimpl
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:
    """Offer the symbol source."""
    return [
        Provider(
            "myplugin",
            "the lines of a text file, followed while it runs",
            SymbolsSettings,
            open_source,
            contract="obframe_myplugin.contract:FileContract",
        )
    ]
