"""The command that goes on: query --follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from obframe.commands.ending import Ending
from obframe.commands.output import Format, note, utc
from obframe.commands.read import Tally, Window, print_rows, resolve
from obframe.commands.session import Choice
from obframe.following import follow
from obframe.protocols import Storage
from obframe.query import Row, check_stored
from obframe.vetting import STORAGE


def query(choice: Choice, symbol: str, window: Window, output: Format, limit: int | None) -> int:
    """Print the rows of a window without an end: what is stored, then each row as it comes.

    Ends in order by Ctrl-C or SIGTERM, or after ``limit`` rows.

    Args:
        choice: Plugins and settings.
        symbol: Whose rows.
        window: Where to begin; its end counts for nothing.
        output: The format.
        limit: Only so many rows.

    Returns:
        1 when a stored value could not be decoded, else 0.

    Raises:
        ObframeError: The window, the symbol or the storage is not as it should be.
    """
    with choice.load([STORAGE]).read() as storage, Ending() as ending:
        check_stored(storage, symbol)
        start, _ = resolve(storage, symbol, window)
        tally = Tally()
        found = follow(storage, symbol, start, wait=ending.wait)
        some = _take(_tell_missing(_until_asked(found, ending), storage), limit)
        print_rows(output, some, tally, title=f"{symbol} from {utc(start)} UTC on", when=utc)
    return 1 if tally.broken else 0


def _until_asked(found: Iterable[Row | None], ending: Ending) -> Iterator[Row | None]:
    """Pass rows on until a signal comes."""
    for row in found:
        if ending.asked:
            return
        yield row


def _take(found: Iterable[Row | None], limit: int | None) -> Iterator[Row | None]:
    count = 0
    for row in found:
        yield row
        count += row is not None
        if count == limit:
            return


def _tell_missing(found: Iterable[Row | None], storage: Storage) -> Iterator[Row | None]:
    """Pass rows on; tell what is missing between two of them, and why, before the second."""
    expected = None
    for row in found:
        if row is not None:
            if expected is not None and row.timestamp > expected:
                _tell(storage, row.symbol, expected, row.timestamp - 1)
            expected = row.timestamp + 1
        yield row


def _tell(storage: Storage, symbol: str, start: int, end: int) -> None:
    reasons = {str(gap.reason) for gap in storage.gaps(symbol, start, end)}
    causes = ", ".join(sorted(reasons)) or "no cause recorded"
    if start == end:
        note(f"{utc(start)} has no row ({causes})")
    else:
        note(f"{utc(start)} to {utc(end)}: {end - start + 1:,} seconds have no row ({causes})")
