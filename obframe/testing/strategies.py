"""Hypothesis strategies for decimals, books, depth streams and the JSON that carries them.

Needs ``obframe[testing]``. Everything drawn here is valid unless its name says otherwise, and stays
within what a book holds exactly: prices below 10,000 with up to 15 decimals, quantities up to
10**12 with up to 18.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from obframe._core import DepthSnapshot, DepthUpdate
from obframe.protocols import FeedEvent
from obframe.testing.reference import ReferenceBook
from obframe.types import FeedStatus, GapReason, Instrument, StreamEvent

Level = tuple[str, str]


@dataclass(frozen=True)
class Diff:
    """One valid depth event.

    Attributes:
        first: First update id.
        last: Last update id.
        bids: ``(price, quantity)`` in order, duplicates included.
        asks: The same for asks.
    """

    first: int
    last: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


@dataclass(frozen=True)
class DepthStream:
    """A snapshot and the contiguous events after it.

    Attributes:
        last_update_id: The snapshot's id.
        bids: The snapshot's bids, in any order, with duplicates and zero quantities.
        asks: The same for asks.
        diffs: The events; each starts one above the last id before it.
    """

    last_update_id: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    diffs: tuple[Diff, ...]


@dataclass(frozen=True)
class FaultyStream:
    """What a venue truly did, and what of it a feed emits.

    Attributes:
        instrument: Whose.
        stream: The truth.
        events: In order, from the first ``SUBSCRIBED``. Lost updates, ones that come twice or late,
            broken streams and snapshots that are old or ahead are among them; the end is clean: a
            new stream, a snapshot, and all updates after it.
    """

    instrument: Instrument
    stream: DepthStream
    events: tuple[FeedEvent, ...]

    def book_at(self, update_id: int) -> ReferenceBook:
        """Return the venue's book as it was at an update id.

        Raises:
            KeyError: It never had that id.
        """
        book = ReferenceBook()
        book.load(self.stream.last_update_id, self.stream.bids, self.stream.asks)
        for diff in self.stream.diffs:
            if book.update_id == update_id:
                break
            book.apply(diff.last, diff.bids, diff.asks)
        if book.update_id != update_id:
            raise KeyError(update_id)
        return book


def decimals(largest: int, places: int) -> st.SearchStrategy[str]:
    """Draw decimals from 0 to ``largest`` with up to ``places`` decimals, as venues write them."""
    digits = st.text("0123456789", min_size=0, max_size=places)
    return st.builds(
        lambda whole, fraction: f"{whole}.{fraction}" if fraction else str(whole),
        st.one_of(st.integers(0, min(9, largest)), st.integers(0, largest)),
        digits,
    )


def prices() -> st.SearchStrategy[str]:
    """Draw prices above zero; few enough values that a stream meets its own levels again."""
    common = st.builds(
        lambda units, zeros: f"{units // 10}.{units % 10}" + "0" * zeros,
        st.integers(1, 60),
        st.integers(0, 3),
    )
    return st.one_of(common, common, decimals(9_999, 15).filter(lambda text: text.strip("0.")))


def quantities() -> st.SearchStrategy[str]:
    """Draw quantities, a third of them zero in some spelling."""
    zero = st.integers(0, 18).map(lambda places: "0." + "0" * places if places else "0")
    return st.one_of(zero, decimals(1_000, 8), decimals(10**12, 18))


def levels(max_size: int = 12) -> st.SearchStrategy[tuple[Level, ...]]:
    """Draw the levels of one side in any order, with prices that may repeat."""
    return st.lists(st.tuples(prices(), quantities()), max_size=max_size).map(tuple)


# Made once: to make them takes longer than to draw from them.
_CHANGES = levels()
_SIDE = levels(30)


@st.composite
def depth_streams(draw: st.DrawFn, max_diffs: int = 12) -> DepthStream:
    """Draw a snapshot and up to ``max_diffs`` contiguous events."""
    start = last = draw(st.integers(0, 2**62))
    diffs = []
    for _ in range(draw(st.integers(0, max_diffs))):
        first = last + 1
        last = first + draw(st.integers(0, 50))
        diffs.append(Diff(first, last, draw(_CHANGES), draw(_CHANGES)))
    return DepthStream(start, draw(_SIDE), draw(_SIDE), tuple(diffs))


_FAULTS = ("lost", "twice", "late", "broken", "refused", "snapshot", "snapshot")


@st.composite
def faulty_streams(draw: st.DrawFn, max_diffs: int = 12, symbol: str = "BTCUSDT") -> FaultyStream:
    """Draw a stream, and what faults between venue and feed make of it.

    Args:
        draw: Given by Hypothesis.
        max_diffs: Most updates of the venue.
        symbol: Whose.
    """
    stream = draw(depth_streams(max_diffs))
    instrument = Instrument(symbol)
    whole = FaultyStream(instrument, stream, ())
    ids = [stream.last_update_id, *(diff.last for diff in stream.diffs)]

    def status(event: StreamEvent, reason: GapReason | None = None) -> FeedStatus:
        return FeedStatus(event, frozenset({instrument}), reason)

    def snapshot(at: int) -> DepthSnapshot:
        book = whole.book_at(ids[min(max(at, 0), len(ids) - 1)])
        return DepthSnapshot(symbol, book.update_id, book.bids(), book.asks())

    updates = [
        DepthUpdate(symbol, diff.first, diff.last, diff.first - 1, diff.bids, diff.asks)
        for diff in stream.diffs
    ]
    events: list[FeedEvent] = [status(StreamEvent.SUBSCRIBED)]
    for index, update in enumerate(updates):
        match draw(st.sampled_from(("right", "right", "right", *_FAULTS))):
            case "lost":
                pass
            case "twice":
                events += [update, update]
            case "late":
                events += [*updates[index + 1 : index + 2], update]
            case "broken":
                events += [
                    status(StreamEvent.DISCONNECTED, GapReason.DISCONNECTED),
                    status(StreamEvent.SUBSCRIBED),
                ]
            case "refused":
                events.append(status(StreamEvent.INVALID, GapReason.INVALID))
            case "snapshot":
                events += [update, snapshot(index + 1 + draw(st.integers(-3, 3)))]
            case _:
                events.append(update)
    events += [status(StreamEvent.DISCONNECTED), status(StreamEvent.SUBSCRIBED)]
    tail = draw(st.integers(0, len(updates)))
    events += [snapshot(tail), *updates[tail:]]
    return FaultyStream(instrument, stream, tuple(events))


_SPACES = st.text(" \t\r\n", max_size=2)
_KNOWN = frozenset({"e", "E", "s", "U", "u", "pu", "b", "a", "stream", "data"})


def extra_fields() -> st.SearchStrategy[dict[str, Any]]:
    """Draw fields that no reader of depth events knows, with any JSON in them."""
    floats = st.floats(allow_nan=False, allow_infinity=False)
    anything = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), floats, st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )
    keys = st.text(max_size=6).filter(lambda key: key not in _KNOWN)
    return st.dictionaries(keys, anything, max_size=3)


_EXTRA_FIELDS = extra_fields()


@st.composite
def json_texts(draw: st.DrawFn, value: Any) -> str:
    """Write a JSON value with spaces, field order and escapes of strings drawn at random.

    Decimals are written plainly, as every venue does: an escape in a price is not a price.
    """
    if isinstance(value, dict):
        pairs = draw(st.permutations(list(value.items())))
        inside = ",".join(
            f"{draw(_SPACES)}{draw(json_strings(key))}{draw(_SPACES)}:{draw(_SPACES)}"
            f"{draw(json_texts(item))}{draw(_SPACES)}"
            for key, item in pairs
        )
        return "{" + (inside or draw(_SPACES)) + "}"
    if isinstance(value, list | tuple):
        inside = ",".join(
            f"{draw(_SPACES)}{draw(json_texts(item))}{draw(_SPACES)}" for item in value
        )
        return "[" + (inside or draw(_SPACES)) + "]"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def json_strings(draw: st.DrawFn, text: str) -> str:
    """Write a JSON string, at times with every character escaped."""
    if draw(st.integers(0, 9)):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    units = text.encode("utf-16-be", "surrogatepass")
    escapes = (f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return '"' + "".join(escapes) + '"'


@st.composite
def event_messages(
    draw: st.DrawFn, diff: Diff, symbol: str = "BTCUSDT", prev_update_id: int | None = None
) -> bytes:
    """Write an event as a venue could: any field order, spaces, unknown fields, wrapped or not.

    Args:
        draw: Given by Hypothesis.
        diff: The event.
        symbol: Its ``s``.
        prev_update_id: Its ``pu``; None leaves it away, as spot does.
    """
    event: dict[str, Any] = {
        "e": "depthUpdate",
        "E": draw(st.integers(0, 2**53)),
        "s": symbol,
        "U": diff.first,
        "u": diff.last,
        "b": diff.bids,
        "a": diff.asks,
    }
    if prev_update_id is not None:
        event["pu"] = prev_update_id
    event.update(draw(_EXTRA_FIELDS))
    message: dict[str, Any] = event
    if draw(st.booleans()):
        message = {"stream": f"{symbol.lower()}@depth@100ms", "data": event}
        message.update(draw(_EXTRA_FIELDS))
    text = draw(_SPACES) + draw(json_texts(message)) + draw(_SPACES)
    return text.encode()


@st.composite
def malformed_messages(draw: st.DrawFn, message: bytes) -> bytes:
    """Damage a message: bytes changed, put in, taken out, doubled, or the end cut off.

    What comes out may by chance still be valid: judge it with a parser that is known to be strict.
    """
    damaged = bytearray(message)
    for _ in range(draw(st.integers(1, 3))):
        if not damaged:
            break
        at = draw(st.integers(0, len(damaged) - 1))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            damaged[at] = draw(st.integers(0, 255))
        elif kind == 1:
            damaged[at] = draw(st.sampled_from(b'"[]{},:.0123456789-+eE \\tfnuUba'))
        elif kind == 2:
            damaged.insert(at, draw(st.sampled_from(b'"[]{},:.0123456789-+eE \\tfnuUba')))
        elif kind == 3:
            del damaged[at]
        elif kind == 4:
            end = min(len(damaged), at + draw(st.integers(1, 30)))
            damaged[at:at] = damaged[at:end]
        else:
            del damaged[at:]
    return bytes(damaged)
