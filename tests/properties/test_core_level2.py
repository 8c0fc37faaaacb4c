"""``parse_level2`` against msgspec and a plain reading of what it decodes."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import CapacityError, InvalidEvent, Level2Event, MalformedMessage, parse_level2
from obframe.testing.strategies import Level, prices, quantities

DAMAGE = b'"{}[]:,.0129-eE \\uabdflnrt\xc3\x00'
DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


class Update(msgspec.Struct):
    """As the venue's documents type it."""

    side: str
    price_level: str
    new_quantity: str


class Event(msgspec.Struct):
    type: str
    product_id: str
    updates: list[Update]


class Message(msgspec.Struct):
    sequence_num: int
    events: list[Event]
    channel: str = ""


def updates() -> st.SearchStrategy[dict[str, Any]]:
    times = st.sampled_from(["1970-01-01T00:00:00Z", "2023-02-09T20:32:50.714964855Z", ""])
    return st.fixed_dictionaries(
        {
            "side": st.sampled_from(["bid", "offer"]),
            "event_time": times,
            "price_level": prices(),
            "new_quantity": quantities(),
        },
        optional={"novelty": st.sampled_from([None, 1.5, [], {"side": "bid"}, "x\u00e9"])},
    )


def events() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "type": st.sampled_from(["snapshot", "update"]),
            "product_id": st.sampled_from(["BTC-USD", "ETH-USD", "00-USD", "\u00e9-USD"]),
            "updates": st.lists(updates(), max_size=8),
        }
    )


def messages() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "channel": st.just("l2_data"),
            "client_id": st.just(""),
            "timestamp": st.datetimes(datetime(1970, 1, 1)).map(
                lambda time: f"{time.isoformat()}Z"
            ),
            "sequence_num": st.integers(0, 2**63 - 1),
            "events": st.lists(events(), max_size=3),
        }
    )


def write(message: Any, seed: int) -> bytes:
    """Write JSON as a venue might: fields in any order, spaces, escapes; often in none of that."""
    rng = random.Random(seed)
    plain = rng.random() < 0.5

    def shuffle(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            if not plain and rng.random() < 0.5:
                rng.shuffle(items)
            return {key: shuffle(item) for key, item in items}
        return [shuffle(item) for item in value] if isinstance(value, list) else value

    separators = (",", ":") if plain or rng.random() < 0.5 else (" ,\n", " :\t")
    text = json.dumps(shuffle(message), separators=separators, ensure_ascii=rng.random() < 0.5)
    return text.encode()


def sides(event: dict[str, Any] | Event) -> tuple[list[Level], list[Level]]:
    raw = msgspec.to_builtins(event)["updates"]
    bids, asks = (
        [(x["price_level"], x["new_quantity"]) for x in raw if x["side"] == side]
        for side in ("bid", "offer")
    )
    return bids, asks


def check(made: Level2Event, kind: str, product: str, levels: tuple[list[Level], ...]) -> None:
    assert made.error is None
    assert (made.product, made.kind) == (product, kind)
    out = made.to_snapshot("S", 5) if kind == "snapshot" else made.to_update("S", 4, 5)
    assert (out.bids, out.asks) == levels
    assert out.last_update_id == 5


@given(messages(), st.integers(0, 2**32))
def test_what_comes_out_is_what_came_in(message: dict[str, Any], seed: int) -> None:
    parsed = parse_level2(write(message, seed))
    assert parsed is not None
    assert parsed[0] == message["sequence_num"]
    time = datetime.fromisoformat(message["timestamp"])
    assert parsed[1] == (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for made, event in zip(parsed[2], message["events"], strict=True):
        check(made, event["type"], event["product_id"], sides(event))


def is_refused(event: Event) -> bool:
    """Whether something in a well-typed event is no value of its kind."""
    return (
        not event.type
        or not event.product_id
        or not is_unicode(event.product_id + event.type)
        or any(
            update.side not in ("bid", "offer")
            or not DECIMAL.fullmatch(update.price_level)
            or not DECIMAL.fullmatch(update.new_quantity)
            or not update.price_level.strip("0.")
            or max(len(update.price_level), len(update.new_quantity)) > 64
            for update in event.updates
        )
    )


@given(
    messages(),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(DAMAGE)), max_size=3),
    st.sampled_from(["put", "insert", "cut"]),
)
def test_damage_is_judged_as_plain_reading_does(
    message: dict[str, Any], seed: int, damage: list[tuple[float, int]], how: str
) -> None:
    raw = bytearray(write(message, seed))
    for share, byte in damage:
        at = int(share * (len(raw) - 1))
        if how == "put":
            raw[at] = byte
        elif how == "insert":
            raw.insert(at, byte)
        else:
            del raw[at:]
            break
    assert_judged_alike(bytes(raw))


@pytest.mark.parametrize("name", ["side", "price_level", "x"])
@pytest.mark.parametrize("value", ["bid", r"b\ud800id"])
def test_half_a_character_in_a_name_or_a_value_is_judged_as_plain_reading_does(
    name: str, value: str
) -> None:
    for key in (name, name + r"\ude00"):
        level = {"side": "bid", "price_level": "1.5", "new_quantity": "2", key: value}
        assert_judged_alike(write_plain(level))


def write_plain(level: dict[str, str]) -> bytes:
    """Write a message of one level, with escapes as they stand in its texts."""
    fields = ",".join(f'"{name}":"{value}"' for name, value in level.items())
    event = f'{{"type":"update","product_id":"X","updates":[{{{fields}}}]}}'
    return f'{{"channel":"l2_data","sequence_num":7,"events":[{event}]}}'.encode()


def read_json(data: bytes) -> Any:
    """Read JSON of at most 64 levels in UTF-8 at its strictest; ``UNSET`` when it is none."""
    try:
        whole = json.loads(
            data.decode(),
            parse_constant=refuse,
            parse_int=read_int,
            object_pairs_hook=keep_first,
        )
    except (ValueError, RecursionError):
        return msgspec.UNSET
    return whole if is_shallow(whole, 64) else msgspec.UNSET


def keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object in which the first of a name counts.

    Names that are no Unicode are nobody's, and msgspec does not take them.
    """
    return {name: value for name, value in reversed(pairs) if is_unicode(name)}


def read_int(text: str) -> int:
    return int(text) if len(text) < 40 else 10**40


def is_shallow(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_shallow(item, depth - 1) for item in items)


def assert_judged_alike(data: bytes) -> None:
    """Compare what the core makes of a message with a plain reading of it."""
    whole = read_json(data)
    parsed: tuple[int, int, list[Level2Event]] | Exception | None
    try:
        parsed = parse_level2(data)
    except (MalformedMessage, InvalidEvent) as error:
        parsed = error
    told = str(parsed)
    if isinstance(parsed, MalformedMessage):
        # Where a key stands twice, the oracle keeps the first value only: it may miss a deep one.
        assert whole is msgspec.UNSET or "nested" in told
        return
    if isinstance(parsed, Exception):
        assert whole is not msgspec.UNSET
        assert not is_typed(whole) or "twice" in told
        return
    assert whole is not msgspec.UNSET
    if parsed is None:
        assert not isinstance(whole, dict) or whole.get("channel") != "l2_data"
        return
    assert whole["channel"] == "l2_data"
    sequence, _, made = parsed
    assert sequence == whole["sequence_num"]
    assert len(made) == len(whole["events"])
    for one, raw_event in zip(made, whole["events"], strict=True):
        try:
            event = msgspec.convert(raw_event, Event)
        except (msgspec.ValidationError, UnicodeEncodeError):
            assert isinstance(one.error, InvalidEvent | CapacityError)
            continue
        if is_refused(event):
            assert isinstance(one.error, InvalidEvent | CapacityError)
        elif one.error is None:
            check(one, event.type, event.product_id, sides(event))
        else:
            # A key that stands twice, what has no room, or a number with escapes in it.
            told = str(one.error)
            assert "twice" in told or isinstance(one.error, CapacityError) or "\\" in told


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def is_typed(whole: Any) -> bool:
    try:
        found = msgspec.convert(whole, Message)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return 0 <= found.sequence_num < 2**63
