"""One share of the wanted streams, kept alive over one connection after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from obframe import DepthUpdate, GapReason, Instrument, StreamEvent
from obframe_plugins._binance_context import Context, logger
from obframe_plugins._binance_handover import Handover
from obframe_plugins._binance_plan import Tuning
from obframe_plugins._binance_stream import Connection
from obframe_plugins._link import Turns, name_count
from obframe_plugins._venue import StreamLost


def _discard(update: DepthUpdate) -> None:
    """Take an update that nobody wants any more."""


class Shard:
    """Keeps a set of instruments streaming: opens, reopens with back-off, hands over in time.

    Args:
        context: The feed's run.
        instruments: Wanted at first.
    """

    def __init__(self, context: Context, instruments: Collection[Instrument]) -> None:
        settings = context.settings
        self.instruments = {item.symbol: item for item in instruments}
        self._context = context
        self._settings = settings
        self._tuning = Tuning(settings.control_interval, settings.blocked_retry)
        self._turns = Turns(context, settings, logger)
        self._current: Connection | None = None
        self._next: Connection | None = None
        self._handover: Handover | None = None
        self._announced: set[str] = set()
        self._begun = False
        self._retire_at = 0.0

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these too."""
        for instrument in instruments:
            self.instruments[instrument.symbol] = instrument
        for connection in (self._current, self._next):
            if connection is not None:
                connection.add(instruments)
        if self._begun:
            self._context.tell(StreamEvent.CONNECTING, instruments, GapReason.CONNECTING)

    def remove(self, symbols: Collection[str]) -> None:
        """Want these no longer."""
        for symbol in symbols:
            self.instruments.pop(symbol, None)
            self._announced.discard(symbol)
            self._context.forget(symbol)
        for connection in (self._current, self._next):
            if connection is not None:
                connection.remove(symbols)
        if self._handover is not None:
            self._handover.check()

    # -- its life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the streams alive until cancelled."""
        try:
            while True:
                await self._take_turn()
                connection: Connection | None = self._start()
                while connection is not None:
                    self._current = connection
                    connection = await self._serve(connection)
        finally:
            for left in (self._current, self._next):
                if left is not None:
                    self._drop(left)
            self._current = self._next = self._handover = None

    def fail(self, error: Exception) -> None:
        """Say that ``run`` ended by a fault of ours; it is about to be called anew."""
        why = f"{type(error).__name__}: {error}"
        self._turns.lost = StreamLost(GapReason.INTERNAL, why)
        self._announced.clear()
        instruments = self.instruments.values()
        self._context.tell(StreamEvent.DISCONNECTED, instruments, GapReason.INTERNAL, why)

    async def _take_turn(self) -> None:
        """Wait as long as it takes before the next connection may be opened."""
        self._begun = True
        await self._turns.wait(self.instruments.values())

    def _start(self) -> Connection:
        self._set_lifetime()
        return Connection(
            self, self._context, self._tuning, self.instruments.values(), self._context.emit
        )

    def _set_lifetime(self) -> None:
        # Shards that were opened together shall not be handed over together.
        share = self._context.rng.uniform(0.9, 1.0)
        now = asyncio.get_running_loop().time()
        self._retire_at = now + self._settings.connection_lifetime * share

    async def _serve(self, connection: Connection) -> Connection | None:
        """Let a connection run; return the one to go on with, or None when it was lost."""
        loop = asyncio.get_running_loop()
        while True:
            events: set[asyncio.Future[Any]] = {connection.task}
            if not connection.retirement_seen:
                events.add(connection.retiring)
            timeout = max(0.0, self._retire_at - loop.time())
            await asyncio.wait(events, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if connection.task.done():
                self._lose(connection, self.instruments.values())
                self._current = None
                return None
            if connection.retiring in events and connection.retiring.done():
                connection.retirement_seen = True
                if not self._settle_failures(connection):
                    # A server that says so to everybody who comes must not make us run in circles.
                    self._retire_at = loop.time() + self._turns.backoff.next()
                    continue
            return await self._hand_over(connection)

    def _settle_failures(self, connection: Connection) -> bool:
        """Forget earlier failures if the connection was good for long enough."""
        good = connection.has_data and connection.good_seconds >= self._settings.stable_after
        if good:
            self._turns.backoff.reset()
            self._tuning.reset()
        return good

    def _lose(self, connection: Connection, instruments: Collection[Instrument]) -> None:
        lost = connection.task.result()
        self._turns.end(lost, 0.0)
        self._settle_failures(connection)
        self._announced.difference_update([item.symbol for item in instruments])
        self._context.tell(StreamEvent.DISCONNECTED, instruments, lost.reason, str(lost))

    def _drop(self, connection: Connection) -> None:
        connection.deliver = _discard
        connection.task.cancel()
        self._context.finish(connection.task)

    # -- from one connection to the next, without a seam -----------------------------------------

    async def _hand_over(self, old: Connection) -> Connection:
        """Open a second connection and take it over once it goes on where the old one stands.

        Returns:
            The connection to go on with: the new one, or the old one when that failed.
        """
        permit = asyncio.ensure_future(self._context.permit_connection())
        try:
            await asyncio.wait({permit, old.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            permit.cancel()
        if old.task.done():
            return old
        handover = self._handover = Handover(old, self._context.emit)
        old.deliver = handover.pass_on
        new = self._next = Connection(
            self, self._context, self._tuning, self.instruments.values(), handover.hold
        )
        handover.attach(new)
        handover.check()
        events: set[asyncio.Future[Any]] = {old.task, new.task, handover.done}
        await asyncio.wait(
            events,
            timeout=self._settings.handover_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        self._handover = self._next = None
        if new.task.done() or not (old.task.done() or handover.done.done() or handover.settled):
            return self._keep(old, new)
        self._take_over(old, new, handover)
        return new

    def _keep(self, old: Connection, new: Connection) -> Connection:
        """Go on with the old connection, as the new one did not get ready."""
        delay = self._turns.backoff.next()
        why = "not every stream goes on there"
        if new.task.done():
            lost = new.task.result()
            why = str(lost)
            delay = max(delay, lost.retry_after)
            self._context.hold_connections(lost.retry_after)
        self._drop(new)
        old.deliver = self._context.emit
        self._context.counters.handovers_failed += 1
        logger.warning("a hand-over failed: %s; next try in %.1f s", why, delay)
        self._retire_at = asyncio.get_running_loop().time() + delay
        return old

    def _take_over(self, old: Connection, new: Connection, handover: Handover) -> None:
        context = self._context
        self._current = new
        self._set_lifetime()
        if old.task.done():
            # It died before everything was aligned: what is not, begins anew.
            begun = [i for s, i in self.instruments.items() if s not in handover.aligned]
            self._lose(old, begun)
            lost = self._turns.lost
            assert lost is not None
            logger.warning("a connection was lost while it was being handed over: %s", lost)
            context.tell(StreamEvent.CONNECTING, begun, lost.reason, str(lost))
        else:
            context.counters.handovers += 1
            carried = name_count(len(self.instruments), "stream")
            logger.info("a connection of %s was handed over", carried)
            closed = [i for s, i in self.instruments.items() if not new.streams[s].open]
            closed = [item for item in closed if item.symbol in self._announced]
            self._announced.difference_update([item.symbol for item in closed])
            why = "the new connection does not carry this stream"
            context.tell(StreamEvent.DISCONNECTED, closed, GapReason.DISCONNECTED, why)
            self._drop(old)
        self.opened(new, [i for s, i in self.instruments.items() if new.streams[s].open])
        if old.silent and new.has_data and not new.silent:
            self.resumed(new)
        elif old.silent and not new.silent:
            new.silent = True  # so that its first data tells of the end of the silence
        elif new.silent and not old.silent:
            self.fell_silent(new, "the new connection carries no data")
        new.deliver = context.emit
        for symbol in list(self.instruments):
            for update in handover.release(symbol):
                context.emit(update)

    # -- what its connections say ----------------------------------------------------------------

    def opened(self, connection: Connection, instruments: Sequence[Instrument]) -> None:
        """Tell that streams are open; those that were already need not be told."""
        if connection is not self._current:
            if self._handover is not None:
                self._handover.check()
            return
        new = [item for item in instruments if item.symbol not in self._announced]
        self._announced.update(item.symbol for item in new)
        self._context.tell(StreamEvent.SUBSCRIBED, new)

    def refused(self, connection: Connection, instruments: Sequence[Instrument], why: str) -> None:
        """Tell that streams cannot be had for now."""
        if connection is self._current:
            self._announced.difference_update(item.symbol for item in instruments)
            reason = GapReason.DISCONNECTED
            self._context.tell(StreamEvent.DISCONNECTED, instruments, reason, why)

    def spoilt(
        self, connection: Connection, instruments: Sequence[Instrument], reason: GapReason, why: str
    ) -> None:
        """Tell that updates were refused or lost."""
        if connection is self._current:
            self._context.tell(StreamEvent.INVALID, instruments, reason, why)
        else:
            # What it carries from here on would not go on where the old one stands.
            raise StreamLost(reason, why)

    def fell_silent(self, connection: Connection, why: str) -> None:
        """Tell that no data comes."""
        if connection is self._current:
            self._context.counters.silences += 1
            self._context.tell(StreamEvent.SILENT, self._open_on(connection), GapReason.SILENT, why)

    def resumed(self, connection: Connection) -> None:
        """Tell that data comes again."""
        if connection is self._current:
            self._context.tell(StreamEvent.RESUMED, self._open_on(connection))

    def _open_on(self, connection: Connection) -> list[Instrument]:
        return [stream.instrument for stream in connection.streams.values() if stream.open]
