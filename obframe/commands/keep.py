"""The commands that look after what is stored: verify, stats, retention."""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from obframe.commands.output import Format, note, utc, utc_after, write
from obframe.commands.progress import (
    choose_symbols,
    heed_interrupt,
    hold_readable,
    human,
    only_gaps,
    progress,
    say_only_gaps,
)
from obframe.commands.session import Choice, Session
from obframe.errors import PluginError
from obframe.protocols import Measurable, Storage, Usage
from obframe.retention import Ages, Cut, Held, hold, plan_storage
from obframe.settings import Duration
from obframe.times import parse_range
from obframe.types import check_symbol
from obframe.verify import ERRORS, Fault, Finding, verify_keys
from obframe.verify import verify as verify_symbol
from obframe.vetting import STORAGE

_DAY = 86_400
_RECENT = 3_600
"""Seconds without a new row after which a symbol counts as no longer recorded."""


# -- verify --------------------------------------------------------------------------------------


def verify(
    choice: Choice, symbols: Sequence[str], start: str | None, end: str | None, output: Format
) -> int:
    """Look at every stored row and at the ledger; print what is not as it must be.

    Returns:
        1 when data are wrong or cannot be read, else 0.

    Raises:
        ObframeError: The storage cannot be opened, or a symbol or a time is none.
    """
    first, last = parse_range(start, end, time.time())
    rows = 0
    with choice.load([STORAGE]).read() as storage:
        found = list(verify_keys(storage))
        if any(finding.fault is Fault.UNREADABLE for finding in found):
            wanted = [check_symbol(symbol) for symbol in symbols]  # believe who names them
        else:
            wanted = choose_symbols(storage, symbols)
        bare = only_gaps(storage, wanted)
        seconds = sum(each.seconds for each in hold_readable(storage, wanted))
        with progress("verifying", float(seconds) or None) as tell:

            def count(symbol: str, more: int) -> None:
                nonlocal rows
                rows += more
                tell(symbol, more)

            for symbol in wanted:
                found += verify_symbol(storage, symbol, first, last, count=partial(count, symbol))
    write(
        output,
        found,
        columns=("symbol", "from (UTC)", "to", "fault", "detail")
        if output is Format.TABLE
        else Finding._fields,
        cells=_finding_cells if output is Format.TABLE else list,
        value=lambda finding: {**finding._asdict(), "fault": str(finding.fault)},
        title="what is not as it must be",
    )
    tally = Counter(finding.fault for finding in found)
    counts = ", ".join(f"{fault} {count}" for fault, count in sorted(tally.items()))
    read = len(wanted) - len(bare)
    note(
        f"{rows:,} row{'s' * (rows != 1)} of {read} symbol{'s' * (read != 1)} read; "
        + (f"{say_only_gaps(bare)}; " if bare else "")
        + (counts or "nothing to complain of")
    )
    return 1 if tally.keys() & ERRORS else 0


def _finding_cells(finding: Finding) -> list[object]:
    if not finding.symbol:
        return ["", "", "", finding.fault, finding.detail]
    last = utc_after(finding.end, finding.start)
    return [finding.symbol, utc(finding.start), last, finding.fault, finding.detail]


# -- stats ---------------------------------------------------------------------------------------


class Line(NamedTuple):
    """What is stored of one symbol.

    Attributes:
        symbol: Its name.
        oldest: Second of the first row.
        newest: Second of the last row.
        rows: Rows: seconds in between without those that gaps tell of.
        coverage: Part of the seconds in between that have a row.
        bytes: About what they take up; None when the storage cannot tell.
        keep: Seconds that rows are kept; 0 for ever.
    """

    symbol: str
    oldest: int
    newest: int
    rows: int
    coverage: float
    bytes: int | None
    keep: float


def stats(choice: Choice, symbols: Sequence[str], output: Format) -> int:
    """Print how much is stored of each symbol, how fast it grows, and when the disk is full."""
    session = choice.load([STORAGE])
    ages = Ages(session.settings.retention)
    now = time.time()
    with session.read() as storage:
        wanted = choose_symbols(storage, symbols)
        usage = storage.usage() if isinstance(storage, Measurable) else None
        lines = [_line(storage, each, usage, ages) for each in hold(storage, wanted)]
        bare = only_gaps(storage, wanted)
    write(
        output,
        lines,
        columns=("symbol", "oldest (UTC)", "newest", "rows", "coverage", "size", "a row", "kept")
        if output is Format.TABLE
        else Line._fields,
        cells=_line_cells if output is Format.TABLE else list,
        value=lambda line: line._asdict(),
        title="what is stored",
    )
    if bare:
        note(say_only_gaps(bare))
    if usage is not None and not symbols:
        for text in _outlook(session, lines, usage, now):
            note(text)
    return 0


def _line(storage: Storage, held: Held, usage: Usage | None, ages: Ages) -> Line:
    lost = 0
    reach = held.oldest - 1
    for gap in storage.gaps(held.symbol, held.oldest, held.newest):
        lost += max(0, min(gap.end, held.newest) - max(gap.start, reach + 1, held.oldest) + 1)
        reach = max(reach, gap.end)
    rows = held.seconds - lost
    return Line(
        held.symbol,
        held.oldest,
        held.newest,
        rows,
        rows / held.seconds,
        None if usage is None else usage.by_symbol.get(held.symbol),
        float(ages[held.symbol]),
    )


def _line_cells(line: Line) -> list[object]:
    size = "" if line.bytes is None else human(line.bytes)
    each = "" if line.bytes is None or not line.rows else f"{line.bytes / line.rows:.0f} B"
    kept = str(Duration(line.keep)) if line.keep else "for ever"
    newest = utc_after(line.newest, line.oldest)
    coverage = f"{math.floor(line.coverage * 10_000) / 100:.2f} %"
    return [line.symbol, utc(line.oldest), newest, f"{line.rows:,}", coverage, size, each, kept]


def _outlook(session: Session, lines: Sequence[Line], usage: Usage, now: float) -> Iterator[str]:
    yield f"{human(usage.bytes)} on the disk, {human(usage.log_bytes)} of it logs"
    live = [line for line in lines if now - line.newest < _RECENT and line.bytes]
    growth = sum((line.bytes or 0) / (line.newest - line.oldest + 1) * _DAY for line in live)
    if not growth:
        return
    who = (
        "1 symbol being recorded adds"
        if len(live) == 1
        else f"{len(live)} symbols being recorded add"
    )
    yield f"{who} about {human(growth)} a day"
    ends = [line.keep for line in live]
    steady = sum((line.bytes or 0) / (line.newest - line.oldest + 1) * line.keep for line in live)
    if all(ends):
        yield f"kept as long as retention says, they come to about {human(steady)}"
    cap = int(session.settings.retention.max_bytes)
    if cap:
        days = max(cap - usage.bytes, 0) / growth
        yield f"retention.max_bytes ({human(cap)}) is reached in {days:.1f} days at this rate"
    path = getattr(session.settings.providers[session.chosen[STORAGE.name].name], "path", None)
    if path is not None and Path(path).exists():
        free = shutil.disk_usage(path).free
        if not all(ends) or steady - usage.bytes > free:
            yield f"the disk ({human(free)} free) is full in {free / growth:.1f} days at this rate"


# -- retention -----------------------------------------------------------------------------------


def retention(choice: Choice, dry_run: bool, output: Format) -> int:
    """Show what is no longer kept, and delete it unless ``dry_run``.

    Raises:
        StoreLocked: A recorder writes the storage: it deletes by itself.
    """
    session = choice.load([STORAGE])
    if dry_run:
        with session.read() as storage:
            cuts = plan_storage(storage, None, session.settings.retention, time.time())
    else:
        cuts = asyncio.run(_delete(session))
    verb = "would go" if dry_run else "went"
    write(
        output,
        cuts,
        columns=("symbol", "before (UTC)", "cause", "seconds", "size"),
        cells=_cut_cells if output is Format.TABLE else _cut_values,
        value=lambda cut: dict(zip(_CUT, _cut_values(cut), strict=True)),
        title=f"what {verb}",
    )
    sizes = [cut.bytes for cut in cuts if cut.bytes is not None]
    if cuts:
        taken = f", about {human(sum(sizes))}" if len(sizes) == len(cuts) else ""
        note(f"{sum(cut.seconds for cut in cuts):,} s of rows {verb}{taken}")
    else:
        note("nothing is past its time")
    return 0


_CUT = ("symbol", "before", "cause", "seconds", "bytes")


def _cut_values(cut: Cut) -> list[Any]:
    return [cut.symbol, cut.before, cut.cause, cut.seconds, cut.bytes]


def _cut_cells(cut: Cut) -> list[object]:
    size = "" if cut.bytes is None else human(cut.bytes)
    return [cut.symbol, utc(cut.before), cut.cause, f"{cut.seconds:,}", size]


async def _delete(session: Session) -> list[Cut]:
    async with AsyncExitStack() as stack:
        storage: Storage = await session.open(stack, STORAGE)
        if session.settings.retention.max_bytes and not isinstance(storage, Measurable):
            name = session.chosen[STORAGE.name].name
            raise PluginError(name, "tells no sizes", "set retention.max_bytes=0")
        cuts = plan_storage(storage, None, session.settings.retention, time.time())
        with progress("deleting", len(cuts)) as tell:
            for cut in cuts:
                heed_interrupt()
                storage.delete_before(cut.symbol, cut.before)
                tell(cut.symbol, 1)
        if cuts and isinstance(storage, Measurable):
            storage.reclaim()
    return cuts
