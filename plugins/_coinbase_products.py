"""Which products Coinbase knows and trades, by its public list."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import aiohttp
import msgspec

from obframe_plugins._coinbase_context import Context
from obframe_plugins._http import RestError, describe_request_failure, other_host, read_body
from obframe_plugins._standing import Standing, Word
from obframe_plugins._venue import clip, read_retry_after

_MOST_NAMED = 50
_FULL_LIST_PATIENCE = 6


class _Product(msgspec.Struct):
    product_id: str
    status: str = ""
    is_disabled: bool = False
    trading_disabled: bool = False
    alias: str = ""


class _Products(msgspec.Struct):
    products: list[_Product]


class ProductList:
    """Coinbase's public list of products.

    Args:
        context: The feed's run.
        session: Carries the requests.
    """

    def __init__(self, context: Context, session: aiohttp.ClientSession) -> None:
        self._settings = context.settings
        self._counters = context.counters
        self._session = session

    async def look_up(self, products: Collection[str], unknown: bool) -> Mapping[str, Word]:
        """Return where the products stand, as far as they are known; maybe of more products.

        Args:
            products: Which.
            unknown: Whether some of them were unknown before.

        Raises:
            RestError: The list cannot be had.
        """
        patience = self._settings.request_timeout
        if len(products) <= _MOST_NAMED and not unknown:
            named = [("product_ids", product) for product in products]
            try:
                found = await self._fetch(named, patience)
                if found.keys() >= set(products):
                    return found
            except RestError as error:
                if error.status not in (400, 404):
                    raise
        # Only the whole list says what there is instead of a product that there is not.
        found = await self._fetch([("get_all_products", "true")], patience * _FULL_LIST_PATIENCE)
        if not found:
            raise RestError("Coinbase's list of products is empty")
        return found

    async def _fetch(
        self, parameters: Sequence[tuple[str, str]], patience: float
    ) -> Mapping[str, Word]:
        settings = self._settings
        url = settings.products_url
        self._counters.rest_requests += 1
        try:
            async with self._session.get(
                url,
                params=parameters,
                proxy=settings.proxy_for(url),
                timeout=aiohttp.ClientTimeout(total=patience),
                allow_redirects=False,
            ) as response:
                body = await read_body(response)
                if response.status != 200:
                    raise self._refusal(url, response, body)
            # The full list has a megabyte.
            found = await asyncio.to_thread(msgspec.json.decode, body, type=_Products)
        except RestError:
            self._counters.rest_errors += 1
            raise
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._counters.rest_errors += 1
            raise RestError(f"{url} is no list of products: {clip(str(error))}") from error
        except Exception as error:
            self._counters.rest_errors += 1
            why = describe_request_failure(error, url, patience, settings.section)
            raise RestError(why) from error
        return {item.product_id: _judge(item) for item in found.products}

    def _refusal(self, url: str, response: aiohttp.ClientResponse, body: bytes) -> RestError:
        status = response.status
        said = f"{url} answered {status} ({clip(body, 80) or 'no reason given'})"
        default = 0.0
        if status == 429:
            said, default = f"{said}: too many requests", 60.0
        elif status in (403, 451):
            default = self._settings.blocked_retry
            said += f": this address or place is not served; {other_host(self._settings.section)}"
        return RestError(
            said, status, None, read_retry_after(response.headers.get("Retry-After"), default)
        )


def _judge(product: _Product) -> Word:
    if product.alias and product.alias != product.product_id:
        alias = clip(product.alias, 40)
        return Standing.UNKNOWN, f"its book is that of {alias}, under that name; record {alias}"
    if product.status.lower() not in ("", "online"):
        return Standing.HALTED, f"its status is {clip(product.status, 40)}"
    if product.trading_disabled or product.is_disabled:
        return Standing.HALTED, "trading in it is disabled"
    return Standing.TRADING, ""
