"""Which symbols Binance knows and trades, by its ``exchangeInfo``."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Collection, Mapping

import msgspec

from obframe_plugins._binance_rest import RestClient
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._http import RestError
from obframe_plugins._standing import Standing, Word
from obframe_plugins._venue import clip

_MOST_QUERY_BYTES = 4000
_FULL_LIST_PATIENCE = 6


class _Symbol(msgspec.Struct):
    symbol: str
    status: str = ""
    contract_status: str = msgspec.field(default="", name="contractStatus")


class _Info(msgspec.Struct):
    symbols: list[_Symbol]


class SymbolList:
    """Binance's list of symbols.

    Args:
        settings: The feed's.
        rest: Sends the requests.
    """

    def __init__(self, settings: BinanceSettings, rest: RestClient) -> None:
        self._settings = settings
        self._rest = rest

    async def look_up(self, symbols: Collection[str], unknown: bool) -> Mapping[str, Word]:
        """Return where the symbols stand, as far as they are known; maybe of more symbols.

        Args:
            symbols: Which.
            unknown: Whether some of them were unknown before.

        Raises:
            RestError: The list cannot be had.
        """
        patience = self._settings.request_timeout
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

    async def _fetch(self, parameters: Mapping[str, str], patience: float) -> Mapping[str, Word]:
        weight = self._settings.info_weight
        body = await self._rest.get("/exchangeInfo", parameters, weight, patience)
        try:
            # The full list has several megabytes.
            info = await asyncio.to_thread(msgspec.json.decode, body, type=_Info)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RestError(f"exchangeInfo is no list of symbols: {clip(str(error))}") from error
        if not info.symbols:
            raise RestError("exchangeInfo lists no symbol at all")
        return {item.symbol: _judge(item.status or item.contract_status) for item in info.symbols}


def _judge(status: str) -> Word:
    if status == "TRADING":
        return Standing.TRADING, ""
    return Standing.HALTED, f"its status is {clip(status, 40)}"
