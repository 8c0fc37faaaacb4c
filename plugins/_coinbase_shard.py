"""One share of the wanted products, kept alive over one connection after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from obframe import GapReason, Instrument, StreamEvent
from obframe_plugins._coinbase_context import Context, logger
from obframe_plugins._coinbase_stream import Connection
from obframe_plugins._link import Turns
from obframe_plugins._venue import StreamLost


class Shard:
    """Keeps a set of products streaming: opens, and reopens with back-off.

    Args:
        context: The feed's run.
        instruments: Wanted at first.
    """

    def __init__(self, context: Context, instruments: Collection[Instrument]) -> None:
        self.instruments = {item.symbol: item for item in instruments}
        self._context = context
        self._turns = Turns(context, context.settings, logger)
        self._connection: Connection | None = None
        self._begun = False

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these too."""
        self.instruments.update({item.symbol: item for item in instruments})
        if self._connection is not None:
            self._connection.add(instruments)
        if self._begun:
            self._context.tell(StreamEvent.CONNECTING, instruments, GapReason.CONNECTING)

    def remove(self, products: Collection[str]) -> None:
        """Want these no longer."""
        for product in products:
            self.instruments.pop(product, None)
        if self._connection is not None:
            self._connection.remove(products)

    def request(self, product: str) -> None:
        """Have a whole book sent again; without a connection, the next one brings it anyway."""
        if self._connection is not None:
            self._connection.request(product)

    async def run(self) -> None:
        """Keep the products streaming until cancelled."""
        while True:
            self._begun = True
            await self._turns.wait(self.instruments.values())
            connection = Connection(self, self._context, self.instruments.values())
            self._connection = connection
            try:
                lost = await asyncio.shield(connection.task)
            finally:
                self._connection = None
                if not connection.task.done():
                    connection.task.cancel()
                    self._context.finish(connection.task)
            self._turns.end(lost, connection.good_seconds)
            self._tell_lost(lost)

    def fail(self, error: Exception) -> None:
        """Say that ``run`` ended by a fault of ours; it is about to be called anew."""
        self._turns.lost = StreamLost(GapReason.INTERNAL, f"{type(error).__name__}: {error}")
        self._tell_lost(self._turns.lost)

    def _tell_lost(self, lost: StreamLost) -> None:
        instruments = self.instruments.values()
        self._context.tell(StreamEvent.DISCONNECTED, instruments, lost.reason, str(lost))

    # -- what its connection says ----------------------------------------------------------------

    def opened(self, instruments: Sequence[Instrument]) -> None:
        """Tell that products are streamed."""
        self._context.tell(StreamEvent.SUBSCRIBED, instruments)

    def refused(self, instruments: Sequence[Instrument], why: str) -> None:
        """Tell that products cannot be had for now."""
        reason = GapReason.DISCONNECTED
        self._context.tell(StreamEvent.DISCONNECTED, instruments, reason, why)

    def spoilt(self, instruments: Sequence[Instrument], reason: GapReason, why: str) -> None:
        """Tell that something was refused or lost."""
        self._context.tell(StreamEvent.INVALID, instruments, reason, why)

    def delayed(self, instruments: Sequence[Instrument], why: str) -> None:
        """Tell that whole books do not come."""
        self._context.tell(StreamEvent.SNAPSHOT_FAILED, instruments, GapReason.SNAPSHOT, why)

    def fell_silent(self, why: str) -> None:
        """Tell that no data comes."""
        self._context.counters.silences += 1
        self._context.tell(StreamEvent.SILENT, self._open(), GapReason.SILENT, why)

    def resumed(self) -> None:
        """Tell that data comes again."""
        self._context.tell(StreamEvent.RESUMED, self._open())

    def _open(self) -> list[Instrument]:
        connection = self._connection
        books = () if connection is None else connection.books.values()
        return [book.instrument for book in books if book.open]
