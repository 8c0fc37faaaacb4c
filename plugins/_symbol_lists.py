"""Lists of symbols as people write them: every mistake told, and followed while they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from obframe import ConfigError, Instrument, ObframeError, Problem, SymbolError

Sleep = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""


def collect(written: Iterable[tuple[str, str]], key: str) -> frozenset[Instrument]:
    """Return the instruments of a list.

    Args:
        written: Where each symbol stands, such as ``symbols.txt:3``, and its text, in order.
        key: The setting that led to the list.

    Raises:
        ConfigError: Some cannot be part of a key or stand twice; it holds a problem for each.
    """
    instruments: dict[Instrument, str] = {}
    problems: list[Problem] = []
    for where, text in written:
        try:
            instrument = Instrument.parse(text)
        except SymbolError as error:
            problems.append(Problem(where, key, str(error)))
            continue
        first = instruments.setdefault(instrument, where)
        if first is not where:
            problems.append(Problem(where, key, f"symbol {text!r} is given again, as in {first}"))
    if problems:
        raise ConfigError(problems)
    return frozenset(instruments)


async def follow(
    name: str,
    held: frozenset[Instrument],
    read: Callable[[], frozenset[Instrument]],
    interval: float,
    sleep: Sleep,
    logger: logging.Logger,
) -> AsyncIterator[frozenset[Instrument]]:
    """Yield a set, and again whenever it differs. One that cannot be read leaves the old one.

    Args:
        name: What is read, for the log.
        held: The set to begin with.
        read: Returns the set as it is now; blocks, and is called in a thread.
        interval: Seconds between two readings.
        sleep: Waits for them.
        logger: Told once of each trouble, and of its end.
    """
    yield held
    trouble = ""
    while True:
        await sleep(interval)
        try:
            now = await asyncio.to_thread(read)
        except (ObframeError, OSError) as error:
            text = "; ".join(str(error).splitlines())
            if text != trouble:
                logger.error("%s; the %d symbols of before stay", text, len(held))
            trouble = text
            continue
        if trouble:
            logger.info("%s can be read again", name)
            trouble = ""
        if now != held:
            added, removed = len(now - held), len(held - now)
            logger.info("%s changed: %d added, %d removed", name, added, removed)
            held = now
            yield held
