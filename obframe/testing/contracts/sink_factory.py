"""What a sink's author gives, and the rows that the rules are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from obframe._core import Snapshot
from obframe.protocols import Sink
from obframe.testing.contracts.rules import Contract

T = 1_737_158_400


def make_snapshot(symbol: str, second: int) -> Snapshot:
    """Return a row that differs from that of every other second and has zeros at its ends."""
    step = second % 1000
    bids = [(f"{100 - level}.{step:03d}0", f"{level + 1}.50000000") for level in range(20)]
    asks = [(f"{101 + level}.{step:03d}0", f"{level + 1}.25000000") for level in range(20)]
    return Snapshot(symbol, 10_000_000 + second, second, bids, asks)


def make_snapshots(symbols: Iterable[str], start: int, end: int) -> list[Snapshot]:
    """Return the seconds from ``start`` to ``end`` after ``T``, all of a symbol after another."""
    return [make_snapshot(symbol, T + at) for symbol in symbols for at in range(start, end + 1)]


def name_row(snapshot: Snapshot) -> str:
    """Name a row by its key."""
    return f"{snapshot.symbol}:{snapshot.timestamp}"


class SinkFactory(Contract):
    """What the author of a sink gives: a factory, what a consumer finds, and flags.

    Attributes:
        backfill: The sink's provider asks for every stored row, at least once; False for one that
            is told of live seconds only, and may see one twice or lose it.
        can_break: The other end can be taken away and brought back: ``break_`` and ``mend``.
        prompt: Seconds in which the sink must close, and end a cancelled ``write``.
        give_up: Seconds after which a ``write`` to an other end that is down must have raised.
        most_blocking: Seconds for which the event loop may stand still at most. The loop is the
            sink's own, but while it stands still no time-out ends a write.
    """

    backfill = True
    can_break = False
    prompt = 5.0
    give_up = 15.0
    most_blocking = 1.0

    def make_sink(self, tmp_path: Path) -> AbstractAsyncContextManager[Sink]:
        """Return an async context manager around a sink.

        Called again with the same path after the first was closed, it reaches the same other end;
        with another path an other end, or a part of it, where nothing was written yet.
        """
        raise NotImplementedError(f"{type(self).__name__}.make_sink is needed to test the sink")

    async def read_back(self, tmp_path: Path) -> Sequence[Any]:
        """Return what a consumer has by now of all that was written, oldest first for each symbol.

        A consumer that drops what it knows already, by an id that the sink gives, does so here.
        Snapshots, or whatever ``expect`` makes of one. Called while the sink is open, and after.
        """
        raise NotImplementedError(f"{type(self).__name__}.read_back is needed to test the sink")

    def expect(self, snapshot: Snapshot) -> Any:
        """Return what a consumer has of one snapshot: all of it, where this is not overridden."""
        return snapshot

    async def break_(self, tmp_path: Path) -> None:
        """Take the other end away: no write can be accepted any more (``can_break``)."""
        raise NotImplementedError(f"{type(self).__name__}.break_ is needed by can_break")

    async def mend(self, tmp_path: Path) -> None:
        """Bring the other end back, with all it had accepted (``can_break``)."""
        raise NotImplementedError(f"{type(self).__name__}.mend is needed by can_break")

    async def check_read(self, tmp_path: Path, written: Sequence[Snapshot]) -> None:
        """Check that a consumer has what was written, all of it once, in order for each symbol."""
        expected = [self.expect(snapshot) for snapshot in written]
        found, twice, strange = list[Snapshot](), list[str](), list[object]()
        for item in await self.read_back(tmp_path):
            if item not in expected:
                strange.append(item)
                continue
            snapshot = written[expected.index(item)]
            if snapshot in found:
                twice.append(name_row(snapshot))
            else:
                found.append(snapshot)
        missing = [name_row(snapshot) for snapshot in written if snapshot not in found]
        assert not strange, f"a consumer finds what was never written: {name_some(strange)}"
        assert not missing, f"a consumer does not find {name_some(missing)}"
        assert not twice, f"a consumer finds these twice: {name_some(twice)}"
        for symbol in sorted({snapshot.symbol for snapshot in written}):
            seconds = [snapshot.timestamp for snapshot in found if snapshot.symbol == symbol]
            assert seconds == sorted(seconds), (
                f"a consumer finds {symbol} in this order: {name_some(seconds)}"
            )


def name_some(names: Sequence[object], most: int = 6) -> str:
    """Name the first few, and say how many more there are."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
