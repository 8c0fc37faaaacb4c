"""The sorted book: loading, applying, coverage, memory."""

from __future__ import annotations

import copy
import gc
import pickle
import random
from typing import Any

import pytest

from obframe._core import DepthSnapshot, DepthUpdate, Level, OrderBook
from obframe.errors import CapacityError
from obframe.testing.reference import ReferenceBook

_testcapi = pytest.importorskip("_testcapi", reason="needed to make memory run out")


def make_book(
    bids: list[Level], asks: list[Level], limit: int = 0, update_id: int = 10
) -> OrderBook:
    book = OrderBook("BTCUSDT")
    book.load(DepthSnapshot("BTCUSDT", update_id, bids, asks, limit))
    return book


def change(
    bids: list[Level] | None = None, asks: list[Level] | None = None, last: int = 11
) -> DepthUpdate:
    return DepthUpdate("BTCUSDT", last, last, last - 1, bids or [], asks or [])


def describe(book: OrderBook) -> tuple[Any, ...]:
    return (
        book.snapshot(1, 10_000).pack(), book.bids(), book.asks(), book.update_id,
        book.unknown_deletes, book.covers(1), book.covers(3), book.crossed,
    )  # fmt: skip


def test_an_empty_book() -> None:
    book = OrderBook("BTCUSDT")
    assert (book.symbol, book.update_id, book.bid_count, book.ask_count) == ("BTCUSDT", 0, 0, 0)
    assert (book.bids(), book.asks(5), book.crossed, book.unknown_deletes) == ([], [], False, 0)
    assert book.snapshot(5).pack() == b"\x94\x90\x90\x00\x05"
    assert repr(book) == "<OrderBook BTCUSDT at 0: 0 bids, 0 asks>"


def test_levels_come_out_best_first() -> None:
    book = make_book([("2", "1"), ("3", "1"), ("1", "1")], [("5", "1"), ("4", "1"), ("6", "1")])
    assert [price for price, _ in book.bids()] == ["3", "2", "1"]
    assert [price for price, _ in book.asks()] == ["4", "5", "6"]
    assert book.bids(1) == [("3", "1")]
    assert book.asks(2) == [("4", "1"), ("5", "1")]
    assert book.bids(0) == []
    assert len(book.asks(99)) == 3


def test_applying_sets_replaces_and_deletes() -> None:
    book = make_book([("3", "1"), ("2", "1"), ("1", "1")], [("4", "1")])
    book.apply(change([("2.5", "7"), ("3", "0"), ("1", "9")], [("4", "0.00"), ("5", "2")], 12))
    assert book.bids() == [("2.5", "7"), ("2", "1"), ("1", "9")]
    assert book.asks() == [("5", "2")]
    assert book.update_id == 12
    assert book.unknown_deletes == 0


def test_row_07_deletes_of_unknown_levels_are_counted() -> None:
    book = make_book([("3", "1")], [])
    book.apply(change([("2", "0"), ("3.0000", "0"), ("3", "0")], [("9", "0.0")]))
    assert book.unknown_deletes == 3
    assert (book.bids(), book.asks()) == ([], [])


def test_row_13_of_the_same_price_the_last_wins() -> None:
    book = make_book(
        [("1", "1"), ("1.0", "2")], [("2", "1"), ("2.00", "0"), ("3", "0"), ("3", "1")]
    )
    assert book.bids() == [("1.0", "2")]
    assert book.asks() == [("3", "1")]
    book.apply(
        change([("1", "5"), ("1.00", "6")], [("3", "2"), ("3", "0"), ("4", "0"), ("4", "1")])
    )
    assert book.bids() == [("1.00", "6")]
    assert book.asks() == [("4", "1")]
    assert book.unknown_deletes == 1


def test_row_14_the_last_spelling_of_a_price_is_kept() -> None:
    book = make_book([("1.5", "1.0"), ("1.40", "2")], [])
    assert book.bids() == [("1.5", "1.0"), ("1.40", "2")]
    book.apply(change([("1.50", "1.00")]))
    assert book.bids() == [("1.50", "1.00"), ("1.40", "2")]
    book.apply(change([("1.500000000000", "1"), ("1.400000000001", "3")]))
    assert book.bids() == [("1.500000000000", "1"), ("1.400000000001", "3"), ("1.40", "2")]
    book.apply(change([("1.5", "0")]))
    assert book.bids() == [("1.400000000001", "3"), ("1.40", "2")]


def test_rows_12_14_growing_decimals_leave_everything_exact() -> None:
    bids = [("1.000000000000000001", "1"), ("1", "1000000000000.12345678")]
    book = make_book([("18.4", "1"), ("0.5", "2.50")], [("18.44", "3")], limit=1)
    for price, quantity in bids:
        book.apply(change([(price, quantity)]))
    assert book.bids() == [("18.4", "1"), *bids, ("0.5", "2.50")]
    assert book.asks() == [("18.44", "3")]
    book.apply(change([("0.50", "7")], [("18.440", "0"), ("18.4400000000", "0")]))
    assert book.bids()[-1] == ("0.50", "7")
    assert book.asks() == []
    assert book.unknown_deletes == 1


def test_row_12_a_wider_scale_that_does_not_fit_changes_nothing() -> None:
    book = make_book([("61737.63", "1"), ("1", "1")], [("61737.64", "1")], limit=2)
    before = describe(book)
    with pytest.raises(CapacityError) as error:
        book.apply(change([("2", "2"), ("0.000000000000000001", "1")]))
    assert (error.value.symbol, error.value.field) == ("BTCUSDT", "bids")
    assert error.value.value == "61737.63000000"
    assert describe(book) == before
    book.apply(change([("0.000000000001", "1")]))
    before = describe(book)
    with pytest.raises(CapacityError) as error:
        book.apply(change([("3", "3")], [("7", "7"), ("99999999.5", "1")], 13))
    assert (error.value.field, error.value.value) == ("asks[1].price", "99999999.5")
    assert describe(book) == before


def test_row_12_the_edge_of_coverage_must_fit_a_wider_scale_too() -> None:
    book = make_book([], [("1", "1"), ("61737.64", "1")], limit=2)
    book.apply(change(asks=[("61737.64", "0")]))
    before = describe(book)
    with pytest.raises(CapacityError):
        book.apply(change(asks=[("0.000000000000000001", "1")]))
    assert describe(book) == before


def test_loading_starts_anew() -> None:
    book = make_book([("0.000000000000000001", "1")], [], limit=1)
    book.load(DepthSnapshot("BTCUSDT", 5, [("61737.63", "1")], [("99999999.99999999", "2")]))
    assert book.update_id == 5
    assert book.bids() == [("61737.63", "1")]
    assert book.asks() == [("99999999.99999999", "2")]
    assert book.covers(20)


def test_row_08_crossed_and_locked() -> None:
    assert not make_book([("1", "1")], [("1.01", "1")]).crossed
    assert make_book([("1.010", "1")], [("1.01", "1")]).crossed
    assert make_book([("2", "1")], [("1", "1")]).crossed
    assert not make_book([("2", "1")], []).crossed
    book = make_book([("1", "1")], [("2", "1")])
    book.apply(change([("2.000000000001", "1")]))
    assert book.crossed
    book.apply(change(asks=[("2", "0"), ("3", "1")]))
    assert not book.crossed


def test_row_09_one_side_empty_is_a_row() -> None:
    snapshot = make_book([("1", "1")], []).snapshot(7)
    assert (snapshot.bids, snapshot.asks, snapshot.update_id) == ([("1", "1")], [], 10)


def test_row_30_coverage() -> None:
    bids = [("10", "1"), ("9", "1"), ("8", "1")]
    asks = [("11", "1"), ("12", "1")]
    book = make_book(bids, asks, limit=3)  # the asks are all there are
    assert book.covers(0)
    assert book.covers(3)
    assert not book.covers(4)
    book.apply(change([("7", "1")]))
    assert not book.covers(4)  # the fourth lies beyond what the snapshot told
    book.apply(change([("8.5", "1")]))
    assert book.covers(4)
    book.apply(change([("8", "0")]))
    assert book.covers(3)
    assert not book.covers(4)
    book.apply(change([("0.000000000001", "1")]))
    assert book.covers(3)
    assert not book.covers(4)
    assert make_book(bids, asks).covers(20)
    assert not make_book(bids, asks, limit=2).covers()
    assert not make_book([], asks, limit=1).covers(3)
    book.clear()
    assert book.covers(20)


def test_clearing_gives_the_memory_back() -> None:
    book = make_book([(str(i), "1") for i in range(1, 3000)], [])
    full = book.nbytes
    book.clear()
    assert book.nbytes == make_book([], []).nbytes == OrderBook("X").nbytes < full / 50
    assert (book.update_id, book.bids(), book.bid_count) == (0, [], 0)
    book.apply(change([("1", "1")]))
    assert book.bids() == [("1", "1")]


def test_5000_levels_a_side_take_at_most_250_kb() -> None:
    rng = random.Random(1)
    levels = [(f"{price / 100:.2f}", "1.5") for price in rng.sample(range(1, 10**6), 10_000)]
    loaded = make_book(levels[:5000], levels[5000:])
    assert loaded.nbytes <= 250_000
    grown = make_book(levels[:100], levels[-100:])
    for i in range(100, 5000, 50):
        grown.apply(change(levels[i : i + 50], levels[-i - 50 : -i]))
    assert (grown.bid_count, grown.ask_count) == (5000, 5000)
    assert grown.nbytes <= 250_000


def test_memory_shrinks_when_levels_go() -> None:
    levels = [(str(price), "1") for price in range(1, 20_001)]
    book = make_book(levels, levels)
    full = book.nbytes
    book.apply(change([(price, "0") for price, _ in levels[100:]], []))
    assert book.nbytes < full * 0.6
    assert book.bid_count == 100
    assert book.bids(1) == [("100", "1")]


def test_an_update_or_snapshot_of_another_symbol_is_refused() -> None:
    book = make_book([("1", "1")], [])
    before = describe(book)
    with pytest.raises(ValueError, match="ETHUSDT"):
        book.apply(DepthUpdate("ETHUSDT", 11, 11, 10, [("1", "0")], []))
    with pytest.raises(ValueError, match="ETHUSDT"):
        book.load(DepthSnapshot("ETHUSDT", 11, [], []))
    with pytest.raises(ValueError, match="for the book of"):
        book.apply(DepthUpdate.__new__(DepthUpdate))
    assert describe(book) == before


def test_wrong_types_are_type_errors() -> None:
    book = make_book([("1", "1")], [])
    wrong: list[Any] = [None, 5, "x", object(), DepthSnapshot]
    for value in wrong:
        with pytest.raises(TypeError):
            book.apply(value)
        with pytest.raises(TypeError):
            book.load(value)
    for value in (None, 5, b"x"):
        with pytest.raises(TypeError):
            OrderBook(value)  # type: ignore[arg-type]
    for value in (1.5, "1", True, object()):
        with pytest.raises(TypeError):
            book.bids(value)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            book.covers(value)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            book.snapshot(1, value)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        book.covers(None)  # type: ignore[arg-type]
    for value in (None, 1.5, "1"):
        with pytest.raises(TypeError):
            book.snapshot(value)  # type: ignore[arg-type]
    for call in (book.bids, book.asks, book.covers):
        with pytest.raises(ValueError, match=r"^depth must not be negative: -1$"):
            call(-1)
    for levels in (book.bids, book.asks):
        with pytest.raises(ValueError, match=r"^start must not be negative: -1$"):
            levels(1, start=-1)
        with pytest.raises(TypeError, match=r"^start must be an int, not float$"):
            levels(1, start=1.0)  # type: ignore[arg-type]
    with pytest.raises(OverflowError, match=r"timestamp must fit 64 bits .* 0x8000000000000000"):
        book.snapshot(2**63)
    assert len(book.bids(2**80)) == 1
    with pytest.raises(TypeError, match="made already"):
        book.__init__("X")
    assert OrderBook.__new__(OrderBook).bids() == []


def test_books_are_neither_copied_nor_pickled() -> None:
    for value in (make_book([("1", "1")], []), change(), DepthSnapshot("A", 1, [], [])):
        with pytest.raises(TypeError):
            copy.copy(value)
        with pytest.raises(TypeError):
            pickle.dumps(value)


def test_an_update_of_many_changes_in_any_order() -> None:
    rng = random.Random(7)
    book, reference = make_book([], []), ReferenceBook()
    for last in range(11, 40):
        sides = [
            [
                (str(rng.randrange(1, 3000)), str(rng.choice((0, 0, 1, 2.5))))
                for _ in range(rng.choice((0, 1, 30, 1200)))
            ]
            for _ in range(2)
        ]
        if last % 3 == 0:
            sides[0].sort(key=lambda level: int(level[0]))
        book.apply(change(sides[0], sides[1], last))
        reference.apply(last, *sides)
        assert book.bids() == reference.bids()
        assert book.asks() == reference.asks()


def test_running_out_of_memory_changes_nothing() -> None:
    update = change(
        [(f"{i}.5", "1") for i in range(200)], [(f"{i}.000000000001", "1") for i in range(1, 200)]
    )
    snapshot = DepthSnapshot("BTCUSDT", 3, [(str(i + 1), "2") for i in range(300)], [("7", "0")], 9)
    seen = set()
    for name, argument in (("apply", update), ("load", snapshot)):
        for nth in range(12):
            book = make_book([("1", "1"), ("2", "2")], [("3", "3")], limit=2)
            before = describe(book)
            call = getattr(book, name)
            failed = False
            _testcapi.set_nomemory(nth, nth + 1)
            try:
                call(argument)
            except MemoryError:
                failed = True
            finally:
                _testcapi.remove_mem_hooks()
            seen.add((name, failed))
            if failed:
                assert describe(book) == before
            else:
                assert book.update_id == (11 if name == "apply" else 3)
    assert seen == {("apply", True), ("apply", False), ("load", True), ("load", False)}


def test_listing_survives_whatever_the_garbage_collector_starts() -> None:
    """Objects made for the answer may start a finaliser, or another thread, that uses the book."""
    levels = [(str(price), "1") for price in range(5_000, 0, -1)]
    book = make_book(levels, [("9999", "1")])
    ran = []

    def clear(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            book.clear()
            ran.append(book.bid_count)

    thresholds = gc.get_threshold()
    gc.callbacks.append(clear)
    gc.set_threshold(100)
    try:
        listed = book.bids()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(clear)
    assert ran
    assert listed == levels


def test_a_depth_that_changes_the_book_while_it_is_judged() -> None:
    book = make_book([("2", "1"), ("1", "1")], [("3", "1")])

    class Depth(int):
        def __lt__(self, other: object) -> bool:
            book.clear()
            return False

    assert book.bids(Depth(2)) == []
    assert book.asks(Depth(2)) == []
    book = make_book([("2", "1"), ("1", "1")], [("3", "1")])
    assert book.bids(start=Depth(1)) == []
    book = make_book([("2", "1"), ("1", "1")], [("3", "1")])
    assert book.digits(Depth(2), 0, 0) == b""


def test_digits_are_what_checksums_are_made_of() -> None:
    book = make_book([("0.05000", "0.00000304"), ("0.04", "12")], [("10.5", "1.50")])
    assert book.digits(10, 0, 0) == b"105" + b"150" + b"5000" + b"304" + b"4" + b"12"
    assert book.digits(1, 5, 8) == b"1050000" + b"150000000" + b"5000" + b"304"
    assert book.digits(0, 5, 8) == b""
    assert len(make_book([(str(i + 1), "1" * 30) for i in range(300)], []).digits(300, 31, 31))
    for bad in (-1, 32, 10**30):
        with pytest.raises(ValueError, match="price_decimals"):
            book.digits(1, bad, 0)
    with pytest.raises(TypeError, match="quantity_decimals"):
        book.digits(1, 0, True)


def test_a_book_may_bear_another_name_than_its_venue_gives_it() -> None:
    book = OrderBook("kraken/BTC/USD", "BTC/USD")
    book.load(DepthSnapshot("BTC/USD", 1, [("1", "1")], []))
    book.apply(DepthUpdate("BTC/USD", 2, 2, 1, [("2", "1")], []))
    assert (book.symbol, book.snapshot(5).symbol) == ("kraken/BTC/USD", "kraken/BTC/USD")
    with pytest.raises(ValueError, match="for the book of BTC/USD"):
        book.apply(DepthUpdate("kraken/BTC/USD", 3, 3, 2, [], []))


def test_a_long_life_keeps_no_memory(kept_memory: Any) -> None:
    rng = random.Random(3)
    updates = [
        change([(str(rng.randrange(1, 500)), str(rng.randrange(3))) for _ in range(30)])
        for _ in range(50)
    ]
    snapshot = DepthSnapshot("BTCUSDT", 1, [(str(i + 1), "1") for i in range(400)], [("1", "1")])
    book = OrderBook("BTCUSDT")

    def work() -> None:
        book.load(snapshot)
        for update in updates:
            book.apply(update)
            book.snapshot(5).bids.clear()
        book.clear()

    assert kept_memory(work, 1, 20) < 5_000
