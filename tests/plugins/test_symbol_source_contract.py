"""Every symbol source of ours keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from obframe import SymbolSource
from obframe.union import Union
from obframe_plugins._contracts_symbols import (
    EnvironmentContract,
    FileContract,
    RuntimeContract,
    StaticContract,
    TopContract,
)
from obframe_plugins.static import StaticSettings, open_static


class TestStatic(StaticContract):
    pass


class TestEnvironment(EnvironmentContract):
    pass


class TestFile(FileContract):
    pass


class TestRuntime(RuntimeContract):
    pass


class TestTop(TopContract):
    pass


class TestUnion(FileContract):
    """A file beside settings: together they change as the file does."""

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        fixed = StaticSettings(("BTCUSDT",))  # the file names it each time, too
        async with super().make_source(tmp_path) as source, open_static(fixed) as other:
            yield Union({"file": source, "static": other})
