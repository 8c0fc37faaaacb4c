"""How far a stored row can be trusted, told by the marks that stand beside it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import IntFlag
from typing import Final

from obframe.types import Mark, MarkKind


class Trust(IntFlag):
    """What is to be known of a row beyond its bytes; several may hold at once.

    A row is right whatever stands here: these tell of the levels and updates around it.
    """

    LIVE = 0
    """Nothing: the row of a proven, live book."""
    UNCERTAIN = 1
    """Level 20 lies beyond what the venue's snapshot covered: a level there may be unknown."""
    EPOCH = 2
    """The first row after a (re)synchronisation: changes since the row before are no flow."""
    STALE = 4
    """At the last update before a loss: later updates may have been missing already."""
    RELIVED = 8
    """The wall clock was set back over this second; the row is of the first time it came."""

    @property
    def names(self) -> list[str]:
        """What holds, as ``MarkKind`` names it; empty for ``LIVE``."""
        return [name for flag, name in _NAMES.items() if self & flag]

    def __str__(self) -> str:
        return "+".join(self.names) or "live"


_FLAGS: Final = {kind: Trust[kind.name] for kind in MarkKind}
_NAMES: Final = {flag: str(kind) for kind, flag in _FLAGS.items()}


def marked(timestamps: Sequence[int], marks: Iterable[Mark]) -> Iterator[tuple[int, int, Trust]]:
    """Yield which of the rows each mark speaks of: ``rows[first:last]``, and what it says."""
    for mark in marks:
        first = bisect_left(timestamps, mark.start)
        last = bisect_right(timestamps, mark.end, first)
        if first < last:
            yield first, last, _FLAGS[mark.kind]


def judge(timestamps: Sequence[int], marks: Iterable[Mark]) -> list[Trust]:
    """Return the trust of each of the rows.

    Args:
        timestamps: Their seconds, oldest first.
        marks: Of their symbol, in any order.
    """
    trust = [Trust.LIVE] * len(timestamps)
    for first, last, flag in marked(timestamps, marks):
        for index in range(first, last):
            trust[index] |= flag
    return trust
