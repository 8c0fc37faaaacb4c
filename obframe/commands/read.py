"""The commands that read a storage: query, symbols, gaps."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

from obframe.commands.output import Format, counted, note, utc, utc_after, write
from obframe.commands.session import Choice
from obframe.layout import SNAPSHOT_COLUMNS, snapshot_to_cells
from obframe.protocols import Storage
from obframe.query import Row, check_stored, latest, rows, start_of_last
from obframe.retention import hold
from obframe.times import check_range, parse_range, parse_time
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Gap, Instrument
from obframe.vetting import STORAGE


@dataclass(frozen=True, slots=True)
class Window:
    """``--from`` and ``--to`` as given, None where left out.

    Attributes:
        start: First second; without it the window is ``seconds`` long, or with ``last`` as long as
            it needs to be.
        end: Last second, included; without it the newest row's.
        seconds: Length where nothing else says it.
        last: Only so many rows, the last ones of the window.
    """

    start: str | None
    end: str | None
    seconds: int = 60
    last: int | None = None


def query(choice: Choice, symbol: str, window: Window, output: Format, limit: int | None) -> int:
    """Print the rows of a window.

    Args:
        choice: Plugins and settings.
        symbol: Whose rows.
        window: Which seconds.
        output: The format.
        limit: Only so many rows, the first ones.

    Returns:
        1 when a stored value could not be decoded, else 0.

    Raises:
        ObframeError: The window, the symbol or the storage is not as it should be.
    """
    Instrument.parse(symbol)
    with choice.load([STORAGE]).read() as storage:
        check_stored(storage, symbol)
        start, end = resolve(storage, symbol, window)
        tally = Tally()
        found = rows(storage, symbol, start, end)
        same_day = start // 86_400 == end // 86_400
        when = (lambda second: utc(second)[11:]) if same_day else utc
        with closing(found) if isinstance(found, Generator) else nullcontext():
            some = counted(itertools.islice(found, limit), f"reading {symbol}")
            title = f"{symbol}, {utc(start)} to {utc_after(end, start)} UTC"
            print_rows(output, some, tally, title=title, when=when)
        cut = limit is not None and tally.rows >= limit
        if not cut:
            _tell_missing(storage, symbol, start, end, tally)
    return 1 if tally.broken else 0


def print_rows(
    output: Format,
    found: Iterable[Row | None],
    tally: Tally,
    *,
    title: str,
    when: Callable[[int], str],
) -> None:
    """Print rows as they come.

    Args:
        output: The format.
        found: Rows; None: more may be long in coming.
        tally: Counts them.
        title: Stands over the table.
        when: Writes a second for the table.
    """
    write(
        output,
        tally.watch(found, output),
        columns=_TABLE if output is Format.TABLE else _FLAT,
        cells=(lambda row: _table_cells(row, when)) if output is Format.TABLE else _flat_cells,
        value=_row_object,
        title=title,
    )


class Tally:
    """Counts rows on their way and tells of those that cannot be decoded.

    Attributes:
        rows: How many came.
        broken: How many of them cannot be decoded.
        first: Second of the first.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.broken = 0
        self.first = MAX_TIMESTAMP

    def watch(self, found: Iterable[Row | None], output: Format) -> Iterator[Row | None]:
        """Pass rows on, but for broken ones where a format has no place for them."""
        for row in found:
            if row is None:
                yield None
                continue
            self.rows += 1
            self.first = min(self.first, row.timestamp)
            if row.error is not None:
                self.broken += 1
                note(f"{row.symbol} at {row.timestamp}: {row.error}")
                if output in (Format.TABLE, Format.CSV):
                    continue
            yield row


def resolve(storage: Storage, symbol: str, window: Window) -> tuple[int, int]:
    """Return the first and last second of a window.

    Raises:
        QueryError: It cannot be asked for.
    """
    now = time.time()
    latest = storage.latest(symbol)
    newest = latest.timestamp if latest is not None else int(now)
    end = newest if window.end is None else parse_time(window.end, now)
    if window.start is not None:
        start = parse_time(window.start, now)
        if window.end is None:
            end = max(newest, start)
    else:
        start = max(end - window.seconds + 1, MIN_TIMESTAMP)
        if window.last and (held := hold(storage, [symbol])):
            start = min(held[0].oldest, end)
    check_range(symbol, start, end)
    if window.last is not None and latest is not None:
        start = start_of_last(storage, symbol, start, end, window.last)
    return start, end


def _tell_missing(storage: Storage, symbol: str, start: int, end: int, tally: Tally) -> None:
    latest = storage.latest(symbol)
    if latest is None:
        note(f"no rows of {symbol} are stored; why: obframe gaps {symbol}")
        return
    if not tally.rows:
        note(f"no rows in this window; the newest of {symbol} is of {utc(latest.timestamp)} UTC")
        return
    reasons = Counter[str]()
    first = tally.first
    for gap in storage.gaps(symbol, start, end):
        reasons[gap.reason] += min(gap.end, end) - max(gap.start, start) + 1
        first = min(first, max(gap.start, start))
    # Before the first run and after the newest row nothing was promised.
    missing = min(end, latest.timestamp) - first + 1 - tally.rows
    if missing > 0:
        causes = ", ".join(f"{reason} {seconds} s" for reason, seconds in reasons.most_common())
        what = "1 second has" if missing == 1 else f"{missing:,} seconds have"
        note(f"{what} no row ({causes or 'no cause recorded'})")


_TABLE = ("time", "update id", "bid size", "bid", "ask", "ask size", "levels", "trust")
_FLAT = (*SNAPSHOT_COLUMNS, "trust")


def _table_cells(row: Row, when: Callable[[int], str]) -> list[object]:
    assert row.snapshot is not None
    bids, asks = row.snapshot.bids, row.snapshot.asks
    bid, ask = (bids or [("", "")])[0], (asks or [("", "")])[0]
    levels = f"{len(bids)}+{len(asks)}"
    update_id, trust = row.snapshot.update_id, str(row.trust)
    return [when(row.timestamp), update_id, bid[1], bid[0], ask[0], ask[1], levels, trust]


def _flat_cells(row: Row) -> list[object]:
    assert row.snapshot is not None
    return [*snapshot_to_cells(row.snapshot), str(row.trust)]


def _row_object(row: Row) -> dict[str, Any]:
    if row.snapshot is None:
        return {"symbol": row.symbol, "timestamp": row.timestamp, "error": str(row.error)}
    return {
        "symbol": row.symbol,
        "timestamp": row.timestamp,
        "update_id": row.snapshot.update_id,
        "trust": row.trust.names,
        "bids": row.snapshot.bids,
        "asks": row.snapshot.asks,
    }


def symbols(choice: Choice, output: Format) -> int:
    """Print each symbol that has rows or gaps, with its newest row."""
    now = time.time()
    with choice.load([STORAGE]).read() as storage:
        found = storage.symbols()
        if not found:
            note("nothing is stored yet")

        def newest() -> Iterator[tuple[str, Row | None]]:
            for symbol in found:
                yield symbol, latest(storage, symbol)

        def cells(line: tuple[str, Row | None]) -> list[object]:
            symbol, row = line
            if row is None:
                return [symbol, "only gaps" if output is Format.TABLE else "", "", "", ""]
            best = row.snapshot
            sides = (best.bids, best.asks) if best is not None else ([], [])
            prices = [side[0][0] if side else "" for side in sides]
            age = round(now - row.timestamp)
            return [symbol, utc(row.timestamp), age, *prices]

        write(
            output,
            newest(),
            columns=("symbol", "newest row (UTC)", "age, s", "bid", "ask"),
            cells=cells,
            value=lambda line: {
                "symbol": line[0],
                "newest": None if line[1] is None else line[1].timestamp,
            },
            title="stored symbols",
        )
    return 0


def gaps(choice: Choice, symbol: str, window: Window, output: Format) -> int:
    """Print the gaps that touch a window, all of them by default."""
    Instrument.parse(symbol)
    start, end = parse_range(window.start, window.end, time.time())
    with choice.load([STORAGE]).read() as storage:
        check_stored(storage, symbol)
        found = storage.gaps(symbol, start, end)
    if output is Format.TABLE and not found:
        within = " in this window" if window.start or window.end else ""
        note(f"no gaps of {symbol} are recorded{within}")
    write(
        output,
        found,
        columns=("from (UTC)", "to", "seconds", "reason", "origin", "detail")
        if output is Format.TABLE
        else ("symbol", "start", "end", "seconds", "reason", "origin", "detail"),
        cells=_gap_table if output is Format.TABLE else lambda gap: list(_gap_object(gap).values()),
        value=_gap_object,
        title=f"gaps of {symbol}{_within(window, start, end)}",
    )
    return 0


def _within(window: Window, start: int, end: int) -> str:
    """Write a window whose ends may be open, for a heading."""
    match window.start, window.end:
        case None, None:
            return ", all that are recorded"
        case None, _:
            return f", up to {utc(end)} UTC"
        case _, None:
            return f", {utc(start)} UTC and later"
    return f", {utc(start)} to {utc_after(end, start)} UTC"


def _gap_table(gap: Gap) -> list[object]:
    last = utc_after(gap.end, gap.start)
    return [utc(gap.start), last, gap.seconds, gap.reason, gap.origin, gap.detail]


def _gap_object(gap: Gap) -> dict[str, Any]:
    return {
        "symbol": gap.symbol,
        "start": gap.start,
        "end": gap.end,
        "seconds": gap.seconds,
        "reason": str(gap.reason),
        "origin": gap.origin,
        "detail": gap.detail,
    }
