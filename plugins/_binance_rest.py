"""Binance's REST interface: weights, bans, time-outs, and nothing parsed that is not an answer."""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Callable, Mapping

import aiohttp
import msgspec

from obframe_plugins._binance_context import Counters, logger
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._http import RestError, describe_request_failure, other_host, read_body
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._venue import clip, read_retry_after

NO_SUCH_SYMBOL = (-1121, -1100)
"""The venue's codes for a symbol that is unknown or of characters that no symbol has."""


class _Complaint(msgspec.Struct):
    code: int = 0
    msg: str = ""


class RestClient:
    """Sends requests within the venue's limits. A ban or a block stops them all.

    Args:
        settings: Where the venue is, and what it allows.
        counters: Told of requests and refusals.
        session: Carries the requests.
        section: The section of settings to name where a setting is the mend.

    Attributes:
        on_pause: Told why, when all requests have to wait.
    """

    def __init__(
        self,
        settings: BinanceSettings,
        counters: Counters,
        session: aiohttp.ClientSession,
        section: str = "binance",
    ) -> None:
        self.on_pause: Callable[[str], None] | None = None
        self._settings = settings
        self._counters = counters
        self._session = session
        self._section = section
        self._loop = asyncio.get_running_loop()
        self._limit = RollingLimit(settings.weight_budget, 60.0)
        self._paused_until = 0.0
        self._paused_for = ""

    @property
    def pause(self) -> str:
        """Why all requests are waiting; empty when they are not."""
        return self._paused_for if self._paused_until > self._loop.time() else ""

    def wait_for_all(self, weight: int) -> float:
        """Estimate the seconds until requests of this total weight are sent."""
        now = self._loop.time()
        pause = max(self._paused_until - now, 0.0)
        return pause + self._limit.wait_for_all(weight, now)

    async def get(
        self, path: str, parameters: Mapping[str, str], weight: int, timeout: float
    ) -> bytes:
        """Send one request, when the limits allow, and return the body of its answer.

        Args:
            path: Such as ``/depth``.
            parameters: The query.
            weight: What the venue counts for it.
            timeout: Seconds for the whole answer.

        Raises:
            RestError: There was no answer, or not a good one.
        """
        await self._admit(weight)
        self._counters.rest_requests += 1
        url = self._settings.api_url + path
        try:
            async with self._session.get(
                url,
                params=parameters,
                proxy=self._settings.proxy_for(url),
                timeout=aiohttp.ClientTimeout(total=timeout),
                allow_redirects=False,
            ) as response:
                self._note_weight(response)
                body = await read_body(response)
                if response.status != 200:
                    raise self._refusal(url, response, body)
                return body
        except RestError:
            self._counters.rest_errors += 1
            raise
        except Exception as error:
            self._counters.rest_errors += 1
            why = describe_request_failure(error, url, timeout, self._section)
            raise RestError(why) from error

    async def _admit(self, weight: int) -> None:
        while True:
            now = self._loop.time()
            delay = max(self._paused_until - now, self._limit.delay(weight, now))
            if delay <= 0:
                self._limit.spend(weight, now)
                return
            await asyncio.sleep(delay)

    def _note_weight(self, response: aiohttp.ClientResponse) -> None:
        try:
            used = int(response.headers["X-MBX-USED-WEIGHT-1M"])
        except (KeyError, ValueError):
            return
        now = self._loop.time()
        left = 60.0
        # The venue counts by its clock's minutes, and its Date header tells that clock.
        date = email.utils.parsedate(response.headers.get("Date", ""))
        if date is not None:
            left = 61.0 - min(date[5], 59)
        self._limit.report(used, now, now + left)

    def _refusal(self, url: str, response: aiohttp.ClientResponse, body: bytes) -> RestError:
        status = response.status
        complaint = _Complaint()
        try:
            complaint = msgspec.json.decode(body, type=_Complaint)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            complaint.msg = clip(body, 80)
        code = complaint.code or None
        said = f"{url} answered {status} ({clip(complaint.msg) or 'no reason given'})"
        asked = response.headers.get("Retry-After")
        if status in (418, 429):
            self._counters.rate_limited += 1
            seconds = read_retry_after(asked, 120.0 if status == 418 else 60.0)
            what = "banned for now" if status == 418 else "too many requests"
            detail = f"{said}: {what}, all requests wait"
            self._pause(detail, seconds)
            return RestError(detail, status, code, seconds)
        if status in (403, 451):
            self._counters.blocked += 1
            seconds = read_retry_after(asked, self._settings.blocked_retry)
            why = "this place is not served" if status == 451 else "a firewall turned us away"
            detail = f"{said}: {why}; {other_host(self._section)}"
            self._pause(detail, seconds)
            return RestError(detail, status, code, seconds)
        return RestError(said, status, code, read_retry_after(asked, 0.0))

    def _pause(self, why: str, seconds: float) -> None:
        now = self._loop.time()
        fresh = self._paused_until <= now
        self._paused_until = max(self._paused_until, now + seconds)
        self._paused_for = why
        if fresh:
            logger.error("%s; next try in %.0f s", why, seconds)
            if self.on_pause is not None:
                self.on_pause(why)
