"""A book that follows raw messages: the rule of continuity, and the venue's truth, under faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe._core import DepthSnapshot, DepthUpdate, OrderBook, parse_depth_update
from obframe.errors import InvalidEvent, MessageError, SequenceError
from obframe.testing.reference import ReferenceBook
from obframe.testing.strategies import (
    DepthStream,
    Diff,
    Level,
    depth_streams,
    event_messages,
    malformed_messages,
)

DEPTH = 10_000  # more than any of these books has
SYMBOL = "BTCUSDT"


@dataclass(frozen=True)
class Event:
    """One event of the venue, or several in one message.

    Attributes:
        prev: The id that the venue's book had before.
        diff: What changed; the ids that it spans need not touch those before.
    """

    prev: int
    diff: Diff

    def write(self, futures: bool) -> bytes:
        diff = self.diff
        ids = {"U": diff.first, "u": diff.last, **({"pu": self.prev} if futures else {})}
        event = {"e": "depthUpdate", "E": 1723161255208, "s": SYMBOL, **ids}
        return json.dumps({**event, "b": diff.bids, "a": diff.asks}, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Snapshot:
    """The venue's book at an id."""

    update_id: int
    bids: list[Level]
    asks: list[Level]


Step: TypeAlias = Event | Snapshot


@dataclass(frozen=True)
class Following:
    """What a venue truly did, and what of it comes to a book.

    Attributes:
        stream: The truth, its snapshot with which it began.
        events: The truth, as messages.
        steps: A snapshot, then messages and further snapshots. Messages are lost, come again, come
            early, or are of several events in one, which overlap with what came before; a snapshot
            is of any id that the venue's book had, also within an event.
    """

    futures: bool
    stream: DepthStream
    events: list[Event]
    steps: list[Step]

    def book_at(self, update_id: int) -> ReferenceBook:
        """Return the venue's book at an id; within an event with the first half of its changes."""
        book = ReferenceBook()
        book.load(self.stream.last_update_id, self.stream.bids, self.stream.asks)
        for event in self.events:
            diff = event.diff
            if update_id < diff.last:
                if update_id > book.update_id:
                    half_bids, half_asks = len(diff.bids) // 2, len(diff.asks) // 2
                    book.apply(update_id, diff.bids[:half_bids], diff.asks[:half_asks])
                break
            book.apply(diff.last, diff.bids, diff.asks)
        assert book.update_id == update_id
        return book


def join(events: list[Event]) -> Event:
    """Make one message of several, as a venue does for a slower stream."""
    bids = tuple(level for event in events for level in event.diff.bids)
    asks = tuple(level for event in events for level in event.diff.asks)
    first, last = events[0].diff.first, events[-1].diff.last
    return Event(events[0].prev, Diff(first, last, bids, asks))


FAULTS = ("right", "right", "right", "right", "lost", "again", "joined", "early", "snapshot")


@st.composite
def followings(draw: st.DrawFn) -> Following:
    futures = draw(st.booleans())
    stream = draw(depth_streams())
    ids = [stream.last_update_id, *(diff.last for diff in stream.diffs)]
    events: list[Event] = []
    for prev, diff in zip(ids, stream.diffs, strict=False):
        first = draw(st.integers(diff.first, diff.last)) if futures else diff.first
        events.append(Event(prev, Diff(first, diff.last, diff.bids, diff.asks)))
    steps: list[Step] = []
    drawn = Following(futures, stream, events, steps)
    at = 0

    def add_snapshot() -> None:
        near = [ids[min(max(at + by, 0), len(events))] for by in (-2, 0, 0, 2)]
        update_id = draw(st.one_of(st.sampled_from(near), st.integers(near[0], near[-1])))
        book = drawn.book_at(update_id)
        steps.append(Snapshot(update_id, book.bids(), book.asks()))

    add_snapshot()
    while at < len(events):
        match draw(st.sampled_from(FAULTS)):
            case "lost":
                at += 1
            case "again":
                steps.append(events[draw(st.integers(0, at))])
            case "early":
                steps.append(events[draw(st.integers(at, len(events) - 1))])
            case "joined":
                begin = draw(st.integers(max(0, at - 3), at))
                end = draw(st.integers(at, min(at + 3, len(events) - 1)))
                steps.append(join(events[begin : end + 1]))
                at = end + 1
            case "snapshot":
                add_snapshot()
            case _:
                steps.append(events[at])
                at += 1
    return drawn


class Rule:
    """The one continuity rule, points 2 and 3 of decision 2, over the plain reference book."""

    def __init__(self) -> None:
        self.book = ReferenceBook()
        self.proven = False

    def load(self, snapshot: Snapshot) -> None:
        self.book.load(snapshot.update_id, snapshot.bids, snapshot.asks)
        self.proven = False

    def follow(self, event: Event) -> bool | None:
        """Apply the event if it is the next one; tell so, or that it is old, or None for a gap."""
        diff, at = event.diff, self.book.update_id
        if self.proven:
            is_next = event.prev == at
            is_old = diff.last <= at
        else:
            is_next = event.prev <= at <= diff.last
            is_old = diff.last < at
        if is_next:
            self.book.apply(diff.last, diff.bids, diff.asks)
            self.proven = True
            return True
        return False if is_old else None


def parse(raw: bytes, futures: bool) -> DepthUpdate:
    update = parse_depth_update(raw, futures)
    assert update is not None
    return update


def describe(book: OrderBook) -> tuple[object, ...]:
    return book.snapshot(0, DEPTH).pack(), book.unknown_deletes, book.crossed, book.nbytes


@given(followings(), st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_book_follows_by_the_rule_and_is_the_venues(drawn: Following, turns: list[bool]) -> None:
    """``turns`` has some of what follows applied as an update, between what is followed."""
    rule = Rule()
    book, applied = OrderBook(SYMBOL), OrderBook(SYMBOL)
    for number, step in enumerate(drawn.steps):
        if isinstance(step, Snapshot):
            rule.load(step)
            for each in (book, applied):
                each.load(DepthSnapshot(SYMBOL, step.update_id, step.bids, step.asks))
        else:
            raw, stood_at = step.write(drawn.futures), book.update_id
            expected = rule.follow(step)
            if expected:
                applied.apply(parse(raw, drawn.futures))
            if expected is None:
                with pytest.raises(SequenceError) as error:
                    book.follow(raw, drawn.futures)
                assert error.value.update_id == stood_at
                assert error.value.prev_update_id == step.prev
                assert error.value.last_update_id == step.diff.last
            elif expected and turns[number % len(turns)]:
                book.apply(parse(raw, drawn.futures))
            else:
                assert book.follow(raw, drawn.futures) is expected
        assert book.snapshot(0, DEPTH).pack() == rule.book.pack(0, DEPTH)
        assert describe(book) == describe(applied)
        if rule.proven:
            true = drawn.book_at(book.update_id)
            assert (book.bids(), book.asks()) == (true.bids(), true.asks())


@given(depth_streams(max_diffs=3), st.booleans(), st.data())
def test_following_is_parsing_and_applying_however_a_message_is_written(
    stream: DepthStream, futures: bool, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from((SYMBOL, "X", "币安人生USDT", "1000SATSUSDT_PERP")))
    book, applied = OrderBook("a/" + name, name), OrderBook("a/" + name, name)
    for each in (book, applied):
        each.load(DepthSnapshot(name, stream.last_update_id, stream.bids, stream.asks))
    prev = stream.last_update_id
    for diff in stream.diffs:
        raw = data.draw(event_messages(diff, name, prev if futures else None))
        assert book.follow(raw, futures) is True
        applied.apply(parse(raw, futures))
        assert describe(book) == describe(applied)
        assert book.follow(raw, futures) is False
        assert describe(book) == describe(applied)
        prev = diff.last


def refusal_of(call: Callable[[], object]) -> tuple[type[MessageError], str, object] | None:
    """Return kind, text and attributes of the error with which a message is refused, if it is."""
    try:
        call()
    except MessageError as error:
        return type(error), str(error), vars(error)
    return None


def outcome_by_rule(rule: Rule, update: DepthUpdate) -> bool | type[Exception]:
    """Return what comes of an event: whether it is applied, or the error."""
    prev, last = update.prev_update_id, update.last_update_id
    if update.symbol != SYMBOL:
        return ValueError
    if last < prev:
        return InvalidEvent
    diff = Diff(update.first_update_id, last, tuple(update.bids), tuple(update.asks))
    is_next = rule.follow(Event(prev, diff))
    return SequenceError if is_next is None else is_next


@given(depth_streams(max_diffs=1).filter(lambda stream: stream.diffs), st.booleans(), st.data())
def test_a_damaged_message_is_refused_as_parsing_refuses_it(
    stream: DepthStream, futures: bool, data: st.DataObject
) -> None:
    rule, book = Rule(), OrderBook(SYMBOL)
    rule.load(Snapshot(stream.last_update_id, [*stream.bids], [*stream.asks]))
    book.load(DepthSnapshot(SYMBOL, stream.last_update_id, stream.bids, stream.asks))
    whole = Event(stream.last_update_id, stream.diffs[0]).write(futures)
    for raw in (data.draw(malformed_messages(whole)), whole):
        refusal = refusal_of(lambda raw=raw: parse_depth_update(raw, futures))
        update = None if refusal else parse_depth_update(raw, futures)
        # What was damaged may still be an event: of another symbol, other ids or other levels.
        expected = False if update is None else outcome_by_rule(rule, update)
        if refusal:
            assert refusal_of(lambda raw=raw: book.follow(raw, futures)) == refusal
        elif isinstance(expected, bool):
            assert book.follow(raw, futures) is expected
        else:
            with pytest.raises(expected):
                book.follow(raw, futures)
        assert book.snapshot(0, DEPTH).pack() == rule.book.pack(0, DEPTH)
