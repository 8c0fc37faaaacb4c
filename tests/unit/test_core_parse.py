"""Parsing of depth events and snapshots, value by value."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import pytest

from obframe._core import (
    DepthSnapshot,
    DepthUpdate,
    parse_depth_snapshot,
    parse_depth_update,
)
from obframe.errors import CapacityError, InvalidEvent, MalformedMessage

SPOT = (
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT",'
    b'"U":157,"u":160,"b":[["61737.63000000","0.00000000"],["0.0024","10"]],'
    b'"a":[["61837.64000000","1.54698000"]]}}'
)
USDM = (
    b'{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":5123107832006,'
    b'"u":5123107837557,"pu":5123107831937,"b":[["58710.20","0.014"]],"a":[],"ps":"BTCUSDT","st":1}'
)


def event(**fields: str) -> bytes:
    """Write an event from raw JSON by field; an empty text leaves a field away."""
    values = {
        "e": '"depthUpdate"',
        "E": "5",
        "s": '"BTCUSDT"',
        "U": "7",
        "u": "9",
        "b": '[["1.5","2"]]',
        "a": '[["2.5","3"]]',
    }
    values.update(fields)
    inside = ",".join(f'"{key}":{value}' for key, value in values.items() if value)
    return ("{" + inside + "}").encode()


def body(**fields: str) -> bytes:
    values = {"lastUpdateId": "5", "bids": '[["1","2"]]', "asks": '[["2","2"]]'}
    values.update(fields)
    inside = ",".join(f'"{key}":{value}' for key, value in values.items() if value)
    return ("{" + inside + "}").encode()


def parse(data: bytes, futures: bool = False) -> DepthUpdate:
    update = parse_depth_update(data, futures)
    assert update is not None
    return update


def test_spot_event_in_the_wrapper() -> None:
    update = parse(SPOT)
    assert update.symbol == "BTCUSDT"
    assert (update.first_update_id, update.last_update_id, update.prev_update_id) == (157, 160, 156)
    assert update.event_time_ms == 1723161255208
    assert update.bids == [("61737.63000000", "0.00000000"), ("0.0024", "10")]
    assert update.asks == [("61837.64000000", "1.54698000")]
    assert len(update) == 3
    assert "BTCUSDT 157..160 after 156" in repr(update)


def test_futures_event_takes_pu() -> None:
    update = parse(USDM, futures=True)
    assert update.prev_update_id == 5123107831937
    assert update.asks == []
    assert parse(USDM).prev_update_id == 5123107832005


def test_futures_event_without_pu_is_refused() -> None:
    with pytest.raises(InvalidEvent) as error:
        parse_depth_update(event(), futures=True)
    assert (error.value.symbol, error.value.field) == ("BTCUSDT", "pu")


def test_received_ns_is_the_callers() -> None:
    update = parse(SPOT)
    assert update.received_ns == 0
    update.received_ns = 1723161253937085768
    assert update.received_ns == 1723161253937085768
    for value in (1.5, None, "1", True):
        with pytest.raises(TypeError):
            update.received_ns = value  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        update.symbol = "X"  # type: ignore[misc]


@pytest.mark.parametrize(
    "message",
    [
        b'{"result":null,"id":1}',
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"B","b":"1","B":"1","a":"2","A":"2"}}',
        b'{"e":"trade","U":-1,"u":"x","b":5,"a":null,"s":7}',
        b'{"e":"kline","data":{"e":"depthUpdate"}}',
        b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}',
        b"[]",
        b"null",
        b' "depthUpdate" ',
        b"{}",
        b'{"e":5}',
        b'{"e":"depthUpdate2"}',
        b'{"E":"depthUpdate"}',
    ],
)
def test_row_16_other_messages_are_none(message: bytes) -> None:
    assert parse_depth_update(message) is None


def test_row_16_unknown_fields_of_any_kind_are_skipped() -> None:
    extra = '{"b":[["x"]],"n":[1,-2.5e-7,0,true,false,null,{}],"s":"\\"\\\\\\u00e9\\n"}'
    assert parse(event(x=extra, y="[[]]")).bids == [("1.5", "2")]


def test_escapes_in_keys_and_symbols_are_decoded() -> None:
    message = event(s='"\\u0042\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\\\\""', e="", E="")
    message = message.replace(b'"U"', rb'"\u0055"').replace(b"{", rb'{"\u0065":"depthUpd\u0061te",')
    update = parse(message)
    assert update.symbol == 'Bé😀/\b\f\n\r\t\\"'
    assert update.first_update_id == 7
    assert update.event_time_ms == 0


def test_symbols_may_be_unicode() -> None:
    assert parse(event(s='"币安人生USDT"')).symbol == "币安人生USDT"


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [
        ('""', "empty"),
        ("null", "not a string"),
        ('["A"]', "not a string"),
        (r'"\ud83d"', "Unicode"),
        (r'"\ude00\ud83d"', "Unicode"),
        (r'"\ud83d\u0041"', "Unicode"),
    ],
)
def test_a_symbol_that_is_none_is_refused(symbol: str, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason) as error:
        parse_depth_update(event(s=symbol))
    assert error.value.field == "s"
    assert error.value.symbol is None


@pytest.mark.parametrize("field", ["U", "u", "pu", "E"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1.0", "not an integer"),
        ("1e3", "not an integer"),
        ("true", "not an integer"),
        ("null", "not an integer"),
        ('"5"', "not an integer"),
        ("[5]", "not an integer"),
        ("-1", "negative"),
        ("-0", "negative"),
        ("9223372036854775808", "above"),
        ("18446744073709551623", "above"),
        ("1" * 400, "above"),
    ],
)
def test_row_03_ids_are_json_integers_of_63_bits(field: str, value: str, reason: str) -> None:
    fields = {"pu": "6", field: value}
    with pytest.raises(InvalidEvent, match=reason) as error:
        parse_depth_update(event(**fields), futures=True)
    assert error.value.symbol == "BTCUSDT"
    assert error.value.field == field
    assert error.value.value == value.strip('"')[:80]


def test_row_03_first_id_above_the_last_is_refused() -> None:
    with pytest.raises(InvalidEvent) as error:
        parse_depth_update(event(U="10", u="9"))
    assert (error.value.field, error.value.value) == ("u", "9")


def test_the_largest_ids_are_taken() -> None:
    update = parse(event(U="0", u="9223372036854775807"))
    assert (update.prev_update_id, update.last_update_id) == (-1, 2**63 - 1)


BAD_DECIMALS = [
    "NaN", "Infinity", "-Infinity", "1e400", "1E5", "１２", "1.５", "-1", "", "+1", ".5", "1.",
    "007", "00", "0x10", " 1", "1 ", "1,5", "1.2.3", "1_000", "٣", "--", "1-", "0.0a", "null",
    "1" * 65, "0." + "0" * 63, "7" * 10_240,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_DECIMALS, ids=lambda text: text[:12] or "empty")
@pytest.mark.parametrize("part", ["price", "quantity"])
def test_row_11_odd_decimals_refuse_the_whole_event(text: str, part: str) -> None:
    pair = f'["{text}","1"]' if part == "price" else f'["1","{text}"]'
    good = '["1","1"]'
    for side, key in (("bids", "b"), ("asks", "a")):
        with pytest.raises(InvalidEvent) as error:
            parse_depth_update(event(**{key: f"[{good},{good},{good},{pair},{good}]"}))
        assert error.value.symbol == "BTCUSDT"
        assert error.value.field == f"{side}[3].{part}"
        assert error.value.value == text[:80]
        with pytest.raises(InvalidEvent) as error:
            parse_depth_snapshot(body(**{side: f"[{good},{pair}]"}), "ETHUSDT")
        assert (error.value.symbol, error.value.field) == ("ETHUSDT", f"{side}[1].{part}")
        levels = [("1", "1"), (text, "1") if part == "price" else ("1", text)]
        both = (levels, []) if side == "bids" else ([], levels)
        with pytest.raises(InvalidEvent) as error:
            DepthUpdate("A", 1, 2, 0, *both)
        assert error.value.field == f"{side}[1].{part}"
        with pytest.raises(InvalidEvent):
            DepthSnapshot("A", 1, *both)


@pytest.mark.parametrize("text", ["0", "0.0", "0.00000000"])
def test_row_11_a_price_of_zero_is_refused(text: str) -> None:
    with pytest.raises(InvalidEvent, match="above zero") as error:
        parse_depth_update(event(b=f'[["{text}","1"]]'))
    assert error.value.field == "bids[0].price"


@pytest.mark.parametrize("part", ["price", "quantity"])
def test_escapes_and_nul_in_decimals_are_refused(part: str) -> None:
    for text in (r"1\u0030", r"\u0031", r"1\/5"):
        pair = f'["{text}","1"]' if part == "price" else f'["1","{text}"]'
        with pytest.raises(InvalidEvent) as error:
            parse_depth_update(event(a=f"[{pair}]"))
        assert error.value.field == f"asks[0].{part}"
    with pytest.raises(MalformedMessage, match="control"):
        parse_depth_update(event(b='[["1\x00","1"]]'))
    with pytest.raises(InvalidEvent):
        DepthUpdate("A", 1, 2, 0, [("1\x00", "1")], [])


@pytest.mark.parametrize(
    ("levels", "field", "value"),
    [
        ("null", "b", "null"),
        ("{}", "b", "{}"),
        ('"x"', "b", "x"),
        ("5", "b", "5"),
        ("[5]", "bids[0]", "5"),
        ("[[]]", "bids[0]", "[]"),
        ('[["1"]]', "bids[0]", '["1"]'),
        ('[["1","1"],["1","2","3"]]', "bids[1]", '["1","2","3"]'),
        ('[["1","1"],["1","2" ,[]]]', "bids[1]", '["1","2" ,[]]'),
        ('[[1,"1"]]', "bids[0].price", "1"),
        ('[["1",1.5]]', "bids[0].quantity", "1.5"),
        ('[["1",null]]', "bids[0].quantity", "null"),
        ('[["1",["2"]]]', "bids[0].quantity", '["2"]'),
        ('[{"1":"2"}]', "bids[0]", '{"1":"2"}'),
        ('["12"]', "bids[0]", "12"),
    ],
)
def test_levels_that_are_no_pairs_of_strings_are_refused(
    levels: str, field: str, value: str
) -> None:
    with pytest.raises(InvalidEvent) as error:
        parse_depth_update(event(b=levels))
    assert (error.value.field, error.value.value) == (field, value)
    with pytest.raises(InvalidEvent) as error:
        parse_depth_snapshot(body(bids=levels), "X")
    assert error.value.field == ("bids" if field == "b" else field)


@pytest.mark.parametrize("field", ["s", "U", "u", "b", "a"])
def test_missing_fields_are_refused(field: str) -> None:
    with pytest.raises(InvalidEvent, match="missing") as error:
        parse_depth_update(event(**{field: ""}))
    assert error.value.field == field
    assert error.value.symbol == (None if field == "s" else "BTCUSDT")


def test_a_refused_event_names_the_symbol_of_its_stream_when_it_has_none() -> None:
    message = b'{"stream":"ethusdt@depth","data":' + event(s="") + b"}"
    with pytest.raises(InvalidEvent) as error:
        parse_depth_update(message)
    assert error.value.symbol == "ETHUSDT"


@pytest.mark.parametrize("field", ["e", "E", "s", "U", "u", "b", "a"])
def test_fields_that_stand_twice_are_refused(field: str) -> None:
    value = {"e": b'"depthUpdate"', "s": b'"BTCUSDT"', "b": b"[]", "a": b"[]"}.get(field, b"8")
    message = event()[:-1] + b',"' + field.encode() + b'":' + value + b"}"
    with pytest.raises(InvalidEvent, match="twice") as error:
        parse_depth_update(message)
    assert error.value.field == field
    escaped = message[: message.rindex(b'"' + field.encode())]
    escaped += b'"\\u%04x":' % ord(field) + value + b"}"
    with pytest.raises(InvalidEvent, match="twice"):
        parse_depth_update(escaped)


def test_a_wrapper_that_holds_two_of_one_is_refused() -> None:
    for message in (
        b'{"stream":"a@depth","stream":"b@depth","data":' + event() + b"}",
        b'{"stream":"a@depth","data":' + event() + b',"data":' + event() + b"}",
    ):
        with pytest.raises(InvalidEvent, match="twice"):
            parse_depth_update(message)


@pytest.mark.parametrize(
    ("message", "offset", "symbol"),
    [
        (b"", 0, None),
        (b"   ", 3, None),
        (b"<html>", 0, None),
        (b"{", 1, None),
        (b'{"e"}', 4, None),
        (b'{"e":}', 5, None),
        (b'{"e":"x",}', 9, None),
        (b'{"e":"x"}}', 9, None),
        (b'{"e":"x"} {}', 10, None),
        (b'{"e":"x" "s":1}', 9, None),
        (b"{'e':1}", 1, None),
        (b'{"e":tru}', 5, None),
        (b'{"e":nul', 8, None),
        (b'{"e":NaN}', 5, None),
        (b'{"e":01}', 5, None),
        (b'{"e":1.}', 7, None),
        (b'{"e":-}', 6, None),
        (b'{"e":1e}', 7, None),
        (b'{"e":"\\x"}', 7, None),
        (b'{"e":"\\u12g4"}', 10, None),
        (b'{"e":"a\nb"}', 7, None),
        (b'{"e":[1 2]}', 8, None),
        (b'{"e":[1,]}', 8, None),
        (b'{"s":"ABC","u":[', 16, "ABC"),
        (b'{"stream":"btcusdt@depth","data":{"e":"x"', 41, "BTCUSDT"),
        (b'{"stream":"btcusdt@depth","data":{"s":"ETH","u":', 48, "ETH"),
        (b'{"data":{"s":"ETHUSDT"},"stream":"btc', 37, "ETHUSDT"),
        (b"\xef\xbb\xbf{}", 0, None),
    ],
)
def test_row_15_what_is_not_json_is_malformed(
    message: bytes, offset: int, symbol: str | None
) -> None:
    with pytest.raises(MalformedMessage) as error:
        parse_depth_update(message)
    assert (error.value.offset, error.value.symbol) == (offset, symbol)


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"\xc3", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x80\x80\x80",
     b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x82", b"\xe2\x28\xa1"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["key", "symbol", "skipped", "outside"])
def test_row_15_bytes_that_are_not_utf8_are_malformed(raw: bytes, place: str) -> None:
    message = event(s='"@SYMBOL@"', x='{"@KEY@":["@SKIPPED@"]}')
    if place == "outside":
        message = raw + message
    else:
        message = message.replace(f"@{place.upper()}@".encode(), raw)
    with pytest.raises(MalformedMessage):
        parse_depth_update(message)


def test_row_15_nesting_is_bounded() -> None:
    assert parse(event(x="[" * 63 + "]" * 63)).symbol == "BTCUSDT"
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        deep = opening * 64 + ("1" if opening != "[" else "") + closing * 64
        with pytest.raises(MalformedMessage, match="64"):
            parse_depth_update(event(x=deep))
    with pytest.raises(MalformedMessage, match="64"):
        parse_depth_update(b"[" * 1_000_000)
    with pytest.raises(MalformedMessage, match="64"):
        parse_depth_snapshot(b'{"x":' * 1_000_000, "X")


def test_reading_stops_at_the_end_of_a_view() -> None:
    whole = event()
    for message in (whole, SPOT, body()):
        # Behind the view's end stands what would make it valid.
        for end in range(len(message)):
            view = memoryview(bytearray(message + b'"]]}}}'))[:end]
            with pytest.raises(MalformedMessage):
                parse_depth_update(view)


def test_bytes_like_objects_are_taken_and_others_not() -> None:
    for data in (bytearray(SPOT), memoryview(SPOT), memoryview(b"x" + SPOT + b"x")[1:-1]):
        assert parse(data).last_update_id == 160  # type: ignore[arg-type]
    wrong: list[Any] = [None, "text", 5, 1.5, [], object()]
    for data in wrong:
        with pytest.raises(TypeError):
            parse_depth_update(data)
        with pytest.raises(TypeError):
            parse_depth_snapshot(data, "X")
    with pytest.raises(TypeError):
        parse_depth_snapshot(body(), None)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        parse_depth_update(memoryview(SPOT)[::2])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no class gives its buffer by Python code")
def test_a_buffer_whose_code_parses_spoils_no_update() -> None:
    kept: list[DepthUpdate] = []

    class Parsing:
        def __buffer__(self, flags: int) -> memoryview:
            kept.append(parse(event(b='[["1","1"],["2","2"]]')))
            return memoryview(event(b='[["3","3"]]'))

    outer = parse(Parsing())  # type: ignore[arg-type]
    parse(event(b='[["4","4"]]'))
    assert (kept[0].bids, outer.bids) == ([("1", "1"), ("2", "2")], [("3", "3")])
    kept.clear()
    parse(event(b='[["5","5"]]'))
    assert outer.bids == [("3", "3")]


EXACT = [
    ("0.00000001", "1"),
    ("99999999.99999999", "0.00000001"),
    ("1.5", "1.50"),
    ("1.50", "1.5"),
    ("0.000000000001", "1000000000000.12345678"),
    ("0.123456789012345678", "999999999999.99999999"),
    ("184467440737.09551615", "1000000000000.000000000000000001"),
    ("18.446744073709551615", "5070602400912.917605986812821503"),
    ("5", "5070602400912917605986812821503"),
    ("123.4500000000000000000000000000000", "0.0000000000000000000000000000001"),
    ("12", "0"),
    ("12.0", "0.000000000000000000"),
    ("10", "100"),
]


@pytest.mark.parametrize("level", EXACT, ids=lambda level: level[0])
def test_rows_12_14_texts_come_out_as_they_came_in(level: tuple[str, str]) -> None:
    update = parse(event(b=f'[["{level[0]}","{level[1]}"]]', a="[]"))
    assert update.bids == [level]
    assert DepthUpdate("A", 1, 1, 0, [], [level]).asks == [level]
    assert DepthSnapshot("A", 1, [level], [level]).bids == [level]


def test_row_14_more_decimals_in_one_message_keep_all_exact() -> None:
    levels = [("61737.63", "1"), ("0.000000000001", "2"), ("61737.6300", "3"), ("7", "4.0")]
    assert DepthUpdate("A", 1, 1, 0, levels, levels[::-1]).bids == levels
    assert DepthUpdate("A", 1, 1, 0, levels, levels[::-1]).asks == levels[::-1]


@pytest.mark.parametrize(
    ("level", "part"),
    [
        (("184467440737.09551616", "1"), "price"),
        (("1844674407370955161500", "1"), "price"),
        (("1" * 39, "1"), "price"),
        (("18.446744073709551616", "1"), "price"),
        (("0.1234567890123456789", "1"), "price"),
        (("1." + "0" * 32, "1"), "price"),
        (("1", "5070602400912917605986812821504"), "quantity"),
        (("1", "9" * 39), "quantity"),
        (("1", "9" * 64), "quantity"),
        (("1", "0." + "0" * 32), "quantity"),
    ],
)
def test_row_12_what_cannot_be_held_exactly_is_a_named_error(
    level: tuple[str, str], part: str
) -> None:
    text = level[0] if part == "price" else level[1]
    with pytest.raises(CapacityError) as error:
        parse_depth_update(event(a=f'[["1","1"],["{level[0]}","{level[1]}"]]'))
    assert error.value.symbol == "BTCUSDT"
    assert (error.value.field, error.value.value) == (f"asks[1].{part}", text[:80])
    assert error.value.limit
    with pytest.raises(CapacityError):
        DepthUpdate("A", 1, 1, 0, [level], [])
    with pytest.raises(CapacityError):
        DepthSnapshot("A", 1, [level], [])


def test_row_12_prices_that_need_different_scales_are_a_named_error() -> None:
    large, fine = ("99999999.99", "1"), ("0.000000000000000001", "1")
    for bids, asks in (([large], [fine]), ([fine, large], []), ([], [large, fine])):
        with pytest.raises(CapacityError):
            DepthUpdate("A", 1, 1, 0, bids, asks)


def test_row_34_error_bodies_are_never_a_book() -> None:
    with pytest.raises(InvalidEvent, match="Invalid symbol") as error:
        parse_depth_snapshot(b'{"code":-1121,"msg":"Invalid symbol."}', "XYZ", 100)
    assert error.value.symbol == "XYZ"
    for text in (b"<html><body>502</body></html>", b"", b"Service Unavailable"):
        with pytest.raises(MalformedMessage) as malformed:
            parse_depth_snapshot(text, "XYZ")
        assert malformed.value.symbol == "XYZ"
    for text in (b"[]", b"null", b"{}", b'"x"', b"5"):
        with pytest.raises(InvalidEvent):
            parse_depth_snapshot(text, "XYZ")


@pytest.mark.parametrize("field", ["lastUpdateId", "bids", "asks"])
def test_a_snapshot_needs_its_fields_once(field: str) -> None:
    with pytest.raises(InvalidEvent, match="missing") as error:
        parse_depth_snapshot(body(**{field: ""}), "X")
    assert error.value.field == field
    message = body()[:-1] + f',"{field}":[]'.encode() + b"}"
    with pytest.raises(InvalidEvent, match="twice"):
        parse_depth_snapshot(message, "X")


def test_a_snapshot_of_futures_has_more_fields() -> None:
    message = body(E="1589436922972", T="1589436922959", pair='"BTCUSD"')
    snapshot = parse_depth_snapshot(message, "BTCUSD_PERP", limit=1000)
    assert (snapshot.symbol, snapshot.last_update_id, snapshot.limit) == ("BTCUSD_PERP", 5, 1000)
    assert len(snapshot) == 2
    assert "BTCUSD_PERP at 5" in repr(snapshot)
    with pytest.raises(ValueError, match="negative"):
        parse_depth_snapshot(message, "X", -1)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, 1, 2, 0, [], []),
        (b"A", 1, 2, 0, [], []),
        ("A", None, 2, 0, [], []),
        ("A", "1", 2, 0, [], []),
        ("A", 1, 2.0, 0, [], []),
        ("A", True, 2, 0, [], []),
        ("A", 1, 2, None, [], []),
        ("A", 1, 2, 0, None, []),
        ("A", 1, 2, 0, [], 5),
        ("A", 1, 2, 0, "12", []),
        ("A", 1, 2, 0, ["12"], []),
        ("A", 1, 2, 0, [None], []),
        ("A", 1, 2, 0, [(1, "2")], []),
        ("A", 1, 2, 0, [("1", 2.0)], []),
        ("A", 1, 2, 0, [(b"1", "2")], []),
        ("A", 1, 2, 0, [], [], None),
        ("A", 1),
    ],
)
def test_wrong_types_are_type_errors(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        DepthUpdate(*arguments)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", 1, 2, 0, [], []), "symbol"),
        (("A", -1, 2, 0, [], []), "first_update_id"),
        (("A", 1, 2**63, 0, [], []), "last_update_id"),
        (("A", 1, 10**5000, 0, [], []), "last_update_id"),
        (("A", 1, -(10**5000), 0, [], []), "last_update_id"),
        (("A", 3, 2, 0, [], []), "last_update_id"),
        (("A", 1, 2, -2, [], []), "prev_update_id"),
        (("A", 1, 2, 0, [], [], -1), "event_time_ms"),
        (("A", 1, 2, 0, [("1",)], []), "bids[0]"),
        (("A", 1, 2, 0, [], [("1", "1"), ("1", "2", "3")]), "asks[1]"),
    ],
)
def test_wrong_values_are_invalid_events(arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(InvalidEvent) as error:
        DepthUpdate(*arguments)
    assert error.value.field == field


def test_levels_may_be_any_sequence_of_pairs() -> None:
    levels = [["1", "2"], ("3", "4")]
    update = DepthUpdate("A", 1, 2, 0, tuple(levels), iter(levels))  # type: ignore[arg-type]
    assert update.bids == update.asks == [("1", "2"), ("3", "4")]


def test_a_message_is_made_once() -> None:
    update = DepthUpdate("A", 1, 2, 0, [("1", "2")], [])
    with pytest.raises(TypeError, match="made already"):
        update.__init__("B", 1, 2, 0, [], [])
    assert (update.symbol, update.bids) == ("A", [("1", "2")])
    snapshot = DepthSnapshot("A", 1, [("1", "2")], [])
    with pytest.raises(TypeError, match="made already"):
        snapshot.__init__("B", 1, [], [])


def test_a_message_that_was_never_made_is_empty_and_harmless() -> None:
    update = DepthUpdate.__new__(DepthUpdate)
    assert (update.symbol, update.bids, len(update)) == ("", [], 0)
    snapshot = DepthSnapshot.__new__(DepthSnapshot)
    assert (snapshot.symbol, snapshot.asks, len(snapshot)) == ("", [], 0)


def test_no_memory_is_kept_after_messages_are_gone(kept_memory: Any) -> None:
    bad = event(b='[["1","1"],["x","1"]]')
    truncated = SPOT[:-3]

    def work() -> None:
        parse_depth_update(SPOT)
        parse_depth_update(memoryview(USDM), True)
        parse_depth_snapshot(body(), "X")
        for message in (bad, truncated):
            with contextlib.suppress(InvalidEvent, MalformedMessage):
                parse_depth_update(message)

    assert kept_memory(work, 50, 500) < 5_000


def test_decimals_of_every_length_wherever_they_stand() -> None:
    """Eight digits are read at once where the message goes on long enough, and else one by one."""
    wholes = ["0", *("9182736450123"[:n] for n in range(1, 12))]
    fractions = ["", *("." + "0123456789"[:n] for n in range(1, 10)), ".000000000", ".99999999"]
    texts = [whole + fraction for whole in wholes for fraction in fractions]
    prices = [text for text in texts if text.strip("0.") and len(text.split(".")[0]) < 10]
    for text in texts:
        for behind in (0, 1, 2, 3):
            bids = [(prices[len(text)], text)] + [("1.5", "2.50")] * behind
            asks = [(prices[-1 - len(text)], text)]
            event = {"e": "depthUpdate", "s": "A", "U": 1, "u": 2, "b": bids, "a": asks}
            update = parse_depth_update(json.dumps(event, separators=(",", ":")).encode())
            assert update is not None
            assert (update.bids, update.asks) == (bids, asks)
    for text in prices:
        event = {"e": "depthUpdate", "s": "A", "U": 1, "u": 2, "b": [(text, "1")] * 4, "a": []}
        update = parse_depth_update(json.dumps(event, separators=(",", ":")).encode())
        assert update is not None
        assert update.bids == [(text, "1")] * 4


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "00", "00.1", "01", "-1", "+1", "1e5", "1 ", " 1", "1.2.3", "1,2",
             "12345678x", "1234567812345678x", "1.12345678x", "0x1", "1/", "1:", "1.\u0661"]
)  # fmt: skip
def test_row_11_what_is_no_decimal_is_refused_by_both_ways_of_reading(text: str) -> None:
    for behind in (0, 9):
        for pair in ((text, "1"), ("1", text)):
            bids = [("1.5", "2.50"), pair] + [("1.5", "2.50")] * behind
            event = {"e": "depthUpdate", "s": "A", "U": 1, "u": 2, "b": bids, "a": []}
            raw = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
            with pytest.raises(InvalidEvent) as error:
                parse_depth_update(raw)
            assert error.value.field == f"bids[1].{'price' if pair[0] == text else 'quantity'}"
            assert error.value.value == text
