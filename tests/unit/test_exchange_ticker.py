"""The venue's 24 h statistics: volumes that a test decides, weights as the venue's."""

from __future__ import annotations

import aiohttp
import pytest

from obframe.testing.exchange_client import FAST, get, running
from obframe.testing.exchange_market import MARKETS
from obframe.testing.exchange_ticker import Volumes, weigh_ticker

STILL = {**FAST, "rate": 0.001}


async def test_volumes_are_the_same_every_time_until_set() -> None:
    for _ in range(2):
        async with running(**STILL) as venue:
            _, days, headers = await get(venue, "/api/v3/ticker/24hr")
            assert {day["symbol"]: day["quoteVolume"] for day in days} == {
                "BTCUSDT": "1000000000.00000000",
                "ETHUSDT": "500000000.00000000",
            }
            assert headers["X-MBX-USED-WEIGHT-1M"] == "80"
            async with aiohttp.ClientSession() as session:
                url = venue.rest_url + "/control/volumes"
                async with session.post(url, json={"ETHUSDT": "12.5"}) as told:
                    assert await told.json() == {"BTCUSDT": "1000000000", "ETHUSDT": "12.5"}
                for bad in ('{"NOSUCH": "1"}', '{"ETHUSDT": 1}', '{"ETHUSDT": "-1"}', "[]", "{"):
                    async with session.post(url, data=bad) as told:
                        assert told.status == 400
                        assert (await told.json())["error"]
            _, day, _ = await get(venue, "/api/v3/ticker/24hr?symbol=ETHUSDT&type=MINI")
            assert day["quoteVolume"] == "12.50000000"
            assert "priceChange" not in day


@pytest.mark.parametrize(
    ("query", "status", "count"),
    [
        ("?symbols=[%22ETHUSDT%22]", 200, 1),
        ("?symbol=NOSUCH", 400, -1121),
        ("?symbols=[%22NOSUCH%22]", 400, -1121),
        ("?symbol=ETHUSDT&symbols=[%22ETHUSDT%22]", 400, -1128),
    ],
)
async def test_symbols_may_be_named(query: str, status: int, count: int) -> None:
    async with running(**STILL) as venue:
        found, body, _ = await get(venue, "/api/v3/ticker/24hr" + query)
    assert found == status
    assert (len(body) if status == 200 else body["code"]) == count


async def test_coin_futures_count_contracts() -> None:
    async with running(**{**STILL, "symbols": ("BTCUSD_PERP",)}, market="coinm") as venue:
        _, days, headers = await get(venue, "/dapi/v1/ticker/24hr")
    assert days[0]["volume"] == "10000000"
    assert "quoteVolume" not in days[0]
    assert headers["X-MBX-USED-WEIGHT-1M"] == "40"


def test_weights() -> None:
    spot, usdm = MARKETS["spot"], MARKETS["usdm"]
    assert [weigh_ticker(spot, count) for count in (1, 20, 21, 100, 101, None)] == [
        *(2, 2, 40, 40, 80, 80),
    ]
    assert [weigh_ticker(usdm, count) for count in (1, None)] == [1, 40]


def test_volumes_are_set_all_or_none() -> None:
    volumes = Volumes(["A", "B"])
    with pytest.raises(ValueError, match="'C'"):
        volumes.set({"A": "1", "C": "2"})
    assert volumes["A"] == 10**9
