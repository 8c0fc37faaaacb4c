"""The REST side of the venue: books, listings, refusals and weights."""

from __future__ import annotations

import pytest

from obframe.testing.exchange_client import FAST, get, running
from obframe.testing.exchange_rest import Weights

# Slow on purpose: what two answers tell of the market must be of the same moment.
STILL = {**FAST, "rate": 0.001}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", -1102),
        ("?symbol=", -1102),
        ("?symbol=btcusdt", -1100),
        ("?symbol=NOSUCH", -1121),
        ("?symbol=BTCUSDT&limit=ten", -1100),
        ("?symbol=BTCUSDT&limit=-1", -1100),
        ("?symbol=BTCUSDT&limit=0", -1130),
    ],
)
async def test_bad_spot_depth_requests(query: str, code: int) -> None:
    async with running(**STILL) as venue:
        status, body, headers = await get(venue, "/api/v3/depth" + query)
    assert (status, body["code"]) == (400, code)
    assert body["msg"]
    assert headers["Content-Type"].startswith("application/json")


async def test_invalid_symbol_has_the_known_text() -> None:
    async with running(**STILL) as venue:
        _, body, _ = await get(venue, "/api/v3/depth?symbol=NOSUCH")
    assert body == {"code": -1121, "msg": "Invalid symbol."}


async def test_depth_honours_its_limit() -> None:
    async with running(**{**STILL, "levels": 6000}) as venue:
        sizes = {}
        for query in ("", "&limit=5", "&limit=1000", "&limit=5000", "&limit=9000"):
            _, body, _ = await get(venue, f"/api/v3/depth?symbol=BTCUSDT{query}")
            assert list(body) == ["lastUpdateId", "bids", "asks"]
            sizes[query] = len(body["bids"]), len(body["asks"])
    assert sizes == {
        "": (100, 100),
        "&limit=5": (5, 5),
        "&limit=1000": (1000, 1000),
        "&limit=5000": (5000, 5000),
        "&limit=9000": (5000, 5000),
    }


async def test_futures_depth_has_times_and_fixed_limits() -> None:
    async with running(**STILL, market="usdm") as venue:
        status, body, _ = await get(venue, "/fapi/v1/depth?symbol=BTCUSDT&limit=20")
        assert status == 200
        assert list(body) == ["lastUpdateId", "E", "T", "bids", "asks"]
        status, body, _ = await get(venue, "/fapi/v1/depth?symbol=BTCUSDT&limit=21")
        assert (status, body["code"]) == (400, -4021)
        assert (await get(venue, "/api/v3/depth?symbol=BTCUSDT"))[0] == 404


async def test_coin_futures_have_whole_contracts() -> None:
    async with running(**STILL, market="coinm") as venue:
        _, body, _ = await get(venue, "/dapi/v1/depth?symbol=BTCUSD_PERP&limit=5")
        assert (body["symbol"], body["pair"]) == ("BTCUSD_PERP", "BTCUSD")
        assert all(level[1].isdigit() for level in body["bids"] + body["asks"])
        _, info, _ = await get(venue, "/dapi/v1/exchangeInfo")
    assert {symbol["contractStatus"] for symbol in info["symbols"]} == {"TRADING"}


@pytest.mark.parametrize(
    ("market", "path", "weights"),
    [
        ("spot", "/api/v3", {5: 5, 100: 5, 101: 25, 500: 25, 501: 50, 1000: 50, 1001: 250}),
        ("usdm", "/fapi/v1", {5: 2, 50: 2, 100: 5, 500: 10, 1000: 20}),
    ],
)
async def test_depth_weights(market: str, path: str, weights: dict[int, int]) -> None:
    async with running(**STILL, market=market) as venue:
        used = 0
        for limit, weight in weights.items():
            _, _, headers = await get(venue, f"{path}/depth?symbol=BTCUSDT&limit={limit}")
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) == used + weight, limit
            used += weight
        _, _, headers = await get(venue, f"{path}/ping")
        assert int(headers["X-MBX-USED-WEIGHT-1M"]) == used + 1


async def test_ping_and_time() -> None:
    async with running(**STILL) as venue:
        assert (await get(venue, "/api/v3/ping"))[1] == {}
        _, body, _ = await get(venue, "/api/v3/time")
    assert body["serverTime"] > 1_700_000_000_000


async def test_exchange_info_tells_steps_and_selects() -> None:
    async with running(**{**STILL, "symbols": 3}) as venue:
        _, info, headers = await get(venue, "/api/v3/exchangeInfo")
        assert headers["X-MBX-USED-WEIGHT-1M"] == "20"
        assert [symbol["symbol"] for symbol in info["symbols"]] == list(venue.source.listings)
        bitcoin = info["symbols"][0]
        filters = {one["filterType"]: one for one in bitcoin["filters"]}
        assert bitcoin["status"] == "TRADING"
        assert (bitcoin["baseAsset"], bitcoin["quoteAsset"]) == ("BTC", "USDT")
        assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
        assert filters["LOT_SIZE"]["stepSize"] == "0.00001000"
        assert info["rateLimits"][0]["limit"] == 6000
        _, one, _ = await get(venue, "/api/v3/exchangeInfo?symbol=ETHUSDT")
        assert [symbol["symbol"] for symbol in one["symbols"]] == ["ETHUSDT"]
        query = '?symbols=["ETHUSDT","BTCUSDT"]'
        _, two, _ = await get(venue, "/api/v3/exchangeInfo" + query)
        assert [symbol["symbol"] for symbol in two["symbols"]] == ["ETHUSDT", "BTCUSDT"]
        for query, code in (
            ('?symbols=["ETHUSDT","NOSUCH"]', -1121),
            ("?symbols=ETHUSDT", -1100),
            ('?symbol=ETHUSDT&symbols=["ETHUSDT"]', -1128),
        ):
            status, body, _ = await get(venue, "/api/v3/exchangeInfo" + query)
            assert (status, body["code"]) == (400, code)


async def test_row_32_over_the_weight_429_then_418() -> None:
    async with running(**STILL, weight_limit=12) as venue:
        path = "/api/v3/depth?symbol=BTCUSDT&limit=5"
        answers = [await get(venue, path) for _ in range(9)]
    assert [status for status, _, _ in answers] == [200] * 2 + [429] * 5 + [418] * 2
    assert 1 <= int(answers[2][2]["Retry-After"]) <= 60
    assert answers[2][1]["code"] == -1003
    assert 60 < int(answers[7][2]["Retry-After"]) <= 120
    assert "banned until" in answers[7][1]["msg"]


def test_weights_start_over_each_minute_and_bans_end() -> None:
    now = 1000.0
    weights = Weights(10, 120.0, lambda: now)
    assert weights.take(10) == (200, 0)
    assert weights.take(1) == (429, 60)
    now += 59.5
    assert weights.take(1) == (429, 1)
    now += 0.5
    assert weights.take(10) == (200, 0)
    assert [weights.take(1)[0] for _ in range(6)] == [429] * 5 + [418]
    now += 119.0
    assert weights.take(1) == (418, 1)
    now += 1.0
    assert weights.take(1) == (200, 0)
    assert weights.used == 1
    assert [weights.take(10)[0] for _ in range(6)] == [429] * 5 + [418]
    assert weights.take(1) == (418, 240), "the second ban is twice as long"
