"""Plain values that every room shares."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from obframe.errors import SymbolError

SNAPSHOT_DEPTH = 20
"""Levels a side in a stored row."""

MIN_TIMESTAMP = 1_000_000_000
MAX_TIMESTAMP = 9_999_999_999
"""Unix seconds of ten digits: outside of it the order of keys would not be the order of time."""

_VENUE = re.compile(r"[a-z][a-z0-9_-]*")  # as the names of providers are


@dataclass(frozen=True, slots=True, order=True)
class Instrument:
    """One order book somewhere.

    Args:
        symbol: The name as it stands in stored keys, such as ``BTCUSDT`` or, with its venue,
            ``kraken/BTC/USD``. No ``:``, no control or space characters, no ``..``.
        venue: The name of the feed that speaks for it, which the symbol then begins with; empty
            for the default venue.

    Raises:
        SymbolError: The symbol cannot be part of a key, or does not begin with its venue.
    """

    symbol: str
    venue: str = ""

    def __post_init__(self) -> None:
        check_symbol(self.symbol)
        if self.venue and not self.symbol.startswith(f"{self.venue}/"):
            raise SymbolError(self.symbol, f"is of venue {self.venue!r} but does not begin with it")
        if self.venue and not self.native:
            raise SymbolError(self.symbol, f"names the venue {self.venue!r} and no symbol of it")

    @classmethod
    def parse(cls, text: str) -> Instrument:
        """Read an instrument as people type it: ``BTCUSDT``, or ``kraken/BTC/USD`` with its venue.

        What stands before the first ``/`` is a venue when it could be the name of a feed: lower
        case, beginning with a letter. So ``BTC/USD`` is a symbol of the default venue.

        Raises:
            SymbolError: It cannot be part of a key, or names a venue and no symbol.
        """
        venue, slash, _ = text.partition("/")
        return cls(text, venue if slash and _VENUE.fullmatch(venue) else "")

    @property
    def native(self) -> str:
        """What the venue itself calls it, such as ``BTC/USD``."""
        return self.symbol[len(self.venue) + 1 :] if self.venue else self.symbol


def check_symbol(symbol: str) -> str:
    """Return the symbol when it can be part of a key.

    Raises:
        SymbolError: It is no text, empty, over 128 bytes long, or has a character that keys cannot
            hold.
    """
    if not isinstance(symbol, str):
        raise SymbolError(symbol, "is no text; give a symbol such as 'BTCUSDT'")
    if not symbol:
        raise SymbolError(symbol, "is empty")
    try:
        size = len(symbol.encode())
    except UnicodeEncodeError:
        raise SymbolError(symbol, "is not valid Unicode") from None
    if size > 128:
        raise SymbolError(symbol, "is longer than 128 bytes")
    if ":" in symbol:
        raise SymbolError(symbol, "holds ':', which separates symbol and time in keys")
    if ".." in symbol:
        raise SymbolError(symbol, "holds '..'")
    for character in symbol:
        if character.isspace() or unicodedata.category(character).startswith("C"):
            raise SymbolError(symbol, f"holds the character U+{ord(character):04X}")
    return symbol


class Record(NamedTuple):
    """One stored row: MessagePack bytes of a snapshot, by symbol and Unix second."""

    symbol: str
    timestamp: int
    value: bytes


class RowBatch(NamedTuple):
    """Stored rows of one symbol, oldest first.

    Attributes:
        timestamps: Unix seconds, from the keys; each later than the one before.
        values: MessagePack bytes of the snapshots, as many.
    """

    timestamps: Sequence[int]
    values: Sequence[bytes]


class GapReason(StrEnum):
    """Why a second was not stored."""

    CONNECTING = "connecting"  # no stream yet, or the stream is being opened again
    SYNCING = "syncing"  # stream open, book not yet proven
    SEQUENCE = "sequence"  # update ids were not contiguous
    CHECKSUM = "checksum"  # the book's checksum is not the venue's
    INVALID = "invalid"  # the venue sent an event that was refused
    SILENT = "silent"  # the stream is open but carries no data
    DISCONNECTED = "disconnected"  # the stream broke
    SNAPSHOT = "snapshot"  # the venue's snapshot cannot be had (429, 5xx, time-out)
    BUFFER = "buffer"  # the resync buffer was full, the attempt given up
    EMPTY = "empty"  # both sides of the book are empty
    CROSSED = "crossed"  # best bid at or above best ask
    CAPACITY = "capacity"  # a value does not fit the book's fixed point
    HALTED = "halted"  # trading halted or the symbol delisted
    UNKNOWN_SYMBOL = "unknown_symbol"  # the venue does not know the symbol
    DISK = "disk"  # storage did not take the row within the bound
    CLOCK_STEP = "clock_step"  # the wall clock was moved
    SUSPENDED = "suspended"  # the machine slept
    STALLED = "stalled"  # the process did not get to its tick in time
    PROCESS_DOWN = "process_down"  # no recorder ran
    UNSUBSCRIBED = "unsubscribed"  # a recorder ran, but the symbol was not wanted
    INTERNAL = "internal"  # a fault of ours
    DAMAGED = "damaged"  # was stored, and was lost with a damaged file


_VENUES = frozenset(
    {
        GapReason.SEQUENCE, GapReason.CHECKSUM, GapReason.INVALID, GapReason.SILENT,
        GapReason.DISCONNECTED, GapReason.SNAPSHOT, GapReason.EMPTY, GapReason.CROSSED,
        GapReason.HALTED, GapReason.UNKNOWN_SYMBOL,
    }
)  # fmt: skip


class Gap(NamedTuple):
    """A run of seconds that were not stored; ``start`` and ``end`` are both inside it.

    Attributes:
        symbol: The instrument's symbol.
        start: First Unix second missing.
        end: Last Unix second missing.
        reason: The cause.
        detail: One line for a person, such as the error's text.
    """

    symbol: str
    start: int
    end: int
    reason: GapReason
    detail: str = ""

    @property
    def seconds(self) -> int:
        """Number of seconds in the gap."""
        return self.end - self.start + 1

    @property
    def origin(self) -> str:
        """``venue`` or ``ours``: on whose side the cause lies."""
        return "venue" if self.reason in _VENUES else "ours"


class MarkKind(StrEnum):
    """What is to be known of stored rows beyond their bytes."""

    UNCERTAIN = "uncertain"  # level 20 lies beyond what the venue's snapshot covered
    EPOCH = "epoch"  # first row after a (re)synchronisation
    STALE = "stale"  # at the last update before a loss: later ones may have been missing already
    RELIVED = "relived"  # the wall clock was set back over it; what is stored is of the first time


class Mark(NamedTuple):
    """A run of stored rows with something to be known of them; both ends inside it.

    Attributes:
        symbol: The instrument's symbol.
        start: First Unix second.
        end: Last Unix second.
        kind: What is to be known.
    """

    symbol: str
    start: int
    end: int
    kind: MarkKind


class BookState(StrEnum):
    """Where a book stands. Only a ``LIVE`` book is sampled."""

    UNSUBSCRIBED = "unsubscribed"
    CONNECTING = "connecting"  # waits for the first stream
    SYNCING = "syncing"  # stream open, waits for snapshot and first contiguous event
    LIVE = "live"
    STALE = "stale"  # the stream is open but silent
    RESYNCING = "resyncing"  # was live, is being proven anew
    HALTED = "halted"
    RECONNECTING = "reconnecting"  # was subscribed, stream lost


class StateChange(NamedTuple):
    """One change of a book's state.

    Attributes:
        instrument: Whose book.
        old: State before.
        new: State after.
        reason: Why; None for changes towards ``LIVE``.
        detail: One line for a person.
        update_id: Where the book stood that this change threw away; None when it had none to lose.
    """

    instrument: Instrument
    old: BookState
    new: BookState
    reason: GapReason | None
    detail: str
    update_id: int | None = None


class StreamEvent(StrEnum):
    """What happened to the stream of some instruments, as a feed tells it."""

    CONNECTING = "connecting"  # the connection is being opened
    SUBSCRIBED = "subscribed"  # the venue took the subscription; events may come from now on
    DISCONNECTED = "disconnected"  # the stream is lost; whatever comes next is a new stream
    SILENT = "silent"  # no data for a while; what is known may be out of date
    RESUMED = "resumed"  # data flows again on the same stream, nothing was lost
    INVALID = "invalid"  # an event of these instruments was refused or lost
    SNAPSHOT_FAILED = (
        "snapshot_failed"  # the requested snapshot is delayed; it is still being tried
    )
    HALTED = "halted"  # the venue does not trade it, or does not know it
    TRADING = "trading"  # the venue trades it (again)


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """A feed's word on the stream of some instruments.

    Args:
        event: What happened.
        instruments: Whose streams.
        reason: The cause to record for the seconds that this costs; None where it costs none.
        detail: One line for a person.
    """

    event: StreamEvent
    instruments: frozenset[Instrument]
    reason: GapReason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run of the recorder, as observers see it.

    Attributes:
        run_id: Unique text.
        started: Unix seconds.
        version: obframe's version.
        plugins: Names of the loaded plugins.
        settings: What is set in each section of the loaded plugins, an instance of its dataclass.
    """

    run_id: str
    started: int
    version: str
    plugins: tuple[str, ...] = field(default=())
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
