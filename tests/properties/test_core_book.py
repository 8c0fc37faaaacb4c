"""The core's book against the plain reference book, under streams that Hypothesis draws."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from obframe._core import DepthSnapshot, DepthUpdate, OrderBook, Snapshot
from obframe.testing.reference import ReferenceBook
from obframe.testing.strategies import DepthStream, Diff, Level, depth_streams, levels


def make_update(diff: Diff) -> DepthUpdate:
    return DepthUpdate("BTCUSDT", diff.first, diff.last, diff.first - 1, diff.bids, diff.asks)


def start(stream: DepthStream) -> tuple[OrderBook, ReferenceBook]:
    book = OrderBook("BTCUSDT")
    book.load(DepthSnapshot("BTCUSDT", stream.last_update_id, stream.bids, stream.asks))
    reference = ReferenceBook()
    reference.load(stream.last_update_id, stream.bids, stream.asks)
    return book, reference


def assert_same(book: OrderBook, reference: ReferenceBook) -> None:
    assert book.bids() == reference.bids()
    assert book.asks() == reference.asks()
    assert book.update_id == reference.update_id
    assert book.crossed == reference.crossed
    assert (book.bid_count, book.ask_count) == (len(reference.bids()), len(reference.asks()))


@given(depth_streams(), st.integers(0, 12), st.integers(0, 31), st.integers(0, 31))
def test_digits_and_parts_are_those_of_the_reference_book(
    stream: DepthStream, depth: int, price_decimals: int, quantity_decimals: int
) -> None:
    book, reference = start(stream)
    for diff in stream.diffs:
        book.apply(make_update(diff))
        reference.apply(diff.last, diff.bids, diff.asks)
    expected = "".join(
        strip(price, price_decimals) + strip(quantity, quantity_decimals)
        for price, quantity in (*reference.asks(depth), *reference.bids(depth))
    )
    assert book.digits(depth, price_decimals, quantity_decimals) == expected.encode()
    assert book.bids(start=depth) == reference.bids()[depth:]
    assert book.asks(3, start=depth) == reference.asks()[depth : depth + 3]


def strip(number: str, decimals: int) -> str:
    whole, _, fraction = number.partition(".")
    return (whole + fraction.ljust(decimals, "0")).lstrip("0")


@given(depth_streams())
def test_rows_12_13_14_book_equals_the_reference_book(stream: DepthStream) -> None:
    """Huge quantities, prices that come twice, decimals that grow, deletes of what is not there."""
    book, reference = start(stream)
    assert_same(book, reference)
    unknown = 0
    for diff in stream.diffs:
        unknown += count_unknown(reference, diff)
        book.apply(make_update(diff))
        reference.apply(diff.last, diff.bids, diff.asks)
        assert_same(book, reference)
        assert book.unknown_deletes == unknown


def count_unknown(reference: ReferenceBook, diff: Diff) -> int:
    """Count the deletes that hit nothing, one change after the other."""
    unknown = 0
    for held, changes in ((reference.bids(), diff.bids), (reference.asks(), diff.asks)):
        known = {to_number(price) for price, _ in held}
        for price, quantity in changes:
            key = to_number(price)
            if quantity.strip("0."):
                known.add(key)
            elif key in known:
                known.remove(key)
            else:
                unknown += 1
    return unknown


@given(depth_streams(max_diffs=4), st.integers(-(2**63), 2**63 - 1), st.integers(0, 40))
def test_row_is_packed_as_msgpack_packs_it(stream: DepthStream, timestamp: int, depth: int) -> None:
    book, reference = start(stream)
    for diff in stream.diffs:
        book.apply(make_update(diff))
        reference.apply(diff.last, diff.bids, diff.asks)
    snapshot = book.snapshot(timestamp, depth)
    assert snapshot.pack() == reference.pack(timestamp, depth)
    assert snapshot.bids == reference.bids(depth)
    assert snapshot.asks == reference.asks(depth)
    assert (snapshot.update_id, snapshot.timestamp) == (reference.update_id, timestamp)
    assert Snapshot.unpack(snapshot.pack(), "BTCUSDT") == snapshot


@given(levels(40), st.permutations(range(40)), st.integers(0, 45))
def test_loading_does_not_depend_on_the_order_of_distinct_prices(
    drawn: tuple[Level, ...], order: list[int], limit: int
) -> None:
    # Of each price only the first spelling, so that no order decides which one wins.
    distinct = {to_number(price): (price, quantity) for price, quantity in reversed(drawn)}
    given_levels = list(distinct.values())
    shuffled = [given_levels[i] for i in order if i < len(given_levels)]
    book, other = OrderBook("X"), OrderBook("X")
    book.load(DepthSnapshot("X", 1, given_levels, given_levels, limit))
    other.load(DepthSnapshot("X", 1, shuffled, shuffled, limit))
    assert book.bids() == other.bids()
    assert book.asks() == other.asks()
    for depth in range(len(given_levels) + 2):
        assert book.covers(depth) == other.covers(depth)


@given(depth_streams(max_diffs=6), st.data())
def test_row_30_coverage_ends_at_the_worst_price_of_a_cut_snapshot(
    stream: DepthStream, data: st.DataObject
) -> None:
    limit = data.draw(st.integers(1, 30))
    book, reference = start(stream)
    book.load(DepthSnapshot("BTCUSDT", stream.last_update_id, stream.bids, stream.asks, limit))
    edges = {
        "bids": min((to_number(p) for p, _ in stream.bids), default=None),
        "asks": max((to_number(p) for p, _ in stream.asks), default=None),
    }
    if len(stream.bids) < limit:
        edges["bids"] = None
    if len(stream.asks) < limit:
        edges["asks"] = None
    for diff in stream.diffs:
        book.apply(make_update(diff))
        reference.apply(diff.last, diff.bids, diff.asks)
        for depth in (1, 2, 5, 20):
            expected = True
            for side, edge in edges.items():
                if edge is None:
                    continue
                best = getattr(reference, side)(depth)
                if len(best) < depth:
                    expected = False
                    continue
                last = to_number(best[-1][0])
                expected = expected and (last >= edge if side == "bids" else last <= edge)
            assert book.covers(depth) == expected


def to_number(text: str) -> int:
    """Return a decimal of up to 18 places as an integer."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(18, "0"))
