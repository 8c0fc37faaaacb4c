"""Coinbase's ``l2_data`` into updates and snapshots."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obframe import (
    CapacityError,
    InvalidEvent,
    MalformedMessage,
    OrderBook,
    parse_level2,
)

TIME = "2023-02-09T20:32:50.714964855Z"


def change(side: Any, price: Any, quantity: Any) -> dict[str, Any]:
    return {"side": side, "event_time": TIME, "price_level": price, "new_quantity": quantity}


def event(*updates: Any, kind: str = "update", product: str = "BTC-USD") -> dict[str, Any]:
    return {"type": kind, "product_id": product, "updates": list(updates)}


def message(*events: Any, sequence: Any = 7, channel: str = "l2_data", **more: Any) -> bytes:
    whole = {
        "channel": channel, "client_id": "", "timestamp": TIME, "sequence_num": sequence,
        "events": list(events), **more,
    }  # fmt: skip
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


BID, OFFER = change("bid", "21921.73", "0.06317902"), change("offer", "21921.74", "0")


def refusal(raw: bytes) -> InvalidEvent | CapacityError:
    parsed = parse_level2(raw)
    assert parsed is not None
    [made] = parsed[2]
    assert made.error is not None
    with pytest.raises(type(made.error)) as caught:
        made.to_update("BTC-USD", 1, 2)
    assert caught.value is made.error
    return made.error


def test_an_update_takes_the_symbol_and_ids_it_is_given() -> None:
    parsed = parse_level2(message(event(BID, OFFER)))
    assert parsed is not None
    sequence, time_us, [made] = parsed
    assert time_us == 1675974770714964
    assert (sequence, made.product, made.kind, made.error) == (7, "BTC-USD", "update", None)
    assert len(made) == 2
    assert repr(made) == "<Level2Event update of BTC-USD: 2 levels>"
    update = made.to_update("coinbase/BTC-USD", 3, 7)
    assert update.symbol == "coinbase/BTC-USD"
    assert (update.prev_update_id, update.first_update_id, update.last_update_id) == (3, 7, 7)
    assert update.event_time_ms == 1675974770714
    assert update.bids == [("21921.73", "0.06317902")]
    assert update.asks == [("21921.74", "0")]


@pytest.mark.parametrize(
    "time",
    ["", "soon", None, 7, "2023-02-09T20:32:50", "2023-13-09T20:32:50Z", "1969-12-31T23:59:59Z",
     "2023-02-09T20:32:5xZ", "2023-02-09T20:32:50.Z", "2023-02-09T20:32:50.1x1Z",
     "2023-02-09T20:32:50.71496485512345678901234567890Z"],
)  # fmt: skip
def test_a_time_that_is_none_is_0(time: Any) -> None:
    old, new = f'"{TIME}","seq', f'{json.dumps(time)},"seq'
    parsed = parse_level2(message(event(BID)).replace(old.encode(), new.encode()))
    assert parsed is not None
    assert parsed[1] == 0


def test_a_snapshot_is_all_there_is() -> None:
    parsed = parse_level2(message(event(BID, change("offer", "22000", "5.10"), kind="snapshot")))
    assert parsed is not None
    [made] = parsed[2]
    assert made.kind == "snapshot"
    snapshot = made.to_snapshot("BTC-USD", 7)
    assert snapshot.limit == 0
    book = OrderBook("BTC-USD")
    book.load(snapshot)
    assert book.covers(20)
    assert (book.bids(), book.asks()) == ([("21921.73", "0.06317902")], [("22000", "5.10")])


def test_an_event_is_taken_once() -> None:
    parsed = parse_level2(message(event(BID)))
    assert parsed is not None
    [made] = parsed[2]
    made.to_update("BTC-USD", 1, 2)
    with pytest.raises(ValueError, match="taken already"):
        made.to_snapshot("BTC-USD", 2)


def test_several_events_stand_each_for_itself() -> None:
    many = [change("bid", str(1000 + i), "1") for i in range(300)]
    raw = message(event(BID), event(change("bid", "NaN", "1"), product="ETH-USD"),
                  event(*many, product="SOL-USD"))  # fmt: skip
    parsed = parse_level2(raw)
    assert parsed is not None
    first, second, third = parsed[2]
    assert [x.product for x in (first, second, third)] == ["BTC-USD", "ETH-USD", "SOL-USD"]
    assert (first.error, third.error) == (None, None)
    assert second.error is not None
    assert len(third.to_update("SOL-USD", 1, 2).bids) == 300


@pytest.mark.parametrize("channel", ["heartbeats", "subscriptions", "l2_dat", "l2_data2", ""])
def test_other_channels_are_none_of_it(channel: str) -> None:
    assert parse_level2(message({"heartbeat_counter": "3049"}, channel=channel)) is None


@pytest.mark.parametrize(
    "raw", [b"[]", b"7", b'"l2_data"', b"{}", b'{"type":"error","message":"x"}']
)
def test_what_has_no_channel_is_none_of_it(raw: bytes) -> None:
    assert parse_level2(raw) is None


@pytest.mark.parametrize(
    ("updates", "field", "value"),
    [
        ([change("bid", "NaN", "1")], "updates[0].price_level", "NaN"),
        ([BID, change("bid", "0", "1")], "updates[1].price_level", "0"),
        ([change("bid", "-1", "1")], "updates[0].price_level", "-1"),
        ([change("bid", "", "1")], "updates[0].price_level", ""),
        ([change("bid", "1", "1e400")], "updates[0].new_quantity", "1e400"),
        ([change("bid", "1", "\uff11")], "updates[0].new_quantity", "\uff11"),
        ([change("bid", "1", "9" * 10_000)], "updates[0].new_quantity", "9" * 80),
        ([change("ask", "1", "1")], "updates[0].side", "ask"),
        ([change(1, "1", "1")], "updates[0].side", "1"),
        ([change("bid", 1.5, "1")], "updates[0].price_level", "1.5"),
        ([{"side": "bid", "price_level": "1"}], "updates[0].new_quantity",
         '{"side":"bid","price_level":"1"}'),
        ([7], "updates[0]", "7"),
    ],
)  # fmt: skip
def test_row_11_an_odd_value_refuses_its_event_whole(
    updates: list[Any], field: str, value: str
) -> None:
    error = refusal(message(event(*updates)))
    assert isinstance(error, InvalidEvent)
    assert (error.symbol, error.field, error.value) == ("BTC-USD", field, value)


@pytest.mark.parametrize(
    ("odd", "field"),
    [
        ({"type": "update", "product_id": "BTC-USD"}, "updates"),
        ({"type": "update", "product_id": "BTC-USD", "updates": {}}, "updates"),
        ({"product_id": "BTC-USD", "updates": []}, "type"),
        ({"type": "", "product_id": "BTC-USD", "updates": []}, "type"),
        ({"type": "update", "updates": []}, "product_id"),
        ({"type": "update", "product_id": "", "updates": []}, "product_id"),
        ({"type": "update", "product_id": 7, "updates": []}, "product_id"),
        ("novelty", "events"),
    ],
)
def test_an_odd_event_is_refused_whole(odd: Any, field: str) -> None:
    error = refusal(message(odd))
    assert isinstance(error, InvalidEvent)
    assert error.field == field


@pytest.mark.parametrize("name", ["type", "product_id", "updates", "side", "new_quantity"])
def test_a_field_that_stands_twice_refuses_its_event(name: str) -> None:
    raw = message(event(BID))
    twice = raw.replace(f'"{name}":'.encode(), f'"{name}":"x","{name}":'.encode())
    assert "twice" in str(refusal(twice)) or "not an array" in str(refusal(twice))


def test_row_12_what_does_not_fit_is_named() -> None:
    error = refusal(message(event(change("bid", "1", "9" * 35))))
    assert isinstance(error, CapacityError)
    assert error.symbol == "BTC-USD"
    error = refusal(message(event(change("bid", "9" * 20, "1"))))
    assert isinstance(error, CapacityError)


@pytest.mark.parametrize("sequence", [-1, 1.5, "7", True, None, 2**63])
def test_row_3_a_sequence_number_that_is_none_refuses_the_message(sequence: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse_level2(message(event(BID), sequence=sequence))
    assert (caught.value.symbol, caught.value.field) == (None, "sequence_num")


def test_a_message_without_its_fields_is_refused() -> None:
    for text, field in (
        ('{"channel":"l2_data","events":[]}', "sequence_num"),
        ('{"channel":"l2_data","sequence_num":1}', "events"),
        ('{"channel":"l2_data","sequence_num":1,"events":{}}', "events"),
        ('{"channel":"l2_data","sequence_num":1,"sequence_num":2,"events":[]}', "sequence_num"),
    ):
        with pytest.raises(InvalidEvent) as caught:
            parse_level2(text.encode())
        assert caught.value.field == field


def test_row_15_every_cut_of_a_message_is_malformed() -> None:
    raw = message(event(BID, OFFER), event(BID, product="ETH-USD"))
    for size in range(len(raw)):
        with pytest.raises(MalformedMessage):
            parse_level2(raw[:size])
    with pytest.raises(MalformedMessage, match="follows"):
        parse_level2(raw + b"x")


def test_row_15_nesting_and_encoding_are_bounded() -> None:
    deep = b'{"channel":"l2_data","x":' + b"[" * 100 + b"]" * 100 + b"}"
    with pytest.raises(MalformedMessage, match="nested"):
        parse_level2(deep)
    with pytest.raises(MalformedMessage, match="UTF-8"):
        parse_level2(message(event(BID)).replace(b"BTC", b"B\xff"))


def test_row_16_unknown_types_of_events_are_told() -> None:
    parsed = parse_level2(message(event(BID, kind="novelty"), {"type": "x", "product_id": "y"}))
    assert parsed is not None
    assert [made.kind for made in parsed[2]] == ["novelty", "x"]


def test_row_16_unknown_fields_are_passed_over() -> None:
    raw = message({**event({**BID, "novelty": [{}]}), "novelty": 1}, novelty={"a": None})
    parsed = parse_level2(raw)
    assert parsed is not None
    assert parsed[2][0].to_update("BTC-USD", 1, 2).bids == [("21921.73", "0.06317902")]


def test_it_is_made_by_the_parser_only() -> None:
    from obframe import Level2Event  # noqa: PLC0415

    with pytest.raises(TypeError, match="parse_level2"):
        Level2Event()
    with pytest.raises(TypeError):
        parse_level2("text")  # type: ignore[arg-type]
