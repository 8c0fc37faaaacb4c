"""The feed's settings: defaults that reach Binance, and mistakes that are named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from obframe import Feed, Provider
from obframe_plugins.binance import BinanceFeed, BinanceSettings, obframe_feeds


@pytest.mark.parametrize(
    ("changes", "stream", "api"),
    [
        ({}, "wss://stream.binance.com:9443/stream", "https://api.binance.com/api/v3"),
        (
            {"market": "usdm"},
            "wss://fstream.binance.com/public/stream",
            "https://fapi.binance.com/fapi/v1",
        ),
        (
            {"market": "coinm"},
            "wss://dstream.binance.com/stream",
            "https://dapi.binance.com/dapi/v1",
        ),
        (
            {"ws_url": "ws://127.0.0.1:9000/", "rest_url": "http://127.0.0.1:9000"},
            "ws://127.0.0.1:9000/stream",
            "http://127.0.0.1:9000/api/v3",
        ),
        (
            {
                "market": "usdm",
                "ws_url": "wss://fstream.binance.com/public",
                "rest_url": "https://mirror.example/binance/fapi/v1/",
            },
            "wss://fstream.binance.com/public/stream",
            "https://mirror.example/binance/fapi/v1",
        ),
        (
            {"ws_url": "wss://data-stream.binance.vision/stream"},
            "wss://data-stream.binance.vision/stream",
            "https://api.binance.com/api/v3",
        ),
    ],
)
def test_urls(changes: dict[str, Any], stream: str, api: str) -> None:
    settings = BinanceSettings(**changes)
    assert settings.stream_url == stream
    assert settings.api_url == api


@pytest.mark.parametrize(
    ("market", "limit", "weight"),
    [
        ("spot", 0, 50), ("spot", 20, 5), ("spot", 100, 5), ("spot", 101, 25), ("spot", 500, 25),
        ("spot", 1000, 50), ("spot", 1001, 250), ("spot", 5000, 250), ("usdm", 0, 20),
        ("usdm", 50, 2), ("usdm", 100, 5), ("usdm", 500, 10), ("coinm", 1000, 20),
    ],
)  # fmt: skip
def test_weights(market: Any, limit: int, weight: int) -> None:
    assert BinanceSettings(market=market, snapshot_limit=limit).snapshot_weight == weight


def test_only_a_safe_share_of_the_weight_is_used() -> None:
    assert BinanceSettings().weight_budget == 4800
    assert BinanceSettings(market="usdm").weight_budget == 1920
    assert BinanceSettings(rest_weight_per_minute=100).weight_budget == 100


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"market": "forex"}, ["market", "'forex'", "spot, usdm, coinm"]),
        ({"ws_url": "https://x"}, ["ws_url", "'https://x'", "wss://"]),
        ({"rest_url": "api.binance.com"}, ["rest_url", "api.binance.com", "https://"]),
        ({"rest_url": "https://x/?a=1"}, ["rest_url", "without '?'"]),
        ({"ws_url": "ws://x:99999"}, ["ws_url", "99999"]),
        ({"proxy": "socks5://x"}, ["proxy", "socks5", "http://", "'none'"]),
        ({"snapshot_limit": 5}, ["snapshot_limit", "5", "20 to 5000"]),
        ({"market": "usdm", "snapshot_limit": 5000}, ["snapshot_limit", "5000", "1000"]),
        ({"streams_per_connection": 1025}, ["streams_per_connection", "1025", "1024"]),
        ({"max_message_bytes": 10}, ["max_message_bytes", "10", "1024"]),
        ({"idle_timeout": -1.0}, ["idle_timeout", "-1.0", "above 0"]),
        ({"backoff_max": float("nan")}, ["backoff_max", "nan"]),
        ({"stale_after": 50.0}, ["stale_after", "50", "idle_timeout", "30"]),
        ({"rest_concurrency": 0}, ["rest_concurrency", "0"]),
        ({"rest_weight_per_minute": 49}, ["rest_weight_per_minute", "49", "50", "6000"]),
        ({"rest_weight_per_minute": 6001}, ["rest_weight_per_minute", "6001"]),
    ],
)
def test_row_57_a_mistake_is_named_with_its_value_and_the_mend(
    changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        BinanceSettings(**changes)
    for word in words:
        assert word in str(caught.value)


def test_row_57_all_mistakes_at_once() -> None:
    with pytest.raises(ValueError, match=r"snapshot_limit.*; rest_concurrency"):
        BinanceSettings(snapshot_limit=1, rest_concurrency=0)


def test_every_setting_explains_itself() -> None:
    for item in dataclasses.fields(BinanceSettings):
        assert item.default is not dataclasses.MISSING
        assert len(item.metadata["help"]) > 10


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "http://environment:1")
    monkeypatch.setenv("no_proxy", "near.example")
    far, local = "wss://far.example/stream", "ws://127.0.0.1:9/stream"
    plain, own = BinanceSettings(), BinanceSettings(proxy="http://own:2")
    assert plain.proxy_for(far) == "http://environment:1"
    assert plain.proxy_for("wss://near.example") is None
    assert plain.proxy_for("http://far.example") is None
    assert own.proxy_for(far) == "http://own:2"
    assert BinanceSettings(proxy="none").proxy_for(far) is None
    for settings in (plain, own):
        assert settings.proxy_for(local) is None
        assert settings.proxy_for("http://localhost:1") is None
        assert settings.proxy_for("http://[::1]:1") is None


async def test_the_plugin_offers_one_feed_that_keeps_to_the_protocol() -> None:
    (provider,) = obframe_feeds()
    assert isinstance(provider, Provider)
    assert (provider.name, provider.settings) == ("binance", BinanceSettings)
    async with provider.open(BinanceSettings()) as feed:
        assert isinstance(feed, Feed)
        assert isinstance(feed, BinanceFeed)
        assert set(feed.counters().values()) == {0}
