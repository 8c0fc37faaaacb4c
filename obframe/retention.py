"""What a storage no longer keeps: rows past their age, and the oldest when it grows too big.

Nothing is deleted here: a plan says what is to go. The recorder carries one out at every interval;
``obframe retention`` shows it, or does so by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal

from obframe.protocols import Measurable, Storage, Usage
from obframe.query import close
from obframe.settings import Duration, RetentionSettings
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP

_FULL: Final = 0.95
"""Part of ``max_bytes`` at which the oldest rows go, so that the cap is never reached."""
_EASED: Final = 0.85
"""Part of ``max_bytes`` that is left then: one cut must last for a while."""


@dataclass(frozen=True, slots=True)
class Held:
    """The rows held of one symbol.

    Attributes:
        symbol: Its name.
        oldest: Second of the first row.
        newest: Second of the last row.
    """

    symbol: str
    oldest: int
    newest: int

    @property
    def seconds(self) -> int:
        """Seconds from the first row to the last."""
        return self.newest - self.oldest + 1


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows of one symbol that are to go.

    Attributes:
        symbol: Whose rows.
        before: Everything before this second goes.
        cause: ``age`` or ``bytes``.
        seconds: Seconds from the first row held to ``before``, or to the last row.
        bytes: About what they take up, where the storage can tell.
    """

    symbol: str
    before: int
    cause: Literal["age", "bytes"]
    seconds: int
    bytes: int | None


def hold(storage: Storage, symbols: Iterable[str] | None = None) -> list[Held]:
    """Look up the first and the last row of each symbol; symbols without rows are left out. Blocks.

    Raises:
        StorageError: They cannot be read.
    """
    held = []
    for symbol in storage.symbols() if symbols is None else symbols:
        latest = storage.latest(symbol)
        if latest is None:
            continue
        rows = storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP)
        try:
            first = next(rows, latest)
        finally:
            close(rows)
        held.append(Held(symbol, first.timestamp, latest.timestamp))
    return held


class Ages:
    """How long rows of each symbol are kept, by settings that are read once for all of them.

    The first pattern of ``retention.overrides`` that fits decides, else ``retention.max_age``.
    """

    def __init__(self, settings: RetentionSettings) -> None:
        self._overrides = settings.ages
        self._others = settings.max_age

    def __getitem__(self, symbol: str) -> Duration:
        """Return the age in seconds at which rows of the symbol go; 0 for never."""
        own = self.own(symbol)
        return self._others if own is None else own

    def own(self, symbol: str) -> Duration | None:
        """Return the age that ``overrides`` give the symbol; None when none fits."""
        for pattern, age in self._overrides:
            if fnmatchcase(symbol, pattern):
                return age
        return None


def plan(
    settings: RetentionSettings, held: Sequence[Held], usage: Usage | None, now: float
) -> list[Cut]:
    """Reckon what is to go at Unix time ``now``. Pure.

    Age first. If the storage then still takes up nearly ``max_bytes``, the oldest seconds of all
    symbols go, to the same second for each, until a tenth of the cap is free again. Symbols with
    an age of their own by ``overrides`` lose rows to the cap last.

    Args:
        settings: Section ``retention``.
        held: What is there.
        usage: What it takes up; None when the storage cannot tell, then only age counts.
        now: Unix seconds.
    """
    if usage is not None:
        usage = _shared_out(usage, held)
    ages = Ages(settings)
    lines = {}
    for each in held:
        age = float(ages[each.symbol])
        lines[each.symbol] = math.floor(now - age) if age else MIN_TIMESTAMP
    cuts = [
        _cut(each, lines[each.symbol], "age", usage)
        for each in held
        if each.oldest < lines[each.symbol]
    ]
    cap = int(settings.max_bytes)
    if not cap or usage is None:
        return cuts
    excess = usage.bytes - sum(cut.bytes or 0 for cut in cuts) - _FULL * cap
    if excess <= 0:
        return cuts
    wanted = excess + (_FULL - _EASED) * cap
    common: list[Held] = []
    chosen: list[Held] = []
    for each in held:
        line = lines[each.symbol]
        if each.newest >= line:
            group = common if ages.own(each.symbol) is None else chosen
            group.append(Held(each.symbol, max(each.oldest, line), each.newest))
    by_symbol = {cut.symbol: cut for cut in cuts}
    for group in (common, chosen):
        line = _line(group, usage, wanted)
        for each in group:
            if each.oldest < line:
                cut = _cut(each, line, "bytes", usage)
                wanted -= cut.bytes or 0
                by_symbol[each.symbol] = cut
        if wanted <= 0:
            break
    return sorted(by_symbol.values(), key=lambda cut: cut.symbol)


def _shared_out(usage: Usage, held: Sequence[Held]) -> Usage:
    """Give symbols of which the storage does not tell their share what is left, by seconds."""
    unknown = [each for each in held if each.symbol not in usage.by_symbol]
    if not unknown:
        return usage
    left = max(usage.bytes - sum(usage.by_symbol.values()), 0)
    a_second = left / sum(each.seconds for each in unknown)
    shares = {each.symbol: round(each.seconds * a_second) for each in unknown}
    return replace(usage, by_symbol={**usage.by_symbol, **shares})


def _cut(held: Held, before: int, cause: Literal["age", "bytes"], usage: Usage | None) -> Cut:
    seconds = min(before, held.newest + 1) - held.oldest
    taken = None
    if usage is not None:
        taken = round(seconds * _weight(held, usage))
    return Cut(held.symbol, before, cause, seconds, taken)


def _weight(held: Held, usage: Usage) -> float:
    """Return about how many bytes a second of the symbol takes up."""
    return usage.by_symbol.get(held.symbol, 0) / held.seconds


def _line(group: Sequence[Held], usage: Usage, wanted: float) -> int:
    """Return the second before which the group's rows take up ``wanted`` bytes; keep the newest."""
    if not group:
        return MIN_TIMESTAMP
    low, high = min(each.oldest for each in group), max(each.newest for each in group)
    while low < high:
        middle = (low + high) // 2
        taken = sum(
            max(0, min(middle, each.newest) - each.oldest) * _weight(each, usage) for each in group
        )
        if taken < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def plan_storage(
    storage: Storage, symbols: Sequence[str] | None, settings: RetentionSettings, now: float
) -> list[Cut]:
    """Look at a storage and reckon what of it is to go; gaps and marks alone go with age. Blocks.

    Args:
        storage: Its sizes count only when it is ``Measurable``.
        symbols: Only these; None for all.
        settings: Section ``retention``.
        now: Unix seconds.

    Raises:
        StorageError: It cannot be read.
    """
    if symbols is None:
        symbols = storage.symbols()
    held = hold(storage, symbols)
    usage = storage.usage() if settings.max_bytes and isinstance(storage, Measurable) else None
    cuts = plan(settings, held, usage, now)
    cut = {each.symbol for each in cuts}
    ages = Ages(settings)
    for symbol in symbols:
        age = float(ages[symbol])
        if age and symbol not in cut:
            before = math.floor(now - age)
            if before > MIN_TIMESTAMP and storage.gaps(symbol, MIN_TIMESTAMP, before - 1):
                cuts.append(Cut(symbol, before, "age", 0, None))
    return cuts
