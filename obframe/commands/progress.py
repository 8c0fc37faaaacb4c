"""What commands that take long share: how far they are, sizes in words, the symbols asked for."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from obframe.errors import ObframeError
from obframe.feeds import name_some
from obframe.protocols import Storage, Tell
from obframe.query import check_stored
from obframe.retention import Held, hold
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP

_PATIENCE = 1.0
"""Seconds without a result before progress is shown."""


def choose_symbols(storage: Storage, wanted: Sequence[str]) -> list[str]:
    """Return the symbols asked for, all that are stored when none are.

    Raises:
        SymbolError: One cannot be part of a key.
        UnknownSymbol: One is not stored.
    """
    if not wanted:
        return storage.symbols()
    for symbol in wanted:
        check_stored(storage, symbol)
    return list(wanted)


class _Bar:
    """A bar on the terminal that appears once something takes longer than a second."""

    def __init__(self, what: str, total: float | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._begun = time.monotonic()
        self._what = what
        self._shown = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total)

    def tell(
        self,
        name: str,
        *,
        more: float | None = None,
        done: float | None = None,
        of: float | None = None,
    ) -> None:
        """Say what is worked on; and how much more is done, or how much of what in all."""
        description = f"{self._what} {name}"
        self._bar.update(
            self._task, description=description, advance=more, completed=done, total=of
        )
        if not self._shown and time.monotonic() - self._begun > _PATIENCE:
            self._shown = True
            self._bar.start()

    def close(self) -> None:
        """Take it away."""
        if self._shown:
            self._bar.stop()


@contextmanager
def progress(what: str, total: float | None) -> Iterator[Callable[[str, float], None]]:
    """Show how far something is on the terminal, once it takes longer than a second.

    Yields:
        To be told what is being worked on, and how much more is done.
    """
    if not sys.stderr.isatty():
        yield lambda _name, _more: None
        return
    with closing(_Bar(what, total)) as bar:
        yield lambda name, more: bar.tell(name, more=more)


@contextmanager
def progress_of(what: str) -> Iterator[Tell]:
    """Show how far something is that tells how much is done, and of how much, 0 for unknown."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    with closing(_Bar(what, None)) as bar:

        def tell(done: int, of: int) -> None:
            name = f"{human(done)} of {human(of)}" if of else f"{done:,}"
            bar.tell(name, done=done, of=of or None)

        yield tell


def heed_interrupt() -> None:
    """Let Ctrl-C end a task that works without waiting: by itself it would not hear of it.

    Raises:
        CancelledError: It was pressed.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def human(size: float) -> str:
    """Write a number of bytes for a person."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def only_gaps(storage: Storage, symbols: Sequence[str]) -> list[str]:
    """Return which of the symbols have gaps and no row; of what is damaged nothing is said."""
    found = []
    for symbol in symbols:
        try:
            if storage.latest(symbol) is None and storage.gaps(
                symbol, MIN_TIMESTAMP, MAX_TIMESTAMP
            ):
                found.append(symbol)
        except ObframeError:
            continue
    return found


def say_only_gaps(symbols: Sequence[str]) -> str:
    """Say of symbols that they have gaps and no row."""
    return f"{name_some(symbols)} {'has' if len(symbols) == 1 else 'have'} only gaps"


def hold_readable(storage: Storage, symbols: Sequence[str]) -> list[Held]:
    """Return the ends of what can be read: damage there is told of by the verification itself."""
    found = []
    for symbol in symbols:
        try:
            found += hold(storage, [symbol])
        except ObframeError:
            continue
    return found
