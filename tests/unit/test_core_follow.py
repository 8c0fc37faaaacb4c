"""A book that follows raw messages by itself: the rule of continuity, whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import json
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import pytest

from obframe._core import DepthSnapshot, DepthUpdate, Level, OrderBook, parse_depth_update
from obframe.errors import (
    CapacityError,
    InvalidEvent,
    MalformedMessage,
    MessageError,
    ObframeError,
    SequenceError,
)

_testcapi = pytest.importorskip("_testcapi", reason="needed to make memory run out")

AT = 100  # where books stand that nobody says more of
BIDS = [("3", "1"), ("2.50", "7"), ("1", "1.0")]
ASKS = [("4", "1"), ("5", "2")]


def write_levels(levels: Iterable[Level]) -> str:
    return json.dumps([list(level) for level in levels], separators=(",", ":"))


def message(
    prev: int,
    last: int,
    bids: Iterable[Level] = (("2.5", "8"), ("9", "0")),
    asks: Iterable[Level] = (("4.5", "3"),),
    *,
    symbol: str = '"BTCUSDT"',
    futures: bool = False,
    first: int | None = None,
    form: str = "raw",
) -> bytes:
    """Write an event; its ``U`` is one above ``prev``, of futures up to ``last`` at most.

    Args:
        symbol: As JSON.
        form: ``raw``, ``wrapped``, ``long`` (raw, and long enough for its header to be read at
            once), ``spaced`` or ``turned``, its fields the other way round.
    """
    if first is None:
        first = min(prev + 1, last) if futures else prev + 1
    fields = {
        "e": '"depthUpdate"', "E": "1723161255208", "s": symbol, "U": str(first), "u": str(last),
        "pu": str(prev) if futures else "", "b": write_levels(bids), "a": write_levels(asks),
    }  # fmt: skip
    if form == "long":
        fields["x"] = '"' + 200 * "x" + '"'
    if form == "turned":
        fields = dict(reversed(fields.items()))
    comma, colon = (" ,\n", " : ") if form == "spaced" else (",", ":")
    inside = comma.join(f'"{key}"{colon}{value}' for key, value in fields.items() if value)
    text = "{" + inside + "}"
    if form == "wrapped":
        text = '{"stream":"btcusdt@depth@100ms","data":' + text + "}"
    return text.encode()


FORMS = ["raw", "wrapped", "long", "spaced", "turned"]


def make_book(
    at: int = AT,
    bids: Iterable[Level] = BIDS,
    asks: Iterable[Level] = ASKS,
    *,
    limit: int = 0,
    name: str = "BTCUSDT",
) -> OrderBook:
    book = OrderBook(name)
    book.load(DepthSnapshot(name, at, list(bids), list(asks), limit))
    return book


def describe(book: OrderBook) -> tuple[Any, ...]:
    return (
        book.snapshot(1, 100_000).pack(), book.bids(), book.asks(), book.update_id,
        book.unknown_deletes, book.covers(1), book.covers(20), book.crossed, book.nbytes,
    )  # fmt: skip


def outcome_of(call: Callable[[], object]) -> object:
    """Return what a call returns, or the kind, the text and the attributes of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error), vars(error)


# -- the same as parsing and applying --------------------------------------------------------------


def draw_side(rng: random.Random) -> list[Level]:
    fine = ".000000000001" if rng.random() < 0.02 else f".{rng.randrange(100):02}"
    wide = "4722366482869645213696.5" if rng.random() < 0.02 else "1.50"
    return [
        (f"{rng.randrange(1, 900)}{fine}", rng.choice(("0", "0.000", wide, f"{rng.random():.6f}")))
        for _ in range(rng.choice((0, 1, 5, 30, 127, 128, 129, 400)))
    ]


@pytest.mark.parametrize("futures", [False, True])
def test_following_is_parsing_and_applying(futures: bool) -> None:
    rng = random.Random(11)
    levels = [(f"{price}.50", "2") for price in range(1, 800)]
    book, twin = (make_book(bids=levels, asks=levels, limit=500) for _ in range(2))
    at = AT
    for number in range(200):
        last = at + rng.randrange(1, 50)
        raw = message(
            at, last, draw_side(rng), draw_side(rng), futures=futures, form=FORMS[number % 5]
        )
        data = rng.choice((bytes, bytearray, memoryview))(raw)
        update = parse_depth_update(raw, futures)
        assert update is not None
        assert book.follow(data, futures) is True
        twin.apply(update)
        assert describe(book) == describe(twin)
        at = last
    assert book.update_id == at
    assert book.unknown_deletes > 1_000


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("futures", [False, True])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_each_form_and_kind_of_bytes(form: str, futures: bool, kind: Callable[..., Any]) -> None:
    book = make_book()
    raw = message(AT, 105, futures=futures, form=form)
    assert book.follow(kind(raw), futures=futures) is True
    assert book.bids() == [("3", "1"), ("2.5", "8"), ("1", "1.0")]
    assert book.asks() == [("4", "1"), ("4.5", "3"), ("5", "2")]
    assert (book.update_id, book.unknown_deletes) == (105, 1)
    part = memoryview(b"x" + message(105, 110, futures=futures, form=form) + b"x")[1:-1]
    assert book.follow(part, futures) is True
    assert book.update_id == 110


@pytest.mark.parametrize("count", [127, 128, 129, 1000])
def test_more_levels_than_stand_ready(count: int) -> None:
    many = [(f"{price}.25", "2") for price in range(1, count + 1)]
    for bids, asks in ((many, []), ([], many), (many, many[:3]), (many, many)):
        book = make_book(bids=[], asks=[])
        assert book.follow(message(AT, 105, bids, asks))
        assert (book.bids(), book.asks()) == (bids[::-1], asks)
        with pytest.raises(SequenceError):
            book.follow(message(200, 205, asks, bids))
        assert not book.follow(message(AT, 105, asks, bids))
        assert (book.bids(), book.asks()) == (bids[::-1], asks)


# -- continuity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("futures", [False, True])
@pytest.mark.parametrize(
    ("prev", "last"), [(100, 105), (100, 101), (99, 105), (99, 100), (-1, 100), (0, 100), (0, 900)]
)
def test_the_first_message_joins_around_the_snapshots_id(
    prev: int, last: int, futures: bool
) -> None:
    if futures and prev < 0:
        prev = 0
    book = make_book()
    assert book.follow(message(prev, last, futures=futures), futures) is True
    assert book.update_id == last
    assert book.bids(2)[1] == ("2.5", "8")
    assert book.follow(message(last, last + 1, [("2.5", "9")], futures=futures), futures) is True
    assert (book.update_id, book.bids(2)[1]) == (last + 1, ("2.5", "9"))


@pytest.mark.parametrize("futures", [False, True])
def test_what_ends_before_the_snapshot_is_old_until_one_joins(futures: bool) -> None:
    book = make_book()
    before = describe(book)
    for prev, last in ((0, 1), (90, 95), (97, 98), (0, 99), (98, 99)):
        assert book.follow(message(prev, last, futures=futures), futures) is False
        assert describe(book) == before
    assert book.follow(message(99, 103, futures=futures), futures) is True
    assert book.update_id == 103


@pytest.mark.parametrize("futures", [False, True])
def test_what_is_in_the_book_already_changes_nothing(futures: bool) -> None:
    book = make_book()
    assert book.follow(message(95, 110, futures=futures), futures)
    before = describe(book)
    for prev, last in ((95, 110), (109, 110), (0, 110), (99, 105), (50, 60), (0, 1)):
        assert book.follow(message(prev, last, [("7", "7")], futures=futures), futures) is False
        assert describe(book) == before
    assert book.follow(message(110, 111, futures=futures), futures) is True


@pytest.mark.parametrize("futures", [False, True])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("prev", "last"), [(101, 105), (101, 102), (5000, 5001)])
def test_a_gap_is_told_and_leaves_the_book(
    prev: int, last: int, joined: bool, futures: bool
) -> None:
    book = make_book()
    if joined:
        assert book.follow(message(99, AT, futures=futures), futures)
    before = describe(book)
    with pytest.raises(SequenceError) as error:
        book.follow(message(prev, last, [("7", "7")], futures=futures), futures)
    assert error.value.symbol == "BTCUSDT"
    assert error.value.update_id == AT
    assert error.value.prev_update_id == prev
    assert error.value.last_update_id == last
    assert str(error.value) == (
        f"BTCUSDT: the book stands at 100, and the update begins after {prev} (to {last}): "
        "load a new snapshot"
    )
    assert isinstance(error.value, ObframeError)
    assert not isinstance(error.value, (ValueError, MessageError))
    assert describe(book) == before
    assert book.follow(message(AT, 103, futures=futures), futures) is True
    assert (book.update_id, book.bids(2)[1]) == (103, ("2.5", "8"))


@pytest.mark.parametrize("futures", [False, True])
def test_a_message_that_overlaps_the_book_joins_only_at_first(futures: bool) -> None:
    book = make_book()
    assert book.follow(message(95, 110, futures=futures), futures)
    before = describe(book)
    with pytest.raises(SequenceError) as error:
        book.follow(message(105, 115, [("7", "7")], futures=futures), futures)
    assert (error.value.update_id, error.value.prev_update_id) == (110, 105)
    assert describe(book) == before


def test_ids_of_futures_are_joined_by_pu_whatever_u_begins_with() -> None:
    book = make_book()
    assert book.follow(message(AT, 180, futures=True, first=150), True)
    assert book.follow(message(180, 190, futures=True, first=190), True)
    with pytest.raises(SequenceError) as error:
        book.follow(message(189, 200, futures=True, first=191), True)
    assert error.value.prev_update_id == 189
    # The same bytes taken for those of spot begin at U.
    assert book.follow(message(189, 200, futures=True, first=191)) is True


def test_an_update_that_spans_nothing_and_follows_is_applied() -> None:
    book = make_book()
    for _ in range(2):
        assert book.follow(message(AT, AT, [("7", "7")], futures=True), True) is True
        assert (book.update_id, book.bids(1)) == (AT, [("7", "7")])


@pytest.mark.parametrize(("prev", "last"), [(106, 105), (2**63 - 1, 105), (100, 99), (50, 40)])
@pytest.mark.parametrize("joined", [False, True])
def test_futures_that_end_before_they_begin_are_refused(prev: int, last: int, joined: bool) -> None:
    book = make_book()
    if joined:
        assert book.follow(message(99, AT, futures=True), True)
    before = describe(book)
    raw = message(prev, last, futures=True)
    assert parse_depth_update(raw, True) is not None
    with pytest.raises(InvalidEvent, match="above the event's own last update id") as error:
        book.follow(raw, True)
    assert (error.value.symbol, error.value.field) == ("BTCUSDT", "pu")
    assert error.value.value == str(prev)
    assert describe(book) == before
    assert book.follow(message(AT, 103, futures=True), True)


def test_the_smallest_and_the_largest_ids() -> None:
    book = make_book(at=0)
    assert book.follow(message(-1, 0)) is True
    book = make_book(at=2**63 - 2)
    assert book.follow(message(2**63 - 2, 2**63 - 1)) is True
    assert book.follow(message(2**63 - 2, 2**63 - 1)) is False
    assert book.update_id == 2**63 - 1
    book = make_book(at=0)
    with pytest.raises(SequenceError) as error:
        book.follow(message(2**63 - 2, 2**63 - 1))
    assert error.value.prev_update_id == 2**63 - 2


# -- load, clear and apply -------------------------------------------------------------------------


def test_after_a_snapshot_the_book_joins_anew() -> None:
    book = make_book()
    assert book.follow(message(AT, 110))
    with pytest.raises(SequenceError):
        book.follow(message(105, 115))
    book.load(DepthSnapshot("BTCUSDT", 112, BIDS, ASKS))
    assert not book.follow(message(105, 111))
    assert book.follow(message(105, 115))
    assert book.update_id == 115
    book.load(DepthSnapshot("BTCUSDT", 50, [], []))  # an older one too
    assert book.follow(message(40, 50))
    assert book.follow(message(50, 60))
    assert (book.update_id, book.bids()) == (60, [("2.5", "8")])


def test_a_snapshot_of_another_symbol_leaves_the_book_joined() -> None:
    book = make_book()
    assert book.follow(message(AT, 110))
    with pytest.raises(ValueError, match="ETHUSDT"):
        book.load(DepthSnapshot("ETHUSDT", 112, [], []))
    with pytest.raises(SequenceError):
        book.follow(message(105, 115))


def test_a_book_without_a_snapshot_stands_at_nothing() -> None:
    for book in (OrderBook("BTCUSDT"), make_book()):
        book.clear()
        with pytest.raises(SequenceError) as error:
            book.follow(message(AT, 110))
        assert error.value.update_id == 0
        assert (book.update_id, book.bids(), book.asks()) == (0, [], [])
        assert book.follow(message(0, 5))
        assert (book.update_id, book.bids()) == (5, [("2.5", "8")])
        with pytest.raises(SequenceError):
            book.follow(message(4, 7))
        book.clear()
        assert book.follow(message(-1, 7))


def test_applying_and_following_take_turns() -> None:
    book = make_book()
    book.apply(DepthUpdate("BTCUSDT", 101, 104, 100, [("3", "0")], []))
    assert book.follow(message(101, 104)) is False
    with pytest.raises(SequenceError) as error:  # one that was applied has joined the book
        book.follow(message(99, 105))
    assert error.value.update_id == 104
    assert book.follow(message(104, 107)) is True
    book.apply(DepthUpdate("BTCUSDT", 108, 109, 107, [], [("4", "0")]))
    assert book.follow(message(109, 110)) is True
    assert book.update_id == 110
    assert book.bids() == [("2.5", "8"), ("1", "1.0")]
    assert book.asks() == [("4.5", "3"), ("5", "2")]


def test_books_of_several_symbols_from_one_stream() -> None:
    books = {name: make_book(name=name) for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT")}
    for last in range(AT + 1, AT + 30):
        for name, book in books.items():
            level = (f"{last}.{ord(name[0])}", "1")
            assert book.follow(message(last - 1, last, [level], symbol=f'"{name}"'))
            assert book.bids(1) == [level]


# -- other messages and other symbols --------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        b'{"result":null,"id":1}',
        b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
        b'{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1","q":"1","T":1,"m":true}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","U":101,"u":102}}',
        b'{"stream":"btcusdt@bookTicker","data":{"u":101,"s":"BTCUSDT","b":"1","B":"1"}}',
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"lastUpdateId":105,"bids":[["1","1"]],"asks":[]}',
        b'{"e":"kline","data":{"e":"depthUpdate","s":"BTCUSDT","U":101,"u":102,"b":[],"a":[]}}',
        b"[]",
        b"null",
        b"{}",
    ],
)
@pytest.mark.parametrize("futures", [False, True])
def test_messages_of_another_kind_are_passed_over(other: bytes, futures: bool) -> None:
    book = make_book()
    before = describe(book)
    assert book.follow(other, futures) is False
    assert describe(book) == before
    assert book.follow(message(99, AT, futures=futures), futures)  # it still has to join
    assert book.follow(other, futures) is False
    assert book.follow(message(AT, 101, futures=futures), futures)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("BTCUSDT", r'"BTC\u0055SDT"'),
        ("BTCUSDT", r'"\u0042\u0054\u0043\u0055\u0053\u0044\u0054"'),
        ("A", '"A"'),
        ("A/B", r'"A\/B"'),
        ('A"\\\n', r'"A\"\\\n"'),
        ("A\0B", r'"A\u0000B"'),
        ("ÄÖ", '"ÄÖ"'),
        ("ÄÖ", r'"\u00c4\u00d6"'),
        ("币安人生USDT", '"币安人生USDT"'),
        ("币安人生USDT", r'"\u5e01安人生USDT"'),
        ("😀", '"😀"'),
        ("😀", r'"\ud83d\ude00"'),
        ("X" * 15, '"' + "X" * 15 + '"'),
        ("X" * 16, '"' + "X" * 16 + '"'),
        ("X" * 17, '"' + "X" * 17 + '"'),
        ("X" * 300, '"' + "X" * 300 + '"'),
        ("X" * 300, '"' + "X" * 299 + r'\u0058"'),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_symbol_is_the_same_however_it_is_written(name: str, written: str, form: str) -> None:
    book = make_book(name=name)
    assert book.follow(message(AT, 105, symbol=written, form=form)) is True
    assert book.update_id == 105


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("BTCUSDT", '"ETHUSDT"'),
        ("BTCUSDT", '"BTCUSD"'),
        ("BTCUSDT", '"BTCUSDTX"'),
        ("BTCUSDT", '"XBTCUSDT"'),
        ("BTCUSDT", '"B"'),
        ("BTCUSDT", '"btcusdt"'),
        ("BTCUSDT", '"BTCUSDT "'),
        ("BTCUSDT", r'"BTCUSDT\u0000"'),
        ("BTCUSDT", r'"ETC\u0055SDT"'),
        ("BTCUSDT", '"BTCUSDÄ"'),
        ("BTCUSDT", '"BTCUSÄ"'),
        ("BTCUSDT", '"币安人生USDT"'),
        ("BTCUSDT", '"' + "BTCUSDT" * 40 + '"'),
        ("币安人生USDT", '"BTCUSDT"'),
        ("币安人生USDT", '"币安人生USD"'),
        ("币安人生USDT", '"币安人死USDT"'),
        ("ÄÖ", '"ÄO"'),
        ("ÄÖ", r'"\u00c4\u00d5"'),
        ("X" * 16, '"' + "X" * 15 + 'Y"'),
        ("X" * 17, '"' + "X" * 16 + 'Y"'),
        ("X" * 17, '"' + "X" * 16 + '"'),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_another_symbol_is_refused_as_applying_refuses_it(
    name: str, written: str, form: str
) -> None:
    book = make_book(name=name)
    before = describe(book)
    for prev, last in ((AT, 105), (500, 505), (1, 5)):  # whether it would follow or not
        raw = message(prev, last, symbol=written, form=form)
        update = parse_depth_update(raw)
        assert update is not None
        refused = outcome_of(lambda update=update: book.apply(update))
        assert isinstance(refused, tuple)
        assert refused[0] is ValueError
        assert outcome_of(lambda raw=raw: book.follow(raw)) == refused
        assert json.loads(written) in refused[1]
        assert describe(book) == before
    assert book.follow(message(99, 105, symbol=json.dumps(name)))


def test_a_book_may_bear_another_name_than_its_venue_gives_it() -> None:
    book = OrderBook("X.BINANCE", "X")
    book.load(DepthSnapshot("X", AT, BIDS, ASKS))
    assert book.follow(message(AT, 105, symbol='"X"')) is True
    assert (book.symbol, book.snapshot(5).symbol) == ("X.BINANCE", "X.BINANCE")
    with pytest.raises(ValueError, match=r"an update of X\.BINANCE for the book of X$"):
        book.follow(message(105, 106, symbol='"X.BINANCE"'))
    with pytest.raises(SequenceError, match=r"^X\.BINANCE: ") as error:
        book.follow(message(106, 107, symbol='"X"'))
    assert error.value.symbol == "X.BINANCE"
    with pytest.raises(InvalidEvent) as refused:
        book.follow(message(106, 105, symbol='"X"', futures=True), True)
    assert refused.value.symbol == "X"
    assert book.update_id == 105


# -- errors ----------------------------------------------------------------------------------------


def damage(old: str, new: str, form: str = "raw", futures: bool = False) -> bytes:
    whole = message(AT, 105, form=form, futures=futures).decode()
    assert old in whole
    return whole.replace(old, new).encode()


BAD: list[tuple[bytes, type[Exception]]] = [
    (b"", MalformedMessage),
    (b"   ", MalformedMessage),
    (b"<html>", MalformedMessage),
    (message(AT, 105)[:-1], MalformedMessage),
    (message(AT, 105, form="wrapped")[:-20], MalformedMessage),
    (message(AT, 105) + b"}", MalformedMessage),
    (message(AT, 105) + message(105, 106), MalformedMessage),
    (message(AT, 105).replace(b"BTCUSDT", b"BTC\xffSDT"), MalformedMessage),
    (damage('"u":', '"x":' + "[" * 70 + "]" * 70 + ',"u":'), MalformedMessage),
    (damage('"a":', '"a"'), MalformedMessage),
    (damage('"U":101', '"U":"101"'), InvalidEvent),
    (damage('"U":101', '"U":-1'), InvalidEvent),
    (damage('"U":101', '"U":106'), InvalidEvent),
    (damage('"u":105', '"u":1.5'), InvalidEvent),
    (damage('"u":105', '"u":9223372036854775808'), InvalidEvent),
    (damage('"u":105,', ""), InvalidEvent),
    (damage('"U":101,', ""), InvalidEvent),
    (damage('"s":"BTCUSDT",', ""), InvalidEvent),
    (damage('"s":"BTCUSDT",', "", form="wrapped"), InvalidEvent),
    (damage('"BTCUSDT"', '""'), InvalidEvent),
    (damage('"BTCUSDT"', "7"), InvalidEvent),
    (damage('"BTCUSDT"', r'"\ud83d"'), InvalidEvent),
    (damage('"b":', '"x":'), InvalidEvent),
    (damage('"b":', '"a":'), InvalidEvent),
    (damage('"2.5"', '"0"'), InvalidEvent),
    (damage('"2.5"', "2.5"), InvalidEvent),
    (damage('"8"', '"-8"'), InvalidEvent),
    (damage('"8"', '"NaN"'), InvalidEvent),
    (damage('["4.5","3"]', '["4.5"]'), InvalidEvent),
    (damage("}}", '},"data":{}}', form="wrapped"), InvalidEvent),
    (damage('"stream":', '"stream":"x@depth","stream":', form="wrapped"), InvalidEvent),
    (damage('"2.5"', '"184467440737.09551616"'), CapacityError),
    (damage('"2.5"', '"0.1234567890123456789"'), CapacityError),
    (damage('"3"', '"' + "9" * 39 + '"'), CapacityError),
]


@pytest.mark.parametrize(("raw", "kind"), BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("futures", [False, True])
def test_what_parsing_refuses_is_refused_in_the_same_words(
    raw: bytes, kind: type[Exception], futures: bool
) -> None:
    book = make_book()
    before = describe(book)
    refused = outcome_of(lambda: parse_depth_update(raw, futures))
    assert isinstance(refused, tuple)
    if not futures:
        assert refused[0] is kind
    for _ in range(2):
        assert outcome_of(lambda: book.follow(raw, futures)) == refused
        assert describe(book) == before
    assert book.follow(message(99, 103, futures=futures), futures)  # it did not join by that


def test_futures_without_pu_are_refused() -> None:
    book = make_book()
    with pytest.raises(InvalidEvent, match="missing") as error:
        book.follow(message(AT, 105), futures=True)
    assert (error.value.symbol, error.value.field) == ("BTCUSDT", "pu")


def test_what_is_refused_is_so_whatever_its_ids_and_its_symbol() -> None:
    book = make_book()
    for prev, last, symbol in ((1, 5, "BTCUSDT"), (500, 505, "BTCUSDT"), (AT, 105, "ETHUSDT")):
        with pytest.raises(InvalidEvent) as error:
            book.follow(message(prev, last, [("x", "1")], symbol=f'"{symbol}"'))
        assert (error.value.symbol, error.value.field) == (symbol, "bids[0].price")


@pytest.mark.parametrize("joined", [False, True])
def test_what_does_not_fit_the_book_is_refused_as_applying_refuses_it(joined: bool) -> None:
    far = [("61737.63", "1")]
    book, twin = (make_book(bids=[*far, ("1", "1")], asks=[("61737.64", "1")]) for _ in range(2))
    for each in (book, twin):
        if joined:
            assert each.follow(message(99, AT, [], []))
    fine = [("2", "2"), ("0.000000000000000001", "1")]
    coarse = [("3", "3"), ("99999999.5", "1")]
    for bids, asks, field in ((fine, [], "bids"), ([], coarse, "asks[1].price")):
        before = describe(book)
        raw = message(AT if field == "bids" else 101, 102, bids, asks)
        update = parse_depth_update(raw)
        assert update is not None
        refused = outcome_of(lambda update=update: twin.apply(update))
        assert isinstance(refused, tuple)
        assert (refused[0], refused[2]["field"]) == (CapacityError, field)
        assert outcome_of(lambda raw=raw: book.follow(raw)) == refused
        assert describe(book) == before == describe(twin)
        for each in (book, twin):  # a price that widens the scale, so that the next does not fit
            if field == "bids":
                assert each.follow(message(AT, 101, [("0.000000000001", "1")], []))


def test_a_capacity_error_does_not_join() -> None:
    book = make_book(bids=[("61737.63", "1")], asks=[])
    with pytest.raises(CapacityError):
        book.follow(message(AT, 105, [("0.000000000000000001", "1")], []))
    assert book.follow(message(90, 103, [], [])) is True  # as only a first one may


def test_old_and_foreign_messages_need_not_fit_the_book() -> None:
    book = make_book(bids=[("61737.63", "1")], asks=[])
    fine = [("0.000000000000000001", "1")]
    assert book.follow(message(90, 99, fine)) is False
    with pytest.raises(SequenceError):
        book.follow(message(101, 105, fine))
    with pytest.raises(ValueError, match="ETHUSDT"):
        book.follow(message(AT, 105, fine, symbol='"ETHUSDT"'))


def test_what_is_missing_is_named() -> None:
    book = make_book()
    with pytest.raises(InvalidEvent, match=r"^BTCUSDT: u is missing$") as error:
        book.follow(b'{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":101,"b":[],"a":[]}')
    assert (error.value.field, error.value.value) == ("u", "")
    with pytest.raises(InvalidEvent, match=r"symbol is empty$"):
        DepthUpdate("", 1, 2, 0, [], [])
    with pytest.raises(InvalidEvent, match=r"bids\[0\]\.price = '': is not a plain decimal"):
        book.follow(message(AT, 105, [("", "1")]))


def test_wrong_types_are_type_errors() -> None:
    book = make_book()
    before = describe(book)
    wrong: list[Any] = [None, "text", 5, 1.5, [], object(), DepthUpdate("BTCUSDT", 1, 2, 0, [], [])]
    for data in wrong:
        with pytest.raises(TypeError, match=f"bytes are needed, .*not {type(data).__name__}"):
            book.follow(data)
    with pytest.raises(TypeError):
        book.follow()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        book.follow(message(AT, 105), False, 1)  # type: ignore[call-arg]
    with pytest.raises(BufferError):
        book.follow(memoryview(message(AT, 105))[::2])
    assert describe(book) == before


def test_a_book_that_was_never_made_takes_no_message() -> None:
    book = OrderBook.__new__(OrderBook)
    with pytest.raises(ValueError, match="for the book of"):
        book.follow(message(0, 1))
    assert book.follow(b"{}") is False


# -- memory ----------------------------------------------------------------------------------------

MANY = [(f"{price}.5", "1") for price in range(1, 300)]


def test_the_bytes_are_given_back_whatever_comes_of_them() -> None:
    for raw in (
        message(AT, 105), message(1, 5), message(500, 505), message(AT, 105, symbol='"X"'),
        message(AT, 105, MANY, MANY), message(AT, 105, [*MANY, ("x", "1")]), b"{}", b"{", b"",
    ):  # fmt: skip
        data = bytearray(raw)
        with contextlib.suppress(ObframeError, ValueError):
            make_book().follow(data)
        data += b"it may be resized"
        count = sys.getrefcount(raw)
        with contextlib.suppress(ObframeError, ValueError):
            make_book().follow(raw)
        assert sys.getrefcount(raw) == count


def test_an_update_keeps_its_content_while_a_book_follows_others() -> None:
    few, many = [("1", "1"), ("2", "2")], MANY[:140]
    for bids, asks in ((few, []), ([], few), (few, few[:1]), (many, few), (few, many)):
        for other in (
            message(AT, 105, [("7", "7")] * 128, [("8", "8")] * 128),
            message(AT, 105, MANY, MANY), message(500, 505, few), message(1, 5, MANY),
            message(AT, 105, [*few, ("x", "1")]), message(AT, 105, few, symbol='"X"'), b"{}", b"{",
        ):  # fmt: skip
            update = parse_depth_update(message(105, 107, bids, asks))
            assert update is not None
            book = make_book()
            with contextlib.suppress(ObframeError, ValueError):
                book.follow(other)
            assert (update.bids, update.asks) == (bids, asks)
            if book.update_id == 105:
                book.apply(update)
                assert book.update_id == 107
            del update
            assert make_book().follow(message(AT, 105, few))


def test_a_book_keeps_its_content_while_others_are_parsed_and_followed() -> None:
    book, other = make_book(bids=[], asks=[]), make_book(bids=[], asks=[])
    held = []
    for last in range(AT + 1, AT + 40):
        level = (str(last), "1")
        assert book.follow(message(last - 1, last, [level], []))
        held.append(parse_depth_update(message(last - 1, last, [level], [("9", "9")] * last)))
        assert other.follow(message(last - 1, last, [(str(last), "2")], []))
    prices = [str(last) for last in range(AT + 39, AT, -1)]
    assert book.bids() == [(price, "1") for price in prices]
    assert other.bids() == [(price, "2") for price in prices]
    for last, update in enumerate(held, AT + 1):
        assert update is not None
        assert (update.bids, len(update.asks)) == ([(str(last), "1")], last)


def test_a_flag_whose_code_parses_and_follows() -> None:
    book = make_book()
    kept: list[DepthUpdate | None] = []

    class Flag:
        def __bool__(self) -> bool:
            kept.append(parse_depth_update(message(7, 8, [("7", "7")], [])))
            book.follow(message(AT, 101, [("6", "6")], []))
            return False

    assert book.follow(message(101, 102, [("5", "5")], []), Flag()) is True  # type: ignore[arg-type]
    assert book.bids(2) == [("6", "6"), ("5", "5")]
    assert kept[0] is not None
    assert kept[0].bids == [("7", "7")]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no class gives its buffer by Python code")
def test_a_buffer_whose_code_uses_the_book() -> None:
    book = make_book()
    kept: list[DepthUpdate | None] = []

    class Meddling:
        def __buffer__(self, flags: int) -> memoryview:
            assert book.follow(message(AT, 101, [("6", "6")], []))
            kept.append(parse_depth_update(message(7, 8, [("7", "7")], [])))
            return memoryview(message(101, 102, [("5", "5")], []))

        def __release_buffer__(self, view: memoryview) -> None:
            kept.append(parse_depth_update(message(8, 9, [("8", "8")], [])))
            assert book.follow(message(102, 103, [("4", "4")], []))

    assert book.follow(Meddling()) is True  # type: ignore[arg-type]
    assert book.bids(4) == [("6", "6"), ("5", "5"), ("4", "4"), ("3", "1")]
    assert [update and update.bids for update in kept] == [[("7", "7")], [("8", "8")]]

    class Loading:
        def __buffer__(self, flags: int) -> memoryview:
            book.load(DepthSnapshot("BTCUSDT", 500, [], []))
            return memoryview(message(490, 505, [("5", "5")], []))

    assert book.follow(Loading()) is True  # type: ignore[arg-type]
    assert (book.update_id, book.bids()) == (505, [("5", "5")])


def test_running_out_of_memory_changes_nothing() -> None:
    raw = message(AT, 105, MANY, [(f"{i}.000000000001", "1") for i in range(1, 200)])
    seen = set()
    for nth in range(16):
        book = make_book(bids=[("1", "1"), ("2", "2")], asks=[("3", "3")], limit=2)
        kept = parse_depth_update(message(105, 106, [("1", "2")], []))
        before = describe(book)
        failed = False
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            book.follow(raw)
        except MemoryError:
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
        seen.add(failed)
        assert kept is not None
        assert kept.bids == [("1", "2")]
        if failed:
            # A scale that became wider meanwhile may stay: it shows in nothing.
            assert describe(book)[:-1] == before[:-1]
            assert book.follow(raw) is True
        assert (book.update_id, book.bid_count, book.ask_count) == (105, 301, 200)
    assert seen == {True, False}


def test_a_buffer_of_items_without_a_size_is_given_back() -> None:
    class Nothing(ctypes.Structure):
        _fields_: ClassVar[list[tuple[str, type]]] = []

    data: Any = (Nothing * 3)()
    before = sys.getrefcount(data)
    for _ in range(10):
        with pytest.raises(MalformedMessage):
            make_book().follow(data)
    assert sys.getrefcount(data) == before


def test_no_memory_is_kept_of_messages(kept_memory: Any) -> None:
    book = make_book()
    wide = [("1", "99999999999999999999.12345678")]  # of more than 64 bits
    taken = [
        message(AT, 105), message(AT, 105, MANY, MANY), message(AT, 105, form="wrapped"),
        message(AT, 105, MANY, MANY, form="wrapped"), message(AT, 105, wide, MANY),
    ]  # fmt: skip
    refused = [
        message(1, 5, MANY), message(500, 505, MANY, MANY), message(AT, 105, [*MANY, ("x", "1")]),
        message(AT, 105, MANY, symbol=r'"\u0058"'), message(AT, 105, MANY)[:-3], b"{}",
        message(500, 505, MANY, MANY, form="wrapped"),
        message(AT, 105, [*MANY, ("x", "1")], MANY, form="wrapped"),
    ]  # fmt: skip
    snapshot = DepthSnapshot("BTCUSDT", AT, BIDS, ASKS)

    def work() -> None:
        for raw in taken:
            book.load(snapshot)
            assert book.follow(memoryview(raw))
            book.clear()
        book.load(snapshot)
        for raw in refused:
            with contextlib.suppress(ObframeError, ValueError):
                book.follow(raw)
        book.clear()

    assert kept_memory(work, 20, 200) < 5_000
