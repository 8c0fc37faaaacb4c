"""The venue's 24 h statistics: volumes that a test decides, prices as the book stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from aiohttp import web

from obframe.testing.exchange_market import Depth, Market

CONTRACT_SIZE = 100
"""Units of the quote asset that a COIN-M contract is worth here."""

_DAY_MS = 86_400_000
_VOLUME = re.compile(r"\d{1,20}(\.\d{1,8})?", re.ASCII)


class Volumes:
    """What was traded of each symbol in 24 hours, in its quote asset.

    The first symbol begins with 1,000,000,000, the nth with an nth of that; they stay until set.

    Args:
        symbols: The venue's, in the order of its list.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self._volumes = {symbol: Decimal(10**9 // n) for n, symbol in enumerate(symbols, 1)}

    def __getitem__(self, symbol: str) -> Decimal:
        return self._volumes[symbol]

    def set(self, volumes: Mapping[str, str]) -> None:
        """Set the volumes of some symbols, all or none.

        Raises:
            ValueError: A symbol is not listed, or its volume no decimal of 0 or more.
        """
        for symbol, volume in volumes.items():
            if symbol not in self._volumes:
                raise ValueError(f"volume of {symbol!r}: the venue does not list it")
            if not isinstance(volume, str) or not _VOLUME.fullmatch(volume):
                raise ValueError(f"volume of {symbol}: {volume!r} is no text such as '12.5'")
        self._volumes.update({symbol: Decimal(volume) for symbol, volume in volumes.items()})

    def routes(self) -> list[web.RouteDef]:
        """Return the routes by which another process reads and sets the volumes."""
        return [web.get("/control/volumes", self._tell), web.post("/control/volumes", self._take)]

    async def _tell(self, _request: web.Request) -> web.Response:
        return web.json_response({name: str(each) for name, each in self._volumes.items()})

    async def _take(self, request: web.Request) -> web.Response:
        try:
            volumes = await request.json()
            if not isinstance(volumes, dict):
                raise ValueError('give {"SYMBOL": "VOLUME"}')
            self.set(volumes)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return await self._tell(request)


def weigh_ticker(market: Market, count: int | None) -> int:
    """Return the REST weight of 24 h statistics of so many symbols; None for all of them."""
    if market.futures:
        return 40 if count is None else 1
    return 80 if count is None or count > 100 else 40 if count > 20 else 2


def describe_day(
    market: Market, symbol: str, volume: Decimal, depth: Depth, now_ms: int, *, brief: bool
) -> dict[str, object]:
    """Return one symbol's 24 h statistics as the market tells them.

    Args:
        market: Which market's words.
        symbol: Whose.
        volume: Traded, in the quote asset.
        depth: The book now; its best bid stands for every price of the day.
        now_ms: The end of the day.
        brief: Leave away what spot leaves away for ``type=MINI``.
    """
    price = depth.bids[0][0] if depth.bids else "0"
    base = volume / Decimal(price) if Decimal(price) else Decimal(0)
    traded = {"volume": f"{base:.8f}", "quoteVolume": f"{volume:.8f}"}
    if market.name == "coinm":
        traded = {"volume": f"{volume // CONTRACT_SIZE:.0f}", "baseVolume": f"{base:.8f}"}
    day: dict[str, object] = {
        "symbol": symbol,
        "openPrice": price,
        "highPrice": price,
        "lowPrice": price,
        "lastPrice": price,
        **traded,
        "openTime": now_ms - _DAY_MS,
        "closeTime": now_ms,
        "firstId": 1,
        "lastId": 1,
        "count": 1,
    }
    if market.name == "coinm":
        day["pair"] = symbol.partition("_")[0]
    if brief:
        return day
    return day | {"priceChange": "0", "priceChangePercent": "0.000", "weightedAvgPrice": price}
