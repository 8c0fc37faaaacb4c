"""What commands that take long share: how far they are, sizes in words, the symbols asked for."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from obframe.errors import ObframeError
from obframe.protocols import Storage
from obframe.retention import Held, hold
from obframe.types import check_symbol


def choose_symbols(storage: Storage, wanted: Sequence[str]) -> list[str]:
    """Return the symbols asked for, all that are stored when none are.

    Raises:
        ObframeError: One is not stored.
    """
    stored = storage.symbols()
    if not wanted:
        return stored
    for symbol in wanted:
        check_symbol(symbol)
        if symbol not in stored:
            known = ", ".join(stored[:20]) or "nothing"
            raise ObframeError(f"nothing is stored of {symbol!r}; stored: {known}")
    return list(wanted)


@contextmanager
def progress(what: str, total: float | None) -> Iterator[Callable[[str, float], None]]:
    """Show how far something is on the terminal, once it takes longer than a second.

    Yields:
        To be told what is being worked on, and how much more is done.
    """
    if not sys.stderr.isatty():
        yield lambda _name, _more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    begun = time.monotonic()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=total)
    shown = False

    def advance(name: str, more: float) -> None:
        nonlocal shown
        bar.update(task, advance=more, description=f"{what} {name}")
        if not shown and time.monotonic() - begun > 1.0:
            shown = True
            bar.start()

    try:
        yield advance
    finally:
        if shown:
            bar.stop()


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is that tells how much is done, and of how much."""
    with progress(what, None) as tell:
        last = 0

        def advance(done: int, of: int) -> None:
            nonlocal last
            name = f"{human(done)} of {human(of)}" if of else f"{done:,}"
            tell(name, done - last)
            last = done

        yield advance


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


def hold_readable(storage: Storage, symbols: Sequence[str]) -> list[Held]:
    """Return the ends of what can be read: damage there is told of by the verification itself."""
    found = []
    for symbol in symbols:
        try:
            found += hold(storage, [symbol])
        except ObframeError:
            continue
    return found
