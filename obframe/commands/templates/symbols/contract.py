"""How the contract of symbol sources tests this one; ``obframe plugins check`` runs it too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from obframe import Instrument, SymbolSource
from obframe.testing import contracts

from .plugin import FileSymbols, read_symbols

_LOOK = 0.02  # seconds between two looks: a contract waits for little


class FileContract(contracts.SymbolSourceContract):
    """Writes the file that the source follows, below a folder of the contract's."""

    first = frozenset({Instrument("BTCUSDT"), Instrument("ETHUSDT")})
    can_change = True
    can_touch = True
    can_spoil = True
    can_fail = True

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open a source of two symbols."""
        _write(tmp_path, "BTCUSDT  # the first\n\nETHUSDT\n")
        yield FileSymbols(_file(tmp_path), _LOOK)

    @asynccontextmanager
    async def make_failing_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open one without a file."""
        yield FileSymbols(_file(tmp_path), _LOOK)

    async def change(self, tmp_path: Path) -> frozenset[Instrument]:
        """Add a symbol."""
        text = _file(tmp_path).read_text(encoding="utf-8")
        _write(tmp_path, text + f"NEW{len(text)}USDT\n")
        return read_symbols(_file(tmp_path).read_text(encoding="utf-8"))

    async def touch(self, tmp_path: Path) -> None:
        """Save the same symbols in another order."""
        lines = _file(tmp_path).read_text(encoding="utf-8").splitlines()
        _write(tmp_path, "\n".join(reversed(lines)))

    async def spoil(self, tmp_path: Path) -> None:
        """Write what is no symbol."""
        _write(tmp_path, "BTCUSDT\nno symbol: nonsense\n")

    async def mend(self, tmp_path: Path) -> frozenset[Instrument]:
        """Write another set."""
        _write(tmp_path, "BTCUSDT\nSOLUSDT\n")
        return frozenset({Instrument("BTCUSDT"), Instrument("SOLUSDT")})


def _file(folder: Path) -> Path:
    return folder / "symbols.txt"


def _write(folder: Path, text: str) -> None:
    """Replace the file at once, as a good editor does: no reader sees half of it."""
    draft = folder / "symbols.new"
    draft.write_text(text, encoding="utf-8")
    draft.replace(_file(folder))
