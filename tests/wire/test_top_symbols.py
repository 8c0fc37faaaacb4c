"""The symbol source ``top``: asked of the loopback venue, and of one that answers as it likes."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from obframe import Instrument, ObframeError
from obframe.testing.exchange_client import FAST, running
from obframe.testing.symbols import HeldSleep, watching
from obframe.testing.waiting import until
from obframe_plugins._binance_listing import BinanceListing
from obframe_plugins.top import Ranking, Ticker, TopSettings, TopSymbols, open_top


def names(instruments: frozenset[Instrument]) -> str:
    return ",".join(sorted(instrument.symbol for instrument in instruments))


@pytest.mark.parametrize(
    ("market", "symbols", "quote"),
    [
        ("spot", ("BTCUSDT", "ETHUSDT", "ETHBTC"), "USDT"),
        ("usdm", ("BTCUSDT", "ETHUSDT", "BTCUSDC"), "USDT"),
        ("coinm", ("BTCUSD_PERP", "ETHUSD_PERP"), "USD"),
    ],
)
async def test_the_listing_of_each_market(
    market: str, symbols: tuple[str, ...], quote: str
) -> None:
    async with running(**{**FAST, "symbols": symbols}, market=market) as venue:
        settings = TopSettings(market=market, rest_url=venue.rest_url)  # type: ignore[arg-type]
        async with aiohttp.ClientSession() as session:
            tickers = await BinanceListing(settings.venue(), session, "top").fetch()
        assert venue.stats.rest_requests == 2
    assert [each.instrument.symbol for each in tickers] == list(symbols)
    assert tickers[0] == Ticker(Instrument(symbols[0]), quote, Decimal(10**9), True)
    assert tickers[1] == Ticker(Instrument(symbols[1]), quote, Decimal(5 * 10**8), True)


async def test_the_top_follows_the_volumes_with_a_buffer() -> None:
    symbols = (*(f"S{i}USDT" for i in range(8)), "S1BTC")
    async with running(**{**FAST, "symbols": symbols}) as venue:
        settings = TopSettings(
            count=4,
            buffer=0.25,
            exclude=("S0*",),
            rest_url=venue.rest_url,
            interval=3600.0,  # type: ignore[arg-type]
        )
        sleep = HeldSleep()
        async with open_top(settings) as source:
            assert isinstance(source, TopSymbols)
            source._sleep = sleep
            async with watching(source) as watch:
                await until(lambda: sleep.asked)
                seen = watch.told
                assert seen == ["S1USDT,S2USDT,S3USDT,S4USDT"]
                # To and fro at the border: rank 5 is within the buffer.
                for volume in ("210000000", "190000000", "210000000"):
                    venue.volumes.set({"S5USDT": volume})
                    await sleep.end()
                assert len(seen) == 1
                venue.volumes.set({"S4USDT": "1"})
                await sleep.end()
                assert seen[1:] == ["S1USDT,S2USDT,S3USDT,S5USDT"]
                venue.volumes.set({"S7USDT": "600000000"})
                await sleep.end()
                assert seen[2:] == ["S1USDT,S2USDT,S3USDT,S7USDT"]
                assert set(sleep.asked) == {3600.0}


class Rude:
    """A venue that answers as the test says."""

    def __init__(self) -> None:
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.good
        self.volumes = {"AUSDT": "3", "BUSDT": "2", "CUSDT": "1"}
        self.statuses: dict[str, str] = {}
        self.requests = 0
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        return await self.answer(request)

    async def good(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("exchangeInfo"):
            symbols = [
                {"symbol": each, "status": self.statuses.get(each, "TRADING"), "quoteAsset": "USDT"}
                for each in self.volumes
            ]
            return web.json_response({"symbols": symbols})
        return web.json_response(
            [{"symbol": each, "quoteVolume": of} for each, of in self.volumes.items()]
        )


@pytest.fixture
async def rude() -> AsyncIterator[Rude]:
    venue = Rude()
    app = web.Application()
    app.router.add_get("/{path:.*}", venue.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield venue
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(rude: Rude, sleep: HeldSleep, **settings: Any) -> AsyncIterator[list[str]]:
    """Watch the top of the rude venue."""
    chosen = TopSettings(**{"count": 2, "buffer": 0.0, "rest_url": rude.url, **settings})
    async with aiohttp.ClientSession() as session:
        listing = BinanceListing(chosen.venue(), session, "top")
        rng = random.Random(3)
        source = TopSymbols(listing, chosen.ranking(), float(chosen.interval), sleep, rng)
        async with watching(source) as watch:
            await until(lambda: sleep.asked or watch.task.done())
            if watch.task.done():
                watch.task.result()
            yield watch.told


def answer(status: int, body: str, **headers: str) -> Callable[[web.Request], Any]:
    async def give(_request: web.Request) -> web.StreamResponse:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, headers=told)

    return give


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, "{}", "answered 500"),
        (503, "<html>be right back</html>", "answered 503"),
        (200, "<html>be right back</html>", "no list of symbols"),
        (200, "[]", "no list of symbols"),
        (200, '{"symbols": []}', "no list of symbols"),
        (200, "[" * 50_000, "no list of symbols"),
        (200, '[{"symbol": "AUSDT"', "no list of symbols"),
    ],
)
async def test_row_34_a_failure_keeps_the_set_and_is_told_once(
    rude: Rude, status: int, body: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    sleep = HeldSleep()
    async with asking(rude, sleep) as seen:
        assert seen == ["AUSDT,BUSDT"]
        rude.answer = answer(status, body)
        for _ in range(5):
            await sleep.end()
        (record,) = [one for one in caplog.records if one.name == "obframe.top"]
        assert told in record.message
        assert "the 2 symbols of before stay" in record.message
        delays = sleep.asked[1:]
        assert all(1.0 <= delay <= 300.0 for delay in delays)
        rude.answer, rude.volumes = rude.good, {**rude.volumes, "CUSDT": "9"}
        await sleep.end()
        assert seen == ["AUSDT,BUSDT", "AUSDT,CUSDT"]
        assert sleep.asked[-1] == 3600.0


@pytest.mark.parametrize(("status", "seconds"), [(429, 7), (418, 130)])
async def test_row_32_too_many_requests_are_waited_for(
    rude: Rude, status: int, seconds: int
) -> None:
    sleep = HeldSleep()
    async with asking(rude, sleep) as seen:
        rude.answer = answer(
            status, '{"code": -1003, "msg": "slow down"}', Retry_After=str(seconds)
        )
        await sleep.end()
        assert sleep.asked[-1] >= seconds
        assert rude.requests == 3
        assert seen == ["AUSDT,BUSDT"]


@pytest.mark.parametrize("status", [403, 451])
async def test_row_33_a_block_names_the_setting(
    rude: Rude, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    rude.answer = answer(status, "no")
    sleep = HeldSleep()
    async with asking(rude, sleep) as seen:
        assert seen == []
        assert "set top.rest_url to a host that serves you, or top.proxy" in caplog.text
        assert sleep.asked[-1] >= 300


async def test_a_venue_that_is_not_there_yet_is_waited_for(rude: Rude) -> None:
    rude.answer = answer(502, "")
    sleep = HeldSleep()
    async with asking(rude, sleep) as seen:
        assert seen == []
        rude.answer = rude.good
        await sleep.end()
        assert seen == ["AUSDT,BUSDT"]


@pytest.mark.parametrize("volume", ["NaN", "1e400", "-1", "", "１", "1" * 100, "Infinity"])
async def test_a_volume_that_is_no_number_is_refused(
    rude: Rude, volume: str, caplog: pytest.LogCaptureFixture
) -> None:
    sleep = HeldSleep()
    async with asking(rude, sleep) as seen:
        rude.volumes = {**rude.volumes, "CUSDT": volume}
        await sleep.end()
        assert seen == ["AUSDT,BUSDT"]
        assert "the volume of CUSDT is" in caplog.text


async def test_row_59_settings_that_allow_no_symbol_end_the_run_and_name_the_mend(
    rude: Rude,
) -> None:
    with pytest.raises(ObframeError, match=r"top\.quote.*quote assets are USDT"):
        async with asking(rude, HeldSleep(), quote=("USTD",)):
            pass


async def test_what_is_halted_stays_but_does_not_come_in(
    rude: Rude, caplog: pytest.LogCaptureFixture
) -> None:
    rude.statuses = {"BUSDT": "BREAK"}
    sleep = HeldSleep()
    caplog.set_level(logging.INFO)
    async with asking(rude, sleep) as seen:
        assert seen == ["AUSDT,CUSDT"]
        rude.statuses = {"AUSDT": "BREAK", "CUSDT": "BREAK"}
        await sleep.end()
        assert seen == ["AUSDT,CUSDT", "AUSDT,BUSDT"]
        rude.statuses = dict.fromkeys("ABC", "BREAK")
        rude.statuses = {f"{each}USDT": "BREAK" for each in "ABC"}
        await sleep.end()
        assert len(seen) == 2


async def test_a_second_watch_begins_with_the_set_that_holds(rude: Rude) -> None:
    sleep = HeldSleep()
    chosen = TopSettings(count=1, rest_url=rude.url)
    async with aiohttp.ClientSession() as session:
        listing = BinanceListing(chosen.venue(), session, "top")
        source = TopSymbols(listing, chosen.ranking(), 5.0, sleep)
        async with watching(source) as watch:
            await watch.until("AUSDT")
        rude.answer = answer(500, "")
        async with watching(source) as watch:
            await watch.until("AUSDT")


async def test_another_venue_needs_a_listing_only() -> None:
    class Listed:
        volumes = dict.fromkeys(("kraken/BTC/USD", "kraken/ETH/USD", "kraken/BTC/EUR"), 1)

        async def fetch(self) -> list[Ticker]:
            return [
                Ticker(Instrument.parse(name), name[-3:], Decimal(volume), True)
                for name, volume in self.volumes.items()
            ]

    listing, sleep = Listed(), HeldSleep()
    ranking = Ranking(1, ("USD",), include=("*/USD",))
    async with watching(TopSymbols(listing, ranking, 5.0, sleep)) as watch:
        await watch.until("kraken/BTC/USD")
        listing.volumes = {**listing.volumes, "kraken/ETH/USD": 2}
        await sleep.end()
        await watch.until("kraken/BTC/USD", "kraken/ETH/USD")


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="count is 0") as caught:
        TopSettings(count=0, buffer=2.0, interval=0.5, rest_url="ftp://x")  # type: ignore[arg-type]
    for mistake in ("buffer is 2.0", "interval is 0.5", "rest_url is 'ftp://x'"):
        assert mistake in str(caught.value)


def test_the_ranking_takes_patterns_as_a_shell_does() -> None:
    found = [
        Ticker(Instrument(name), "USDT", Decimal(volume), True)
        for name, volume in json.loads(
            '{"BTCUSDT": 9, "BTCUPUSDT": 8, "ETHUSDT": 7, "Xusdt": 6}'
        ).items()
    ]
    for include, exclude, expected in (
        ((), (), "BTCUPUSDT,BTCUSDT,ETHUSDT,Xusdt"),
        (("BTC*", "ETH*"), ("*UP*",), "BTCUSDT,ETHUSDT"),
        (("?TCUSDT",), (), "BTCUSDT"),
        (("*USDT",), (), "BTCUPUSDT,BTCUSDT,ETHUSDT"),
    ):
        assert names(Ranking(9, (), include, exclude).choose(found, ())) == expected
