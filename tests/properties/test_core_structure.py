"""The edges of a side's structure: holes, blocks of 64 slots, spreading, forgetting, kept text."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe._core import DepthSnapshot, DepthUpdate, Level, OrderBook
from obframe.testing.reference import ReferenceBook

DEPTH = 20
LEAST_KEPT = 4_096


class Pair:
    """A book and the reference that lives through the same."""

    def __init__(self, bids: Sequence[Level], asks: Sequence[Level], limit: int = 0) -> None:
        self.book = OrderBook("X")
        self.book.load(DepthSnapshot("X", 1, bids, asks, limit))
        self.reference = ReferenceBook()
        self.reference.load(1, bids, asks)

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        last = self.book.update_id + 1
        self.book.apply(DepthUpdate("X", last, last, last - 1, bids, asks))
        self.reference.apply(last, bids, asks)

    def check_row(self, depth: int = DEPTH) -> None:
        assert self.book.snapshot(9, depth).pack() == self.reference.pack(9, depth)

    def check(self) -> None:
        bids, asks = self.reference.bids(), self.reference.asks()
        assert self.book.bids() == bids
        assert self.book.asks() == asks
        assert (self.book.bid_count, self.book.ask_count) == (len(bids), len(asks))
        assert self.book.crossed == self.reference.crossed


@st.composite
def runs(draw: st.DrawFn) -> list[Level]:
    """Draw changes as runs of prices: clusters of inserts and deletes, up or down, near or far."""
    changes: list[Level] = []
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(1, 700))
        step = draw(st.sampled_from((1, 1, 2, 3, 7, 63, 64, 65)))
        count = draw(st.sampled_from((1, 2, 5, 30, 64, 65, 130)))
        quantity = draw(st.sampled_from(("0", "0", "1.5", "2.00")))
        prices = list(range(start, min(start + step * count, 800), step))
        if draw(st.booleans()):
            prices.reverse()
        changes += [(str(price), quantity) for price in prices]
    return changes


@st.composite
def starts(draw: st.DrawFn) -> list[Level]:
    """Draw a side's first levels: none, a block, a block more or less, several blocks."""
    count = draw(st.sampled_from((0, 1, 7, 8, 9, 55, 56, 57, 63, 64, 65, 127, 128, 129, 300)))
    first = draw(st.integers(1, 400))
    step = draw(st.integers(1, 2))
    return [(str(first + step * i), "1") for i in range(count)]


@given(starts(), starts(), st.lists(st.tuples(runs(), runs()), max_size=12))
def test_runs_of_inserts_and_deletes_leave_the_reference_book(
    bids: list[Level], asks: list[Level], diffs: list[tuple[list[Level], list[Level]]]
) -> None:
    pair = Pair(bids, asks)
    pair.check()
    for diff in diffs:
        pair.apply(*diff)
        pair.check()
        pair.check_row()


@given(st.integers(0, 2**32 - 1), st.sampled_from((40, 120, 400)), st.sampled_from((3, 20, 90)))
def test_a_full_side_finds_the_hole_that_is_left(seed: int, width: int, size: int) -> None:
    """Levels that come and go as often keep a side at its room's limit."""
    rng = random.Random(seed)
    pair = Pair([(str(i), "1") for i in range(1, width)], [])
    sides: tuple[set[str], set[str]] = ({str(i) for i in range(1, width)}, set())
    unknown = 0
    for _ in range(30):
        changes = [
            (str(rng.randrange(1, 2 * width)), rng.choice(("0", "1", "1", "2")))
            for _ in range(rng.randrange(size + 1))
        ]
        pair.apply(changes, changes[::-1])
        pair.check()
        pair.check_row(rng.randrange(30))
        # Prices come twice in a message: a delete may be of what the same message brought.
        for prices, side in zip(sides, (changes, changes[::-1]), strict=True):
            for price, quantity in side:
                unknown += quantity == "0" and price not in prices
                (prices.discard if quantity == "0" else prices.add)(price)
        assert pair.book.unknown_deletes == unknown


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from((5, 40, 150)),
    st.booleans(),
    st.sampled_from((0, 64)),
)
def test_row_13_a_sorted_message_may_have_a_price_many_times(
    seed: int, size: int, falling: bool, bits: int
) -> None:
    """As if one after the other: what is deleted may have come with the message, or come again."""
    rng = random.Random(seed)
    levels = [(str(i), "1") for i in range(2, 200, 2)]
    pair = Pair(levels, levels)
    known = [{price for price, _ in levels} for _ in range(2)]
    unknown = 0
    for _ in range(12):
        sides = []
        for held in known:
            prices = sorted(
                (rng.randrange(1, 200) for _ in range(rng.randrange(size))), reverse=falling
            )
            quantities = ("0", "0", "1.5", f"{rng.randrange(1, 9) << bits}")
            side = [
                (str(price), rng.choice(quantities))
                for price in prices
                for _ in range(rng.choice((1, 1, 1, 2, 3, 70)))
            ]
            for price, quantity in side:
                unknown += quantity == "0" and price not in held
                (held.discard if quantity == "0" else held.add)(price)
            sides.append(side)
        pair.apply(*sides)
        pair.check()
        pair.check_row()
        assert pair.book.unknown_deletes == unknown


def test_a_level_finds_its_place_however_far_the_next_hole_is() -> None:
    """One hole is left in a side without any other, in front of the new level or behind it."""
    rng = random.Random(5)
    first = [(str(i), "1") for i in range(1, 121)]
    more = [(f"{i}.5", "2") for i in range(30, 102)]
    full = sorted((*first, *more), key=lambda level: float(level[0]))
    for distance in range(100):
        for _ in range(8):
            hole = rng.randrange(len(full) - distance)
            ends = (hole, hole + distance)
            gone, place = ends if rng.random() < 0.5 else ends[::-1]
            pair = Pair(first, first)
            pair.apply(more, more)
            pair.apply([(full[gone][0], "0")], [(full[gone][0], "0")])
            new = (full[place][0] + ("25" if "." in full[place][0] else ".25"), "3")
            pair.apply([new], [new])
            # What is found after it, and what comes between, tells that the indexes are right.
            pair.apply([(price, "4") for price, _ in full], [(price, "4") for price, _ in full])
            pair.check()


@given(st.integers(0, 2**32 - 1))
def test_quantities_above_64_bits_move_with_their_levels(seed: int) -> None:
    rng = random.Random(seed)
    pair = Pair([(str(i), f"{i}{2**64}") for i in range(1, 90, 3)], [("5", "1")])
    for _ in range(20):
        sides = [
            [
                (str(rng.randrange(1, 90)), rng.choice(("0", "1.5", f"{rng.randrange(2**90)}")))
                for _ in range(rng.randrange(40))
            ]
            for _ in range(2)
        ]
        pair.apply(*sides)
        pair.check()
        pair.check_row()


@given(st.integers(0, 2**32 - 1))
def test_kept_text_is_what_would_be_written(seed: int) -> None:
    """A row after every message, at every depth, is the row of a book that never made one."""
    rng = random.Random(seed)
    levels = [(f"{i}.5", f"{i}.250") for i in range(1, 60)]
    pair = Pair(levels, levels)
    spellings = ["{}.5", "{}.50", "{}.500000000"]
    for step in range(25):
        if step == 15:
            spellings.append("{}.500000000001")  # a wider scale: all keys change
        sides = [
            [
                (rng.choice(spellings).format(rng.randrange(1, 60)),
                 rng.choice(("0", "0.0", "1", "1.0", f"{rng.random():.8f}")))
                for _ in range(rng.choice((0, 1, 2, 12)))
            ]
            for _ in range(2)
        ]  # fmt: skip
        pair.apply(*sides)
        for depth in rng.sample(range(26), 3):
            pair.check_row(depth)
    pair.check()


def test_prices_at_both_ends_of_the_range() -> None:
    """The largest price has the key that marks unused slots; as an ask it has the lowest key."""
    largest, next_ = "184467440737.09551615", "184467440737.09551614"
    smallest = "0.00000001"
    ends = [(largest, "1"), (next_, "2"), (smallest, "3")]
    pair = Pair([], [])
    for changes in (ends, ends[::-1], [(p, "0") for p, _ in ends], ends[:1], ends[1:]):
        pair.apply(changes, changes)
        pair.check()
        pair.check_row()
    full = [(str(i), "1") for i in range(1, 200)]
    pair = Pair(full, full)
    for changes in (ends, [(p, "0") for p, _ in full[::2]], [(p, "0") for p, _ in ends], ends):
        pair.apply(changes, changes)
        pair.check()
    for i in range(70):  # a side whose worst level has the lowest key there is, spread anew
        pair.apply([(f"{i}.5", "1")] if i else [], [(f"{i}.25", "1"), (f"{i}.75", "1")])
    pair.check()


def test_one_place_that_grows_for_ever_stays_right_and_small() -> None:
    """Inserts in one place use up its holes: they are spread anew, not fetched from afar."""
    pair = Pair([(str(i), "1") for i in range(1, 3000)], [])
    for i in range(1, 60):
        pair.apply([(f"1500.{i:02d}{j:02d}", "1") for j in range(1, 40)], [])
        if i > 30:
            pair.apply([(f"1500.{i - 30:02d}{j:02d}", "0") for j in range(1, 40)], [])
    pair.check()
    assert pair.book.nbytes < 30 * pair.book.bid_count + 10_000


@pytest.mark.parametrize("loaded", [5_060, 5_100])
def test_a_book_that_shrinks_to_5000_levels_gives_back_what_it_had_for_more(loaded: int) -> None:
    """Once holes are spread anew, it takes no more than a book that was loaded with 5,000."""
    rng = random.Random(5)
    middle = 1_000_000
    bids = [(str(middle - 10 * i), "1") for i in range(1, loaded + 1)]
    asks = [(str(middle + 10 * i), "1") for i in range(1, loaded + 1)]
    pair = Pair(bids, asks)
    pair.apply([(p, "0") for p, _ in bids[4_970:]], [(p, "0") for p, _ in asks[4_970:]])
    added: list[list[Level]] = [[], []]
    for _ in range(600):
        changes = []
        for side, sign in zip(added, (-1, 1), strict=True):
            gone = [(price, "0") for price, _ in side]
            spots = rng.sample(range(100, 20_000), 30)
            side[:] = [(str(middle + sign * (10 * spot + 5)), "1") for spot in sorted(spots)]
            changes.append(gone + side)
        pair.apply(*changes)
    pair.check_row()
    pair.check()
    assert pair.book.bid_count == pair.book.ask_count == 5_000
    assert pair.book.nbytes <= 250_000


def passed(levels: Sequence[Level], middle: int, sign: int) -> list[Level]:
    """Return the deletes of what the price has passed."""
    gone = []
    for price, _ in levels:
        if (int(price) - middle) * sign > 0:
            break
        gone.append((price, "0"))
    return gone


def test_row_30_a_day_of_drift_keeps_memory_and_rows() -> None:
    """Levels left behind by the price are forgotten; while ``covers`` says so, rows are right."""
    rng = random.Random(11)
    middle = 100_000
    bids = [(str(middle - i), "1") for i in range(1, 1001)]
    asks = [(str(middle + i), "1") for i in range(1, 901)]  # below the limit: these are all
    pair = Pair(bids, asks, limit=1000)
    covered = forgotten = 0
    for step in range(1400):
        middle += rng.choice((0, 0, 20, 60)) if step < 1000 else -rng.choice((0, 20, 40))
        changes = [
            passed(levels, middle, sign)
            + [
                (str(middle + sign * rng.randrange(1, 300)), str(rng.randrange(1, 9)))
                for _ in range(60)
            ]
            for levels, sign in ((pair.reference.bids(200), -1), (pair.reference.asks(200), 1))
        ]
        known = pair.book.bid_count
        pair.apply(*changes)
        forgotten += pair.book.bid_count < known - 2_000
        assert pair.book.bid_count <= 2 * LEAST_KEPT
        assert pair.book.nbytes < (2 * LEAST_KEPT + pair.book.ask_count) * 26 + 10_000
        if pair.book.covers(DEPTH):
            covered += 1
            pair.check_row()
    assert forgotten > 1
    assert 1000 < covered < 1400  # the way back ends beyond what is known


def test_row_30_forgetting_lifts_the_edge_and_loses_nothing_above_it() -> None:
    count = 2 * LEAST_KEPT
    pair = Pair([(str(10_000_000 + i), "1") for i in range(1000)], [("1", "1")], limit=1000)
    for start in range(1000, count, 500):
        stop = min(start + 500, count)
        pair.apply([(str(10_000_000 + i), "1") for i in range(start, stop)], [])
    pair.check()
    pair.apply([("9999999", "1"), ("9999998", "1")], [])
    assert pair.book.bid_count == LEAST_KEPT
    assert pair.book.bids() == pair.reference.bids(LEAST_KEPT)
    # Half of what is kept goes again: what is left of it is known, what comes below is not.
    kept = [price for price, _ in pair.book.bids()]
    pair.apply([(price, "0") for price in kept[: LEAST_KEPT - 20]], [("0.5", "1")])
    assert pair.book.bids() == pair.reference.bids(20)
    whole = OrderBook("X")
    whole.load(DepthSnapshot("X", 1, pair.book.bids(), [], 1000))
    pair.apply([(kept[-1], "0")], [])
    assert pair.book.bid_count == 19
    pair.apply([("10000001", "7")], [])
    assert pair.book.bid_count == 20


def test_a_book_that_is_known_whole_forgets_nothing() -> None:
    levels = [(str(i), "1") for i in range(1, 3 * LEAST_KEPT)]
    pair = Pair(levels[:10], levels[:10])
    pair.apply(levels, levels)
    pair.check()
    pair.check_row()
    assert pair.book.covers(3 * LEAST_KEPT - 1)
