"""Which symbols the venue knows and trades: looked up at the start, for new ones, and slowly on."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from enum import Enum

import msgspec

from obframe import Instrument
from obframe_plugins._binance_context import Context, logger
from obframe_plugins._binance_rest import RestClient, RestError
from obframe_plugins._venue import clip

_MOST_QUERY_BYTES = 4000
_FULL_LIST_PATIENCE = 6


class Standing(Enum):
    """What the venue says of a symbol."""

    UNCHECKED = "unchecked"
    TRADING = "trading"
    HALTED = "halted"
    UNKNOWN = "unknown"


class _Symbol(msgspec.Struct):
    symbol: str
    status: str = ""
    contract_status: str = msgspec.field(default="", name="contractStatus")


class _Info(msgspec.Struct):
    symbols: list[_Symbol]


class SymbolWatch:
    """Compares the wanted symbols with the venue's list.

    A list that cannot be had changes nothing: what is recorded goes on being recorded.

    Args:
        context: The feed's run.
        rest: Sends the requests.
        moved: Told of every change: the instrument, where it stood, where it stands, the details.
    """

    def __init__(
        self,
        context: Context,
        rest: RestClient,
        moved: Callable[[Instrument, Standing, Standing, str], None],
    ) -> None:
        self._settings = context.settings
        self._backoff = context.new_backoff()
        self._rest = rest
        self._moved = moved
        self._instruments: dict[str, Instrument] = {}
        self._standings: dict[str, Standing] = {}
        self._changed = asyncio.Event()

    def add(self, instruments: Collection[Instrument]) -> None:
        """Look up these too, at once."""
        for instrument in instruments:
            self._instruments[instrument.symbol] = instrument
            self._standings.setdefault(instrument.symbol, Standing.UNCHECKED)
        self._changed.set()

    def remove(self, symbols: Collection[str]) -> None:
        """Forget these."""
        for symbol in symbols:
            self._instruments.pop(symbol, None)
            self._standings.pop(symbol, None)

    def mark_unknown(self, instrument: Instrument, why: str) -> None:
        """Take it from elsewhere that the venue does not know a symbol."""
        self._move(instrument.symbol, Standing.UNKNOWN, why)

    async def run(self) -> None:
        """Look up until cancelled."""
        everything = False
        told = False
        while True:
            self._changed.clear()
            symbols = [
                symbol
                for symbol, standing in self._standings.items()
                if everything or standing is Standing.UNCHECKED
            ]
            try:
                if symbols:
                    await self._check(symbols)
            except RestError as error:
                delay = max(self._backoff.next(), error.retry_after)
                if not told:
                    told = True
                    logger.warning(
                        "which symbols trade cannot be looked up: %s; recording goes on, next try "
                        "in %.1f s",
                        error,
                        delay,
                    )
                await asyncio.sleep(delay)
                continue
            told = False
            self._backoff.reset()
            everything = await self._wait()

    async def _wait(self) -> bool:
        """Wait for new symbols or for the next poll; return whether it is the poll."""
        settings = self._settings
        quiet = all(standing is Standing.TRADING for standing in self._standings.values())
        try:
            async with asyncio.timeout(settings.status_poll if quiet else settings.halted_poll):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    async def _check(self, symbols: Collection[str]) -> None:
        statuses = await self._look_up(symbols)
        for symbol in symbols:
            if symbol not in self._standings:
                continue
            status = statuses.get(symbol)
            if status is None:
                hint = ""
                if symbol.upper() != symbol and symbol.upper() in statuses:
                    hint = f"; did you mean {symbol.upper()}?"
                market = self._settings.market
                self._move(symbol, Standing.UNKNOWN, f"Binance {market} has no such symbol{hint}")
            elif status == "TRADING":
                self._move(symbol, Standing.TRADING, "")
            else:
                self._move(symbol, Standing.HALTED, f"its status is {clip(status, 40)}")

    def _move(self, symbol: str, new: Standing, detail: str) -> None:
        old = self._standings.get(symbol)
        if old is None or old is new:
            return
        self._standings[symbol] = new
        self._moved(self._instruments[symbol], old, new, detail)

    async def _look_up(self, symbols: Collection[str]) -> Mapping[str, str]:
        """Return the statuses of the symbols, as far as they are known; maybe of more symbols."""
        patience = self._settings.request_timeout
        unknown = any(self._standings.get(item) is Standing.UNKNOWN for item in symbols)
        named = msgspec.json.encode(list(symbols)).decode()
        short = len(urllib.parse.quote(named)) <= _MOST_QUERY_BYTES
        if self._settings.market == "spot" and short and not unknown:
            try:
                return await self._fetch({"symbols": named}, patience)
            except RestError as error:
                # One unknown symbol spoils the whole request, and the answer names none.
                if error.status != 400:
                    raise
        parameters = {"showPermissionSets": "false"} if self._settings.market == "spot" else {}
        return await self._fetch(parameters, patience * _FULL_LIST_PATIENCE)

    async def _fetch(self, parameters: Mapping[str, str], patience: float) -> Mapping[str, str]:
        weight = self._settings.info_weight
        body = await self._rest.get("/exchangeInfo", parameters, weight, patience)
        try:
            # The full list has several megabytes.
            info = await asyncio.to_thread(msgspec.json.decode, body, type=_Info)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RestError(f"exchangeInfo is no list of symbols: {clip(str(error))}") from error
        if not info.symbols:
            raise RestError("exchangeInfo lists no symbol at all")
        return {item.symbol: item.status or item.contract_status for item in info.symbols}
