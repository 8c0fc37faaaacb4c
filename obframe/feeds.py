"""The feeds of one run: which of them speaks for which instrument, and what one of them says.

``FeedRunner.emit`` is the hot path: it takes one feed event through synchroniser and book in one
synchronous call. Each feed has a runner of its own, which knows the books of its venue and no
other: an event that names another venue's symbol finds no book there, and a feed that fails is
started anew without any other being touched.

A feed is told the venue's own names only: that of ``kraken`` is asked for ``BTC/USD`` and speaks of
``BTC/USD``, whether the rows are those of ``kraken/BTC/USD`` or, with ``kraken`` as the default
venue, of ``BTC/USD``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from obframe._core import DepthSnapshot, DepthUpdate
from obframe.errors import SymbolError
from obframe.histogram import Histogram
from obframe.protocols import Feed, FeedEvent
from obframe.sync import BookSynchronizer, SnapshotWanted
from obframe.types import (
    BookState,
    FeedStatus,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
)

logger = logging.getLogger("obframe.books")

_LOST = (BookState.STALE, BookState.RESYNCING, BookState.RECONNECTING, BookState.HALTED)
_RESTART_FIRST = 0.5
_RESTART_MAX = 60.0
_ASK_AGAIN = 5.0
"""Seconds until a feed that raised is asked for the same again."""
_GARBAGE_LOGGED = 10


class Venues:
    """Which venue an instrument is of.

    Args:
        names: The venues there are: the names of the feeds.
        default: The one that symbols without a venue are of; empty when there is none.
    """

    def __init__(self, names: Iterable[str], default: str = "") -> None:
        self.names = tuple(names)
        self.default = default

    def resolve(self, instrument: Instrument) -> tuple[str, str]:
        """Return the venue of an instrument and what it is called there.

        Raises:
            SymbolError: No feed speaks for it; the message says what there is and the mend.
        """
        venue = instrument.venue or self.default
        if venue in self.names:
            return venue, instrument.native
        loaded = ", ".join(self.names) or "none"
        if instrument.venue:
            raise SymbolError(
                instrument.symbol,
                f"is of the venue {venue!r}, which is not loaded (loaded: {loaded}); "
                f"add it to --plugins, or correct it",
            )
        raise SymbolError(
            instrument.symbol,
            f"names no venue, and none of those loaded is the default ({loaded}); write "
            f"{self.names[0] if self.names else 'venue'}/{instrument.symbol}, or choose the "
            "default with --feed",
        )

    def refusals(self, symbols: Iterable[str]) -> Iterator[str]:
        """Yield what is wrong with symbols that are to be recorded together, one line for each."""
        named: dict[tuple[str, str], str] = {}
        for symbol in dict.fromkeys(symbols):
            try:
                book = self.resolve(Instrument.parse(symbol))
            except SymbolError as error:
                yield str(error)
                continue
            if book in named:
                yield f"symbol {symbol!r}: {describe_twin(named[book])}"
            named.setdefault(book, symbol)


def describe_twin(symbol: str) -> str:
    """Say why a second name of one book is refused."""
    return f"is the same book as {symbol!r}, by another name; name it once"


@dataclass(frozen=True, slots=True)
class FeedSet:
    """The feeds of one run.

    Args:
        feeds: The feeds by venue.
        default: The venue that symbols without one are of; empty when there is none.
    """

    feeds: Mapping[str, Feed]
    default: str = ""


class Entry:
    """What is held of one instrument."""

    __slots__ = ("runner", "snapshot_timer", "sync", "told", "watchers")

    def __init__(self, sync: BookSynchronizer, runner: FeedRunner) -> None:
        instrument = sync.instrument
        self.sync = sync
        self.runner = runner
        self.told = Instrument(instrument.native) if instrument.venue else instrument
        self.watchers: set[asyncio.Event] = set()
        self.snapshot_timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Ask for no snapshot any more."""
        if self.snapshot_timer is not None:
            self.snapshot_timer.cancel()
            self.snapshot_timer = None


class FeedRunner:
    """One feed, supervised, and the books of its venue.

    Args:
        venue: The feed's name, for the log; empty when there is one feed only.
        feed: Where events come from; None: nobody speaks for these instruments.
        latency: Takes nanoseconds from the receipt of an update to the updated book.
        on_change: Called with every state change, synchronously; must not raise.
        rng: Source of jitter.
    """

    def __init__(
        self,
        venue: str,
        feed: Feed | None,
        latency: Histogram,
        on_change: Callable[[StateChange], None] | None,
        rng: random.Random,
    ) -> None:
        self.venue = venue
        self.feed = feed
        self.entries: dict[str, Entry] = {}  # by the venue's own name
        self.counters: Counter[str] = Counter()
        self.recovered: dict[str, list[StateChange]] = {}  # logged together, at the next tick
        self._latency = latency
        self._on_change = on_change
        self._random = rng
        self._name = f"the feed {venue}" if venue else "the feed"
        self._wanted = asyncio.Event()

    # -- what is wanted of it --------------------------------------------------------------------

    def subscribe(self, entries: Collection[Entry]) -> None:
        """Have these instruments, which stand in ``entries``, streamed too."""
        self._ask([entry.told for entry in entries])

    def unsubscribe(self, entries: Collection[Entry]) -> None:
        """Have these instruments streamed no longer."""
        for entry in entries:
            self.entries.pop(entry.told.symbol, None)
        if self.feed is not None:
            try:
                self.feed.unsubscribe([entry.told for entry in entries])
            except Exception:
                self._note_refusal("to end streams")

    def _ask(self, instruments: Sequence[Instrument]) -> None:
        wanted = [item for item in instruments if item.symbol in self.entries]
        if self.feed is None or not wanted:
            return
        try:
            self.feed.subscribe(wanted)
        except Exception as error:
            self._note_refusal("for streams")
            detail = f"{self._name} cannot be asked for it: {type(error).__name__}: {error}"
            event = StreamEvent.DISCONNECTED
            self.emit(FeedStatus(event, frozenset(wanted), GapReason.INTERNAL, detail))
            asyncio.get_running_loop().call_later(_ASK_AGAIN, self._ask, wanted)
        self._wanted.set()

    def _note_refusal(self, what: str) -> None:
        self.counters["errors"] += 1
        logger.exception("%s cannot be asked %s", self._name, what)

    async def run(self, *, when_wanted: bool) -> None:
        """Run the feed; restart it with back-off whenever it fails, until cancelled.

        Args:
            when_wanted: Do not begin before anything is wanted of it.
        """
        feed = self.feed
        if feed is None:
            return
        delay = _RESTART_FIRST
        loop = asyncio.get_running_loop()
        if when_wanted:
            await self._wanted.wait()
        while True:
            began = loop.time()
            try:
                await feed.run(self.emit)
            except Exception as error:
                logger.exception("%s failed and is started anew", self._name)
                self.counters["feed_restarts"] += 1
                # The next run knows nothing of what this one said: it begins with no book halted.
                self._tell_all(StreamEvent.TRADING, None, "")
                detail = f"{self._name} failed: {type(error).__name__}: {error}"
                self._tell_all(StreamEvent.DISCONNECTED, GapReason.INTERNAL, detail)
            else:
                detail = f"{self._name} has come to its end"
                logger.info("%s", detail)
                self._tell_all(StreamEvent.DISCONNECTED, GapReason.INTERNAL, detail)
                return
            if loop.time() - began > _RESTART_MAX:
                delay = _RESTART_FIRST
            await asyncio.sleep(delay * (0.5 + 0.5 * self._random.random()))
            delay = min(delay * 2, _RESTART_MAX)

    def feed_counters(self) -> Mapping[str, int]:
        """Return what the feed counted; nothing when it cannot tell."""
        if self.feed is None:
            return {}
        try:
            return {str(name): int(count) for name, count in self.feed.counters().items()}
        except Exception:
            logger.exception("%s cannot tell what it counted", self._name)
            return {}

    # -- what it says ----------------------------------------------------------------------------

    def emit(self, event: FeedEvent) -> None:
        """Take one event through synchroniser and book. Never raises."""
        if isinstance(event, DepthUpdate):
            entry = self.entries.get(event.symbol)
            if entry is None:
                self.counters["unsubscribed"] += 1
                return
            self.counters["updates"] += 1
            try:
                entry.sync.receive_update(event)
            except Exception as error:
                self.fail(entry, error)
            if event.received_ns:
                self._latency.add(time.monotonic_ns() - event.received_ns)
            if entry.sync.events or entry.watchers:
                log_changes(self.tell(entry))
        elif isinstance(event, DepthSnapshot):
            entry = self.entries.get(event.symbol)
            if entry is None:
                self.counters["unsubscribed"] += 1
                return
            try:
                entry.sync.receive_snapshot(event)
            except Exception as error:
                self.fail(entry, error)
            log_changes(self.tell(entry))
        elif isinstance(event, FeedStatus):
            self._receive_status(event)
        else:
            self._refuse(f"a {type(event).__name__}, which is no feed event")

    def _receive_status(self, status: FeedStatus) -> None:
        try:
            symbols = sorted(instrument.symbol for instrument in status.instruments)
        except (AttributeError, TypeError):
            self._refuse(f"a status of {status.instruments!r:.80}, which are no instruments")
            return
        lost: list[StateChange] = []
        for symbol in symbols:
            entry = self.entries.get(symbol)
            if entry is not None:
                try:
                    entry.sync.receive_status(status)
                except Exception as error:
                    self.fail(entry, error)
                lost += self.tell(entry)
        log_changes(lost)

    def _refuse(self, what: str) -> None:
        self.counters["unknown"] += 1
        if self.counters["unknown"] <= _GARBAGE_LOGGED:
            logger.error("%s emitted %s", self._name, what)

    def fail(self, entry: Entry, error: Exception) -> None:
        """Prove one book anew that raised."""
        self.counters["errors"] += 1
        symbol = entry.sync.instrument.symbol
        logger.error("%s: the book failed and is proven anew", symbol, exc_info=error)
        detail = f"{type(error).__name__}: {error}"
        entry.sync.resynchronise(GapReason.INTERNAL, detail)

    def tell(self, entry: Entry) -> list[StateChange]:
        """Pass on what a synchroniser has to tell.

        Returns:
            What is to be logged at once: what was lost, after what led there.
        """
        lost: list[StateChange] = []
        symbol = entry.sync.instrument.symbol
        for event in entry.sync.take_events():
            if isinstance(event, SnapshotWanted):
                self._schedule_snapshot(entry, event.delay)
            else:
                if event.new in _LOST:
                    lost += (*self.recovered.pop(symbol, ()), event)
                else:
                    self.recovered.setdefault(symbol, []).append(event)
                if self._on_change is not None:
                    self._on_change(event)
        for watcher in entry.watchers:
            watcher.set()
        return lost

    # -- inside ----------------------------------------------------------------------------------

    def _tell_all(self, event: StreamEvent, reason: GapReason | None, detail: str) -> None:
        instruments = frozenset(entry.told for entry in self.entries.values())
        self.emit(FeedStatus(event, instruments, reason, detail))

    def _schedule_snapshot(self, entry: Entry, delay: float) -> None:
        entry.cancel()
        if delay <= 0:
            self._request_snapshot(entry)
        else:
            loop = asyncio.get_running_loop()
            entry.snapshot_timer = loop.call_later(delay, self._request_snapshot, entry)

    def _request_snapshot(self, entry: Entry) -> None:
        if self.feed is None:
            return
        try:
            self.feed.request_snapshot(entry.told)
        except Exception:
            self._note_refusal(f"for a snapshot of {entry.told.symbol}")
            self._schedule_snapshot(entry, _ASK_AGAIN)


def log_changes(changes: Iterable[StateChange]) -> None:
    """Log one line for all books that changed alike."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for change in changes:
        lost = change.new in _LOST
        if change.old is change.new and not lost:
            continue  # only cause or detail changed, of which its line would not tell
        reason = str(change.reason) if lost else ""
        kind = (change.old, change.new, reason, change.detail if lost else "")
        alike.setdefault(kind, []).append(change.instrument.symbol)
    for (old, new, reason, detail), symbols in alike.items():
        logger.log(
            logging.WARNING if reason else logging.INFO,
            "%s: %s -> %s%s%s",
            name_some(symbols),
            old,
            new,
            f" ({reason})" if reason else "",
            f": {detail}" if detail else "",
        )


def name_some(symbols: Sequence[str], most: int = 10) -> str:
    """Name the first symbols, and say how many more there are."""
    shown = ", ".join(symbols[:most])
    return shown if len(symbols) <= most else f"{shown} and {len(symbols) - most} more"
