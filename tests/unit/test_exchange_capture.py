"""Captures replayed by the venue: the bytes as they were, the book and the clock as well."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from obframe.testing.exchange import Exchange, ExchangeOptions
from obframe.testing.exchange_capture import CaptureSource, read_capture, split_message
from obframe.testing.exchange_client import (
    PATIENCE,
    LocalBook,
    ask,
    collect,
    connected,
    get,
    running,
    until,
)

SNAPSHOT = {"lastUpdateId": 105, "bids": [["10.00", "1.0"]], "asks": [["11.00", "2.0"]]}


def diff(first: int, last: int, bids: list[list[str]], prev: int | None = None) -> dict[str, Any]:
    head = {"e": "depthUpdate", "E": 1_700_000_000_000 + last, "s": "TOYUSDT", "U": first}
    ids = {"u": last} if prev is None else {"u": last, "pu": prev}
    return head | ids | {"b": bids, "a": []}


def write(path: Path, lines: Sequence[tuple[int, object]]) -> Path:
    text = "".join(
        f"{stamp} {json.dumps(message, separators=(',', ':'))}\n" for stamp, message in lines
    )
    path.write_bytes(gzip.compress(text.encode()))
    return path


def wrapped(data: dict[str, Any], stream: str = "toyusdt@depth@100ms") -> dict[str, Any]:
    return {"stream": stream, "data": data}


def toy(path: Path) -> Path:
    """A capture of four events, the snapshot within the second, a quarter of a second apart."""
    quarter = 250_000_000
    return write(
        path,
        [
            (1 * quarter, wrapped(diff(98, 101, [["9.00", "4.0"]]))),
            (2 * quarter, SNAPSHOT),
            (2 * quarter, wrapped(diff(102, 106, [["10.00", "3.0"]]))),
            (2 * quarter, wrapped({"u": 106, "s": "TOYUSDT", "b": "10.00"}, "toyusdt@bookTicker")),
            (3 * quarter, wrapped(diff(107, 109, [["9.50", "5.0"]]))),
            (4 * quarter, wrapped(diff(110, 112, [["10.00", "0.0"]]))),
        ],
    )


def of_symbol(paths: list[Path]) -> list[bytes]:
    """The depth messages of the files, as they stand there."""
    return [
        message for path in paths for _, message in read_capture(path) if b"@depth@" in message[:60]
    ]


@pytest.mark.parametrize(
    ("market", "files", "stream"),
    [
        ("spot", ["ethusdt_20240809.gz", "ethusdt_20240808.gz"], "ethusdt@depth@100ms"),
        ("usdm", ["ethusdt_20240808.gz"], "ethusdt@depth@0ms"),
    ],
)
async def test_replay_is_the_capture_byte_for_byte_and_rebuilds_the_book(
    captures: Path, market: str, files: list[str], stream: str
) -> None:
    paths = [captures / market / name for name in files]
    expected = of_symbol(sorted(paths))
    futures = market == "usdm"
    local, others = LocalBook(futures=futures), None
    async with running(captures=tuple(paths), speed=0.0, at_end="close") as venue:
        rest = f"{venue.market.rest}/depth?symbol=ETHUSDT&limit=1000"
        _, snapshot, _ = await get(venue, rest)
        async with connected(venue, f"/stream?streams={stream}") as socket:
            received = [str(message).encode() async for message in socket]
        assert received == expected
        for message in received:
            local.event(json.loads(message)["data"])
            if not local.synced:
                local.snapshot(snapshot)
        others = venue.depth("ETHUSDT")
    assert local.synced
    assert local.applied > len(expected) - 60
    assert local.book.update_id == others.last_update_id
    assert local.book.bids() == list(others.bids)
    assert local.book.asks() == list(others.asks)


def test_book_agrees_with_every_ticker_of_the_venue(captures: Path) -> None:
    source = CaptureSource([captures / "spot" / "ethusdt_20240808.gz"], 0.0)
    tickers: dict[int, dict[str, str]] = {}
    tops: dict[int, tuple[object, object]] = {}
    while source.due() is not None:
        event = source.advance()
        assert event is not None
        if event.depth:
            depth = source.depth("ETHUSDT", 1)
            if depth.last_update_id == event.last:
                tops[event.last] = tuple(depth.bids[0]), tuple(depth.asks[0])
        elif event.stream.endswith("@bookTicker"):
            ticker = json.loads(event.data)
            tickers[ticker["u"]] = ticker
    both = tops.keys() & tickers.keys()
    assert len(both) > 400
    for update_id in both:
        ticker = tickers[update_id]
        assert tops[update_id] == ((ticker["b"], ticker["B"]), (ticker["a"], ticker["A"]))


def test_steps_are_read_off_the_snapshot(captures: Path) -> None:
    source = CaptureSource([captures / "usdm" / "btcusdt_20240808.gz"], 0.0)
    listing = source.listings["BTCUSDT"]
    assert source.market.name == "usdm"
    assert (listing.tick, listing.step) == ("0.10", "0.001")


async def test_rest_has_a_valid_book_from_the_first_moment(tmp_path: Path) -> None:
    async with running(captures=(toy(tmp_path / "a.gz"),), speed=0.0) as venue:
        path = "/api/v3/depth?symbol=TOYUSDT"
        assert (await get(venue, path))[1] == SNAPSHOT
        assert venue.stats.events == 0, "the clock starts with the first subscription"
        async with connected(venue, "/ws/toyusdt@depth@100ms") as socket:
            ids = [json.loads(text)["u"] for text in await collect(socket, 4)]
        assert ids == [101, 106, 109, 112]
        assert (await get(venue, path))[1] == {
            "lastUpdateId": 112,
            "bids": [["9.50", "5.0"]],
            "asks": [["11.00", "2.0"]],
        }


async def test_futures_snapshot_equal_to_an_events_end_is_kept(tmp_path: Path) -> None:
    lines = [
        (1, SNAPSHOT),
        (2, wrapped(diff(90, 105, [["10.00", "1.0"]], 80))),
        (3, wrapped(diff(107, 109, [["9.50", "5.0"]], 105))),
    ]
    capture = write(tmp_path / "a.gz", lines)
    async with running(captures=(capture,), speed=0.0, at_end="close") as venue:
        assert venue.market.name == "usdm"
        async with connected(venue, "/ws/toyusdt@depth@100ms") as socket:
            events = [json.loads(message) async for message in socket]
        assert [event["u"] for event in events] == [105, 109]
        assert venue.depth("TOYUSDT").last_update_id == 109
        assert list(venue.depth("TOYUSDT").bids) == [("10.00", "1.0"), ("9.50", "5.0")]


@pytest.mark.parametrize("name", ["toyusdt@depth", "toyusdt@depth@100ms"])
async def test_wrapper_carries_the_name_that_was_subscribed(tmp_path: Path, name: str) -> None:
    async with (
        running(captures=(toy(tmp_path / "a.gz"),), speed=0.0) as venue,
        connected(venue, f"/stream?streams={name}") as socket,
    ):
        messages = [json.loads(text) for text in await collect(socket, 4)]
    assert {message["stream"] for message in messages} == {name}


async def test_tickers_come_only_when_subscribed(tmp_path: Path) -> None:
    path = "/stream?streams=toyusdt@bookTicker/toyusdt@depth"
    async with (
        running(captures=(toy(tmp_path / "a.gz"),), speed=0.0) as venue,
        connected(venue, path) as socket,
    ):
        messages = [json.loads(text) for text in await collect(socket, 5)]
    assert [message["stream"].partition("@")[2] for message in messages] == [
        "depth",
        "depth",
        "bookTicker",
        "depth",
        "depth",
    ]


async def test_speed_is_times_real_time(tmp_path: Path) -> None:
    async with running(captures=(toy(tmp_path / "a.gz"),), speed=25.0) as venue:
        start = time.monotonic()
        async with connected(venue, "/ws/toyusdt@depth") as socket:
            await collect(socket, 4)
            elapsed = time.monotonic() - start
    assert 0.03 <= elapsed <= 0.6, "0.75 s of capture, 25 times as fast"


async def test_at_end_idle_and_close(tmp_path: Path) -> None:
    capture = toy(tmp_path / "a.gz")
    async with (
        running(captures=(capture,), speed=0.0, at_end="idle") as venue,
        connected(venue, "/ws/toyusdt@depth") as socket,
    ):
        await collect(socket, 4)
        await asyncio.wait_for(venue.finished.wait(), PATIENCE)
        answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert answer["result"] == ["toyusdt@depth"]
    async with running(captures=(capture,), speed=0.0, at_end="close") as venue:
        async with connected(venue, "/ws/toyusdt@depth") as socket:
            await collect(socket, 4)
            async with asyncio.timeout(PATIENCE):
                await socket.wait_closed()
        assert socket.close_code == 1001
        assert (await get(venue, "/api/v3/ping"))[0] == 200


async def test_two_symbols_share_one_clock(tmp_path: Path) -> None:
    other = diff(1, 6, [["10.00", "1.0"]]) | {"s": "TWOUSDT"}
    lines = [(1, SNAPSHOT | {"lastUpdateId": 3}), (600_000_000, wrapped(other, "twousdt@depth"))]
    paths = (write(tmp_path / "b.gz", lines), toy(tmp_path / "a.gz"))
    async with (
        running(captures=paths, speed=0.0) as venue,
        connected(venue, "/ws/toyusdt@depth/twousdt@depth") as socket,
    ):
        events = [json.loads(text) for text in await collect(socket, 5)]
    assert [event["s"][:3] for event in events] == ["TOY", "TOY", "TWO", "TOY", "TOY"]


@pytest.mark.parametrize("fault", ["no gzip", "line", "no snapshot", "no depth", "mixed"])
async def test_unusable_captures_are_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "bad.gz"
    paths: tuple[Path, ...] = (path,)
    toy(tmp_path / "good.gz")
    match fault:
        case "no gzip":
            path.write_bytes(b"1 {}\n")
        case "line":
            path.write_bytes(gzip.compress(b"hello\n"))
        case "no snapshot":
            write(path, [(1, wrapped(diff(1, 2, [])))])
        case "no depth":
            write(path, [(1, SNAPSHOT)])
        case "mixed":
            lines = [(1, SNAPSHOT), (2, wrapped(diff(1, 2, [], 0) | {"s": "X"}, "x@depth"))]
            paths = (write(path, lines), tmp_path / "good.gz")
    with pytest.raises(ValueError, match=r"bad\.gz|one venue is one market"):
        Exchange(ExchangeOptions(captures=paths, speed=0.0))


@pytest.mark.parametrize("damage", ["line", "cut"])
async def test_damage_further_on_ends_the_replay_with_its_name(tmp_path: Path, damage: str) -> None:
    path = toy(tmp_path / "bad.gz")
    more = gzip.compress(b"9000000000 what is this\n" * 100)
    path.write_bytes(path.read_bytes() + (more if damage == "line" else more[:12]))
    words = {"line": r"bad\.gz:7: not '<ns> <message>'", "cut": r"bad\.gz: .* after line 6"}
    async with running(captures=(path,), speed=0.0) as venue:
        async with connected(venue, "/ws/toyusdt@depth") as socket:
            await collect(socket, 4)
            with pytest.raises(ValueError, match=words[damage]):
                await asyncio.wait_for(venue.wait_finished(), PATIENCE)
        assert (await get(venue, "/api/v3/ping"))[0] == 200


async def test_a_market_that_the_captures_are_not_is_refused(tmp_path: Path) -> None:
    options = ExchangeOptions(captures=(toy(tmp_path / "a.gz"),), market="usdm")
    with pytest.raises(ValueError, match="spot, not usdm"):
        Exchange(options)
    with pytest.raises(ValueError, match="is not a file"):
        ExchangeOptions(captures=(tmp_path / "none.gz",))


async def test_journal_is_a_capture_that_replays_to_the_same_book(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    options: dict[str, Any] = {"symbols": 2, "rate": 100.0, "levels": 50, "record": folder}
    async with running(**options, faults=("drop@3:count=5", "nan@20")) as venue:
        assert venue.journal
        async with connected(venue, "/ws/btcusdt@depth@100ms") as socket:
            await collect(socket, 30)
        for _ in range(2):
            await get(venue, "/api/v3/depth?symbol=BTCUSDT&limit=1000")
        path = venue.journal.path("BTCUSDT")
        await until(path.exists)
    truth = venue.depth("BTCUSDT")
    parts = [split_message(message) for _, message in read_capture(path)]
    assert parts[0] is None, "it begins with the whole book"
    assert parts.count(None) == 3
    source = CaptureSource([path], 0.0)
    previous = source.depth("BTCUSDT").last_update_id
    while source.due() is not None:
        event = source.advance()
        assert event is not None
        assert event.first == previous + 1, "what faults kept from clients is there"
        previous = event.last
    replayed = source.depth("BTCUSDT")
    assert replayed.last_update_id == truth.last_update_id
    assert replayed.bids == truth.bids
    assert replayed.asks == truth.asks
    with pytest.raises(ValueError, match="holds"):
        Exchange(ExchangeOptions(**options))
