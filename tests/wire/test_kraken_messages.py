"""Kraken's messages as its documents have them, and the rule of its book."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import CapacityError, InvalidEvent, MalformedMessage, OrderBook
from obframe.testing.exchange_kraken_wire import DepthView, book_message, checksum
from obframe.testing.exchange_market import Depth
from obframe.testing.reference import ReferenceBook
from obframe_plugins import _kraken_book as rule
from obframe_plugins import _kraken_wire as wire
from obframe_plugins._kraken_book import ChecksumMismatch, KrakenBook

# The book of the venue's guide to checksums, and what it says its checksum is.
GUIDE_BIDS = [
    ("45283.5", "0.10000000"), ("45283.4", "1.54582015"), ("45282.1", "0.10000000"),
    ("45281.0", "0.10000000"), ("45280.3", "1.54592586"), ("45279.0", "0.07990000"),
    ("45277.6", "0.03310103"), ("45277.5", "0.30000000"), ("45277.3", "1.54602737"),
    ("45276.6", "0.15445238"),
]  # fmt: skip
GUIDE_ASKS = [
    ("45285.2", "0.00100000"), ("45286.4", "1.54571953"), ("45286.6", "1.54571109"),
    ("45289.6", "1.54560911"), ("45290.2", "0.15890660"), ("45291.8", "1.54553491"),
    ("45294.7", "0.04454749"), ("45296.1", "0.35380000"), ("45297.5", "0.09945542"),
    ("45299.5", "0.18772827"),
]  # fmt: skip
GUIDE_CHECKSUM = 3310070434
BTC = wire.Pair("BTC/USD", price_precision=1, qty_precision=8)

# What the venue truly sent for ALGO/USD on 2024-10-03, with zeros at the end of numbers.
ALGO = wire.Pair("ALGO/USD", price_precision=5, qty_precision=8)
ALGO_SNAPSHOT = (
    b'{"channel":"book","type":"snapshot","data":[{"symbol":"ALGO/USD","bids":['
    b'{"price":0.12291,"qty":27039.62776299},{"price":0.12290,"qty":8136.33288180},'
    b'{"price":0.12287,"qty":10984.20817349},{"price":0.12283,"qty":28027.05025639},'
    b'{"price":0.12280,"qty":9705.60000000},{"price":0.12279,"qty":15215.53522714},'
    b'{"price":0.12275,"qty":4067.00000000},{"price":0.12274,"qty":30639.39949109},'
    b'{"price":0.12268,"qty":2531.96119986},{"price":0.12267,"qty":16299.00000000}],"asks":['
    b'{"price":0.12307,"qty":600.00000000},{"price":0.12308,"qty":4042.11919517},'
    b'{"price":0.12312,"qty":10284.53891000},{"price":0.12314,"qty":16155.08885299},'
    b'{"price":0.12315,"qty":5186.05778473},{"price":0.12316,"qty":32828.24000000},'
    b'{"price":0.12317,"qty":7751.65718582},{"price":0.12318,"qty":32298.82000000},'
    b'{"price":0.12319,"qty":1864.66899600},{"price":0.12322,"qty":4718.99755630}],'
    b'"checksum":2375857985}]}'
)
ALGO_UPDATE = (
    b'{"channel":"book","type":"update","data":[{"symbol":"ALGO/USD","bids":['
    b'{"price":0.12275,"qty":6597.51731160}],"asks":[],"checksum":1100635717,'
    b'"timestamp":"2024-10-03T02:46:57.050170Z"}]}'
)


def data(message: bytes) -> wire.BookData:
    read = wire.read(message)
    assert isinstance(read, wire.Book)
    (item,) = read.data
    return item


def levels(pairs: list[tuple[str, str]]) -> str:
    return ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in pairs)


def book_of(
    symbol: str,
    bids: list[tuple[str, str]],
    asks: list[tuple[str, str]],
    check: int | None = None,
    kind: str = "snapshot",
) -> wire.BookData:
    return data(book_message(kind, symbol, bids, asks, check, 1_700_000_000_000_000))


# -- the rule -------------------------------------------------------------------------------------


def test_the_checksum_is_that_of_the_venues_guide() -> None:
    book = KrakenBook("BTC/USD", 100)
    snapshot, proof = book.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, GUIDE_CHECKSUM), BTC)
    assert snapshot.bids == GUIDE_BIDS
    assert snapshot.asks == GUIDE_ASKS
    assert (proof.prev_update_id, proof.last_update_id) == (
        snapshot.last_update_id,
        snapshot.last_update_id + 1,
    )
    assert len(proof) == 0
    with pytest.raises(ChecksumMismatch, match="3310070434, the venue says 3310070435"):
        book.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, GUIDE_CHECKSUM + 1), BTC)


def test_what_the_venue_truly_sent_is_kept_to_the_last_zero() -> None:
    book = KrakenBook("ALGO/USD", 10)
    snapshot, _ = book.load(data(ALGO_SNAPSHOT), ALGO)
    assert snapshot.bids[1] == ("0.12290", "8136.33288180")
    assert snapshot.limit == 0, "the venue keeps all of the depth known: nothing lies beyond it"
    update = book.apply(data(ALGO_UPDATE), ALGO)
    assert update.bids == [("0.12275", "6597.51731160")]
    assert update.prev_update_id == snapshot.last_update_id + 1
    assert update.event_time_ms == 1_727_923_617_050


def test_numbers_that_came_without_their_zeros_are_checked_with_them_and_kept_without() -> None:
    bids = [(price, str(Decimal(qty).normalize())) for price, qty in GUIDE_BIDS]
    bids[3] = ("45281", "0.1")
    asks = [(price, str(Decimal(qty).normalize())) for price, qty in GUIDE_ASKS]
    book = KrakenBook("BTC/USD", 100)
    snapshot, _ = book.load(book_of("BTC/USD", bids, asks, GUIDE_CHECKSUM), BTC)
    assert snapshot.bids[3] == ("45281", "0.1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-8", "0.00000001"),
        ("1.50E-3", "0.00150"),
        ("2e3", "2000"),
        ("1.5e+1", "15"),
        ('"1.50"', "1.50"),  # as the guide to checksums writes them
    ],
)
def test_an_exponent_is_written_out_exactly(written: str, meant: str) -> None:
    snapshot, _ = KrakenBook("BTC/USD", 100).load(book_of("BTC/USD", [("1.0", written)], []), BTC)
    assert snapshot.bids == [("1.0", meant)]


@pytest.mark.parametrize("number", ["1e400", "-1", '"x"', "null", "[]", '"１"', "true", '"1e999"'])
def test_row_11_what_is_no_decimal_is_refused_whole(number: str) -> None:
    book = KrakenBook("BTC/USD", 100)
    book.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, GUIDE_CHECKSUM), BTC)
    before = book.update_id
    for bad in ([("45283.5", "2"), (number, "1")], [("45283.5", "2"), ("1.0", number)]):
        with pytest.raises((InvalidEvent, CapacityError)):
            book.apply(book_of("BTC/USD", bad, [], kind="update"), BTC)
    assert book.update_id == before
    same = KrakenBook("BTC/USD", 100)
    same.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, GUIDE_CHECKSUM), BTC)
    assert book.same_as(same)


@pytest.mark.parametrize(
    "side", ["5", '"[]"', "{}", "[5]", '[{"price":1}]', '[{"price":1,"qty":"\\u0031"}]']
)
def test_row_11_what_is_no_list_of_levels_is_refused_whole(side: str) -> None:
    book = KrakenBook("BTC/USD", 100)
    book.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, GUIDE_CHECKSUM), BTC)
    with pytest.raises(InvalidEvent):
        book.apply(data(update_of("BTC/USD", side)), BTC)


def update_of(symbol: str, bids: str) -> bytes:
    head = f'{{"channel":"book","type":"update","data":[{{"symbol":"{symbol}","bids":'
    return f"{head}{bids}}}]}}".encode()


def test_spaces_and_other_orders_of_keys_change_nothing() -> None:
    book = KrakenBook("ALGO/USD", 10)
    book.load(data(ALGO_SNAPSHOT), ALGO)
    spaced = json.dumps(json.loads(ALGO_UPDATE, parse_float=str), indent=1)
    spaced = spaced.replace('"0.12275"', "0.12275").replace('"6597.51731160"', "6597.51731160")
    assert book.apply(data(spaced.encode()), ALGO).bids == [("0.12275", "6597.51731160")]
    turned = update_of("ALGO/USD", '[{"qty":1.50,"x":[],"price":0.10}]')
    assert book.apply(data(turned), ALGO).bids[0] == ("0.10", "1.50")


def test_of_two_changes_at_one_price_the_last_wins() -> None:
    book = KrakenBook("BTC/USD", 100)
    book.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, GUIDE_CHECKSUM), BTC)
    changes = [("45283.5", "9.0"), ("45283.5", "0.10000000")]
    book.apply(book_of("BTC/USD", changes, [], GUIDE_CHECKSUM, kind="update"), BTC)


@pytest.mark.parametrize("check", [0, None])
def test_row_29_no_checksum_and_0_are_taken_unchecked(check: int | None) -> None:
    book = KrakenBook("BTC/USD", 100)
    book.load(book_of("BTC/USD", GUIDE_BIDS, GUIDE_ASKS, check), BTC)
    book.apply(book_of("BTC/USD", [("45283.5", "0")], [], check, kind="update"), BTC)


def test_ids_are_the_venues_time_and_never_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule.time, "time_ns", lambda: 1_727_923_600_000_000_000)
    book = KrakenBook("ALGO/USD", 10)
    snapshot, _ = book.load(data(ALGO_SNAPSHOT), ALGO)
    assert snapshot.last_update_id == 1_727_923_600_000_000, "no time in it: that of its receipt"
    update = book.apply(data(ALGO_UPDATE), ALGO)
    assert update.last_update_id == 1_727_923_617_050_170
    again = book.apply(data(ALGO_UPDATE), ALGO)
    assert (again.prev_update_id, again.last_update_id) == (
        1_727_923_617_050_170,
        1_727_923_617_050_171,
    )
    late = ALGO_UPDATE.replace(b"2024-10-03", b"2999-10-03")
    assert book.apply(data(late), ALGO).last_update_id == 1_727_923_617_050_172
    for moment in (b"yesterday", b"2024-10-03T02:46:57", b""):
        book.apply(data(ALGO_UPDATE.replace(b"2024-10-03T02:46:57.050170Z", moment)), ALGO)
    newer = KrakenBook("ALGO/USD", 10, book.update_id)
    assert newer.load(data(ALGO_SNAPSHOT), ALGO)[0].last_update_id == book.update_id + 1


def whole(book: ReferenceBook) -> Depth:
    return Depth(book.update_id, book.bids(), book.asks(), 0)


changes = st.lists(
    st.tuples(st.booleans(), st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=8
)


@given(st.lists(changes, min_size=1, max_size=30), st.sampled_from([1, 3, 10]), st.randoms())
def test_a_book_of_limited_depth_is_the_best_of_the_whole_one_after_every_message(
    events: list[list[tuple[bool, int, int]]], depth: int, rng: random.Random
) -> None:
    """The venue says nothing of what falls out of the depth; whoever follows us sees the same."""
    pair = wire.Pair("X/Y", price_precision=1, qty_precision=2)
    truth = ReferenceBook()
    start = [(f"{price}.0", "1.00") for price in rng.sample(range(1, 31), 12)]
    truth.load(1, start, [(f"{100 + price}.0", "1.00") for price in rng.sample(range(1, 31), 12)])
    view = DepthView(depth, whole(truth))
    first = whole(truth)
    book, follower = KrakenBook("X/Y", depth), OrderBook("X/Y")
    message = book_message(
        "snapshot", "X/Y", first.bids[:depth], first.asks[:depth], checksum(first), 1
    )
    # With fewer levels than ten the venue's checksum is that of what it keeps: leave it out there.
    checked = depth >= 10
    snapshot, proof = book.load(data(message if checked else strip(message)), pair)
    follower.load(snapshot)
    follower.apply(proof)
    for event in events:
        bids = [(f"{price}.0", f"{qty}.00") for bid, price, qty in event if bid]
        asks = [(f"{100 + price}.0", f"{qty}.00") for bid, price, qty in event if not bid]
        truth.apply(truth.update_id + 1, bids, asks)
        now = whole(truth)
        said = view.follow(now)
        message = book_message("update", "X/Y", *said, checksum(now), 1)
        update = book.apply(data(message if checked else strip(message)), pair)
        assert update.prev_update_id == follower.update_id
        follower.apply(update)
        assert follower.bids() == truth.bids(depth)
        assert follower.asks() == truth.asks(depth)


def strip(message: bytes) -> bytes:
    read = json.loads(message, parse_float=str)
    check = read["data"][0]["checksum"]
    return message.replace(b'"checksum":%d,' % check, b"")


# -- the other messages ---------------------------------------------------------------------------


def test_the_documents_messages_are_read() -> None:
    status = wire.read(
        b'{"channel":"status","data":[{"api_version":"v2","connection_id":14949390454975033707,'
        b'"system":"online","version":"2.0.8"}],"type":"update"}'
    )
    assert status == wire.Status([wire.EngineStatus("online")])
    assert isinstance(wire.read(b'{"channel":"heartbeat"}'), wire.Heartbeat)
    instruments = wire.read(
        b'{"channel":"instrument","type":"snapshot","data":{"assets":[{"id":"USD"}],"pairs":[{'
        b'"base":"EUR","quote":"USD","symbol":"EUR/USD","status":"cancel_only","qty_precision":8,'
        b'"qty_increment":1e-8,"price_precision":5,"cost_min":"0.5","has_index":true}]}}'
    )
    assert isinstance(instruments, wire.Instruments)
    assert instruments.data.pairs == [wire.Pair("EUR/USD", 5, 8, "cancel_only")]
    done = wire.read(
        b'{"method":"subscribe","req_id":4,"result":{"channel":"book","depth":10,"snapshot":true,'
        b'"symbol":"ALGO/USD"},"success":true,"time_in":"2023-10-06T17:35:55.219022Z",'
        b'"time_out":"2023-10-06T17:35:55.219067Z"}'
    )
    assert isinstance(done, wire.Reply)
    assert (done.about, done.success, done.error, done.req_id) == ("ALGO/USD", True, None, 4)
    refused = wire.read(
        b'{"error":"Currency pair not supported ALGO2/USD","method":"subscribe","req_id":4,'
        b'"success":false,"symbol":"ALGO2/USD","time_in":"x","time_out":"y"}'
    )
    assert isinstance(refused, wire.Reply)
    assert (refused.about, refused.success) == ("ALGO2/USD", False)
    pong = wire.read(b'{"method":"pong","req_id":101,"time_in":"x","time_out":"y"}')
    assert isinstance(pong, wire.Reply)
    assert pong.method == "pong"
    bare = wire.read(b'{"error":"Exceeded msg rate","status":"error"}')
    assert isinstance(bare, wire.Reply)
    assert bare.about == ""


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b'{"channel":"ticker","type":"update","data":[]}', "ticker"),
        (b"{}", "without a channel"),
        (b'{"channel":"b\\u0000k"}', "b\\x00k"),
    ],
)
def test_row_16_an_unknown_channel_is_no_mistake(message: bytes, kind: str) -> None:
    assert wire.read(message) == wire.Unknown(kind)


@pytest.mark.parametrize(
    ("message", "symbol"),
    [
        (b"<html>", None),
        (b"[1]", None),
        (b"[" * 100_000, None),
        (b'{"channel":"book","type":"update"}', None),
        (b'{"channel":"book","type":"update","data":[{"symbol":"A/B","bids":[{"price":1', "A/B"),
        (b'{"channel":"book","type":"update","data":[{"symbol":"A/B","checksum":1.5}]}', "A/B"),
        (b'{"channel":"book","type":"update","data":[{"symbol":"A/B","checksum":true}]}', "A/B"),
        (b'{"channel":"book","data":[{"symbol":"A/B"},{"symbol":"C/D"}]}', None),
        (b'{"channel":"book","type":"x","data":[{"symbol":"A/B","bids":[{"price":NaN}]}]}', "A/B"),
        (b'{"channel":"heart\xff"}', None),
    ],
)
def test_row_15_what_cannot_be_read_names_the_symbol_where_it_can(
    message: bytes, symbol: str | None
) -> None:
    with pytest.raises(MalformedMessage) as caught:
        wire.read(message)
    assert caught.value.symbol == symbol


def test_requests_are_those_of_the_documents() -> None:
    request: dict[str, Any] = json.loads(wire.encode_request("subscribe", ["A/B", "C/D"], 100, 7))
    assert request == {
        "method": "subscribe",
        "params": {"channel": "book", "symbol": ["A/B", "C/D"], "depth": 100, "snapshot": True},
        "req_id": 7,
    }
    request = json.loads(wire.encode_request("unsubscribe", ["A/B"], 100, 8))
    assert request == {
        "method": "unsubscribe",
        "params": {"channel": "book", "symbol": ["A/B"], "depth": 100},
        "req_id": 8,
    }
    assert json.loads(wire.encode_instruments(1))["params"] == {"channel": "instrument"}
    assert json.loads(wire.encode_ping(9)) == {"method": "ping", "req_id": 9}
