"""One share of the wanted products, kept alive over one connection after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from obframe import GapReason, Instrument, StreamEvent
from obframe_plugins._coinbase_context import Context, logger
from obframe_plugins._coinbase_stream import Connection
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
        self._settings = context.settings
        self._backoff = context.new_backoff()
        self._connection: Connection | None = None
        self._lost: StreamLost | None = None
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
        try:
            while True:
                await self._take_turn()
                connection = Connection(self, self._context, self.instruments.values())
                self._connection = connection
                lost = await asyncio.shield(connection.task)
                self._connection = None
                self._lose(connection, lost)
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def fail(self, error: Exception) -> None:
        """Say that ``run`` ended by a fault of ours; it is about to be called anew."""
        why = f"{type(error).__name__}: {error}"
        self._lost = StreamLost(GapReason.INTERNAL, why)
        instruments = self.instruments.values()
        self._context.tell(StreamEvent.DISCONNECTED, instruments, GapReason.INTERNAL, why)

    async def _take_turn(self) -> None:
        """Wait as long as it takes before the next connection may be opened."""
        lost = self._lost
        reason, detail = GapReason.CONNECTING, ""
        if lost is not None:
            self._context.counters.reconnects += 1
            delay = max(self._backoff.next(), lost.retry_after)
            logger.warning(
                "a connection of %d products is lost: %s; next try in %.1f s",
                len(self.instruments),
                lost,
                delay,
            )
            await asyncio.sleep(delay)
            reason, detail = lost.reason, str(lost)
        self._begun = True
        self._context.tell(StreamEvent.CONNECTING, self.instruments.values(), reason, detail)
        await self._context.permit_connection()

    def _lose(self, connection: Connection, lost: StreamLost) -> None:
        self._lost = lost
        self._context.hold_connections(lost.retry_after)
        if connection.good_seconds >= self._settings.stable_after:
            self._backoff.reset()
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
