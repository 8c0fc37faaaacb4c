"""What a plugin implements: symbol sources, feeds, storages and sinks.

Everything a plugin author needs stands here, in ``obframe.types`` and in ``obframe.testing``.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from obframe._core import DepthSnapshot, DepthUpdate, Snapshot
from obframe.types import FeedStatus, Gap, Instrument, Mark, Record, RowBatch

FeedEvent: TypeAlias = DepthUpdate | DepthSnapshot | FeedStatus

Emit: TypeAlias = Callable[[FeedEvent], None]
"""Takes one feed event. Never blocks, never raises: the event is applied when it returns."""


@runtime_checkable
class SymbolSource(Protocol):
    """Says which instruments are wanted."""

    def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield the wanted set, once at the start and again whenever it changes.

        A source whose set never changes ends after the first; the set then stands. It stands, too,
        when a later look fails: raise, and ``watch`` is called anew; never yield what was not read.
        """
        ...


@runtime_checkable
class EditableSymbolSource(SymbolSource, Protocol):
    """A symbol source whose set other programs change, as ``obframe symbols add`` does.

    Plain blocking code, safe to call from several threads and processes. Each change is made whole
    or not at all, outlives the process, and is seen by whoever watches within a second.
    """

    def symbols(self) -> list[str]:
        """Return all symbols of the set, sorted."""
        ...

    def add(self, symbols: Iterable[str]) -> list[str]:
        """Add symbols and return those that were not in it before.

        Raises:
            SymbolError: One cannot be part of a key; nothing was added.
        """
        ...

    def remove(self, symbols: Iterable[str]) -> list[str]:
        """Remove symbols and return them.

        Raises:
            SymbolError: One is not in the set; nothing was removed.
        """
        ...


@runtime_checkable
class Feed(Protocol):
    """Speaks to one venue and hands what it says to ``emit``, in order, with no queue between.

    The instruments that it is asked for bear the venue's own names and no venue, whatever the
    symbols of the rows are; what it emits names the same symbols, and no others.

    A feed normalises continuity: every update's ``prev_update_id`` is the ``last_update_id`` of the
    update before it on an unbroken stream. It opens the stream of an instrument before its
    snapshot can be asked for, and says ``SUBSCRIBED`` when the stream is open.
    """

    async def run(self, emit: Emit) -> None:
        """Deliver events until cancelled. Whatever escapes is logged and ``run`` is called anew.

        Its end, however it comes, leaves no task, thread or socket behind.

        Raises:
            RuntimeError: It runs already.
        """
        ...

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Want these instruments too. May be called before and during ``run``; returns at once."""
        ...

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Want these instruments no longer; returns at once."""
        ...

    def request_snapshot(self, instrument: Instrument) -> None:
        """Ask for a whole book, to be delivered as ``DepthSnapshot`` through ``emit``.

        Returns at once. The feed queues the request within the venue's limits and goes on trying
        until the snapshot is delivered or the instrument unsubscribed. Asking for what is already
        queued changes nothing.
        """
        ...

    def counters(self) -> Mapping[str, int]:
        """Return what happened so far, such as ``messages``, ``malformed``, ``reconnects``."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Keeps rows, gaps and marks. Plain blocking code, safe to call from several threads.

    Every method may raise ``StorageError``; ``StoreUnavailable`` says that trying again may help.

    A storage on disk may have an attribute ``state_directory``, a path where small files that
    belong with its rows can be kept: delivery positions of sinks go there.
    """

    def append(self, records: Sequence[Record]) -> Sequence[Record]:
        """Store the records in one atomic batch, durable at the configured level on return.

        A second that is stored already is never overwritten.

        Returns:
            The records that were refused because their second was stored already.
        """
        ...

    def scan(self, symbol: str, start: int, end: int) -> Iterator[Record]:
        """Iterate over the rows of ``start <= timestamp <= end`` (Unix seconds), oldest first.

        The iteration sees one consistent state. It ends with an error, never short, when a part
        cannot be read. Close the iterator (or exhaust it) to release what it holds.
        """
        ...

    def latest(self, symbol: str) -> Record | None:
        """Return the newest row of the symbol."""
        ...

    def symbols(self) -> list[str]:
        """Return all symbols that have rows or gaps, sorted."""
        ...

    def delete_before(self, symbol: str, timestamp: int) -> None:
        """Delete rows, gaps and marks of the symbol before ``timestamp`` (exclusive), cheaply."""
        ...

    def append_gaps(self, gaps: Sequence[Gap]) -> None:
        """Record gaps durably.

        A gap that touches or overlaps one of the same symbol, reason and detail extends it, so
        that a long gap can be told in instalments.
        """
        ...

    def gaps(self, symbol: str, start: int, end: int) -> list[Gap]:
        """Return the gaps that have a second in ``start..end``, oldest first, uncut."""
        ...

    def append_marks(self, marks: Sequence[Mark]) -> None:
        """Record marks durably; touching marks of the same symbol and kind become one."""
        ...

    def marks(self, symbol: str, start: int, end: int) -> list[Mark]:
        """Return the marks that have a second in ``start..end``, oldest first, uncut."""
        ...

    def close(self) -> None:
        """Flush and release everything. May be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a storage takes up on the disk.

    Attributes:
        bytes: All of it, with logs, ledgers and what is deleted but not given back yet.
        rows: About how many rows there are.
        by_symbol: About how many of the bytes are each symbol's.
        log_bytes: What of it holds rows a second time, to be safe.
        foreign_keys: Keys beside the rows that are no rows'; those between two rows of a symbol are
            met only by reading them.
    """

    bytes: int
    rows: int
    by_symbol: Mapping[str, int]
    log_bytes: int = 0
    foreign_keys: int = 0


@runtime_checkable
class Measurable(Protocol):
    """A storage that knows what it takes up: what ``retention.max_bytes`` needs. Optional."""

    def usage(self) -> Usage:
        """Return what the storage takes up now. Cheap: it does not read the rows."""
        ...

    def reclaim(self) -> None:
        """Give the space of deleted rows back now, instead of by and by. May take long."""
        ...


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup of a storage.

    Attributes:
        name: By which it is restored.
        created: Unix second.
        newest: Second of the newest row in it.
        symbols: How many symbols have rows in it.
        bytes: What it takes up, files shared with other backups counted.
        copied: Bytes that were new, when it was just taken; else 0.
    """

    name: str
    created: int
    newest: int
    symbols: int
    bytes: int
    copied: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was saved of a damaged storage, and what was not.

    Attributes:
        rows: Rows saved.
        holes: Unreadable places that were stepped over.
        foreign: Keys outside the format, left out.
        lost: Runs of seconds that no row or gap tells of any more, recorded as ``damaged`` gaps.
    """

    rows: int
    holes: int
    foreign: int
    lost: Sequence[Gap]


Tell: TypeAlias = Callable[[int, int], None]
"""Told again and again how much is done, and of how much; 0 for the latter when it is not known."""


class Maintenance(Protocol):
    """What can be done to a storage from outside. All of it blocks."""

    def backup(self, folder: Path, tell: Tell) -> Backup:
        """Add a backup of the storage as it is now, while it may be being written.

        Raises:
            StorageError: It cannot be read, or the folder cannot be written.
        """
        ...

    def backups(self, folder: Path) -> list[Backup]:
        """List the backups in a folder, oldest first."""
        ...

    def prune(self, folder: Path, keep: int) -> int:
        """Remove all but the newest ``keep`` backups; return how many went."""
        ...

    def restore(self, folder: Path, name: str | None, tell: Tell) -> Backup:
        """Put a backup, the newest by default, where the settings say and nothing is yet.

        Raises:
            StoreCorrupt: The backup is damaged; nothing is left behind.
            StorageError: Something is there already, or there is no such backup.
        """
        ...

    def repair(self, target: str, tell: Tell) -> Repaired:
        """Save what can be read into a new storage at ``target``; the damaged one stays as it is.

        Raises:
            StorageError: The target exists, or nothing at all can be read.
        """
        ...


@runtime_checkable
class BatchScan(Protocol):
    """What a ``Storage`` may offer besides, to be read faster: many rows a call, no object a row.

    Without it ``scan`` is read instead.
    """

    def scan_batches(self, symbol: str, start: int, end: int) -> Iterator[RowBatch]:
        """Iterate over the rows that ``scan`` would give, by the same rules, some at a time.

        No batch is empty. When a part cannot be read, the rows before it come first, then the
        error.
        """
        ...


@runtime_checkable
class Sink(Protocol):
    """Is told of every sampled row. Queue, time-out, retries and position are the framework's.

    A sink is opened, written to and closed in a thread and an event loop of its own: what it does
    there, even code that blocks, holds up nobody else. It may be closed and opened again in one
    run, when it goes on failing.
    """

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Take snapshots of one or more seconds, of each symbol oldest first.

        Return when all of them are safe at the other end, raise when that is not sure: the same
        snapshots then come again, alone or with others. A provider with ``backfill`` is given
        every stored row at least once, so the same row may come twice; it is known by its symbol
        and second (``snapshot_id``). Calls come one at a time.
        """
        ...


T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Provider(Generic[T_co]):
    """Offers one implementation of a protocol by name.

    Args:
        name: What ``--storage NAME`` and the like select, and the section of its settings.
        summary: One line.
        settings: A frozen dataclass whose fields all have defaults and ``metadata={"help": …}``.
        open: Called with an instance of ``settings``; the async context manager it returns owns
            the lifetime of what it yields.
        open_reader: For storages that other processes can read while one writes: called with an
            instance of ``settings``, returns a context manager around a ``Storage`` to read from.
            It blocks, creates nothing where there is no database, and sees every row acknowledged
            before a call; its methods that write raise ``StorageError``. None: not offered.
        maintenance: For storages that offer it: called with an instance of ``settings``.
        backfill: For sinks: True asks for every stored row, at least once, in order, with a
            position that outlives the process; what could not be delivered is read back from the
            storage. False: live snapshots only, as they are sampled; the oldest are dropped, and
            counted, when the sink cannot keep up.
        contract: Where the class stands that tests it, ``package.module:Class``: a subclass of its
            kind's contract in ``obframe.testing.contracts``. ``obframe plugins check`` imports and
            runs it, nothing else does, so it may need what is not installed elsewhere. Empty: none.
    """

    name: str
    summary: str
    settings: type[Any]
    open: Callable[[Any], AbstractAsyncContextManager[T_co]]
    open_reader: Callable[[Any], AbstractContextManager[T_co]] | None = None
    maintenance: Callable[[Any], Maintenance] | None = None
    backfill: bool = False
    contract: str = ""
