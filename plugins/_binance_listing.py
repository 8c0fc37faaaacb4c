"""Binance's symbols with their 24 h volumes, over REST."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import aiohttp
import msgspec

from obframe import Instrument, SymbolError
from obframe_plugins._binance_context import Counters
from obframe_plugins._binance_rest import RestClient
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._http import RestError
from obframe_plugins._ranking import ListingError, Ticker
from obframe_plugins._venue import clip

_PATIENCE = 60.0
_DECIMAL = re.compile(r"\d{1,40}(\.\d{1,40})?", re.ASCII)
_TICKER_WEIGHTS = {"spot": 80, "usdm": 40, "coinm": 40}


class _Symbol(msgspec.Struct):
    symbol: str
    quote: str = msgspec.field(name="quoteAsset")
    status: str = ""
    contract_status: str = msgspec.field(default="", name="contractStatus")
    contract_size: int = msgspec.field(default=1, name="contractSize")


class _Info(msgspec.Struct):
    symbols: list[_Symbol]


class _Volume(msgspec.Struct):
    symbol: str
    volume: str = ""
    quote_volume: str = msgspec.field(default="", name="quoteVolume")


class BinanceListing:
    """Asks one Binance market for its symbols and their volumes, within its weight limits.

    Args:
        settings: Which market, and where it is.
        session: Carries the requests.
        section: The section of settings to name where a setting is the mend.
        prefix: Stands before each symbol, such as ``binance/``.
    """

    def __init__(
        self,
        settings: BinanceSettings,
        session: aiohttp.ClientSession,
        section: str,
        prefix: str = "",
    ) -> None:
        self._settings = settings
        self._prefix = prefix
        self._rest = RestClient(settings, Counters(), session, section)

    async def fetch(self) -> Sequence[Ticker]:
        """Return every symbol of the market.

        Raises:
            ListingError: The venue did not answer, or with what is no list.
        """
        market = self._settings.market
        parameters = {"showPermissionSets": "false"} if market == "spot" else {}
        brief = {"type": "MINI"} if market == "spot" else {}
        try:
            weight = self._settings.info_weight
            info = await self._rest.get("/exchangeInfo", parameters, weight, _PATIENCE)
            weight = _TICKER_WEIGHTS[market]
            volumes = await self._rest.get("/ticker/24hr", brief, weight, _PATIENCE)
            # Both have several megabytes.
            return await asyncio.to_thread(_read, info, volumes, market == "coinm", self._prefix)
        except RestError as error:
            raise ListingError(str(error), error.retry_after) from error


def _read(info: bytes, volumes: bytes, in_contracts: bool, prefix: str) -> list[Ticker]:
    try:
        symbols = msgspec.json.decode(info, type=_Info).symbols
        traded = {each.symbol: each for each in msgspec.json.decode(volumes, type=list[_Volume])}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ListingError(f"the answer is no list of symbols: {clip(str(error))}") from error
    if not symbols or not traded:
        raise ListingError("the answer lists no symbol at all")
    return _join(symbols, traded, in_contracts, prefix)


def _join(
    symbols: Sequence[_Symbol], traded: Mapping[str, _Volume], in_contracts: bool, prefix: str
) -> list[Ticker]:
    tickers = []
    for each in symbols:
        of_day = traded.get(each.symbol)
        if of_day is None:
            continue  # listed, and never traded yet
        # COIN-M counts contracts; each is worth so many units of the quote asset.
        text = of_day.volume if in_contracts else of_day.quote_volume
        if not _DECIMAL.fullmatch(text):
            raise ListingError(f"the volume of {clip(each.symbol, 40)} is {clip(text, 40)!r}")
        volume = Decimal(text) * (each.contract_size if in_contracts else 1)
        try:
            instrument = Instrument.parse(prefix + each.symbol)
        except SymbolError:
            continue  # no store can hold it
        trading = (each.status or each.contract_status) == "TRADING"
        tickers.append(Ticker(instrument, each.quote, volume, trading))
    return tickers
