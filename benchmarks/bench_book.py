"""From a venue's bytes to the book and the row, beside the reference doing the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from data import Stream, make_stream

from obframe._core import DepthSnapshot, DepthUpdate, OrderBook, parse_depth_update
from obframe.testing.reference import ReferenceBook

# CPU time: who else wants the processor meanwhile is no matter of ours.
pytestmark = pytest.mark.benchmark(timer=time.thread_time)

REFERENCE_MESSAGES = 300
ROUNDS = 7


@pytest.fixture(scope="module")
def stream() -> Stream:
    return make_stream()


def load_book(stream: Stream) -> OrderBook:
    book = OrderBook("BTCUSDT")
    book.load(DepthSnapshot("BTCUSDT", 0, stream.bids, stream.asks))
    return book


def load_reference(stream: Stream) -> ReferenceBook:
    reference = ReferenceBook()
    reference.load(0, stream.bids, stream.asks)
    return reference


def time_reference(
    stream: Stream, follow: Callable[[ReferenceBook, bytes], object]
) -> tuple[float, ReferenceBook]:
    """Return the reference's best microseconds a message, and its book in the end."""
    spent = []
    for _ in range(3):
        reference = load_reference(stream)
        start = time.thread_time()
        for raw in stream.messages[:REFERENCE_MESSAGES]:
            follow(reference, raw)
        spent.append(time.thread_time() - start)
    return min(spent) / REFERENCE_MESSAGES * 1e6, reference


def apply_raw(reference: ReferenceBook, raw: bytes) -> None:
    event = msgspec.json.decode(raw)["data"]
    reference.apply(event["u"], event["b"], event["a"])


def test_raw_to_book(benchmark: Any, hold: Any, stream: Stream) -> None:
    def follow(book: OrderBook) -> OrderBook:
        for raw in stream.messages:
            update = parse_depth_update(raw)
            assert update is not None
            book.apply(update)
        return book

    book = benchmark.pedantic(follow, setup=lambda: ((load_book(stream),), {}), rounds=ROUNDS)
    spent, reference = time_reference(stream, apply_raw)
    assert book.update_id == len(stream.messages)
    assert book.bid_count > 1000
    short = load_book(stream)
    for raw in stream.messages[:REFERENCE_MESSAGES]:
        update = parse_depth_update(raw)
        assert update is not None
        short.apply(update)
    assert short.bids(20) == [tuple(level) for level in reference.bids(20)]
    benchmark.extra_info["ns_per_change"] = round(
        hold("apply", len(stream.messages), spent) * 1e3 * len(stream.messages) / stream.changes
    )


def test_raw_to_row_on_every_message(benchmark: Any, hold: Any, stream: Stream) -> None:
    def follow(book: OrderBook) -> bytes:
        for raw in stream.messages:
            update = parse_depth_update(raw)
            assert isinstance(update, DepthUpdate)
            book.apply(update)
            packed = book.snapshot(1737158400).pack()
        return packed

    packed = benchmark.pedantic(follow, setup=lambda: ((load_book(stream),), {}), rounds=ROUNDS)
    assert packed.startswith(b"\x94\xdc\x00\x14")

    def follow_reference(reference: ReferenceBook, raw: bytes) -> None:
        apply_raw(reference, raw)
        reference.pack(1737158400)

    spent, _ = time_reference(stream, follow_reference)
    hold("raw_to_row", len(stream.messages), spent)
