"""Feeds that each break one rule, and the words by which the contract says so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from obframe import DepthSnapshot, DepthUpdate, Emit, Instrument, Level, StreamEvent

from .catching import Broken, Table
from .feeds import MemoryFeed, MemoryVenue

INSTRUMENTS = [Instrument("BTCUSDT"), Instrument("ETHUSDT"), Instrument("kraken/BTC/USD")]


class WithoutCounters(MemoryFeed):
    counters: Any = None


class ForgetsWhatCameBefore(MemoryFeed):
    def subscribe(self, instruments: Collection[Instrument]) -> None:
        if self.pipe is not None:
            super().subscribe(instruments)


class IgnoresWhatComesLater(MemoryFeed):
    def subscribe(self, instruments: Collection[Instrument]) -> None:
        if self.pipe is None:
            super().subscribe(instruments)


class OpensAgain(MemoryFeed):
    def subscribe(self, instruments: Collection[Instrument]) -> None:
        for instrument in instruments:
            self.wanted.pop(instrument, None)
        super().subscribe(instruments)


class GoesOnStreaming(MemoryFeed):
    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        pass


class NeverAgain(MemoryFeed):
    def __init__(self, venue: MemoryVenue) -> None:
        super().__init__(venue)
        self.gone: set[Instrument] = set()

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        super().subscribe([item for item in instruments if item not in self.gone])

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        super().unsubscribe(instruments)
        self.gone.update(instruments)


class TakesNoStranger(MemoryFeed):
    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        for instrument in instruments:
            del self.wanted[instrument]
        super().unsubscribe(instruments)


class ConnectsAnew(MemoryFeed):
    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        super().unsubscribe(instruments)
        if self.pipe is not None:
            self.pipe.messages.put_nowait(None)


class Floods(MemoryFeed):
    def subscribed(self, instrument: Instrument) -> None:
        super().subscribed(instrument)
        assert self.pipe is not None
        self.pipe.wanted.update(INSTRUMENTS)

    def take(
        self, kind: str, instrument: Instrument, data: DepthUpdate | DepthSnapshot | None
    ) -> None:
        if isinstance(data, DepthUpdate):
            self.update(data)
        else:
            super().take(kind, instrument, data)


class NamesAll(MemoryFeed):
    def subscribed(self, instrument: Instrument) -> None:
        super().subscribed(instrument)
        self.tell(StreamEvent.SUBSCRIBED, INSTRUMENTS)


class Waits(MemoryFeed):
    def request_snapshot(self, instrument: Instrument) -> None:
        time.sleep(0.12)
        super().request_snapshot(instrument)


class SubscribedTooLate(MemoryFeed):
    def subscribed(self, instrument: Instrument) -> None:
        self.emit(DepthSnapshot(instrument.symbol, 1, [("1", "1")], [("2", "1")]))
        super().subscribed(instrument)


class NeverSubscribed(MemoryFeed):
    def subscribed(self, instrument: Instrument) -> None:
        self.open.add(instrument)


def _rebuilt(
    update: DepthUpdate,
    *,
    first: int = 0,
    prev: int = 0,
    bids: list[Level] | None = None,
) -> DepthUpdate:
    return DepthUpdate(
        update.symbol,
        update.first_update_id + first,
        update.last_update_id,
        update.prev_update_id + prev,
        update.bids if bids is None else bids,
        update.asks,
    )


class DoesNotJoin(MemoryFeed):
    def update(self, update: DepthUpdate) -> None:
        super().update(_rebuilt(update, prev=-1))


class IdsOutOfOrder(MemoryFeed):
    def update(self, update: DepthUpdate) -> None:
        super().update(_rebuilt(update, first=-1))


class CutsZeros(MemoryFeed):
    def update(self, update: DepthUpdate) -> None:
        bids = [(price, f"{Decimal(quantity).normalize():f}") for price, quantity in update.bids]
        super().update(_rebuilt(update, bids=bids))


class KeepsWhatIsDeleted(MemoryFeed):
    def update(self, update: DepthUpdate) -> None:
        bids = [(price, quantity) for price, quantity in update.bids if Decimal(quantity)]
        super().update(_rebuilt(update, bids=bids))


class EmitsElsewhere(MemoryFeed):
    def update(self, update: DepthUpdate) -> None:
        thread = threading.Thread(target=self.emit, args=(update,))
        thread.start()
        thread.join()


class Blocks(MemoryFeed):
    def update(self, update: DepthUpdate) -> None:
        time.sleep(0.25)
        super().update(update)


class CountsAnew(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        self.counts.clear()
        await super().run(emit)


class CountsInParts(MemoryFeed):
    def counters(self) -> Mapping[str, int]:
        return {"megabytes": 0.5}  # type: ignore[dict-item]


class CountsNothing(MemoryFeed):
    def counters(self) -> Mapping[str, int]:
        return {"messages": 0}


class Deaf(MemoryFeed):
    def request_snapshot(self, instrument: Instrument) -> None:
        pass


class HalfSnapshot(MemoryFeed):
    def snapshot(self, instrument: Instrument, snapshot: DepthSnapshot) -> None:
        at, bids, asks = snapshot.last_update_id, snapshot.bids[:1], snapshot.asks[:1]
        super().snapshot(instrument, DepthSnapshot(snapshot.symbol, at, bids, asks))


class ForeignIds(MemoryFeed):
    def snapshot(self, instrument: Instrument, snapshot: DepthSnapshot) -> None:
        at = snapshot.last_update_id + 1000
        super().snapshot(
            instrument, DepthSnapshot(snapshot.symbol, at, snapshot.bids, snapshot.asks)
        )


class AsksEachTime(MemoryFeed):
    def request_snapshot(self, instrument: Instrument) -> None:
        self.asked.add(instrument)
        self.ask(instrument)

    def snapshot(self, instrument: Instrument, snapshot: DepthSnapshot) -> None:
        self.emit(snapshot)


class DeliversTooLate(MemoryFeed):
    def request_snapshot(self, instrument: Instrument) -> None:
        assert self.pipe is not None
        self.venue.ask(self.pipe, instrument)

    def take(
        self, kind: str, instrument: Instrument, data: DepthUpdate | DepthSnapshot | None
    ) -> None:
        if isinstance(data, DepthSnapshot):
            self.emit(data)
        else:
            super().take(kind, instrument, data)


class Swallows(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await super().run(emit)


class Lingers(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        try:
            await super().run(emit)
        finally:
            await asyncio.sleep(5)


class LeavesATask(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        self.task = asyncio.create_task(asyncio.sleep(5))
        await super().run(emit)


class LeavesAThread(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        threading.Thread(target=time.sleep, args=(1.5,), name="reader", daemon=True).start()
        await super().run(emit)


class LeavesASocket(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        self.sockets = socket.socketpair()
        await super().run(emit)

    def __del__(self) -> None:
        for each in getattr(self, "sockets", ()):
            each.close()


class SpeaksAfterTheEnd(MemoryFeed):
    def end(self) -> None:
        super().end()
        update = DepthUpdate("BTCUSDT", 1, 1, 0, [], [])
        asyncio.get_running_loop().call_later(0.02, self.emit, update)


class RunsOnce(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        if self.counts["connections"]:
            raise RuntimeError("ran already")
        await super().run(emit)


class HearsOnlyWhileItRuns(MemoryFeed):
    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        if self.pipe is not None:
            super().unsubscribe(instruments)


class RunsTwice(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        self.runs = False
        await super().run(emit)


class EndsTheFirst(MemoryFeed):
    async def run(self, emit: Emit) -> None:
        try:
            await super().run(emit)
        finally:
            self.end()


class HidesTheLoss(MemoryFeed):
    def lost(self) -> None:
        self.open.clear()


class SubscribedWithoutLoss(MemoryFeed):
    """Streams again at once, and says so only afterwards."""

    def lost(self) -> None:
        again = set(self.open)
        super().lost()
        self.late = again

    def subscribed(self, instrument: Instrument) -> None:
        if instrument not in getattr(self, "late", ()):
            super().subscribed(instrument)

    def update(self, update: DepthUpdate) -> None:
        super().update(update)
        for instrument in getattr(self, "late", ()):
            self.tell(StreamEvent.SUBSCRIBED, [instrument])
        self.late = set[Instrument]()


class RemembersTheBook(MemoryFeed):
    """Answers from what it got once, under an id that fits."""

    def __init__(self, venue: MemoryVenue) -> None:
        super().__init__(venue)
        self.known: dict[Instrument, DepthSnapshot] = {}

    def snapshot(self, instrument: Instrument, snapshot: DepthSnapshot) -> None:
        old = self.known.setdefault(instrument, snapshot)
        at = snapshot.last_update_id
        super().snapshot(instrument, DepthSnapshot(snapshot.symbol, at, old.bids, old.asks))


class PapersOver(MemoryFeed):
    """Joins each update to the last one that it saw, whatever the venue says."""

    def __init__(self, venue: MemoryVenue) -> None:
        super().__init__(venue)
        self.last: dict[str, int] = {}

    def update(self, update: DepthUpdate) -> None:
        last = self.last.get(update.symbol, update.prev_update_id)
        self.last[update.symbol] = update.last_update_id
        super().update(_rebuilt(update, prev=last - update.prev_update_id))


class IgnoresGarbage(MemoryFeed):
    def garbage(self, instrument: Instrument) -> None:
        pass


class DiesOfGarbage(MemoryFeed):
    def garbage(self, instrument: Instrument) -> None:
        raise ValueError("not a message")


class GivesUp(MemoryFeed):
    def refused(self, instrument: Instrument) -> None:
        self.tell(StreamEvent.SNAPSHOT_FAILED, [instrument])


class TriesInSilence(MemoryFeed):
    def refused(self, instrument: Instrument) -> None:
        asyncio.get_running_loop().call_later(0.02, self.ask, instrument)


class IgnoresTheUnknown(MemoryFeed):
    def take(
        self, kind: str, instrument: Instrument, data: DepthUpdate | DepthSnapshot | None
    ) -> None:
        if kind != "unknown":
            super().take(kind, instrument, data)


class DiesOfTheUnknown(MemoryFeed):
    def take(
        self, kind: str, instrument: Instrument, data: DepthUpdate | DepthSnapshot | None
    ) -> None:
        if kind == "unknown":
            raise ValueError(f"no such instrument: {instrument.symbol}")
        super().take(kind, instrument, data)


BROKEN: Table = {
    "test_is_a_feed": Broken(WithoutCounters, "counters is missing"),
    "test_what_is_subscribed_before_run_is_streamed": Broken(
        ForgetsWhatCameBefore, "should have said SUBSCRIBED of BTCUSDT"
    ),
    "test_what_is_subscribed_during_run_is_streamed": Broken(
        IgnoresWhatComesLater, "should have said SUBSCRIBED of ETHUSDT"
    ),
    "test_subscribing_again_changes_nothing": Broken(OpensAgain, "the stream was open, and"),
    "test_what_is_unsubscribed_is_silent": Broken(GoesOnStreaming, "unsubscribed, and yet"),
    "test_what_was_unsubscribed_can_be_wanted_again": Broken(
        NeverAgain, "subscribed again: the feed should have said SUBSCRIBED"
    ),
    "test_what_is_not_wanted_can_be_unsubscribed": Broken(TakesNoStranger, "kraken/BTC/USD"),
    "test_coming_and_going_leaves_the_others_alone": Broken(
        ConnectsAnew, "others came and went, and ETHUSDT"
    ),
    "test_only_what_is_wanted_is_emitted": [
        Broken(Floods, "BTCUSDT alone is wanted"),
        Broken(NamesAll, "BTCUSDT alone is wanted"),
    ],
    "test_subscribing_returns_at_once": Broken(Waits, "'request_snapshot': '0.1"),
    "test_subscribed_comes_before_the_first_event": [
        Broken(SubscribedTooLate, "it told ['data'"),
        Broken(NeverSubscribed, "should have said SUBSCRIBED"),
    ],
    "test_updates_join_one_another": Broken(DoesNotJoin, "follows one to"),
    "test_update_ids_only_grow": Broken(IdsOutOfOrder, "prev, first and last are"),
    "test_digits_come_as_the_venue_wrote_them": Broken(CutsZeros, "as the venue sent it"),
    "test_the_books_are_those_of_the_venue": Broken(
        KeepsWhatIsDeleted, "should have become the venue's"
    ),
    "test_emit_is_called_in_the_loops_thread": Broken(EmitsElsewhere, "other threads"),
    "test_the_loop_is_not_blocked": Broken(Blocks, "update"),
    "test_counters_only_grow": [
        Broken(CountsAnew, "counters went back"),
        Broken(CountsInParts, "megabytes is 0.5, no whole number"),
        Broken(CountsNothing, "nothing counted"),
    ],
    "test_a_snapshot_comes_when_asked_for": [
        Broken(Deaf, "that was asked for should have come"),
        Broken(HalfSnapshot, "the venue's book, best first"),
    ],
    "test_a_snapshot_joins_the_stream": Broken(ForeignIds, "No snapshot joins the updates"),
    "test_asking_twice_is_asking_once": Broken(AsksEachTime, "and 3 snapshots came"),
    "test_a_request_ends_with_the_subscription": Broken(
        DeliversTooLate, "BTCUSDT is not wanted, and its snapshot came"
    ),
    "test_cancelling_ends_run_promptly": [
        Broken(Swallows, "did not come out"),
        Broken(Lingers, "run() did not end within"),
    ],
    "test_run_leaves_nothing_behind": [
        Broken(LeavesATask, "a task that runs sleep"),
        Broken(LeavesAThread, "the thread 'reader'"),
        Broken(LeavesASocket, "2 open sockets"),
    ],
    "test_nothing_is_emitted_after_the_end": Broken(SpeaksAfterTheEnd, "update 0..1"),
    "test_run_can_be_called_again": [
        Broken(RunsOnce, "but run() raised RuntimeError: ran already"),
        Broken(HearsOnlyWhileItRuns, "unsubscribed in the meantime"),
    ],
    "test_run_is_refused_while_it_runs": [
        Broken(RunsTwice, "two runs at once"),
        Broken(EndsTheFirst, "should have come"),
    ],
    "test_a_lost_connection_is_told": [
        Broken(HidesTheLoss, "should have said DISCONNECTED of BTCUSDT"),
        Broken(SubscribedWithoutLoss, "should have said SUBSCRIBED of BTCUSDT"),
    ],
    "test_what_was_missed_while_away_is_not_hidden": Broken(
        RemembersTheBook, "should have become the venue's"
    ),
    "test_a_lost_message_is_not_hidden": Broken(PapersOver, "the venue lost an update"),
    "test_garbage_is_told_and_survived": [
        Broken(IgnoresGarbage, "the feed should have said so"),
        Broken(DiesOfGarbage, "run() raised ValueError: not a message"),
    ],
    "test_a_refused_snapshot_is_tried_until_it_comes": [
        Broken(GivesUp, "the one asked for should have come"),
        Broken(TriesInSilence, "should have said SNAPSHOT_FAILED"),
    ],
    "test_an_unknown_instrument_is_named": [
        Broken(IgnoresTheUnknown, "does not know NOSUCH"),
        Broken(DiesOfTheUnknown, "run() raised ValueError: no such instrument"),
    ],
}
