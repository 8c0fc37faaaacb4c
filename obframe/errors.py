"""Every exception obframe raises. This module imports nothing from obframe.

::

    ObframeError
    ├── ConfigError            settings: all problems at once
    ├── PluginError            a plugin that cannot be loaded or opened
    ├── MessageError           what a venue sent cannot be used
    │   ├── MalformedMessage   not JSON, truncated, too deep, not UTF-8
    │   └── InvalidEvent       JSON, but an id, price or quantity is refused
    ├── SequenceError          an update does not follow the book: what lies between is lost
    ├── CapacityError          a value is exact but does not fit a book's or column's fixed point
    ├── DecodeError            stored bytes are not a row
    ├── SymbolError            a symbol that cannot be part of a key
    ├── QueryError             a time, a range or a number that cannot be asked for
    ├── UnknownSymbol          nothing is stored of a symbol
    ├── MissingExtra           a library that an extra brings is not installed
    ├── FeedError              a venue cannot be reached or refuses us
    ├── SinkError              a sink's other end cannot be reached or did not take its rows
    └── StorageError
        ├── StoreLocked        another process writes this database
        ├── StoreFormatError   not an obframe database, or of a newer format
        ├── StoreCorrupt       damaged files
        └── StoreUnavailable   disk full, I/O error: may heal, try again
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class ObframeError(Exception):
    """Base of everything obframe raises on purpose. All of them can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the text and the attributes, whatever an error is made from."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[ObframeError], args: tuple[Any, ...]) -> ObframeError:
    error = kind.__new__(kind, *args)
    if isinstance(error, ImportError):  # it has its text a second time
        error.msg = str(error)
    return error


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the settings.

    Attributes:
        where: ``file:line``, ``environment OBFRAME_…``, ``--set`` or ``--symbols``.
        key: The dotted key, such as ``rocksdb.path``.
        message: What is wrong with which value, and the mend.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        told = not self.key or self.where.endswith(" " + self.key)
        return (
            f"{self.where}: {self.message}" if told else f"{self.where}: {self.key}: {self.message}"
        )


class ConfigError(ObframeError):
    """The settings are wrong; ``problems`` holds every mistake, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PluginError(ObframeError):
    """A plugin, or each of several, cannot be loaded, validated or opened."""

    def __init__(self, plugin: str, reason: str, mend: str) -> None:
        self.plugin = plugin
        self.reason = reason
        self.mend = mend
        super().__init__(f"plugin {plugin!r}: {reason}; {mend}")

    @classmethod
    def of_several(cls, errors: Sequence[PluginError]) -> PluginError:
        """Make one error of one or more; its text has a line for each."""
        if len(errors) == 1:
            return errors[0]
        parts = zip(*((error.plugin, error.reason, error.mend) for error in errors), strict=True)
        plugin, reason, mend = ("; ".join(part) for part in parts)
        merged = cls(plugin, reason, mend)
        merged.args = ("\n".join(map(str, errors)),)
        return merged


class MessageError(ObframeError):
    """What a venue sent cannot be used. ``symbol`` is None when it could not be read."""

    symbol: str | None


class MalformedMessage(MessageError):
    """A message that is not well-formed JSON of bounded depth in UTF-8.

    Attributes:
        symbol: The symbol that was read before the fault, or None.
        reason: What is wrong.
        offset: Byte offset of the fault.
    """

    def __init__(self, reason: str, offset: int = 0, symbol: str | None = None) -> None:
        self.reason = reason
        self.offset = offset
        self.symbol = symbol
        super().__init__(f"malformed message at byte {offset}: {reason}")


_WITHOUT_VALUE = ("is missing", "is empty")


class InvalidEvent(MessageError):
    """A depth event with an id, price or quantity that is refused; nothing of it is applied.

    Attributes:
        symbol: The event's symbol, or None when it has none.
        field: The field, such as ``u`` or ``bids[3].price``.
        value: The offending text, cut to 80 characters; empty when there is none.
        reason: What is wrong.
    """

    def __init__(self, symbol: str | None, field: str, value: str, reason: str) -> None:
        self.symbol = symbol
        self.field = field
        self.value = value[:80]
        self.reason = reason
        untold = not value and reason in _WITHOUT_VALUE
        what = field if untold else f"{field} = {self.value!r}:"
        super().__init__(f"{symbol or '?'}: {what} {reason}")


class SequenceError(ObframeError):
    """An update does not follow the book: what lies between is lost; the book is as it was.

    Attributes:
        symbol: The book's symbol.
        update_id: Where the book stands.
        prev_update_id: The id after which the update begins.
        last_update_id: The id with which it ends.
    """

    def __init__(
        self, symbol: str, update_id: int, prev_update_id: int, last_update_id: int
    ) -> None:
        self.symbol = symbol
        self.update_id = update_id
        self.prev_update_id = prev_update_id
        self.last_update_id = last_update_id
        super().__init__(
            f"{symbol}: the book stands at {update_id}, and the update begins after "
            f"{prev_update_id} (to {last_update_id}): load a new snapshot"
        )


class CapacityError(ObframeError):
    """A price or quantity is well-formed but exceeds what a book or a column can hold exactly.

    Attributes:
        symbol: Whose it is; empty for a stored row, which does not say.
        field: The field, such as ``bids[3].price``.
        value: The offending text, cut to 80 characters.
        limit: What it exceeds.
        row: Its row's index among those to be decoded; None for a message or a book.
    """

    def __init__(
        self, symbol: str, field: str, value: str, limit: str, *, row: int | None = None
    ) -> None:
        self.symbol = symbol
        self.field = field
        self.value = value[:80]
        self.limit = limit
        self.row = row
        where = symbol if row is None else f"row {row}"
        super().__init__(f"{where}: {field} = {self.value!r} does not fit: {limit}")


class DecodeError(ObframeError):
    """Stored bytes are not a row.

    Attributes:
        reason: What is wrong.
        offset: The byte where decoding failed.
        row: The row's index among those to be decoded; None when there was one only.
    """

    def __init__(self, reason: str, offset: int = 0, *, row: int | None = None) -> None:
        self.reason = reason
        self.offset = offset
        self.row = row
        which = "row" if row is None else f"row {row}"
        super().__init__(f"cannot decode {which} at byte {offset}: {reason}")


class SymbolError(ObframeError, ValueError):
    """A symbol that cannot be part of a key."""

    def __init__(self, symbol: str, reason: str) -> None:
        self.symbol = symbol
        self.reason = reason
        super().__init__(f"symbol {symbol!r}: {reason}")


class QueryError(ObframeError, ValueError):
    """A time, a range or a number that cannot be asked for.

    Attributes:
        what: ``time``, ``start``, ``end``, ``range``, ``seconds``, ``depth`` or ``timeout``.
        value: What was given, cut to 80 characters.
        reason: What is wrong with it, and the mend.
    """

    def __init__(self, what: str, value: str, reason: str) -> None:
        self.what = what
        self.value = value[:80]
        self.reason = reason
        super().__init__(f"{what} {self.value!r} {reason}")


class UnknownSymbol(ObframeError):
    """The storage holds neither rows nor gaps of the symbol.

    Attributes:
        symbol: What was asked for.
        stored: What the storage holds.
    """

    def __init__(self, symbol: str, stored: Sequence[str]) -> None:
        self.symbol = symbol
        self.stored = tuple(stored)
        alike = [each for each in stored if _native(each) == _native(symbol)]
        alike += difflib.get_close_matches(symbol.upper(), stored, n=1)
        mend = f"did you mean {alike[0]}?" if alike else "stored: " + _name_some(stored)
        super().__init__(f"nothing is stored of {symbol!r}; {mend}")


def _native(symbol: str) -> str:
    """Return a symbol without its venue, for finding it under another."""
    venue, slash, name = symbol.partition("/")
    return (name if slash and venue.islower() else symbol).upper()


def _name_some(symbols: Sequence[str]) -> str:
    named = ", ".join(symbols[:20]) or "nothing"
    return named if len(symbols) <= 20 else f"{named} and {len(symbols) - 20} more"


class MissingExtra(ObframeError, ImportError):
    """A library that is needed for this alone is not installed.

    Attributes:
        library: Its name for import.
        extra: What brings it: ``pip install 'obframe[extra]'``.
    """

    def __init__(self, library: str, extra: str, what: str) -> None:
        self.library = library
        self.extra = extra
        super().__init__(
            f"{what} needs {library}, which is not installed: pip install 'obframe[{extra}]'"
        )


class FeedError(ObframeError):
    """A venue cannot be reached or refuses us; the message names the setting that helps."""


class SinkError(ObframeError):
    """A sink's other end cannot be reached, or it is not sure that it took every row.

    The framework tries again; the message names what failed and the setting that helps.
    """


class StorageError(ObframeError):
    """A storage backend failed; ``path`` is its location, empty when it has none."""

    def __init__(self, message: str, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class StoreLocked(StorageError):
    """Another process has the database open for writing."""


class StoreFormatError(StorageError):
    """Not an obframe database, a pickling one, or one of a newer format; nothing was touched."""


class StoreCorrupt(StorageError):
    """Files of the database are damaged; the message names what and the mend."""


class StoreUnavailable(StorageError):
    """Writing failed for a reason that may pass (disk full, I/O error); nothing was stored."""
