"""Measures obframe beside its peers: same messages, checked first, in turns.

Run by ``make bench-peers``, in the environment that it makes. Every peer lives in a worker process;
one chunk of work at a time runs, peer after peer, so that what disturbs the machine disturbs all.
"""

from __future__ import annotations

import argparse
import json
import pickle
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from adapters import PEERS
from agreement import choose_points, follow_reference, judge
from base import Peer
from report import write_report
from streams import Feed, make_many, make_synthetic, make_traps, read_capture

HERE = Path(__file__).resolve().parent
BASE = "obframe"
PATIENCE = 300.0  # seconds for one command


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Attributes:
        messages: Of each stream.
        chunk: Messages between two turns.
        passes: Times that each stream is gone through for ``b``.
        row_passes: The same for ``t`` and ``e``.
        books: Books in turn.
        rounds: Messages that each of them gets.
    """

    messages: int = 2_000
    chunk: int = 200
    passes: int = 4
    row_passes: int = 2
    books: int = 150
    rounds: int = 60


QUICK = Plan(messages=120, chunk=30, passes=1, row_passes=1, books=20, rounds=6)


class PeerFailed(Exception):
    """A worker said that it cannot, died, or took too long."""


@dataclass
class Outcome:
    """What became of one peer.

    Attributes:
        version: Of its distribution.
        reason: Why it, or something of it, is left out.
        verdicts: By stream, see ``agreement.judge``.
        spent: By stream and work: microseconds of a unit, by pass and chunk.
        many: Microseconds of a message over many books, and obframe's beside it.
        book_bytes: Memory that one book takes.
    """

    version: str = ""
    reason: str = ""
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: dict[tuple[str, str], dict[tuple[int, int], float]] = field(default_factory=dict)
    many: list[tuple[float, float]] = field(default_factory=list)
    book_bytes: float | None = None


class Worker:
    """A peer's process.

    Args:
        name: The peer's name.
        streams: The pickle of the streams.
        program: What to run, for tests.
    """

    def __init__(self, name: str, streams: Path, program: Sequence[str] = ()) -> None:
        command = program or (sys.executable, str(HERE / "worker.py"))
        # Closed by close(), with the pipes.
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command, name, str(streams)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def read(self) -> Any:
        """Return the next answer.

        Raises:
            PeerFailed: There is none.
        """
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(PATIENCE):
                self.close()
                raise PeerFailed(f"no answer for {PATIENCE:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            raise PeerFailed(f"ended with code {code}: {said[-1] if said else 'no word'}"[:200])
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["answer"]

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have a method of the worker's ``Bench`` called and return what it returns.

        Raises:
            PeerFailed: It raised, or there is no worker any more.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise PeerFailed(f"its process is gone: {error}") from error
        return self.read()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                with suppress(OSError):  # what it no longer wanted to read
                    stream.close()


def say(text: str, start: float = time.monotonic()) -> None:
    """Show progress on standard error."""
    sys.stderr.write(f"[{time.monotonic() - start:4.0f} s] {text}\n")
    sys.stderr.flush()


class Run:
    """One run over all peers.

    Args:
        names: The peers' names; obframe has to be among them.
        feeds: The streams that are timed.
        traps: The stream that is only checked.
        many: A stream for each of many books.
        plan: How much is done.
        reasons: Why peers could not be installed, by distribution.
    """

    def __init__(
        self,
        names: Sequence[str],
        feeds: Sequence[Feed],
        traps: Feed,
        many: list[Feed],
        plan: Plan,
        reasons: dict[str, str] | None = None,
    ) -> None:
        self.names = names
        self.feeds = feeds
        self.checked = [*feeds, traps]
        self.many = many
        self.plan = plan
        self.reasons = reasons or {}
        self.outcomes = {name: Outcome() for name in names}
        self.workers: dict[str, Worker] = {}

    def kind(self, name: str) -> type[Peer]:
        return PEERS[name]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Start all workers; those that cannot import their peer are left out with the reason."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            streams = folder / "streams"
            by_name = {feed.name: feed for feed in self.checked}
            streams.write_bytes(pickle.dumps((by_name, self.many)))
            for name in self.names:
                self.workers[name] = worker = Worker(name, streams)
                stack.callback(worker.close)
            for name in self.names:
                with self.forgiving(name):
                    self.outcomes[name].version = self.workers[name].read()
            yield

    @contextmanager
    def forgiving(self, name: str) -> Iterator[None]:
        """Leave a peer out, with the reason, when it fails; obframe's own failure is the run's."""
        try:
            yield
        except PeerFailed as failure:
            if name == BASE:
                raise
            reason = str(failure)
            if "ModuleNotFoundError" in reason:
                reason = self.reasons.get(self.kind(name).package, reason)
            self.outcomes[name].reason = reason
            self.workers.pop(name).close()
            say(f"{name} is left out: {reason}")

    def turns(self, number: int) -> list[str]:
        """Return the peers that are left, each turn beginning with another."""
        names = list(self.workers)
        first = number % len(names)
        return names[first:] + names[:first]

    def check(self) -> None:
        """Have all books show their best levels, and judge them."""
        for feed in self.checked:
            say(f"{feed.name}: do all books agree?")
            points = choose_points(len(feed.messages))
            truth = follow_reference(feed, points)
            for name in self.turns(0):
                kind = self.kind(name)
                if kind.works == "b" and not self.shows_levels(kind):
                    continue
                with self.forgiving(name):
                    seen = self.workers[name].ask("check", feed=feed.name, points=points)
                    verdict = judge(seen, truth, points, kind.numbers, kind.tolerance)
                    self.outcomes[name].verdicts[feed.name] = verdict
                    if verdict["wrong"]:
                        say(f"{name} is wrong on {feed.name}: {verdict['first']}")

    @staticmethod
    def shows_levels(kind: type[Peer]) -> bool:
        """Tell whether a peer without ``top`` has another way to show its levels."""
        return kind.levels is not Peer.levels

    def measure(self) -> None:
        """Time all works on all streams, chunk by chunk, peer by peer."""
        for feed in self.feeds:
            once = self.plan.row_passes
            for work, passes in (("b", self.plan.passes), ("t", once), ("e", once)):
                for number in range(passes):
                    say(f"{feed.name}: {work}, pass {number + 1} of {passes}")
                    self.measure_pass(feed, work, number)
        for work in "cd":
            say(f"{self.feeds[0].name}: {work}")
            self.measure_pass(self.feeds[0], work, 0)

    def measure_pass(self, feed: Feed, work: str, number: int) -> None:
        plan = self.plan
        for turn, first in enumerate(range(0, len(feed.messages) - plan.chunk + 1, plan.chunk)):
            for name in self.turns(turn):
                if work not in self.kind(name).works:
                    continue
                with self.forgiving(name):
                    spent = self.workers[name].ask(
                        "measure", feed=feed.name, work=work, first=first, count=plan.chunk
                    )
                    by_chunk = self.outcomes[name].spent.setdefault((feed.name, work), {})
                    by_chunk[number, first] = spent

    def measure_many(self) -> None:
        """Time each peer over many books in turn with obframe, round by round.

        Two peers' books at a time are in memory, not all.
        """
        base = self.workers[BASE]
        for name in self.turns(0):
            outcome = self.outcomes[name]
            say(f"{self.plan.books} books in turn: {name}")
            with self.forgiving(BASE):
                opened = base.ask("open_many", books=self.plan.books)
            with self.forgiving(name):
                if name != BASE:
                    opened = self.workers[name].ask("open_many", books=self.plan.books)
                if self.kind(name).works != "b" or self.shows_levels(self.kind(name)):
                    outcome.book_bytes = opened["bytes"]
                for index in range(self.plan.rounds):
                    ours = base.ask("measure_many", index=index)
                    theirs = (
                        ours
                        if name == BASE
                        else self.workers[name].ask("measure_many", index=index)
                    )
                    outcome.many.append((theirs, ours))
                self.workers[name].ask("close_many")

    def summarize(self) -> dict[str, dict[str, Any]]:
        """Return every peer's figures: microseconds and ratios to obframe, medians over chunks."""
        base = self.outcomes[BASE].spent
        summary = {}
        for name, outcome in self.outcomes.items():
            kind = self.kind(name)
            figures: dict[str, tuple[float, float]] = {}
            for (feed, work), by_chunk in outcome.spent.items():
                figures[f"{work} {feed}"] = compare(by_chunk, base[feed, work])
            if outcome.many:
                pairs = dict(enumerate(outcome.many))
                figures["many"] = compare(
                    {index: pair[0] for index, pair in pairs.items()},
                    {index: pair[1] for index, pair in pairs.items()},
                )
            summary[name] = {
                "title": kind.title,
                "package": kind.package,
                "version": outcome.version,
                "numbers": kind.numbers,
                "note": kind.note,
                "reason": outcome.reason,
                "verdicts": outcome.verdicts,
                "figures": figures,
                "bytes": outcome.book_bytes,
            }
        return summary


def compare(spent: dict[Any, float], base: dict[Any, float]) -> tuple[float, float]:
    """Return the median of what was spent, and the median ratio to the base, chunk by chunk."""
    ratios = [value / base[chunk] for chunk, value in spent.items() if base.get(chunk)]
    return statistics.median(spent.values()), statistics.median(ratios)


def gather_feeds(plan: Plan) -> tuple[list[Feed], list[str]]:
    """Return the streams, and why others are not among them."""
    feeds = [make_synthetic(plan.messages)]
    skipped = []
    for market in ("spot", "usdm"):
        try:
            feeds.append(read_capture(market, plan.messages))
        except FileNotFoundError as error:
            skipped.append(f"{market}: {error}")
    return feeds, skipped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; writes no pages")
    parser.add_argument("--peers", default="", help="only these, separated by commas")
    parser.add_argument("--docs", type=Path, help="write the tables and plots into this folder")
    parser.add_argument("--reasons", type=Path, help="JSON: why peers could not be installed")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    names = [name for name in PEERS if not options.peers or name in options.peers.split(",")]
    if unknown := set(options.peers.split(",")) - set(PEERS) - {""}:
        parser.error(f"no such peers: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if BASE not in names:
        names.insert(0, BASE)
    reasons = {}
    if options.reasons and options.reasons.exists():
        reasons = json.loads(options.reasons.read_text(encoding="utf-8"))
    say("making streams")
    feeds, skipped = gather_feeds(plan)
    many = make_many(plan.books, plan.rounds)
    run = Run(names, feeds, make_traps(), many, plan, reasons)
    with run.working():
        run.check()
        if run.outcomes[BASE].verdicts and any(
            verdict["wrong"] or verdict["digits"] is False
            for verdict in run.outcomes[BASE].verdicts.values()
        ):
            say("obframe itself is wrong; nothing is timed")
            return 1
        run.measure()
        run.measure_many()
    say("done")
    write_report(
        run.summarize(), feeds, skipped, plan, None if options.quick else options.docs, sys.stdout
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
