"""Lost seconds, joined into gaps."""

from __future__ import annotations

from collections.abc import Callable

from obframe.types import Gap, GapReason

_GAP_INSTALMENT = 5
"""Seconds after which a gap that is still open is told to the ledger as far as it has come."""


class GapLog:
    """Joins lost seconds into gaps, one open gap a symbol."""

    def __init__(self, on_closed: Callable[[Gap], None]) -> None:
        self._open: dict[str, Gap] = {}
        self._told: dict[str, int] = {}
        self._closed: list[Gap] = []
        self._on_closed = on_closed

    def add(self, symbol: str, start: int, end: int, reason: GapReason, detail: str) -> None:
        """Account for the seconds ``start..end`` of the symbol."""
        gap = self._open.get(symbol)
        if (
            gap is not None
            and (gap.reason, gap.detail) == (reason, detail)
            and gap.end + 1 == start
        ):
            self._open[symbol] = gap._replace(end=end)
            return
        self.close(symbol)
        self._open[symbol] = Gap(symbol, start, end, reason, detail)

    def close(self, symbol: str) -> None:
        """End the symbol's open gap, if any."""
        gap = self._open.pop(symbol, None)
        if gap is None:
            return
        self._on_closed(gap)
        told = self._told.pop(symbol, None)
        if told != gap.end:
            self._closed.append(gap if told is None else gap._replace(start=told))

    def close_all(self) -> None:
        """End every open gap."""
        for symbol in list(self._open):
            self.close(symbol)

    def take(self, second: int) -> list[Gap]:
        """Return what the ledger is to be told now: closed gaps and instalments of long ones."""
        gaps, self._closed = self._closed, []
        for symbol, gap in self._open.items():
            told = self._told.get(symbol)
            if (gap.start if told is None else told) + _GAP_INSTALMENT <= second:
                # an instalment overlaps the last by one second, so that the storage joins them
                gaps.append(gap if told is None else gap._replace(start=told))
                self._told[symbol] = gap.end
        return gaps
