"""Which market each symbol's rows are of, kept beside them: rows of two would be of neither.

``BTCUSDT`` is a symbol of Binance's spot market and one of its futures; keys have the symbol alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from obframe.errors import StorageError
from obframe.positions import replace_file
from obframe.protocols import Storage

logger = logging.getLogger("obframe.origins")


class Origins:
    """The markets of one storage's symbols. Blocks.

    Args:
        storage: One without a ``state_directory`` keeps nothing beyond the process.

    Raises:
        StorageError: What was kept cannot be read or understood.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        beside = getattr(storage, "state_directory", None)
        self._path = None if beside is None else Path(beside) / "origins.json"
        self._known = self._load()

    def claim(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Note which market these symbols' rows are to be of from now on.

        Args:
            wanted: The market by symbol, such as ``binance spot``.

        Returns:
            The symbols that have rows of another market, with that market. They stay its own.
        """
        others = {
            symbol: self._known[symbol]
            for symbol, market in wanted.items()
            if self._known.get(symbol, market) != market and self._has_rows(symbol)
        }
        fresh = {symbol: market for symbol, market in wanted.items() if symbol not in others}
        if not fresh.items() <= self._known.items():
            self._known.update(fresh)
            self._save()
        return others

    def _has_rows(self, symbol: str) -> bool:
        try:
            return self._storage.latest(symbol) is not None
        except StorageError:  # there is something, if it cannot be read
            return True

    def _load(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, msgspec.DecodeError) as error:
            reason = f"{self._path}: which markets the rows are of cannot be read: {error}"
            mend = "restore it, or remove it if all rows are of the markets that are recorded now"
            raise StorageError(f"{reason}; {mend}", str(self._path)) from error

    def _save(self) -> None:
        """Keep what is known; without a place for it rows are recorded all the same."""
        if self._path is None:
            return
        try:
            replace_file(self._path, msgspec.json.encode(self._known, order="sorted") + b"\n")
        except OSError as error:
            logger.warning("which markets the rows are of cannot be kept: %s", error)
