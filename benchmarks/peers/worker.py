"""One peer in a process of its own: what it does to memory, caches and the cyclic gc stays its own.

Started by run.py, which sends one JSON command a line and reads one JSON answer a line.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent))

from adapters import PEERS
from agreement import follow_peer, open_book
from base import Peer
from streams import Feed

SLOW = 200_000  # ns: of calls that take longer, ten a chunk say enough


def read_rss() -> int:
    """Return the bytes of memory that the process holds."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """The measurements of one peer.

    Args:
        kind: The peer.
        feeds: The streams by name.
        many: A short stream for each of many books.
    """

    def __init__(self, kind: type[Peer], feeds: dict[str, Feed], many: list[Feed]) -> None:
        self.kind = kind
        self.feeds = feeds
        self.many = many
        self.books: dict[tuple[str, str], Peer] = {}
        self.crowd: list[Peer] = []

    def check(self, feed: str, points: list[int]) -> list[dict[str, Any]]:
        """Return the peer's best levels at the points of a stream."""
        return follow_peer(self.kind, self.feeds[feed], points)

    def start(self, feed: str, work: str) -> None:
        """Load the book that a work goes on with."""
        self.books.clear()
        gc.collect()
        book = open_book(self.kind, self.feeds[feed])
        book.load(self.feeds[feed].snapshot)
        self.books[feed, work] = book

    def measure(self, feed: str, work: str, first: int, count: int) -> float:
        """Do a chunk of a work and return the CPU microseconds of one unit of it."""
        if first == 0 or (feed, work) not in self.books:
            self.start(feed, work)
        book = self.books[feed, work]
        messages = self.feeds[feed].messages[first : first + count]
        return _WORKS[work](book, messages)

    def open_many(self, books: int) -> dict[str, float]:
        """Load many books, and return the bytes of memory that one takes."""
        self.books.clear()
        self.crowd.clear()
        warm = open_book(self.kind, self.many[0])
        warm.load(self.many[0].snapshot)
        gc.collect()
        before = read_rss()
        for feed in self.many[:books]:
            book = open_book(self.kind, feed)
            book.load(feed.snapshot)
            self.crowd.append(book)
        gc.collect()
        return {"bytes": (read_rss() - before) / books}

    def measure_many(self, index: int) -> float:
        """Give every book its next message; return the CPU microseconds of one."""
        pairs = [
            (book.apply, feed.messages[index])
            for book, feed in zip(self.crowd, self.many, strict=False)
        ]
        _receive(message for _, message in pairs)
        start = time.process_time_ns()
        for apply, message in pairs:
            apply(message)
        return (time.process_time_ns() - start) / len(pairs) / 1e3

    def close_many(self) -> None:
        """Let the many books go."""
        self.crowd.clear()
        gc.collect()


def _receive(messages: Iterable[bytes]) -> None:
    """Read messages once: one that has just come out of a socket lies in the caches."""
    for message in messages:
        message.count(b"\0")


def _warm_up(work: Callable[[bytes], Any], messages: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Do half of a chunk, for caches that another process had; return what is to be timed."""
    warm = len(messages) // 2
    for message in messages[:warm]:
        work(message)
    _receive(messages[warm:])
    return messages[warm:]


def _measure_apply(book: Peer, messages: tuple[bytes, ...]) -> float:
    apply = book.apply
    messages = _warm_up(apply, messages)
    start = time.process_time_ns()
    for message in messages:
        apply(message)
    return (time.process_time_ns() - start) / len(messages) / 1e3


def _measure_both(book: Peer, messages: tuple[bytes, ...], call: Callable[[], Any]) -> float:
    apply = book.apply
    messages = _warm_up(lambda message: (apply(message), call()), messages)
    start = time.process_time_ns()
    for message in messages:
        apply(message)
        call()
    return (time.process_time_ns() - start) / len(messages) / 1e3


def _measure_calls(book: Peer, messages: tuple[bytes, ...], call: Callable[[], Any]) -> float:
    """Time single calls, each on a book that has just changed: what a call keeps is of no use then.

    By the clock on the wall, which alone is fine enough; the median leaves interruptions out.
    """
    spent = []
    between = max(1, len(messages) // 10)
    once = 0
    for number, message in enumerate(messages):
        book.apply(message)
        if once >= SLOW and number % between:
            continue
        once = _time(call)
        spent.append(once)
    nothing = statistics.median(_time(_do_nothing) for _ in range(101))
    return (statistics.median(spent) - nothing) / 1e3


def _time(call: Callable[[], Any]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def _do_nothing() -> None:
    pass


_WORKS: dict[str, Callable[[Peer, tuple[bytes, ...]], float]] = {
    "b": _measure_apply,
    "c": lambda book, messages: _measure_calls(book, messages, book.top),
    "d": lambda book, messages: _measure_calls(book, messages, book.row),
    "e": lambda book, messages: _measure_both(book, messages, book.row),
    "t": lambda book, messages: _measure_both(book, messages, book.best),
}


def describe(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]


def serve(name: str, streams: Path, commands: TextIO, answers: TextIO) -> None:
    """Answer commands until there are no more.

    Args:
        name: The peer's name in ``PEERS``.
        streams: A pickle of the streams and of the many streams.
        commands: One JSON object a line: ``do`` and that method's arguments.
        answers: One JSON object a line: ``answer`` or ``error``.
    """

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        kind = PEERS[name]
        kind.require()
        try:
            found = version(kind.package)
        except PackageNotFoundError:
            found = ""
        bench = Bench(kind, *pickle.loads(streams.read_bytes()))
    except BaseException as error:
        say(error=describe(error))
        return
    # Imports and messages are no garbage; the books, loaded from here on, are the gc's business.
    gc.collect()
    gc.freeze()
    say(answer=found)
    for line in commands:
        command = json.loads(line)
        try:
            say(answer=getattr(bench, command.pop("do"))(**command))
        except Exception as error:
            say(error=describe(error))


if __name__ == "__main__":
    # What a peer prints must not come between the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        serve(sys.argv[1], Path(sys.argv[2]), sys.stdin, out)
