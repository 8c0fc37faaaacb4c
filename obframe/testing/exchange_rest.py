"""The venue's REST side: books, listings and the weights of requests."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp import web

from obframe.testing.exchange_channel import now_ms
from obframe.testing.exchange_faults import Fault, FaultPlan, Scope
from obframe.testing.exchange_journal import Journal
from obframe.testing.exchange_market import Depth, Listing, Market, Source
from obframe.testing.exchange_ticker import CONTRACT_SIZE, Volumes, describe_day, weigh_ticker

_SYMBOL = re.compile(r"[^\sa-z]{1,50}")
_ASSETS = re.compile(r"(.+?)(USDT|USDC|FDUSD|USD|BTC|ETH|BNB|EUR|TRY)(_.+)?$")
_HTML = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
_IGNORED = 5
"""Refused requests in one minute that turn 429 into a ban."""


class Weights:
    """Counts request weights in a window of a minute, begun by its first request.

    Args:
        limit: Weight a window.
        ban_seconds: Length of the first ban; each further one is twice as long.
        clock: Monotonic seconds.
    """

    def __init__(self, limit: int, ban_seconds: float, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.used = 0
        self.limited_until = 0.0
        self.banned_until = 0.0
        self._ban_seconds = ban_seconds
        self._clock = clock
        self._window_end = -math.inf
        self._refusals = 0

    def take(self, weight: int) -> tuple[int, int]:
        """Ask for a request of this weight.

        Returns:
            200 and 0, or the status of the refusal and the seconds for ``Retry-After``.
        """
        now = self._clock()
        if now < self.banned_until:
            return 418, math.ceil(self.banned_until - now)
        if now >= self._window_end:
            self._window_end = now + 60.0
            self.used = self._refusals = 0
        over = self.used + weight > self.limit
        until = max(self.limited_until, self._window_end if over else 0.0)
        if now >= until:
            self.used += weight
            return 200, 0
        self._refusals += 1
        if self._refusals <= _IGNORED:
            return 429, math.ceil(until - now)
        self.banned_until = now + self._ban_seconds
        self._ban_seconds *= 2
        return 418, math.ceil(self.banned_until - now)


class Hub(Protocol):
    """What the REST side needs of its venue."""

    market: Market
    source: Source
    faults: FaultPlan
    journal: Journal | None
    volumes: Volumes

    def halted(self, symbol: str) -> bool:
        """Tell whether trading in a symbol is halted."""
        ...

    def note(self, fault: Fault, where: str) -> None:
        """Note that a fault struck, and where."""
        ...

    def first_served(self, symbol: str) -> int | None:
        """Return the ``U`` of the first event of a symbol that went to a client."""
        ...

    def count_request(self) -> None:
        """Note one more request."""
        ...


class _Refused(Exception):
    def __init__(self, status: int, code: int, message: str, retry: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "msg": message}
        self.retry = retry


class Rest:
    """Answers REST requests as the market's own servers do."""

    def __init__(self, hub: Hub, weights: Weights) -> None:
        self._hub = hub
        self._market = hub.market
        self._weights = weights

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the market."""
        answers: dict[str, tuple[Callable[[web.Request], Any], Callable[[web.Request], int]]] = {
            "ping": (lambda _: {}, lambda _: 1),
            "time": (lambda _: {"serverTime": now_ms()}, lambda _: 1),
            "exchangeInfo": (self._info, lambda _: self._market.info_weight),
            "depth": (self._depth, self._depth_weight),
            "ticker/24hr": (self._day, self._day_weight),
        }
        return [
            web.get(f"{self._market.rest}/{name}", self._handler(*answer))
            for name, answer in answers.items()
        ]

    def _handler(
        self, answer: Callable[[web.Request], Any], weigh: Callable[[web.Request], int]
    ) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._hub.count_request()
            try:
                self._admit(weigh(request))
                body = answer(request)
                if isinstance(body, Depth):
                    return await self._serve_depth(request.query["symbol"], body)
                return self._respond(200, _dump(body))
            except _Refused as error:
                headers = {"Retry-After": str(error.retry)} if error.retry else {}
                return self._respond(error.status, _dump(error.body), headers)

        return handle

    def _respond(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> web.Response:
        used = str(self._weights.used)
        return web.Response(
            status=status,
            body=body,
            content_type=content_type,
            charset="utf-8",
            headers={"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used, **(headers or {})},
        )

    def _admit(self, weight: int) -> None:
        status, retry = self._weights.take(weight)
        if status == 429:
            raise _Refused(
                429,
                -1003,
                f"Too much request weight used; current limit is {self._weights.limit} request"
                " weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid"
                " polling the API.",
                retry,
            )
        if status == 418:
            raise _Refused(
                418,
                -1003,
                f"Way too much request weight used; IP banned until {now_ms() + retry * 1000}."
                " Please use WebSocket Streams for live updates to avoid bans.",
                retry,
            )

    def _depth_weight(self, request: web.Request) -> int:
        text = request.query.get("limit", "")
        limit = int(text) if _is_number(text) else self._market.default_depth
        return self._market.depth_weight(limit)

    def _depth(self, request: web.Request) -> Depth:
        symbol = self._symbol(request.query.get("symbol", ""))
        text = request.query.get("limit")
        if text is None:
            limit = self._market.default_depth
        elif not _is_number(text):
            raise _Refused(
                400,
                -1100,
                "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'.",
            )
        else:
            limit = int(text)
        if self._market.depths and limit not in self._market.depths:
            raise _Refused(400, -4021, f"'{limit}' is not valid depth limit.")
        if limit < 1:
            raise _Refused(400, -1130, "Data sent for parameter 'limit' is not valid.")
        return self._hub.source.depth(symbol, min(limit, 5000))

    def _symbol(self, symbol: str) -> str:
        if not symbol:
            raise _Refused(
                400,
                -1102,
                "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.",
            )
        if not self._market.futures and not _SYMBOL.fullmatch(symbol):
            raise _Refused(
                400,
                -1100,
                "Illegal characters found in parameter 'symbol'; "
                r"legal range is '^[\w\-._&&[^a-z]]{1,50}$'.",
            )
        if symbol not in self._hub.source.listings:
            raise _Refused(400, -1121, "Invalid symbol.")
        return symbol

    async def _serve_depth(self, symbol: str, depth: Depth) -> web.StreamResponse:
        last, delay = depth.last_update_id, 0.0
        for fault, _ in self._hub.faults.due(Scope.REST, symbol=symbol):
            self._hub.note(fault, f"REST depth of {symbol}")
            match fault.name:
                case "429":
                    self._weights.limited_until = self._deadline(fault)
                    self._admit(0)
                case "418":
                    self._weights.banned_until = self._deadline(fault)
                    self._admit(0)
                case "403" | "html":
                    status = 403 if fault.name == "403" else int(fault.number("status"))
                    page = _HTML.format("Forbidden" if status == 403 else "Be right back")
                    return self._respond(status, page.encode(), content_type="text/html")
                case "451":
                    raise _Refused(451, 0, "Service unavailable from a restricted location.")
                case "500":
                    raise _Refused(
                        500, -1000, "An unknown error occurred while processing the request."
                    )
                case "slow-rest":
                    delay = fault.number("seconds")
                case "old-snapshot":
                    # One id short of what could be joined to the first event that anyone has.
                    first = self._hub.first_served(symbol)
                    last = (last + 1 if first is None else first) - 2
        body: dict[str, object] = {"lastUpdateId": last}
        if self._market.name == "coinm":
            body |= {"symbol": symbol, "pair": symbol.partition("_")[0]}
        if self._market.futures:
            body |= {"E": depth.time_ms, "T": depth.time_ms}
        encoded = msgspec.json.encode(body | {"bids": depth.bids, "asks": depth.asks})
        if self._hub.journal and last == depth.last_update_id:
            self._hub.journal.snapshot(symbol, encoded)
        if delay:
            await asyncio.sleep(delay)
        return self._respond(200, encoded)

    def _day_weight(self, request: web.Request) -> int:
        if "symbol" in request.query:
            return weigh_ticker(self._market, 1)
        named = request.query.get("symbols") if not self._market.futures else None
        return weigh_ticker(self._market, None if named is None else named.count(",") + 1)

    def _day(self, request: web.Request) -> object:
        wanted = list(self._hub.source.listings)
        if not self._market.futures:
            wanted = self._wanted(request.query, wanted)
        elif "symbol" in request.query:
            wanted = [self._symbol(request.query["symbol"])]
        days = [
            describe_day(
                self._market,
                symbol,
                self._hub.volumes[symbol],
                self._hub.source.depth(symbol, 1),
                now_ms(),
                brief=request.query.get("type") == "MINI",
            )
            for symbol in wanted
        ]
        # COIN-M answers with a list even for one.
        return days[0] if "symbol" in request.query and self._market.name != "coinm" else days

    def _deadline(self, fault: Fault) -> float:
        return time.monotonic() + fault.number("retry")

    def _info(self, request: web.Request) -> dict[str, object]:
        listings = self._hub.source.listings
        wanted = list(listings)
        if not self._market.futures:
            wanted = self._wanted(request.query, wanted)
        return {
            "timezone": "UTC",
            "serverTime": now_ms(),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self._weights.limit,
                }
            ],
            "exchangeFilters": [],
            "symbols": [self._describe(listings[symbol]) for symbol in wanted],
        }

    def _wanted(self, query: Mapping[str, str], every: list[str]) -> list[str]:
        if "symbol" in query and "symbols" in query:
            raise _Refused(400, -1128, "Combination of optional parameters invalid.")
        if "symbol" in query:
            return [self._symbol(query["symbol"])]
        if "symbols" not in query:
            return every
        try:
            names = json.loads(query["symbols"])
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _Refused(
                400,
                -1100,
                "Illegal characters found in parameter 'symbols'; legal range is a JSON array.",
            )
        return [self._symbol(name) for name in names]

    def _describe(self, listing: Listing) -> dict[str, object]:
        symbol = listing.symbol
        parts = _ASSETS.fullmatch(symbol)
        base, quote = (parts[1], parts[2]) if parts else (symbol, symbol)
        status = "BREAK" if self._hub.halted(symbol) else "TRADING"
        prices = {
            "filterType": "PRICE_FILTER",
            "minPrice": listing.tick,
            "maxPrice": "1000000" + listing.tick[1:].replace("1", "0"),
            "tickSize": listing.tick,
        }
        lots = {
            "filterType": "LOT_SIZE",
            "minQty": listing.step,
            "maxQty": "9000000",
            "stepSize": listing.step,
        }
        common: dict[str, object] = {
            "symbol": symbol,
            "baseAsset": base,
            "quoteAsset": quote,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "filters": [prices, lots],
        }
        if not self._market.futures:
            return common | {
                "status": status,
                "quoteAssetPrecision": 8,
                "isSpotTradingAllowed": True,
                "isMarginTradingAllowed": False,
                "permissions": [],
                "permissionSets": [["SPOT"]],
            }
        coin = self._market.name == "coinm"
        return common | {
            "contractStatus" if coin else "status": status,
            "pair": symbol.partition("_")[0],
            "contractType": "PERPETUAL",
            "contractSize": CONTRACT_SIZE,
            "marginAsset": base if coin else quote,
            "pricePrecision": len(listing.tick.partition(".")[2]),
            "quantityPrecision": len(listing.step.partition(".")[2]),
        }


def _dump(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20
