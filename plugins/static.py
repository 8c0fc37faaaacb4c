"""Symbol source ``static``: the symbols of the settings, the same for the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from obframe import Instrument, Provider, SymbolError, SymbolSource, hookimpl

OBFRAME_API = 1


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """Settings of the symbol source ``static``.

    Raises:
        ValueError: There are no symbols, or some are given twice or cannot be part of a key; the
            message names all of them.
    """

    symbols: tuple[str, ...] = field(
        default=("BTCUSDT", "ETHUSDT"),
        metadata={
            "help": "What to record, such as `BTCUSDT` or, with its venue, `kraken/BTC/USD`. "
            "`--symbols` and `PERSISTENT_SYMBOLS` set it too."
        },
    )

    def __post_init__(self) -> None:
        if problems := list(_problems(self.symbols)):
            raise ValueError("; ".join(problems))


def _problems(symbols: Sequence[str]) -> Iterator[str]:
    if not symbols:
        yield "no symbols are given: name at least one, such as BTCUSDT"
    for symbol, count in Counter(symbols).items():
        if count > 1:
            yield f"symbol {symbol!r} is given {count} times"
        try:
            Instrument.parse(symbol)
        except SymbolError as error:
            yield str(error)


class StaticSymbols:
    """Yields one set of instruments and ends."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._instruments = frozenset(map(Instrument.parse, symbols))

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield the set once."""
        yield self._instruments


@asynccontextmanager
async def open_static(settings: StaticSettings) -> AsyncIterator[SymbolSource]:
    """Open the source."""
    yield StaticSymbols(settings.symbols)


@hookimpl
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:
    """Offer ``static``."""
    return [
        Provider(
            "static",
            "the symbols of the settings, fixed",
            StaticSettings,
            open_static,
            contract="obframe_plugins._contracts_symbols:StaticContract",
        ),
    ]
