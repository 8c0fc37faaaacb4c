"""The synchroniser: proves one book from a stream of updates and a snapshot. No I/O, no clock.

One continuity rule serves every venue, because feeds set ``prev_update_id`` by their venue's rule
(Binance spot: ``U - 1``; futures: ``pu``):

1. Updates are kept from the moment the stream is open. Among themselves they must be contiguous.
2. A snapshot with id S is usable when the first kept update that ends at or after S begins at or
   before it (``prev_update_id <= S <= last_update_id``). What ends before S is dropped.
3. From then on ``prev_update_id`` must equal the book's update id. What ends at or before the
   book's id is old and ignored; everything else is a gap, and this book starts over.

A book counts as proven only once such a first update was applied: between a snapshot and the
stream there is then nothing unknown.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from obframe._core import DepthSnapshot, DepthUpdate, OrderBook
from obframe.errors import CapacityError
from obframe.proof import BufferFull, Proof, SyncLimits
from obframe.types import (
    SNAPSHOT_DEPTH,
    BookState,
    FeedStatus,
    GapReason,
    Instrument,
    StateChange,
    StreamEvent,
)


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Ask the feed for a snapshot of the instrument after ``delay`` seconds."""

    instrument: Instrument
    delay: float


SyncEvent: TypeAlias = StateChange | SnapshotWanted


class BookSynchronizer:
    """Keeps one instrument's book proven, or says why it is not.

    Feed it with ``receive_*`` and ``tick``; afterwards take ``take_events()``: state changes to
    tell and snapshots to ask for. ``events`` is empty on the hot path.

    Attributes:
        instrument: Whose book.
        state: Where the book stands.
        cause: Why it is not live, as the reason of the seconds lost; None while live.
        detail: The same in words.
        epoch: Counts the proofs; a new number means that the book was proven anew.
        counters: ``old``, ``sequence``, ``invalid``, ``snapshots_refused``, ``crossed``, …
    """

    __slots__ = (
        "_attempts", "_book", "_crossed_since", "_limits", "_live_since", "_old_seen", "_old_since",
        "_open_since", "_proof", "_random", "_refresh", "_refresh_after", "_relapses", "_silence",
        "_snapshot_due", "_stands_at", "_stream_open",
        "cause", "counters", "detail", "epoch", "events", "instrument", "state",
    )  # fmt: skip

    def __init__(
        self,
        instrument: Instrument,
        limits: SyncLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.instrument = instrument
        self._limits = limits or SyncLimits()
        self._random = rng or random.Random(instrument.symbol)
        self.state = BookState.UNSUBSCRIBED
        self.cause: GapReason | None = GapReason.CONNECTING
        self.detail = ""
        self.epoch = 0
        self.counters: Counter[str] = Counter()
        self.events: list[SyncEvent] = []
        self._book: OrderBook | None = None
        self._proof = Proof(instrument, self._limits, self.counters)
        self._refresh: Proof | None = None
        self._refresh_after = 0.0
        self._stream_open = False
        self._snapshot_due = False
        self._attempts = 0  # snapshots asked for in vain since the last proof
        self._relapses = 0  # proofs lost one soon after the other
        self._open_since: float | None = None
        self._live_since: float | None = None
        self._crossed_since: float | None = None
        self._silence: tuple[GapReason, str] | None = None  # of the stream, whatever the state
        self._stands_at: int | None = None  # update id at the last tick,
        self._old_seen = 0  # old updates counted then,
        self._old_since: float | None = None  # and since when only such have come

    @property
    def book(self) -> OrderBook | None:
        """The proven book; None unless the state is ``LIVE`` or ``STALE``."""
        return self._book

    @property
    def unknown_deletes(self) -> int:
        """Deletes of levels that no book of this synchroniser held, as is normal."""
        now = 0 if self._book is None else self._book.unknown_deletes
        return self.counters["unknown_deletes"] + now

    def take_events(self) -> list[SyncEvent]:
        """Return what happened since the last call, oldest first."""
        events, self.events = self.events, []
        return events

    # -- what comes in ---------------------------------------------------------------------------

    def receive_update(self, update: DepthUpdate) -> None:
        """Apply the update, keep it, or find that the stream has a gap."""
        if self._silence is not None:
            self._end_silence("")
        book = self._book
        if book is not None:
            if update.prev_update_id == book.update_id:
                self._apply(book, update)
            elif update.last_update_id <= book.update_id:
                self.counters["old"] += 1
            else:
                self.counters["sequence"] += 1
                detail = (
                    f"expected an update after {book.update_id}, got one after "
                    f"{update.prev_update_id} (to {update.last_update_id})"
                )
                self._start_over(BookState.RESYNCING, GapReason.SEQUENCE, detail)
                self._collect(update)
        elif self.state is not BookState.HALTED:
            if not self._stream_open:
                self._open_stream()
            self._collect(update)

    def receive_snapshot(self, snapshot: DepthSnapshot) -> None:
        """Use the snapshot if one was wanted and it joins the stream; otherwise refuse it."""
        self._snapshot_due = False
        proof = self._refresh if self._book is not None else self._proof
        if proof is None or not self._stream_open:
            self.counters["snapshots_refused"] += 1
            return
        try:
            usable = proof.add_snapshot(snapshot)
        except CapacityError as error:
            self.counters["capacity"] += 1
            if proof is self._refresh:
                self._refresh = None  # the live book is proven without it
            else:
                self._start_over(BookState.RESYNCING, GapReason.CAPACITY, str(error))
            return
        if not usable:
            self.counters["snapshots_refused"] += 1
            self._want_snapshot()
        elif proof.proven:
            self._accept(proof)

    def receive_status(self, status: FeedStatus) -> None:
        """Follow what the feed says of the stream."""
        reason, detail = status.reason, status.detail
        match status.event:
            case StreamEvent.CONNECTING:
                if self.state is BookState.UNSUBSCRIBED:
                    self._change(BookState.CONNECTING, GapReason.CONNECTING, detail)
            case StreamEvent.SUBSCRIBED:
                if self.state is BookState.HALTED:
                    self._stream_open = True
                elif not self._stream_open:
                    self._open_stream()
            case StreamEvent.DISCONNECTED:
                self._stream_open = False
                self._open_since = None
                self._silence = None
                if self.state in (BookState.UNSUBSCRIBED, BookState.CONNECTING):
                    self._start_over(BookState.CONNECTING, GapReason.CONNECTING, detail)
                elif self.state is not BookState.HALTED:
                    reason = reason or GapReason.DISCONNECTED
                    self._start_over(BookState.RECONNECTING, reason, detail)
            case StreamEvent.SILENT:
                if self._stream_open:
                    self._silence = reason or GapReason.SILENT, detail
                if self.state is BookState.LIVE:
                    self._change(BookState.STALE, reason or GapReason.SILENT, detail)
            case StreamEvent.RESUMED:
                self._end_silence(detail)
            case StreamEvent.INVALID:
                self.counters["invalid"] += 1
                if self.state not in (BookState.HALTED, BookState.UNSUBSCRIBED):
                    self.resynchronise(reason or GapReason.INVALID, detail)
            case StreamEvent.SNAPSHOT_FAILED:
                waits = self._book is None and self._stream_open
                if waits and self.state is not BookState.HALTED:
                    self._change(self.state, reason or GapReason.SNAPSHOT, detail)
            case StreamEvent.HALTED:
                self._start_over(BookState.HALTED, reason or GapReason.HALTED, detail)
            case StreamEvent.TRADING:
                if self.state is BookState.HALTED:
                    state = BookState.SYNCING if self._stream_open else BookState.CONNECTING
                    self._change(state, self.cause, detail)

    def resynchronise(self, reason: GapReason, detail: str) -> None:
        """Throw the book away and prove it anew, for a reason outside of the stream's order."""
        if self.state is BookState.HALTED:
            return
        state = BookState.RESYNCING if self._stream_open else self.state
        self._start_over(state, reason, detail)

    def unsubscribe(self) -> None:
        """Forget the stream; nothing is wanted any more."""
        self._stream_open = False
        self._start_over(BookState.UNSUBSCRIBED, GapReason.UNSUBSCRIBED, "")

    def tick(self, now: float) -> None:
        """Do what time alone brings about; to be called about once a second.

        Args:
            now: Seconds of a monotonic clock.
        """
        book = self._book
        left_behind = self._is_left_behind(now)
        if book is None:
            self._live_since = None
            if self._stream_open and not self._snapshot_due and self.state is not BookState.HALTED:
                self._tick_unproven(now, left_behind)
            return
        if left_behind:
            self.counters["sequence"] += 1
            detail = f"nothing but updates before {book.update_id}, where the book stands"
            self._start_over(BookState.RESYNCING, GapReason.SEQUENCE, detail)
            return
        if self._live_since is None:
            self._live_since = now
        elif self._relapses and now - self._live_since >= self._limits.stable_after:
            self._relapses = 0
        if not book.crossed:
            self._crossed_since = None
        elif self._crossed_since is None:
            self._crossed_since = now
            self.counters["crossed"] += 1
        elif now - self._crossed_since >= self._limits.crossed_after:
            self._start_over(BookState.RESYNCING, GapReason.CROSSED, _describe_cross(book))
            return
        if now >= self._refresh_after and not book.covers(SNAPSHOT_DEPTH):
            self._refresh_after = now + self._limits.refresh_every
            self._refresh = self._new_proof()
            self._attempts = 0
            self.counters["refreshes"] += 1
            self._want_snapshot()

    # -- inside ----------------------------------------------------------------------------------

    def _tick_unproven(self, now: float, left_behind: bool) -> None:
        if left_behind:
            self._want_snapshot()
        elif not self._proof.streaming:
            if self._open_since is None:
                self._open_since = now
            elif now - self._open_since >= self._limits.first_update_wait:
                self._want_snapshot()

    def _is_left_behind(self, now: float) -> bool:
        """Whether the book, or the snapshot that waits for its update, stands where no one comes.

        One duplicate on a quiet stream is none; old updates that go on coming are.
        """
        book = self._book or self._proof.book
        stands_at = None if book is None else book.update_id
        old = self.counters["old"]
        if stands_at is None or stands_at != self._stands_at:
            self._stands_at, self._old_seen, self._old_since = stands_at, old, None
            return False
        if old == self._old_seen:
            return False
        self._old_seen = old
        if self._old_since is None:
            self._old_since = now
        if now - self._old_since < self._limits.catch_up_after:
            return False
        self._old_since = None
        return True

    def _end_silence(self, detail: str) -> None:
        self._silence = None
        if self.state is BookState.STALE:
            self._change(BookState.LIVE, None, detail)

    def _refuse_backward(self, update: DepthUpdate) -> None:
        self.counters["invalid"] += 1
        detail = f"the update ends at {update.last_update_id}, before it begins"
        self._start_over(BookState.RESYNCING, GapReason.INVALID, detail)

    def _apply(self, book: OrderBook, update: DepthUpdate) -> None:
        if update.last_update_id < update.prev_update_id:
            self._refuse_backward(update)
            return
        try:
            book.apply(update)
        except CapacityError as error:
            self.counters["capacity"] += 1
            self._start_over(BookState.RESYNCING, GapReason.CAPACITY, str(error))
            return
        refresh = self._refresh
        if refresh is not None:
            try:
                usable = refresh.add_update(update)
            except (BufferFull, CapacityError):
                self._refresh = None
                return
            if not usable:
                self._want_snapshot()
            elif refresh.proven:
                self._accept(refresh)

    def _collect(self, update: DepthUpdate) -> None:
        if update.last_update_id < update.prev_update_id:
            self._refuse_backward(update)
            return
        proof = self._proof
        gaps = self.counters["sequence"]
        try:
            usable = proof.add_update(update)
        except BufferFull:
            self.counters["buffer_full"] += 1
            detail = "no usable snapshot came before the buffer of updates was full"
            self._start_over(self.state, GapReason.BUFFER, detail)
            return
        except CapacityError as error:
            self.counters["capacity"] += 1
            self._start_over(self.state, GapReason.CAPACITY, str(error))
            return
        if self.counters["sequence"] != gaps:
            self._change(self.state, GapReason.SEQUENCE, "a gap while synchronising")
        if not usable:
            self.counters["snapshots_refused"] += 1
            self._want_snapshot()
        elif proof.proven:
            self._accept(proof)
        elif proof.book is None and not self._snapshot_due:
            self._want_snapshot()

    def _accept(self, proof: Proof) -> None:
        if self._book is not None:
            self.counters["unknown_deletes"] += self._book.unknown_deletes
        self._book = proof.book
        self._refresh = None
        self._attempts = 0
        if proof is self._proof:
            self.epoch += 1
            self._proof = self._new_proof()
            if self._silence is None:
                self._change(BookState.LIVE, None, "")
            else:
                self._change(BookState.STALE, *self._silence)

    def _new_proof(self) -> Proof:
        return Proof(self.instrument, self._limits, self.counters)

    def _open_stream(self) -> None:
        self._stream_open = True
        self._proof.clear()
        cause = self.cause
        if self.state in (BookState.UNSUBSCRIBED, BookState.CONNECTING):
            cause = GapReason.SYNCING
        self._change(BookState.SYNCING, cause, self.detail)

    def _start_over(self, state: BookState, reason: GapReason, detail: str) -> None:
        stood_at = None
        if self._book is not None:
            stood_at = self._book.update_id
            self.counters["unknown_deletes"] += self._book.unknown_deletes
            self._book = None
            self._relapses += 1
            self._attempts = 0
        self._refresh = None
        self._proof = self._new_proof()
        self._crossed_since = None
        self._live_since = None
        self._snapshot_due = False
        self._change(state, reason, detail, stood_at)

    def _want_snapshot(self) -> None:
        delay = 0.0
        failures = self._attempts + max(self._relapses - 1, 0)
        if failures:
            ceiling = self._limits.backoff_first * 2 ** min(failures - 1, 16)
            ceiling = min(ceiling, self._limits.backoff_max)
            delay = ceiling * (0.5 + 0.5 * self._random.random())
        self._attempts += 1
        self._snapshot_due = True
        self.events.append(SnapshotWanted(self.instrument, delay))

    def _change(
        self,
        state: BookState,
        cause: GapReason | None,
        detail: str,
        stood_at: int | None = None,
    ) -> None:
        old, self.state = self.state, state
        told = (cause, detail) != (self.cause, self.detail)
        self.cause, self.detail = cause, detail
        if old is not state or (told and cause is not None):
            self.events.append(StateChange(self.instrument, old, state, cause, detail, stood_at))


def _describe_cross(book: OrderBook) -> str:
    (bid, _), (ask, _) = book.bids(1)[0], book.asks(1)[0]
    return f"best bid {bid} at or above best ask {ask}"
