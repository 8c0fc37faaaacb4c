"""The synchroniser under streams and faults that Hypothesis draws."""

from __future__ import annotations

from hypothesis import given

from obframe import DepthSnapshot, DepthUpdate, FeedStatus
from obframe.sync import BookSynchronizer
from obframe.testing.strategies import FaultyStream, faulty_streams
from obframe.types import BookState


@given(faulty_streams())
def test_a_proven_book_is_the_venues_whatever_becomes_of_the_stream(drawn: FaultyStream) -> None:
    sync = BookSynchronizer(drawn.instrument)
    for event in drawn.events:
        match event:
            case DepthUpdate():
                sync.receive_update(event)
            case DepthSnapshot():
                sync.receive_snapshot(event)
            case FeedStatus():
                sync.receive_status(event)
        book = sync.book
        if book is not None:
            true = drawn.book_at(book.update_id)
            assert (book.bids(), book.asks()) == (true.bids(), true.asks())
    # The end of every such stream is clean: it proves the book, if there is an update to prove it.
    if isinstance(drawn.events[-1], DepthUpdate):
        assert sync.state is BookState.LIVE
        assert sync.book is not None
        assert sync.book.update_id == drawn.stream.diffs[-1].last
