"""Whether all books hold the same best levels, checked before anything is timed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from base import DEPTH, Levels, Peer, same_number
from streams import Feed

from obframe.testing.reference import ReferenceBook

Top = tuple[Levels, Levels]


def choose_points(messages: int, count: int = 12) -> list[int]:
    """Return after how many messages to look: at the start, at the end, evenly between."""
    return sorted({round(messages * step / (count - 1)) for step in range(count)})


def follow_reference(feed: Feed, points: Iterable[int]) -> list[Top]:
    """Return the true best levels after so many messages, as the venue wrote them."""
    book = ReferenceBook()
    snapshot = json.loads(feed.snapshot)
    book.load(snapshot["lastUpdateId"], *map(_as_pairs, (snapshot["bids"], snapshot["asks"])))
    wanted = set(points)
    tops = [(book.bids(DEPTH), book.asks(DEPTH))] if 0 in wanted else []
    for number, message in enumerate(feed.messages, 1):
        event = json.loads(message)["data"]
        book.apply(event["u"], _as_pairs(event["b"]), _as_pairs(event["a"]))
        if number in wanted:
            tops.append((book.bids(DEPTH), book.asks(DEPTH)))
    return tops


def _as_pairs(levels: list[list[str]]) -> list[tuple[str, str]]:
    return [(price, quantity) for price, quantity in levels]


def follow_peer(kind: type[Peer], feed: Feed, points: Iterable[int]) -> list[dict[str, Any]]:
    """Return what a peer says are the best levels after so many messages, and its row of them."""
    book = open_book(kind, feed)
    trace = getattr(book, "trace", None)
    if trace:
        trace()
    book.load(feed.snapshot)
    wanted = set(points)
    seen = []
    for number in range(len(feed.messages) + 1):
        if number:
            book.apply(feed.messages[number - 1])
        if number in wanted:
            sides = [[[str(p), str(q)] for p, q in side] for side in book.levels()]
            seen.append({"top": sides, "row": _read_row(book) if "e" in kind.works else None})
    return seen


def _read_row(book: Peer) -> Any:
    import msgspec  # noqa: PLC0415  (only where rows are made)

    return msgspec.msgpack.decode(book.row())[:2]


def open_book(kind: type[Peer], feed: Feed) -> Peer:
    """Make a peer's empty book for a feed."""
    return kind(
        futures=feed.futures,
        price_decimals=feed.price_decimals,
        quantity_decimals=feed.quantity_decimals,
        step=feed.step,
    )


def find_difference(
    found: Sequence[Any], expected: Top, numbers: str, tolerance: float = 0.0
) -> str | None:
    """Return the first thing that differs from the truth, in words.

    Args:
        found: Bids and asks as a peer tells them, best first.
        expected: The same as the venue wrote them.
        numbers: How exact the peer's numbers are: ``text``, ``decimal`` or ``float``.
        tolerance: The relative difference a float may have.

    Returns:
        None when all is right.
    """
    for name, levels, truth in zip(("bid", "ask"), found, expected, strict=True):
        if len(levels) != len(truth):
            return f"{len(levels)} {name}s of {len(truth)}"
        for index, (level, true_level) in enumerate(zip(levels, truth, strict=True), 1):
            for value, true_value in zip(level, true_level, strict=True):
                if not same_number(value, true_value, numbers, tolerance):
                    pair = " x ".join(map(str, level))
                    return f"{name} {index} is {pair}, not {' x '.join(true_level)}"
    return None


def judge(
    seen: Sequence[dict[str, Any]],
    truth: Sequence[Top],
    points: Sequence[int],
    numbers: str,
    tolerance: float = 0.0,
) -> dict[str, Any]:
    """Judge what a peer showed at all points.

    Returns:
        ``wrong``: how many points were wrong; ``points``; ``first``: what differed first, in words;
        ``digits``: whether every row had every digit as the venue wrote it, None without rows.
    """
    if len(seen) != len(truth):
        return {
            "wrong": len(truth),
            "points": len(truth),
            "first": f"{len(seen)} answers",
            "digits": None,
        }
    wrong = 0
    first = None
    digits: bool | None = None
    for point, shown, expected in zip(points, seen, truth, strict=True):
        difference = find_difference(shown["top"], expected, numbers, tolerance)
        if difference:
            wrong += 1
            first = first or f"after {point} messages {difference}"
        if shown["row"] is not None:
            digits = (digits is not False) and not find_difference(shown["row"], expected, "text")
    return {"wrong": wrong, "points": len(truth), "first": first, "digits": digits}
