"""The core's parser against the standard library's and a strict oracle built on it."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe._core import (
    DepthSnapshot,
    DepthUpdate,
    OrderBook,
    parse_depth_snapshot,
    parse_depth_update,
)
from obframe.errors import CapacityError, InvalidEvent, MalformedMessage, MessageError
from obframe.testing.strategies import (
    DepthStream,
    Diff,
    depth_streams,
    event_messages,
    json_texts,
    levels,
    malformed_messages,
)

DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)
INTEGER = re.compile(r"0|[1-9][0-9]*", re.ASCII)


class Number(str):
    """A JSON number as written."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object as written, duplicates included."""

    def get(self, key: str) -> Any:
        return next((value for name, value in self if name == key), None)

    def all(self, key: str) -> list[Any]:
        return [value for name, value in self if name == key]


class Malformed(Exception):
    """The oracle: not a message."""


class Refused(Exception):
    """The oracle: a depth event that must not be taken."""


def read_json(data: bytes) -> Any:
    """Read JSON of at most 64 levels in UTF-8, as the standard library would at its strictest."""

    def refuse(text: str) -> None:
        raise Malformed(text)

    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=refuse,
            object_pairs_hook=Pairs,
        )
    except ValueError as error:
        raise Malformed(str(error)) from error
    if measure_depth(value) > 64:
        raise Malformed("deep")
    return value


def measure_depth(value: Any) -> int:
    if isinstance(value, Pairs):
        return 1 + max((measure_depth(item) for _, item in value), default=0)
    if isinstance(value, list):
        return 1 + max(map(measure_depth, value), default=0)
    return 0


def judge_decimal(text: Any, least: int) -> str:
    if type(text) is not str or len(text) > 64 or not DECIMAL.fullmatch(text):
        raise Refused(f"{text!r}")
    if least and not text.strip("0."):
        raise Refused("zero")
    return text


def judge_levels(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list) or isinstance(value, Pairs):
        raise Refused("no array")
    taken = []
    for level in value:
        if not isinstance(level, list) or isinstance(level, Pairs) or len(level) != 2:
            raise Refused("no pair")
        taken.append((judge_decimal(level[0], 1), judge_decimal(level[1], 0)))
    return taken


def judge_id(value: Any) -> int:
    if not isinstance(value, Number) or not INTEGER.fullmatch(value) or int(value) >= 2**63:
        raise Refused(f"{value!r}")
    return int(value)


def judge(data: bytes, futures: bool) -> tuple[Any, ...] | None:
    """Return what an event says, None for other messages.

    Raises:
        Malformed: It is not a message.
        Refused: It is a depth event to be refused.
    """
    top = read_json(data)
    if not isinstance(top, Pairs):
        return None
    event = top
    known = {"e", "E", "s", "U", "u", "b", "a"} | ({"pu"} if futures else set())
    if "depthUpdate" not in top.all("e"):
        inner = top.get("data")
        if top.all("e") or not isinstance(inner, Pairs) or "depthUpdate" not in inner.all("e"):
            return None
        event = inner
    names = [name for name, _ in event if name in known]
    if len(set(names)) != len(names):
        raise Refused("twice")
    # A raw event has no wrapper, but what looks like one twice is not to be trusted either.
    wrapper = [name for name, _ in top if name in {"stream", "data"}]
    if len(set(wrapper)) != len(wrapper):
        raise Refused("wrapper twice")
    if not known - {"E", "e"} <= set(names):
        raise Refused("missing")
    symbol = event.get("s")
    if type(symbol) is not str or not symbol or re.search("[\ud800-\udfff]", symbol):
        raise Refused("symbol")
    first, last = judge_id(event.get("U")), judge_id(event.get("u"))
    if first > last:
        raise Refused("order")
    previous = judge_id(event.get("pu")) if futures else first - 1
    time = judge_id(event.get("E")) if "E" in names else 0
    bids, asks = judge_levels(event.get("b")), judge_levels(event.get("a"))
    return symbol, first, last, previous, time, bids, asks


def describe(update: DepthUpdate) -> tuple[Any, ...]:
    return (
        update.symbol,
        update.first_update_id,
        update.last_update_id,
        update.prev_update_id,
        update.event_time_ms,
        update.bids,
        update.asks,
    )


def assert_judged_alike(data: bytes, futures: bool) -> None:
    try:
        expected = judge(data, futures)
    except Malformed:
        with pytest.raises(MalformedMessage) as malformed:
            parse_depth_update(data, futures)
        assert 0 <= malformed.value.offset <= len(data)
        return
    except Refused:
        with pytest.raises((InvalidEvent, CapacityError)):
            parse_depth_update(data, futures)
        return
    try:
        update = parse_depth_update(data, futures)
    except CapacityError as error:
        refusal: CapacityError | InvalidEvent = error
    except InvalidEvent as error:
        refusal = error
    else:
        assert (None if update is None else describe(update)) == expected
        return
    assert expected is not None
    assert refusal.field.endswith((".price", ".quantity"))
    if isinstance(refusal, CapacityError):
        # Exact but too large: allowed only for what is beyond the stated limits.
        whole, _, fraction = refusal.value.partition(".")
        assert len(whole) > 4 or len(fraction) > 14 or len(whole + fraction) > 30
    else:
        # The oracle sees strings after their escapes; in a price an escape is refused.
        assert "\\" in refusal.value


@given(st.data(), depth_streams(max_diffs=1), st.booleans(), st.text(min_size=1, max_size=8))
def test_row_16_reads_events_of_any_order_spaces_and_unknown_fields(
    data: st.DataObject, stream: DepthStream, futures: bool, symbol: str
) -> None:
    diff = Diff(5, 9, stream.bids, stream.asks)
    message = data.draw(event_messages(diff, symbol, 3 if futures else None))
    update = parse_depth_update(message, futures)
    assert update is not None
    event = json.loads(message)
    event = event.get("data", event) if "e" not in event else event
    assert describe(update) == (
        event["s"],
        event["U"],
        event["u"],
        event["pu"] if futures else event["U"] - 1,
        event["E"],
        [tuple(level) for level in event["b"]],
        [tuple(level) for level in event["a"]],
    )
    assert (update.bids, update.asks) == (list(diff.bids), list(diff.asks))
    assert describe(update) == judge(message, futures)
    for other in (bytearray(message), memoryview(message)):
        again = parse_depth_update(other, futures)
        assert again is not None
        assert describe(again) == describe(update)


@given(st.integers(0, 2**32 - 1))
def test_an_update_stays_what_it_is_while_others_are_parsed(seed: int) -> None:
    """However long it is kept, whatever its size, and when it is applied at last."""
    rng = random.Random(seed)
    kept: list[tuple[DepthUpdate, tuple[Any, ...]]] = []
    for number in range(40):
        sides = [
            [[f"{rng.randrange(1, 9999)}.{rng.randrange(10)}", f"{rng.randrange(50)}"]
             for _ in range(rng.choice((0, 1, 5, 127, 128, 129, 300)))]
            for _ in range(2)
        ]  # fmt: skip
        event = {"e": "depthUpdate", "E": number, "s": f"S{number}", "U": number, "u": number}
        message = json.dumps({**event, "b": sides[0], "a": sides[1]}).encode()
        if rng.random() < 0.2:
            message = message[: rng.randrange(len(message))]
        try:
            update = parse_depth_update(message)
        except MessageError:
            continue
        assert update is not None
        wanted = [[tuple(level) for level in side] for side in sides]
        expected = (f"S{number}", number, number, number - 1, number, *wanted)
        if rng.random() < 0.8:
            kept.append((update, expected))
        del update
        rng.shuffle(kept)
        del kept[rng.choice((3, 5, 50)) :]
        for one, what in kept:
            assert describe(one) == what
    for one, what in kept:
        book = OrderBook(what[0])
        book.apply(one)
        # Of changes with the same price the last wins; "0" takes a level away.
        bids = {price: (price, quantity) for price, quantity in what[5]}
        assert sorted(book.bids()) == sorted(level for level in bids.values() if level[1] != "0")


@given(st.data(), levels(5), levels(5), st.booleans())
def test_row_15_every_truncation_is_refused(
    data: st.DataObject,
    bids: tuple[tuple[str, str], ...],
    asks: tuple[tuple[str, str], ...],
    futures: bool,
) -> None:
    message = data.draw(event_messages(Diff(1, 2, bids, asks), "A", 0 if futures else None))
    message = message.strip()
    for end in range(len(message)):
        # A view into the middle: nothing behind its end says that it ends there.
        with pytest.raises(MalformedMessage):
            parse_depth_update(memoryview(message)[:end], futures)


@given(st.data(), levels(4), levels(4), st.booleans())
def test_rows_3_11_15_damaged_messages_are_judged_as_the_oracle_does(
    data: st.DataObject,
    bids: tuple[tuple[str, str], ...],
    asks: tuple[tuple[str, str], ...],
    futures: bool,
) -> None:
    message = data.draw(event_messages(Diff(1, 2, bids, asks), "ABC", 0 if futures else None))
    assert_judged_alike(data.draw(malformed_messages(message)), futures)


SAMPLES = [
    b'{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":157,"u":160,'
    b'"b":[["61737.63000000","0.00000000"],["0.0024","10"]],"a":[["61837.64000000","1.54698000"]]}',
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1,"T":2,"s":"BTCUSDT","U":51,'
    b'"u":57,"pu":49,"b":[["58710.20","0.014"],["61496.50","0.010"]],"a":[],"ps":"BTCUSDT"}}',
    # Long enough for all before the levels to be read at once.
    b'{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":50093239208,"u":50093239224,'
    b'"b":[["61837.63000000","3.78826000"],["61820.99000000","0.00000000"],["61771.97","12"]],'
    b'"a":[["61837.64000000","1.54698000"],["61838.00000000","0.00000000"]]}',
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256509,'
    b'"T":1723161256505,"s":"BTCUSDT","U":5123107850310,"u":5123107853551,"pu":5123107850146,'
    b'"b":[["58710.20","0.014"],["61496.50","0.010"],["5000.00","2301"]],'
    b'"a":[["61837.60","15"],["61838.00","0"],["99999.90","123456789"]]}}',
    rb' { "s" : "\u0042\u00e9\ud83d\ude00", "a" : [ [ "1.5" , "2" ] ] , "b" : [ ] , "U" : 0 , '
    rb'"u" : 9223372036854775807 , "x" : { "y" : [ null , true , -1.5e+3 , "\\" ] } , '
    rb'"\u0065" : "depth\u0055pdate" , "pu" : 0 } ',
    '{"e":"depthUpdate","s":"币安","U":1,"u":2,"pu":0,"b":[["1","1"]],"a":[["2","0"]]}'.encode(),
    b'{"e":"trade","s":"BTCUSDT","p":"61837.63","b":1,"a":2,"m":true}',
]


@pytest.mark.parametrize("futures", [False, True])
@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_rows_3_11_15_many_small_damages_are_judged_as_the_oracle_does(
    sample: bytes, futures: bool
) -> None:
    assert_judged_alike(sample, futures)
    for at in range(len(sample)):
        assert_judged_alike(sample[:at], futures)
        assert_judged_alike(sample[:at] + sample[at + 1 :], futures)
        assert_judged_alike(sample[:at] + sample[at : at + 1] + sample[at:], futures)
    rng = random.Random(20240808)
    pieces = [b'"', b"[", b"]", b"{", b"}", b",", b":", b"-", b"+", b".", b"0", b"7", b"e", b"\\",
              b"\\u0031", b" ", b"\n", b"\xc3\xa9", b"\xff", b"\x00", b'"u":3,', b'"b":[],',
              b'"e":"depthUpdate",', b'["1","2"],', b"null", b"1e5", b"NaN"]  # fmt: skip
    for _ in range(8000):
        damaged = sample
        for _ in range(rng.choice((1, 1, 2, 3))):
            start = rng.randrange(len(damaged) + 1)
            cut = rng.choice((0, 0, 1, 1, 2, 8))
            piece = rng.choice((b"", bytes([rng.randrange(256)]), rng.choice(pieces)))
            damaged = damaged[:start] + piece + damaged[start + cut :]
        assert_judged_alike(damaged, futures)


@given(st.data(), levels(4), levels(4), st.booleans())
def test_row_11_a_refused_event_leaves_the_book_as_it_was(
    data: st.DataObject,
    bids: tuple[tuple[str, str], ...],
    asks: tuple[tuple[str, str], ...],
    futures: bool,
) -> None:
    book = OrderBook("ABC")
    book.load(DepthSnapshot("ABC", 7, [("1.5", "2"), ("1.40", "1")], [("2.5", "2")]))
    before = (book.snapshot(1).pack(), book.bids(), book.asks(), book.nbytes)
    message = data.draw(event_messages(Diff(1, 2, bids, asks), "ABC", 0 if futures else None))
    message = data.draw(malformed_messages(message))
    try:
        update = parse_depth_update(message, futures)
    except (MessageError, CapacityError):
        update = None
    if update is None:
        assert (book.snapshot(1).pack(), book.bids(), book.asks(), book.nbytes) == before


@given(st.binary(max_size=60), st.booleans())
def test_row_15_arbitrary_bytes_are_judged_as_the_oracle_does(data: bytes, futures: bool) -> None:
    assert_judged_alike(data, futures)


@given(st.data(), levels(8), levels(8), st.integers(0, 2**63 - 1), st.integers(0, 10))
def test_reads_snapshots_of_any_order_and_spaces(
    data: st.DataObject,
    bids: tuple[tuple[str, str], ...],
    asks: tuple[tuple[str, str], ...],
    update_id: int,
    limit: int,
) -> None:
    body = {"lastUpdateId": update_id, "bids": bids, "asks": asks, "E": 1, "T": 2, "x": {"bids": 1}}
    message = data.draw(json_texts(body)).encode()
    snapshot = parse_depth_snapshot(message, "ABC", limit)
    assert (snapshot.symbol, snapshot.last_update_id, snapshot.limit) == ("ABC", update_id, limit)
    assert (snapshot.bids, snapshot.asks) == (list(bids), list(asks))
    stripped = message.strip()
    for end in range(0, len(stripped), 7):
        with pytest.raises(MalformedMessage):
            parse_depth_snapshot(memoryview(stripped)[:end], "ABC", limit)


def test_the_oracle_tells_apart_what_it_should() -> None:
    valid = b'{"e":"depthUpdate","s":"A","U":1,"u":2,"b":[["1","0"]],"a":[]}'
    assert judge(valid, False) == ("A", 1, 2, 0, 0, [("1", "0")], [])
    assert judge(b'{"e":"trade"}', False) is None
    with pytest.raises(Malformed):
        judge(valid[:-1], False)
    with pytest.raises(Refused):
        judge(valid, True)
    with pytest.raises(Refused):
        judge(valid.replace(b'"1"', b'"01"'), False)
