"""What a storage's author gives, and the rows that the rules are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from obframe.protocols import Storage
from obframe.testing.contracts.rules import Contract
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Record

T = 1_737_158_400
LINE = 1_800_000_000
"""A second at which many digits change."""

ALWAYS = (MIN_TIMESTAMP, MAX_TIMESTAMP)


def record(symbol: str, timestamp: int) -> Record:
    """Return a row that says whose it is."""
    return Record(symbol, timestamp, f"{symbol}@{timestamp}".encode())


def records(symbol: str, start: int, end: int, step: int = 1) -> list[Record]:
    """Return the rows of ``start..end``, both inside."""
    return [record(symbol, second) for second in range(start, end + 1, step)]


class StorageFactory(Contract):
    """What the author of a storage gives: a factory and flags.

    Attributes:
        persistent: Rows survive closing and opening again at the same ``tmp_path``.
        supports_reader: ``make_reader`` gives a second view that sees what was acknowledged.
        is_exclusive: A second storage cannot be opened while the first is open.
        can_break: Writing can be made to fail for a while: ``break_`` and ``mend``.
        can_damage: What is stored can be damaged: ``damage``.
    """

    persistent = False
    supports_reader = False
    is_exclusive = False
    can_break = False
    can_damage = False

    def make_storage(self, tmp_path: Path) -> AbstractContextManager[Storage]:
        """Return a context manager around a storage that keeps its files below ``tmp_path``.

        Called again with the same path after the first was closed, it opens the same store.
        """
        raise NotImplementedError(f"{type(self).__name__}.make_storage is needed")

    def make_reader(self, tmp_path: Path) -> AbstractContextManager[Storage]:
        """Return a context manager around a reader of the store at ``tmp_path``."""
        raise NotImplementedError(f"{type(self).__name__}.make_reader: see supports_reader")

    def settle(self, storage: Storage) -> None:
        """Bring rows to where they rest, such as from memory to files. Nothing by default.

        Some faults show only in rows at rest; the contract calls this before it reads.
        """

    def break_(self, storage: Storage) -> None:
        """Have every write fail from now on, as a full disk does (``can_break``)."""
        raise NotImplementedError(f"{type(self).__name__}.break_ is needed by can_break")

    def mend(self, storage: Storage) -> None:
        """Have writes succeed again (``can_break``)."""
        raise NotImplementedError(f"{type(self).__name__}.mend is needed by can_break")

    def damage(self, tmp_path: Path) -> None:
        """Damage rows of the closed store, as by other bytes in its files (``can_damage``)."""
        raise NotImplementedError(f"{type(self).__name__}.damage is needed by can_damage")

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        """Give an empty storage."""
        with self.make_storage(tmp_path) as storage:
            yield storage
