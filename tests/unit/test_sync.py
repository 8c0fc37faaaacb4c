"""The synchroniser: rows 1 to 31 of the fault catalogue that concern one book."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from obframe import (
    BookState,
    DepthSnapshot,
    DepthUpdate,
    FeedStatus,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
)
from obframe.proof import SyncLimits
from obframe.sync import BookSynchronizer, SnapshotWanted

BTC = Instrument("BTCUSDT")
BIDS = [("100.00", "1"), ("99.00", "2")]
ASKS = [("101.00", "1"), ("102.00", "2")]


def update(
    first: int,
    last: int,
    prev: int | None = None,
    bids: list[tuple[str, str]] | None = None,
    asks: list[tuple[str, str]] | None = None,
) -> DepthUpdate:
    prev = first - 1 if prev is None else prev
    return DepthUpdate("BTCUSDT", first, last, prev, bids or [], asks or [])


def snapshot(
    last: int,
    bids: list[tuple[str, str]] | None = None,
    asks: list[tuple[str, str]] | None = None,
    limit: int = 0,
) -> DepthSnapshot:
    bids = BIDS if bids is None else bids
    return DepthSnapshot("BTCUSDT", last, bids, ASKS if asks is None else asks, limit)


def status(event: StreamEvent, reason: GapReason | None = None, detail: str = "") -> FeedStatus:
    return FeedStatus(event, frozenset({BTC}), reason, detail)


def subscribed(limits: SyncLimits | None = None) -> BookSynchronizer:
    sync = BookSynchronizer(BTC, limits, random.Random(1))
    sync.receive_status(status(StreamEvent.CONNECTING))
    sync.receive_status(status(StreamEvent.SUBSCRIBED))
    sync.take_events()
    return sync


def live(limits: SyncLimits | None = None) -> BookSynchronizer:
    sync = subscribed(limits)
    sync.receive_update(update(11, 12))
    sync.receive_snapshot(snapshot(11))
    assert sync.state is BookState.LIVE
    assert sync.book is not None
    assert sync.book.update_id == 12
    sync.take_events()
    return sync


def requests(sync: BookSynchronizer) -> list[SnapshotWanted]:
    return [event for event in sync.take_events() if isinstance(event, SnapshotWanted)]


def changes(sync: BookSynchronizer) -> list[tuple[BookState, GapReason | None]]:
    return [
        (event.new, event.reason) for event in sync.take_events() if isinstance(event, StateChange)
    ]


def test_states_from_the_start_to_live_are_told() -> None:
    sync = BookSynchronizer(BTC)
    sync.receive_status(status(StreamEvent.CONNECTING))
    sync.receive_status(status(StreamEvent.SUBSCRIBED))
    assert changes(sync) == [
        (BookState.CONNECTING, GapReason.CONNECTING),
        (BookState.SYNCING, GapReason.SYNCING),
    ]
    sync.receive_update(update(11, 12))
    assert len(requests(sync)) == 1
    sync.receive_snapshot(snapshot(11))
    assert changes(sync) == [(BookState.LIVE, None)]
    sync.unsubscribe()
    assert changes(sync) == [(BookState.UNSUBSCRIBED, GapReason.UNSUBSCRIBED)]
    assert sync.book is None


def test_the_stream_comes_first_the_snapshot_is_asked_for_at_the_first_update() -> None:
    sync = subscribed()
    assert requests(sync) == []
    sync.receive_update(update(11, 12))
    assert requests(sync) == [SnapshotWanted(BTC, 0.0)]
    sync.receive_update(update(13, 14))
    assert requests(sync) == []


def test_a_quiet_stream_gets_its_snapshot_after_a_while_and_waits_for_proof() -> None:
    sync = subscribed(SyncLimits(first_update_wait=3.0))
    for now in (0.0, 1.0, 2.0):
        sync.tick(now)
        assert requests(sync) == []
    sync.tick(3.0)
    assert len(requests(sync)) == 1
    sync.receive_snapshot(snapshot(20))
    assert sync.state is BookState.SYNCING
    sync.receive_update(update(19, 21))
    assert sync.state is BookState.LIVE


def test_row_1_a_gap_drops_the_book_and_starts_over() -> None:
    sync = live()
    sync.receive_update(update(14, 15))
    assert sync.state is BookState.RESYNCING
    assert sync.cause is GapReason.SEQUENCE
    assert sync.book is None
    assert sync.counters["sequence"] == 1
    assert len(requests(sync)) == 1
    sync.receive_update(update(16, 17, bids=[("100.50", "3")]))
    sync.receive_snapshot(snapshot(14))
    assert sync.state is BookState.LIVE
    assert sync.book is not None
    assert (sync.book.update_id, sync.book.bids(1)) == (17, [("100.50", "3")])


def test_row_1_futures_pu_unequal_is_a_gap_though_ids_rise() -> None:
    sync = live()
    sync.receive_update(update(20, 25, prev=13))
    assert (sync.state, sync.cause) == (BookState.RESYNCING, GapReason.SEQUENCE)


def test_row_1_an_overlap_after_proof_is_a_gap() -> None:
    sync = live()
    sync.receive_update(update(12, 14))
    assert sync.cause is GapReason.SEQUENCE


def test_row_1_a_gap_while_synchronising_forgets_what_came_before_it() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12))
    sync.receive_update(update(15, 16))
    assert sync.cause is GapReason.SEQUENCE
    sync.receive_snapshot(snapshot(12))
    assert sync.book is None, "13 and 14 are unknown"
    sync.receive_snapshot(snapshot(14))
    assert sync.state is BookState.LIVE


def test_row_2_duplicates_and_old_updates_are_ignored_and_counted() -> None:
    sync = live()
    sync.receive_update(update(11, 12, bids=[("100.00", "9")]))
    sync.receive_update(update(5, 7, bids=[("100.00", "9")]))
    assert sync.state is BookState.LIVE
    assert sync.counters["old"] == 2
    assert sync.book is not None
    assert sync.book.bids(1) == [("100.00", "1")]
    buffering = subscribed()
    buffering.receive_update(update(11, 12))
    buffering.receive_update(update(11, 12))
    assert buffering.counters["old"] == 1


def test_row_3_a_refused_update_resynchronises_only_through_its_status() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.INVALID, GapReason.INVALID, "u = -1"))
    assert (sync.state, sync.cause, sync.detail) == (
        BookState.RESYNCING,
        GapReason.INVALID,
        "u = -1",
    )


def test_row_4_an_older_snapshot_is_fetched_again_with_backoff_and_the_buffer_kept() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12, bids=[("100.10", "1")]))
    assert requests(sync)[0].delay == 0
    delays = []
    for old in (5, 7, 9):
        sync.receive_snapshot(snapshot(old))
        assert sync.state is BookState.SYNCING
        delays += [request.delay for request in requests(sync)]
    assert len(delays) == 3
    assert delays[0] > 0
    assert delays == sorted(delays)
    sync.receive_update(update(13, 14))
    sync.receive_snapshot(snapshot(10))
    assert sync.state is BookState.LIVE
    assert sync.book is not None
    assert sync.book.bids(1) == [("100.10", "1")]


def test_row_4_backoff_is_bounded() -> None:
    sync = subscribed(SyncLimits(backoff_first=0.5, backoff_max=4.0))
    sync.receive_update(update(11, 12))
    for _ in range(40):
        sync.receive_snapshot(snapshot(5))
    assert max(request.delay for request in requests(sync)) <= 4.0


def test_row_5_first_event_right_after_the_snapshot_spot() -> None:
    sync = subscribed()
    sync.receive_update(update(101, 105))
    sync.receive_snapshot(snapshot(100))
    assert sync.state is BookState.LIVE


def test_row_5_first_event_that_ends_at_the_snapshot_futures() -> None:
    sync = subscribed()
    sync.receive_update(update(90, 100, prev=85))
    sync.receive_snapshot(snapshot(100))
    assert sync.state is BookState.LIVE
    sync.receive_update(update(104, 110, prev=100))
    assert sync.state is BookState.LIVE


def test_row_6_an_older_or_unasked_snapshot_while_live_is_refused() -> None:
    sync = live()
    for last in (3, 12, 500):
        sync.receive_snapshot(snapshot(last, bids=[("1.00", "1")]))
    assert sync.counters["snapshots_refused"] == 3
    assert sync.state is BookState.LIVE
    assert sync.book is not None
    assert (sync.book.update_id, sync.book.bids(1)) == (12, [("100.00", "1")])


def test_row_8_a_crossed_book_is_proven_anew_if_it_persists() -> None:
    sync = live(SyncLimits(crossed_after=3.0))
    sync.receive_update(update(13, 13, bids=[("101.00", "1")]))
    for now in (0.0, 1.0, 2.0):
        sync.tick(now)
        assert sync.state is BookState.LIVE
    sync.tick(3.0)
    assert (sync.state, sync.cause) == (BookState.RESYNCING, GapReason.CROSSED)
    assert sync.counters["crossed"] == 1


def test_row_8_a_book_crossed_for_a_moment_stays() -> None:
    sync = live(SyncLimits(crossed_after=3.0))
    for round_ in range(3):
        first = 13 + 2 * round_
        sync.receive_update(update(first, first, bids=[("101.00", "1")]))
        sync.tick(10.0 * round_)
        sync.receive_update(update(first + 1, first + 1, bids=[("101.00", "0")]))
        sync.tick(10.0 * round_ + 2)
    assert sync.state is BookState.LIVE
    assert sync.counters["crossed"] == 3


def test_row_12_a_value_that_does_not_fit_resynchronises_with_its_reason() -> None:
    sync = live()
    # More decimals than the fixed point of this book's prices can hold beside its integers.
    sync.receive_status(status(StreamEvent.INVALID, GapReason.CAPACITY, "price"))
    assert sync.cause is GapReason.CAPACITY


def test_row_20_a_full_buffer_gives_the_attempt_up_and_starts_over() -> None:
    sync = subscribed(SyncLimits(buffer_updates=10))
    for i in range(11, 22):
        sync.receive_update(update(i, i))
    assert sync.counters["buffer_full"] == 1
    assert sync.cause is GapReason.BUFFER
    sync.receive_update(update(22, 22))
    sync.receive_snapshot(snapshot(21))
    assert sync.state is BookState.LIVE


def test_row_20_the_bound_counts_levels_too() -> None:
    sync = subscribed(SyncLimits(buffer_levels=100))
    levels = [(f"{price}.00", "1") for price in range(1, 61)]
    sync.receive_update(update(11, 11, bids=levels))
    sync.receive_update(update(12, 12, bids=levels))
    assert sync.cause is GapReason.BUFFER


def test_row_22_silence_makes_the_book_stale_and_data_makes_it_live_again() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.SILENT, GapReason.SILENT))
    assert (sync.state, sync.cause) == (BookState.STALE, GapReason.SILENT)
    sync.receive_status(status(StreamEvent.RESUMED))
    assert (sync.state, sync.cause) == (BookState.LIVE, None)
    sync.receive_status(status(StreamEvent.SILENT, GapReason.SILENT))
    sync.receive_status(status(StreamEvent.DISCONNECTED, GapReason.SILENT, "idle"))
    assert (sync.state, sync.cause) == (BookState.RECONNECTING, GapReason.SILENT)
    assert sync.book is None


def test_row_26_a_new_stream_starts_a_new_proof() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.DISCONNECTED))
    sync.receive_snapshot(snapshot(12))
    assert sync.state is BookState.RECONNECTING, "a late answer proves nothing without a stream"
    sync.receive_status(status(StreamEvent.CONNECTING))
    sync.receive_status(status(StreamEvent.SUBSCRIBED))
    assert (sync.state, sync.cause) == (BookState.SYNCING, GapReason.DISCONNECTED)
    sync.receive_update(update(31, 32))
    sync.receive_snapshot(snapshot(31))
    assert sync.state is BookState.LIVE
    assert sync.epoch == 2


def many(side: str, count: int, best: int, quantity: str = "1") -> list[tuple[str, str]]:
    sign = -1 if side == "bid" else 1
    return [(f"{best + sign * i}.00", quantity) for i in range(count)]


def test_row_30_a_book_that_leaves_its_coverage_is_refreshed_while_it_stays_live() -> None:
    sync = subscribed(SyncLimits(refresh_every=30.0))
    sync.receive_update(update(11, 12))
    sync.receive_snapshot(
        snapshot(11, bids=many("bid", 22, 1000), asks=many("ask", 22, 1001), limit=22)
    )
    sync.tick(0.0)
    assert requests(sync)[1:] == [], "20 levels lie inside the 22 that are known"
    gone = [(price, "0") for price, _ in many("bid", 5, 1000)]
    sync.receive_update(update(13, 13, bids=gone))
    assert sync.book is not None
    assert not sync.book.covers()
    sync.tick(1.0)
    assert len(requests(sync)) == 1
    old_book = sync.book
    sync.receive_update(update(14, 14, bids=[("994.50", "7")]))
    sync.receive_snapshot(
        snapshot(13, bids=many("bid", 50, 995), asks=many("ask", 50, 1001), limit=50)
    )
    assert sync.state is BookState.LIVE
    assert sync.epoch == 1
    assert sync.book is not old_book
    assert sync.book is not None
    assert sync.book.covers()
    assert sync.book.update_id == 14
    assert ("994.50", "7") in sync.book.bids()
    assert changes(sync) == []


def test_row_30_a_refresh_that_is_ahead_of_the_stream_waits_for_it() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12))
    thin = snapshot(11, bids=many("bid", 5, 1000), asks=many("ask", 5, 1001), limit=5)
    sync.receive_snapshot(thin)
    sync.tick(0.0)
    wide = snapshot(15, bids=many("bid", 50, 1000, "3"), asks=many("ask", 50, 1001), limit=50)
    sync.receive_snapshot(wide)
    assert sync.book is not None
    assert sync.book.update_id == 12
    sync.receive_update(update(13, 14))
    assert (sync.book.update_id, sync.book.bids(1)) == (14, [("1000.00", "1")])
    sync.receive_update(update(15, 16))
    assert sync.book is not None
    assert (sync.book.update_id, sync.book.bids(1)) == (16, [("1000.00", "3")])


def test_row_30_a_refresh_that_does_not_fit_leaves_the_live_book_alone() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12))
    sync.receive_snapshot(
        snapshot(11, bids=many("bid", 5, 1000), asks=many("ask", 5, 1001), limit=5)
    )
    sync.tick(0.0)
    sync.receive_update(update(13, 13, bids=[("900.000000000001", "1")]))
    far = [("5000000000", "1")]
    sync.receive_snapshot(snapshot(12, bids=many("bid", 5, 1000), asks=far, limit=50))
    assert sync.counters["capacity"] == 1
    assert sync.state is BookState.LIVE
    sync.receive_update(update(14, 14, bids=[("1000.00", "7")]))
    assert sync.book is not None
    assert sync.book.bids(1) == [("1000.00", "7")]


def test_row_31_halted_and_trading_again() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.HALTED, GapReason.HALTED, "BREAK"))
    assert (sync.state, sync.cause) == (BookState.HALTED, GapReason.HALTED)
    sync.receive_update(update(13, 14))
    sync.receive_status(status(StreamEvent.INVALID))
    sync.receive_status(status(StreamEvent.DISCONNECTED))
    sync.receive_status(status(StreamEvent.SUBSCRIBED))
    assert sync.state is BookState.HALTED
    sync.receive_status(status(StreamEvent.TRADING))
    assert sync.state is BookState.SYNCING
    sync.receive_update(update(31, 32))
    sync.receive_snapshot(snapshot(31))
    assert sync.state is BookState.LIVE


def test_rows_32_to_34_a_snapshot_in_trouble_becomes_the_cause() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12))
    sync.receive_status(status(StreamEvent.SNAPSHOT_FAILED, GapReason.SNAPSHOT, "429"))
    assert (sync.state, sync.cause, sync.detail) == (BookState.SYNCING, GapReason.SNAPSHOT, "429")
    sync.receive_snapshot(snapshot(11))
    assert (sync.state, sync.cause) == (BookState.LIVE, None)


def test_quick_failures_wait_longer_and_a_stable_book_forgets_them() -> None:
    sync = live(SyncLimits(stable_after=60.0))
    last = 12
    delays = []
    for _ in range(4):
        sync.receive_update(update(last + 5, last + 6))
        delays += [request.delay for request in requests(sync)]
        sync.receive_snapshot(snapshot(last + 5))
        last += 6
    assert delays[0] == 0, "the first gap is mended at once"
    assert delays[1] > 0
    assert delays == sorted(delays)
    sync.tick(0.0)
    sync.tick(61.0)
    sync.receive_update(update(last + 5, last + 6))
    assert [request.delay for request in requests(sync)] == [0.0]


def test_row_22_a_book_proven_while_the_stream_is_silent_is_stale() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12))
    sync.receive_status(status(StreamEvent.SILENT, GapReason.SILENT, "no data for 5 s"))
    sync.receive_snapshot(snapshot(11))
    assert (sync.state, sync.cause) == (BookState.STALE, GapReason.SILENT)
    sync.receive_status(status(StreamEvent.RESUMED))
    assert (sync.state, sync.cause) == (BookState.LIVE, None)


def test_row_22_an_update_ends_the_silence_though_nobody_said_so() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.SILENT, GapReason.SILENT))
    sync.receive_update(update(13, 14))
    assert (sync.state, sync.cause) == (BookState.LIVE, None)


def test_row_22_a_new_stream_is_not_silent() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.SILENT, GapReason.SILENT))
    sync.receive_status(status(StreamEvent.DISCONNECTED, GapReason.SILENT))
    sync.receive_status(status(StreamEvent.SUBSCRIBED))
    sync.receive_update(update(31, 32))
    sync.receive_snapshot(snapshot(31))
    assert sync.state is BookState.LIVE


def test_row_3_an_update_that_goes_backwards_is_refused_while_synchronising() -> None:
    sync = subscribed()
    sync.receive_update(update(11, 12))
    sync.receive_update(update(5, 6, prev=12, bids=[("100.00", "9")]))
    assert (sync.state, sync.cause) == (BookState.RESYNCING, GapReason.INVALID)
    sync.receive_snapshot(snapshot(11))
    assert sync.book is None
    sync.receive_update(update(13, 14))
    sync.receive_snapshot(snapshot(13))
    assert sync.state is BookState.LIVE


def test_a_snapshot_far_ahead_of_the_stream_is_asked_for_again() -> None:
    """One wrong answer of the venue must not keep a book waiting for ever."""
    sync = subscribed(SyncLimits(catch_up_after=10.0))
    sync.receive_update(update(11, 12))
    sync.receive_snapshot(snapshot(2**62))
    assert len(requests(sync)) == 1
    for now in range(12):
        sync.receive_update(update(13 + now, 13 + now))
        sync.tick(float(now))
        assert sync.state is BookState.SYNCING
    assert len(requests(sync)) == 1
    sync.receive_snapshot(snapshot(24))
    sync.receive_update(update(25, 25))
    assert sync.state is BookState.LIVE
    assert sync.book is not None
    assert sync.book.update_id == 25


def test_a_snapshot_on_a_stream_where_nothing_happens_is_waited_with() -> None:
    sync = subscribed(SyncLimits(catch_up_after=10.0))
    sync.receive_update(update(11, 12))
    sync.receive_snapshot(snapshot(20))
    requests(sync)
    for now in range(60):
        sync.tick(float(now))
    assert requests(sync) == []


def test_row_2_a_live_book_that_gets_nothing_but_old_updates_is_proven_anew() -> None:
    """The venue's ids began anew: what looks old is the market going on without us."""
    sync = live(SyncLimits(catch_up_after=10.0))
    for now in range(11):
        sync.receive_update(update(now + 1, now + 1))
        sync.tick(float(now))
        assert sync.state is BookState.LIVE
    sync.receive_update(update(12, 12))
    sync.tick(11.0)
    assert (sync.state, sync.cause) == (BookState.RESYNCING, GapReason.SEQUENCE)
    sync.receive_update(update(13, 14))
    sync.receive_snapshot(snapshot(13))
    assert sync.state is BookState.LIVE


def test_row_2_duplicates_between_new_updates_never_cost_a_book() -> None:
    sync = live(SyncLimits(catch_up_after=10.0))
    for now in range(30):
        sync.receive_update(update(13 + now, 13 + now))
        sync.receive_update(update(13 + now, 13 + now))
        sync.tick(float(now))
    sync.receive_update(update(42, 42))
    for now in range(30, 60):  # quiet after a duplicate
        sync.tick(float(now))
    assert sync.state is BookState.LIVE


def test_row_31_a_halted_book_asks_for_no_snapshot() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.HALTED, GapReason.HALTED, "BREAK"))
    sync.take_events()
    for now in range(10):
        sync.tick(float(now))
    assert requests(sync) == []
    sync.receive_status(status(StreamEvent.TRADING))
    for now in range(10, 15):
        sync.tick(float(now))
    assert len(requests(sync)) == 1


def test_rows_32_to_34_a_late_word_on_a_snapshot_hides_no_broken_stream() -> None:
    sync = live()
    sync.receive_status(status(StreamEvent.DISCONNECTED, GapReason.DISCONNECTED, "reset"))
    sync.receive_status(status(StreamEvent.SNAPSHOT_FAILED, GapReason.SNAPSHOT, "429"))
    assert (sync.cause, sync.detail) == (GapReason.DISCONNECTED, "reset")


class Change(NamedTuple):
    side: str
    price: int
    quantity: int


class VenueModel:
    """One venue's truth at every single change; updates and snapshots are cut out of it."""

    def __init__(self, rng: random.Random, changes: int, futures: bool) -> None:
        self.first_id = 1_000
        self.truth: dict[int, tuple[dict[int, int], dict[int, int]]] = {}
        bids = {1000 - i: 1 for i in range(10)}
        asks = {1001 + i: 1 for i in range(10)}
        self.truth[self.first_id] = (dict(bids), dict(asks))
        log: dict[int, Change] = {}
        self.ids = [self.first_id]
        current = self.first_id
        for _ in range(changes):
            current += rng.choice([1, 1, 7]) if futures else 1
            side = rng.choice(["bid", "ask"])
            price = rng.randint(975, 1000) if side == "bid" else rng.randint(1001, 1026)
            quantity = rng.choice([0, 0, 1, 2, 3])
            book = bids if side == "bid" else asks
            if quantity:
                book[price] = quantity
            else:
                book.pop(price, None)
            log[current] = Change(side, price, quantity)
            self.truth[current] = (dict(bids), dict(asks))
            self.ids.append(current)
        self.updates: list[DepthUpdate] = []
        at = 1
        prev = self.first_id
        while at < len(self.ids):
            size = rng.randint(1, 6)
            ids = self.ids[at : at + size]
            at += size
            levels: dict[str, dict[int, int]] = {"bid": {}, "ask": {}}
            for i in ids:
                levels[log[i].side][log[i].price] = log[i].quantity
            texts = {
                side: [(f"{p}.00", str(q)) for p, q in prices.items()]
                for side, prices in levels.items()
            }
            first = prev + 1 if not futures else ids[0]
            self.updates.append(
                DepthUpdate("BTCUSDT", first, ids[-1], prev, texts["bid"], texts["ask"])
            )
            prev = ids[-1]

    def at(self, update_id: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        bids, asks = self.truth[update_id]
        return (
            [(f"{p}.00", str(q)) for p, q in sorted(bids.items(), reverse=True)],
            [(f"{p}.00", str(q)) for p, q in sorted(asks.items())],
        )


@pytest.mark.parametrize("futures", [False, True], ids=["spot", "futures"])
def test_whatever_the_stream_does_a_proven_book_is_the_venues_book(futures: bool) -> None:
    """Drops, duplicates, swaps, breaks, late, early and doubled snapshots: never a wrong book."""
    proofs = steps_live = 0
    for seed in range(120):
        rng = random.Random(seed)
        venue = VenueModel(rng, 400, futures)
        sync = BookSynchronizer(BTC, SyncLimits(buffer_updates=40), random.Random(seed))
        sync.receive_status(status(StreamEvent.SUBSCRIBED))
        answers: list[DepthSnapshot] = []
        index = 0
        while index < len(venue.updates):
            act = rng.random()
            event = venue.updates[index]
            if act < 0.03:
                pass  # lost
            elif act < 0.06 and index:
                sync.receive_update(venue.updates[rng.randrange(max(index - 3, 0), index)])
                index -= 1
            elif act < 0.08 and index + 1 < len(venue.updates):
                sync.receive_update(venue.updates[index + 1])
                sync.receive_update(event)
                index += 1
            elif act < 0.09:
                sync.receive_status(status(StreamEvent.DISCONNECTED))
                index += rng.randrange(4)
                sync.receive_status(status(StreamEvent.SUBSCRIBED))
            else:
                sync.receive_update(event)
            index += 1
            sync.tick(float(index))
            for _ in requests(sync):
                now = venue.ids.index(event.last_update_id)
                cut = min(max(now + rng.randint(-12, 12), 0), len(venue.ids) - 1)
                bids, asks = venue.at(venue.ids[cut])
                answers.append(DepthSnapshot("BTCUSDT", venue.ids[cut], bids, asks, 5000))
            if answers and rng.random() < 0.5:
                sync.receive_snapshot(answers.pop(rng.randrange(len(answers))))
            book = sync.book
            if book is not None:
                steps_live += 1
                assert (book.bids(), book.asks()) == venue.at(book.update_id), (seed, index)
        proofs += sync.epoch
    assert proofs > 200, "the test must prove many books"
    assert steps_live > 3_000


def test_a_venue_that_was_never_reached_is_still_being_connected_to() -> None:
    sync = BookSynchronizer(BTC)
    sync.receive_status(status(StreamEvent.CONNECTING))
    sync.receive_status(status(StreamEvent.DISCONNECTED, GapReason.DISCONNECTED, "no route"))
    state = (sync.state, sync.cause, sync.detail)
    assert state == (BookState.CONNECTING, GapReason.CONNECTING, "no route")


def test_row_7_a_delete_of_an_unknown_level_is_normal_and_counted() -> None:
    sync = live()
    sync.receive_update(update(13, 13, bids=[("42.00", "0.00"), ("99.00", "0")]))
    assert sync.state is BookState.LIVE
    assert sync.book is not None
    assert sync.unknown_deletes == 1
    assert sync.book.bids() == [("100.00", "1")]
    sync.receive_update(update(20, 21))
    assert sync.book is None
    assert sync.unknown_deletes == 1, "what a lost book counted is kept"
