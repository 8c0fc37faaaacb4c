"""A venue in memory and a feed that keeps the contract; subclasses break one rule each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from obframe import (
    DepthSnapshot,
    DepthUpdate,
    Emit,
    FeedStatus,
    GapReason,
    Instrument,
    Level,
    StreamEvent,
)
from obframe.testing.contracts import FeedVenue
from obframe.testing.reference import ReferenceBook

Message = tuple[str, Instrument, DepthUpdate | DepthSnapshot | None]


class Pipe:
    """One connection to the venue."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self.wanted: set[Instrument] = set()


class MemoryVenue(FeedVenue):
    """Knows every instrument whose symbol does not begin with ``NO``."""

    def __init__(self) -> None:
        self.pipes: list[Pipe] = []
        self.refused = False
        self._books: dict[Instrument, ReferenceBook] = {}

    # What the feed asks for.

    def connect(self) -> Pipe:
        pipe = Pipe()
        self.pipes.append(pipe)
        return pipe

    def leave(self, pipe: Pipe) -> None:
        if pipe in self.pipes:
            self.pipes.remove(pipe)

    def subscribe(self, pipe: Pipe, instrument: Instrument) -> None:
        if instrument.symbol.startswith("NO"):
            pipe.messages.put_nowait(("unknown", instrument, None))
            return
        pipe.wanted.add(instrument)
        pipe.messages.put_nowait(("subscribed", instrument, None))

    def ask(self, pipe: Pipe, instrument: Instrument) -> None:
        if self.refused:
            pipe.messages.put_nowait(("refused", instrument, None))
            return
        book = self._books[instrument]
        snapshot = DepthSnapshot(instrument.symbol, book.update_id, book.bids(), book.asks())
        pipe.messages.put_nowait(("snapshot", instrument, snapshot))

    # What the contract has happen.

    async def change(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        update = self._apply(instrument, bids, asks)
        for pipe in self.pipes:
            if instrument in pipe.wanted:
                pipe.messages.put_nowait(("update", instrument, update))

    async def lose(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> None:
        self._apply(instrument, bids, asks)

    async def drop(self) -> None:
        for pipe in self.pipes:
            pipe.messages.put_nowait(None)
        self.pipes.clear()

    async def garble(self, instrument: Instrument) -> None:
        for pipe in self.pipes:
            pipe.messages.put_nowait(("garbage", instrument, None))

    async def refuse_snapshots(self, refused: bool) -> None:
        self.refused = refused

    def _apply(
        self, instrument: Instrument, bids: Sequence[Level], asks: Sequence[Level]
    ) -> DepthUpdate:
        book = self._books.setdefault(instrument, ReferenceBook())
        previous = book.update_id
        book.apply(previous + 3, bids, asks)
        return DepthUpdate(instrument.symbol, previous + 1, book.update_id, previous, bids, asks)


class MemoryFeed:
    """Keeps every rule."""

    def __init__(self, venue: MemoryVenue) -> None:
        self.venue = venue
        self.wanted: dict[Instrument, None] = {}
        self.open: set[Instrument] = set()
        self.asked: set[Instrument] = set()
        self.pipe: Pipe | None = None
        self.counts: Counter[str] = Counter(messages=0, connections=0)
        self.emit: Emit
        self.runs = False

    async def run(self, emit: Emit) -> None:
        if self.runs:
            raise RuntimeError("runs already")
        self.runs = True
        self.emit = emit
        try:
            while True:
                await self.connect()
                self.lost()
                await asyncio.sleep(0.01)
        finally:
            self.end()

    async def connect(self) -> None:
        """Open a connection, and read until it is lost."""
        self.pipe = pipe = self.venue.connect()
        self.counts["connections"] += 1
        for instrument in self.wanted:
            self.venue.subscribe(pipe, instrument)
        while (message := await pipe.messages.get()) is not None:
            self.counts["messages"] += 1
            self.take(*message)

    def end(self) -> None:
        if self.pipe is not None:
            self.venue.leave(self.pipe)
        self.pipe = None
        self.open.clear()
        self.runs = False

    def lost(self) -> None:
        self.pipe = None
        gone, self.open = frozenset(self.open), set()
        self.tell(StreamEvent.DISCONNECTED, gone, GapReason.DISCONNECTED)

    def tell(
        self, event: StreamEvent, about: Collection[Instrument], reason: GapReason | None = None
    ) -> None:
        self.emit(FeedStatus(event, frozenset(about), reason))

    def take(
        self, kind: str, instrument: Instrument, data: DepthUpdate | DepthSnapshot | None
    ) -> None:
        if instrument not in self.wanted:
            return
        match kind:
            case "subscribed":
                self.subscribed(instrument)
            case "unknown":
                self.tell(StreamEvent.HALTED, [instrument], GapReason.UNKNOWN_SYMBOL)
            case "update":
                assert isinstance(data, DepthUpdate)
                self.update(data)
            case "snapshot":
                assert isinstance(data, DepthSnapshot)
                self.snapshot(instrument, data)
            case "refused":
                self.refused(instrument)
            case "garbage":
                self.garbage(instrument)

    def subscribed(self, instrument: Instrument) -> None:
        self.open.add(instrument)
        self.tell(StreamEvent.SUBSCRIBED, [instrument])
        if instrument in self.asked:
            self.ask(instrument)

    def update(self, update: DepthUpdate) -> None:
        self.emit(update)

    def snapshot(self, instrument: Instrument, snapshot: DepthSnapshot) -> None:
        if instrument in self.asked:
            self.asked.discard(instrument)
            self.emit(snapshot)

    def refused(self, instrument: Instrument) -> None:
        self.tell(StreamEvent.SNAPSHOT_FAILED, [instrument], GapReason.SNAPSHOT)
        asyncio.get_running_loop().call_later(0.02, self.ask, instrument)

    def garbage(self, instrument: Instrument) -> None:
        self.tell(StreamEvent.INVALID, [instrument], GapReason.INVALID)

    def ask(self, instrument: Instrument) -> None:
        if self.pipe is not None and instrument in self.asked and instrument in self.open:
            self.venue.ask(self.pipe, instrument)

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        for instrument in instruments:
            if instrument not in self.wanted:
                self.wanted[instrument] = None
                if self.pipe is not None:
                    self.venue.subscribe(self.pipe, instrument)

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        for instrument in instruments:
            self.wanted.pop(instrument, None)
            self.asked.discard(instrument)
            self.open.discard(instrument)
            if self.pipe is not None:
                self.pipe.wanted.discard(instrument)

    def request_snapshot(self, instrument: Instrument) -> None:
        if instrument in self.wanted and instrument not in self.asked:
            self.asked.add(instrument)
            self.ask(instrument)

    def counters(self) -> Mapping[str, int]:
        return self.counts
