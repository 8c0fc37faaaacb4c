"""Drives the core from many threads at once and compares every row with a run by one thread.

Takes nothing but the standard library and the core, so that it runs on any interpreter. Threads
that each keep books of their own share what may be shared: raw messages, updates, snapshots, rows.
Then one thread changes a single book while others read it, and all give rows to a single decoder.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import sysconfig
import threading
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from obframe._core import (
    ColumnDecoder,
    DepthUpdate,
    OrderBook,
    Snapshot,
    parse_depth_snapshot,
    parse_depth_update,
)
from obframe.errors import MessageError

THREADS = 4
MESSAGES = 400
ROUNDS = 3
SYMBOL = "BTCUSDT"
BROKEN = (
    b'{"e":"depthUpdate","s":"X","U":1,"u":0}',
    b'{"e":',
    b'{"e":"depthUpdate","s":"X","b":3}',
)


class Stream:
    """A seeded snapshot and the events after it; a few have prices finer than the book's."""

    def __init__(self, seed: int, messages: int = MESSAGES) -> None:
        rng = random.Random(seed)
        bids = [[f"{1000 - n}.50", f"{rng.randrange(1, 10**6)}.25"] for n in range(200)]
        asks = [[f"{1001 + n}.50", f"{rng.randrange(1, 10**6)}.25"] for n in range(200)]
        self.first = json.dumps({"lastUpdateId": 1, "bids": bids, "asks": asks}).encode()
        self.messages = [self._draw(rng, number + 2) for number in range(messages)]
        self.snapshot = parse_depth_snapshot(self.first, SYMBOL)
        self.updates = [_take(parse_depth_update(message)) for message in self.messages]

    @staticmethod
    def _draw(rng: random.Random, update_id: int) -> bytes:
        sides: list[list[list[str]]] = []
        for start in (600, 1001):
            finest = ".5" + "0" * rng.choice((0, 0, 0, 11)) + "5"
            changes = rng.randrange(40)
            prices = [f"{start + rng.randrange(400)}{finest}" for _ in range(changes)]
            sides.append([[price, str(rng.choice((0, rng.random()))).ljust(3)[:9].strip()]
                          for price in prices])  # fmt: skip
        event = {"e": "depthUpdate", "s": SYMBOL, "U": update_id, "u": update_id}
        return json.dumps({**event, "b": sides[0], "a": sides[1]}).encode()


def _take(update: DepthUpdate | None) -> DepthUpdate:
    if update is None:
        raise AssertionError("the stream holds what is no event")
    return update


def follow(stream: Stream, share: bool) -> str:
    """Keep a book of one's own through the stream; return a digest of all that it told.

    Args:
        stream: What to follow.
        share: Take the events that other threads use too instead of parsing them.
    """
    told = hashlib.sha256()
    book = OrderBook(SYMBOL)
    book.load(stream.snapshot if share else parse_depth_snapshot(stream.first, SYMBOL))
    for number, message in enumerate(stream.messages):
        shared = stream.updates[number]
        update = shared if share else _take(parse_depth_update(message))
        if share or number % 2:
            book.apply(update)
        elif not book.follow(message):
            raise AssertionError(f"message {number} is old to {book}")
        packed = book.snapshot(number).pack()
        told.update(packed)
        row = Snapshot.unpack(packed, SYMBOL)
        told.update(repr((row.bids[:3], len(update), shared.bids[:2], book.covers())).encode())
        if number % 50 == 0:
            told.update(repr((book.asks(), book.crossed, book.nbytes, hash(row) != 0)).encode())
        try:
            parse_depth_update(BROKEN[number % len(BROKEN)])
        except MessageError as error:
            told.update(str(error).encode())
    return told.hexdigest()


def run_together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each in a thread of its own, all begun at once; return what they returned.

    Raises:
        BaseException: What the first of them raised.
    """
    answers: list[Any] = [None] * len(works)
    failures: list[BaseException] = []
    ready = threading.Barrier(len(works))

    def run(place: int) -> None:
        try:
            ready.wait()
            answers[place] = works[place]()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answers


def check_books_apart(threads: int = THREADS, messages: int = MESSAGES) -> None:
    """Let every thread keep its own books, of streams that are shared.

    Raises:
        AssertionError: A thread was told something else than one thread alone.
    """
    streams = [Stream(seed, messages) for seed in range(2)]

    def work() -> list[str]:
        return [follow(stream, share) for stream in streams for share in (False, True)]

    expected = work()
    for answer in run_together([work] * threads):
        assert answer == expected, f"{threads} threads: {answer}, one thread: {expected}"


def check_one_book(threads: int = THREADS, messages: int = MESSAGES) -> None:
    """Let one thread change a book that the others read: what they see are whole updates.

    Raises:
        AssertionError: A reader saw what the book never was.
    """
    stream = Stream(7, messages)
    book, alone = OrderBook(SYMBOL), OrderBook(SYMBOL)
    for each in (book, alone):
        each.load(stream.snapshot)
    states = {alone.snapshot(0).pack()}
    for update in stream.updates:
        alone.apply(update)
        states.add(alone.snapshot(0).pack())
    done = threading.Event()

    def write() -> int:
        try:
            for number, update in enumerate(stream.updates):
                if number % 2:
                    book.apply(update)
                else:
                    book.follow(stream.messages[number])
        finally:
            done.set()
        return 0

    def read() -> int:
        last = looks = 0
        while not done.is_set() or not looks:
            row = book.snapshot(0)
            assert row.pack() in states, f"the book was never so: {row.bids}"
            assert row.update_id >= last, f"{row.update_id} after {last}"
            assert len(book.bids(30)) <= 30
            last, looks = row.update_id, looks + 1
            book.covers(), book.crossed, book.nbytes, book.bid_count
        return looks

    run_together([write, *[read] * (threads - 1)])
    assert book.snapshot(0).pack() == alone.snapshot(0).pack()


def check_one_decoder(threads: int = THREADS, tries: int = MESSAGES) -> None:
    """Let all threads give rows to one decoder, few and many: each part is in whole, or refused.

    Raises:
        AssertionError: The columns hold what nobody gave, or more than there is room for.
    """
    room, guard = 600, 600
    ids = array("Q", bytes(8 * (room + guard)))
    decoder = ColumnDecoder(1, update_ids=memoryview(ids)[:room])
    parts = [
        [Snapshot("X", 1000 * number + at + 1, 0, [("1", "2")], []).pack() for at in range(count)]
        for number, count in enumerate((1, 50, 130, 200))
    ]
    given = {row.update_id: part for part in parts for row in map(Snapshot.unpack, part[:1])}

    def work() -> None:
        for number in range(tries):
            with suppress(RuntimeError, ValueError):  # another is in it, or it is full
                decoder.extend(parts[number % len(parts)])
            assert len(decoder) <= room
            if number % 10 == 0:
                with suppress(RuntimeError):
                    decoder.clear()

    run_together([work] * threads)
    assert not any(ids[room:]), "rows were written behind the columns"
    at = 0
    while at < len(decoder):
        part = given[ids[at]]
        expected = [Snapshot.unpack(row).update_id for row in part]
        assert ids[at : at + len(part)].tolist() == expected, "parts are mixed"
        at += len(part)
    assert at == len(decoder)


def main() -> int:
    """Run all of it a few times over; return 1 when the interpreter took its GIL back."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    for _ in range(ROUNDS):
        check_books_apart()
        check_one_book()
        check_one_decoder()
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    how = "with" if enabled else "without"
    sys.stdout.write(
        f"{ROUNDS} rounds of {THREADS} threads {how} GIL on Python {sys.version.split()[0]}: "
        "every row as one thread takes it\n"
    )
    return int(free and enabled)


if __name__ == "__main__":
    sys.exit(main())
