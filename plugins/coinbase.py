"""The Coinbase Advanced Trade feed: whole books by the channel ``level2``.

The venue's rule. A connection numbers its messages by ``sequence_num``, over all of its channels
and products: answers to commands and heartbeats take part. So a number that is missed may have
been a change of any book on that connection, and of no book on another. A subscription begins with
the whole book in the stream itself; what follows are changes, each with the new quantity of a
price, 0 deleting it. Hence:

1. The number after n is n + 1. One at or below n is old and ignored. One above n + 1 is a hole:
   every book of the connection begins anew, by unsubscribing and subscribing their products; a
   second hole soon after the first one ends the connection.
2. A book is proven by its snapshot alone: it came in order, so nothing lies between it and the
   change that follows. The feed says so by an empty update behind it.
3. An update id is the time of the message, in Unix microseconds, or one above the id before it
   where that is higher: ids do not fall, from connection to connection and run to run. A product's
   ``prev_update_id`` is the id of the message that told of it last, whatever lay between.
4. A heartbeat proves that nothing was lost before it. That a book's source still speaks it does
   not prove: only level2 data counts as a sign of life.

The book has all levels there are. There are no REST snapshots to join: to have a book again is to
subscribe to it again.

``_coinbase_stream`` is one connection, ``_coinbase_control`` its commands, ``_coinbase_shard``
keeps a share of the products alive over one connection after the other, ``_coinbase_products``
looks up what is traded. Nothing here keeps a book.

Source: https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels,
``websocket-overview`` and ``websocket-rate-limits`` beside it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aiohttp

from obframe import Emit, Feed, GapReason, Instrument, Provider, StreamEvent, hookimpl
from obframe_plugins._coinbase_context import Context, Counters, Limits, logger
from obframe_plugins._coinbase_products import ProductList
from obframe_plugins._coinbase_settings import CoinbaseSettings
from obframe_plugins._coinbase_shard import Shard
from obframe_plugins._link import Shares
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._standing import Standing, SymbolWatch
from obframe_plugins._venue import supervise
from obframe_plugins._websocket import choose

__all__ = ["CoinbaseFeed", "CoinbaseSettings", "obframe_feeds"]

OBFRAME_API = 1

MOST_A_SECOND = 8
"""New connections, and unauthenticated messages, that Coinbase allows an address in a second."""

_KEPT_FREE = 2


class CoinbaseFeed:
    """Streams level2 books of Coinbase.

    Args:
        settings: Where and how.
        rng: Source of all jitter.
    """

    def __init__(self, settings: CoinbaseSettings, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._random = rng or random.Random()
        self._counters = Counters()
        allowed = MOST_A_SECOND - _KEPT_FREE
        self._limits = Limits(RollingLimit(allowed, 1.0), RollingLimit(allowed, 1.0))
        self._wanted: dict[str, Instrument] = {}
        self._last_ids: dict[str, int] = {}
        self._run: _Run | None = None

    async def run(self, emit: Emit) -> None:
        """Deliver events until cancelled; then close every connection.

        Raises:
            RuntimeError: It runs already.
        """
        if self._run is not None:
            raise RuntimeError("the feed runs already: one call of run() at a time")
        library, open_socket = choose(self._settings.transport)
        logger.info("streams are read by %s", library)
        context = Context(
            self._settings,
            self._counters,
            self._limits,
            self._random,
            emit,
            open_socket,
            self._last_ids,
        )
        async with aiohttp.ClientSession(headers={"User-Agent": "obframe"}) as session:
            run = self._run = _Run(context, session)
            try:
                run.subscribe(self._wanted.values())
                await run.serve()
            finally:
                self._run = None
                await run.close()

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Want these instruments too."""
        new = [item for item in instruments if item.symbol not in self._wanted]
        self._wanted.update({item.symbol: item for item in new})
        if self._run is not None:
            self._run.subscribe(new)

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Want these instruments no longer."""
        products = [item.symbol for item in instruments if item.symbol in self._wanted]
        for product in products:
            del self._wanted[product]
        if self._run is not None:
            self._run.unsubscribe(products)

    def request_snapshot(self, instrument: Instrument) -> None:
        """Ask for a whole book; a subscription that has yet to begin brings it anyway."""
        if self._run is not None:
            self._run.request(instrument.symbol)

    def counters(self) -> Mapping[str, int]:
        """Return what happened so far."""
        return dataclasses.asdict(self._counters)


class _Run:
    """One call of ``run``: spreads the products over connections."""

    def __init__(self, context: Context, session: aiohttp.ClientSession) -> None:
        self._context = context
        self._symbols = SymbolWatch(
            "Coinbase",
            context.settings,
            context.new_backoff(),
            ProductList(context, session).look_up,
            self._moved,
            logger,
        )
        self._shards = Shares(
            context,
            "a share of products",
            context.settings.products_per_connection,
            partial(Shard, context),
        )

    async def serve(self) -> None:
        """Run until cancelled."""
        backoff = self._context.new_backoff()
        await supervise("the look-up of products", self._symbols.run, backoff, logger=logger)

    async def close(self) -> None:
        """End everything that runs, and wait for it."""
        self._shards.close()
        await self._context.drain()

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Stream these too."""
        if instruments:
            self._shards.add(instruments)
            self._symbols.add(instruments)

    def unsubscribe(self, products: Collection[str]) -> None:
        """Stream these no longer."""
        self._symbols.remove(products)
        self._context.halted.difference_update(products)
        self._shards.remove(products)

    def request(self, product: str) -> None:
        """Have a whole book sent again."""
        shard = self._shards.find(product)
        if shard is not None:
            shard.request(product)

    def _moved(self, instrument: Instrument, old: Standing, new: Standing, detail: str) -> None:
        """Follow what the venue says of a product."""
        product = instrument.symbol
        context = self._context
        context.halted.discard(product)
        if old is Standing.UNKNOWN and new is not Standing.UNKNOWN:
            self._shards.add([instrument])
        if new is Standing.TRADING:
            if old is not Standing.UNCHECKED:
                logger.info("%s: trades again", product)
                context.tell(StreamEvent.TRADING, [instrument])
        elif new is Standing.HALTED:
            logger.warning("%s: is not trading: %s", product, detail)
            context.halted.add(product)
            context.tell(StreamEvent.HALTED, [instrument], GapReason.HALTED, detail)
        elif new is Standing.UNKNOWN:
            logger.error("%s: is not recorded: %s", product, detail)
            reason = GapReason.UNKNOWN_SYMBOL
            context.tell(StreamEvent.HALTED, [instrument], reason, detail)
            self._shards.remove([product])
            context.tell(StreamEvent.DISCONNECTED, [instrument], reason, detail)


@asynccontextmanager
async def open_coinbase(settings: CoinbaseSettings) -> AsyncIterator[Feed]:
    """Open a Coinbase feed; its connections live as long as its ``run``."""
    yield CoinbaseFeed(settings)


@hookimpl
def obframe_feeds() -> Sequence[Provider[Feed]]:
    """Offer the Coinbase feed."""
    summary = "live level2 books of Coinbase Advanced"
    contract = "obframe_plugins._contracts_coinbase:CoinbaseContract"
    return [Provider("coinbase", summary, CoinbaseSettings, open_coinbase, contract=contract)]
