"""The commands that list and change what is to be recorded: symbols list, add and remove."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TypeVar

from obframe.commands.output import Format, note, write
from obframe.commands.session import Choice
from obframe.errors import PluginError
from obframe.protocols import EditableSymbolSource
from obframe.vetting import SYMBOL_SOURCE

_T = TypeVar("_T")


def show(choice: Choice, output: Format) -> int:
    """Print the set."""
    found = _use(choice, lambda source: source.symbols())
    if not found:
        note("the set is empty: obframe symbols add NAME")
    write(
        output,
        found,
        columns=("symbol",),
        cells=lambda symbol: [symbol],
        value=lambda symbol: {"symbol": symbol},
        title="symbols to record",
    )
    return 0


def add(choice: Choice, names: Sequence[str]) -> int:
    """Add symbols, all or none."""
    wanted = _split(names)
    new = _use(choice, lambda source: source.add(wanted))
    held = [name for name in dict.fromkeys(wanted) if name not in new]
    if new:
        note(f"added {', '.join(new)}")
    if held:
        note(f"in the set already: {', '.join(held)}")
    return 0


def remove(choice: Choice, names: Sequence[str]) -> int:
    """Remove symbols, all or none."""
    unwanted = _split(names)
    note(f"removed {', '.join(_use(choice, lambda source: source.remove(unwanted)))}")
    return 0


def _split(names: Sequence[str]) -> list[str]:
    """Take ``A,B`` for two names, as ``--symbols`` does."""
    return [name for text in names for name in text.split(",")]


def _use(choice: Choice, work: Callable[[EditableSymbolSource], _T]) -> _T:
    """Open the chosen symbol source and have something done with it."""
    name = choice.names[SYMBOL_SOURCE.name]
    if name is not None and not choice.plugins:
        choice = replace(choice, plugins=(name,))
    session = choice.load([SYMBOL_SOURCE])
    if len(session.sources) != 1:
        raise PluginError(str(name), "names several symbol sources", "name one to change")
    (provider,) = session.sources

    async def run() -> _T:
        async with AsyncExitStack() as stack:
            source = await session.open_provider(stack, SYMBOL_SOURCE, provider)
            if not isinstance(source, EditableSymbolSource):
                raise PluginError(
                    provider.name,
                    "its symbols cannot be changed from outside",
                    "change its settings, or record with --plugins runtime",
                )
            return work(source)

    return asyncio.run(run())
