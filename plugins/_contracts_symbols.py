"""How the contracts of ``obframe.testing`` test our symbol sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import aiohttp
import pytest
from aiohttp import web

from obframe import Duration, Instrument, SymbolSource
from obframe.testing import contracts
from obframe_plugins._binance_listing import BinanceListing
from obframe_plugins.environment import EnvironmentSettings, open_environment
from obframe_plugins.file import FileSettings, open_file
from obframe_plugins.runtime import RuntimeSettings, SymbolSet, open_runtime
from obframe_plugins.static import StaticSettings, open_static
from obframe_plugins.top import TopSettings, TopSymbols

Source: TypeAlias = AbstractAsyncContextManager[SymbolSource]

TWO = frozenset({Instrument("BTCUSDT"), Instrument("ETHUSDT")})
_SOON = Duration(0.02)


def _replace(path: Path, text: str) -> None:
    """Write a file beside and put it in the place of another."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


class StaticContract(contracts.SymbolSourceContract):
    """Tests the symbol source ``static``: its set never changes."""

    first = TWO

    def make_source(self, tmp_path: Path) -> Source:
        """Open a source of two symbols."""
        del tmp_path
        return open_static(StaticSettings(("BTCUSDT", "ETHUSDT")))


class EnvironmentContract(contracts.SymbolSourceContract):
    """Tests the symbol source ``environment``."""

    first = TWO
    can_fail = True

    @pytest.fixture(autouse=True)
    def _variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANTED", "BTCUSDT ETHUSDT")
        monkeypatch.delenv("NOBODY_SETS_THIS", raising=False)

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open a source of two symbols."""
        async with open_environment(EnvironmentSettings("WANTED")) as source:
            yield source

    @asynccontextmanager
    async def make_failing_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open one that has no first set."""
        async with open_environment(EnvironmentSettings("NOBODY_SETS_THIS")) as source:
            yield source


class FileContract(contracts.SymbolSourceContract):
    """Tests the symbol source ``file``."""

    first = TWO
    can_change = True
    can_touch = True
    can_spoil = True
    can_fail = True
    _changes = 0

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open a source of two symbols."""
        _replace(tmp_path / "list", "BTCUSDT\nETHUSDT\n")
        async with open_file(FileSettings(str(tmp_path / "list"), _SOON)) as source:
            yield source

    @asynccontextmanager
    async def make_failing_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open one that has no first set."""
        async with open_file(FileSettings(str(tmp_path / "missing"), _SOON)) as source:
            yield source

    async def change(self, tmp_path: Path) -> frozenset[Instrument]:
        """Want another set."""
        self._changes += 1
        _replace(tmp_path / "list", f"BTCUSDT\nkraken/S{self._changes}\n")
        return frozenset({Instrument("BTCUSDT"), Instrument.parse(f"kraken/S{self._changes}")})

    async def touch(self, tmp_path: Path) -> None:
        """Have it look at the same set again."""
        _replace(tmp_path / "list", f"# {self._changes}\nETHUSDT\nBTCUSDT")

    async def spoil(self, tmp_path: Path) -> None:
        """Break what it reads."""
        _replace(tmp_path / "list", "")

    async def mend(self, tmp_path: Path) -> frozenset[Instrument]:
        """Heal that, with another set."""
        return await self.change(tmp_path)


class RuntimeContract(contracts.SymbolSourceContract):
    """Tests the symbol source ``runtime``."""

    first = TWO
    can_change = True
    can_touch = True
    can_spoil = True
    can_fail = True
    _changes = 0

    @asynccontextmanager
    async def make_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open a source of two symbols."""
        await asyncio.to_thread(SymbolSet(tmp_path / "set").add, ["BTCUSDT", "ETHUSDT"])
        async with open_runtime(RuntimeSettings(str(tmp_path / "set"), _SOON)) as source:
            yield source

    @asynccontextmanager
    async def make_failing_source(self, tmp_path: Path) -> AsyncIterator[SymbolSource]:
        """Open one that has no first set."""
        path = str(tmp_path / "no folder" / "set")
        async with open_runtime(RuntimeSettings(path, _SOON)) as source:
            yield source

    async def change(self, tmp_path: Path) -> frozenset[Instrument]:
        """Want another set."""
        self._changes += 1
        symbols = SymbolSet(tmp_path / "set")
        await asyncio.to_thread(symbols.add, [f"kraken/S{self._changes}"])
        return frozenset(map(Instrument.parse, await asyncio.to_thread(symbols.symbols)))

    async def touch(self, tmp_path: Path) -> None:
        """Have it look at the same set again."""
        await asyncio.to_thread(SymbolSet(tmp_path / "set").add, ["BTCUSDT"])

    async def spoil(self, tmp_path: Path) -> None:
        """Break what it reads."""
        self._kept = (tmp_path / "set").read_bytes()
        _replace(tmp_path / "set", "no database")

    async def mend(self, tmp_path: Path) -> frozenset[Instrument]:
        """Heal that, with another set."""
        (tmp_path / "beside").write_bytes(self._kept)
        (tmp_path / "beside").replace(tmp_path / "set")
        return await self.change(tmp_path)


class TopContract(contracts.SymbolSourceContract):
    """Tests the symbol source ``top``."""

    first = TWO
    can_change = True
    can_touch = True
    can_spoil = True
    can_fail = True

    @asynccontextmanager
    async def make_source(self, tmp_path: Path, quote: str = "USDT") -> AsyncIterator[SymbolSource]:
        """Open a source of two symbols."""
        self.volumes = {"BTCUSDT": 9, "ETHUSDT": 8, "SOLUSDT": 7}
        self.broken = False
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            settings = TopSettings(count=2, quote=(quote,), buffer=0.0, rest_url=url)
            async with aiohttp.ClientSession() as session:
                listing = BinanceListing(settings.venue(), session, "top")
                yield TopSymbols(listing, settings.ranking(), 0.02, self._sleep)
        finally:
            await runner.cleanup()

    def make_failing_source(self, tmp_path: Path) -> Source:
        """Open one that has no first set."""
        return self.make_source(tmp_path, "USTD")

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))

    async def _answer(self, request: web.Request) -> web.Response:
        if self.broken:
            return web.Response(status=500)
        if request.path.endswith("exchangeInfo"):
            about = {"status": "TRADING", "quoteAsset": "USDT"}
            return web.json_response({"symbols": [{"symbol": n, **about} for n in self.volumes]})
        return web.json_response(
            [{"symbol": name, "quoteVolume": str(of)} for name, of in self.volumes.items()]
        )

    async def change(self, tmp_path: Path) -> frozenset[Instrument]:
        """Want another set."""
        least = min(self.volumes, key=lambda name: self.volumes[name])
        self.volumes[least] = max(self.volumes.values()) + 1
        top = sorted(self.volumes, key=lambda name: -self.volumes[name])[:2]
        return frozenset(map(Instrument, top))

    async def touch(self, tmp_path: Path) -> None:
        """Have it look at the same set again."""
        self.volumes = {name: volume + 10 for name, volume in self.volumes.items()}

    async def spoil(self, tmp_path: Path) -> None:
        """Break what it reads."""
        self.broken = True

    async def mend(self, tmp_path: Path) -> frozenset[Instrument]:
        """Heal that, with another set."""
        self.broken = False
        return await self.change(tmp_path)
