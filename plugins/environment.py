"""Symbol source ``environment``: the symbols that an environment variable names at the start."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from obframe import ConfigError, Instrument, Problem, Provider, SymbolSource, hookimpl
from obframe_plugins._symbol_lists import collect

OBFRAME_API = 1

_KEY = "environment.variable"


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """Settings of the symbol source ``environment``.

    Raises:
        ValueError: The variable has no name, or one that no variable can have.
    """

    variable: str = field(
        default="PERSISTENT_SYMBOLS",
        metadata={"help": "Variable to read: symbols separated by commas, spaces or lines."},
    )

    def __post_init__(self) -> None:
        if not self.variable or "=" in self.variable or "\0" in self.variable:
            raise ValueError(f"variable {self.variable!r} is no name of an environment variable")


def read_environment(variable: str, environ: Mapping[str, str]) -> frozenset[Instrument]:
    """Return the instruments that a variable names.

    Raises:
        ConfigError: It is not set, names none, or some of them twice or badly; all are told.
    """
    where = f"environment {variable}"
    names = [name for name in re.split(r"[\s,]+", environ.get(variable, "")) if name]
    if not names:
        state = "names no symbols" if variable in environ else "is not set"
        mend = f"write {variable}=BTCUSDT,ETHUSDT, or name another variable by {_KEY}"
        raise ConfigError([Problem(where, _KEY, f"{state}; {mend}")])
    return collect([(f"{where}, name {i}", name) for i, name in enumerate(names, 1)], _KEY)


class EnvironmentSymbols:
    """Yields one set of instruments and ends: nobody else can change a process's environment."""

    def __init__(self, instruments: frozenset[Instrument]) -> None:
        self._instruments = instruments

    async def watch(self) -> AsyncIterator[frozenset[Instrument]]:
        """Yield the set once."""
        yield self._instruments


@asynccontextmanager
async def open_environment(settings: EnvironmentSettings) -> AsyncIterator[SymbolSource]:
    """Read the variable, once."""
    yield EnvironmentSymbols(read_environment(settings.variable, os.environ))


@hookimpl
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:
    """Offer ``environment``."""
    summary = "the symbols that an environment variable names at the start"
    contract = "obframe_plugins._contracts_symbols:EnvironmentContract"
    return [
        Provider("environment", summary, EnvironmentSettings, open_environment, contract=contract)
    ]
