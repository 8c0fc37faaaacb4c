"""The Binance feed: spot, USD-M and COIN-M futures.

``_binance_stream`` is one connection, ``_binance_shard`` keeps a share of the streams alive over
one connection after the other, ``_binance_handover`` joins two of them without a seam,
``_binance_snapshots`` and ``_binance_symbols`` use ``_binance_rest``. ``_websocket`` is the seam to
the libraries that carry connections. Nothing here keeps a book.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aiohttp

from obframe import Emit, Feed, GapReason, Instrument, Provider, StreamEvent, hookimpl
from obframe_plugins._binance_context import Context, Counters, logger
from obframe_plugins._binance_rest import RestClient
from obframe_plugins._binance_settings import BinanceSettings
from obframe_plugins._binance_shard import Shard
from obframe_plugins._binance_snapshots import Snapshots
from obframe_plugins._binance_symbols import SymbolList
from obframe_plugins._link import Shares
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._standing import Standing, SymbolWatch
from obframe_plugins._venue import supervise
from obframe_plugins._websocket import choose

__all__ = ["BinanceFeed", "BinanceSettings", "obframe_feeds"]

OBFRAME_API = 1

MOST_CONNECTIONS = 300
"""New connections that Binance allows an address in five minutes."""


class BinanceFeed:
    """Streams depth diffs of one Binance market and fetches its snapshots.

    Args:
        settings: Where and how.
        rng: Source of all jitter.
    """

    def __init__(self, settings: BinanceSettings, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._random = rng or random.Random()
        self._counters = Counters()
        self._connections = RollingLimit(MOST_CONNECTIONS, 300.0)
        self._wanted: dict[str, Instrument] = {}
        self._requested: dict[str, Instrument] = {}
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
            self._settings, self._counters, self._connections, self._random, emit, open_socket
        )
        async with aiohttp.ClientSession(headers={"User-Agent": "obframe"}) as session:
            run = self._run = _Run(context, session)
            try:
                run.subscribe(self._wanted.values())
                for instrument in self._requested.values():
                    run.snapshots.request(instrument)
                self._requested.clear()
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
        symbols = [item.symbol for item in instruments if item.symbol in self._wanted]
        for symbol in symbols:
            del self._wanted[symbol]
            self._requested.pop(symbol, None)
        if self._run is not None:
            self._run.unsubscribe(symbols)

    def request_snapshot(self, instrument: Instrument) -> None:
        """Ask for a whole book; it waits for the instrument's stream to be open."""
        if instrument.symbol not in self._wanted:
            return
        if self._run is not None:
            self._run.snapshots.request(instrument)
        else:
            self._requested[instrument.symbol] = instrument

    def counters(self) -> Mapping[str, int]:
        """Return what happened so far."""
        return dataclasses.asdict(self._counters)


class _Run:
    """One call of ``run``: spreads the instruments over connections and joins the parts."""

    def __init__(self, context: Context, session: aiohttp.ClientSession) -> None:
        self._context = context
        self._rest = RestClient(context.settings, context.counters, session)
        self._symbols = SymbolWatch(
            f"Binance {context.settings.market}",
            context.settings,
            context.new_backoff(),
            SymbolList(context.settings, self._rest).look_up,
            self._moved,
            logger,
        )
        self.snapshots = Snapshots(context, self._rest, self._symbols.mark_unknown)
        self._rest.on_pause = self.snapshots.pause
        self._shards = Shares(
            context,
            "a share of streams",
            context.settings.streams_per_connection,
            partial(Shard, context),
        )

    async def serve(self) -> None:
        """Run until cancelled."""
        backoff = self._context.new_backoff()
        await supervise("the look-up of symbols", self._symbols.run, backoff, logger=logger)

    async def close(self) -> None:
        """End everything that runs, and wait for it."""
        self.snapshots.close()
        self._shards.close()
        await self._context.drain()

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Stream these too."""
        if instruments:
            self._shards.add(instruments)
            self._symbols.add(instruments)

    def unsubscribe(self, symbols: Collection[str]) -> None:
        """Stream these no longer."""
        self._symbols.remove(symbols)
        self._context.halted.difference_update(symbols)
        self._displace(symbols)

    def _displace(self, symbols: Collection[str]) -> None:
        for symbol in symbols:
            self.snapshots.cancel(symbol)
        self._shards.remove(symbols)

    def _moved(self, instrument: Instrument, old: Standing, new: Standing, detail: str) -> None:
        """Follow what the venue says of a symbol."""
        symbol = instrument.symbol
        context = self._context
        context.halted.discard(symbol)
        if new is Standing.TRADING:
            if old is not Standing.UNCHECKED:
                logger.info("%s: trades again", symbol)
                context.tell(StreamEvent.TRADING, [instrument])
            if old is Standing.UNKNOWN:
                self._shards.add([instrument])
        elif new is Standing.HALTED:
            logger.warning("%s: is not trading: %s", symbol, detail)
            context.halted.add(symbol)
            context.tell(StreamEvent.HALTED, [instrument], GapReason.HALTED, detail)
            if old is Standing.UNKNOWN:
                self._shards.add([instrument])
        elif new is Standing.UNKNOWN:
            logger.error("%s: is not recorded: %s", symbol, detail)
            reason = GapReason.UNKNOWN_SYMBOL
            context.tell(StreamEvent.HALTED, [instrument], reason, detail)
            self._displace([symbol])
            context.tell(StreamEvent.DISCONNECTED, [instrument], reason, detail)


@asynccontextmanager
async def open_binance(settings: BinanceSettings) -> AsyncIterator[Feed]:
    """Open a Binance feed; its connections live as long as its ``run``."""
    yield BinanceFeed(settings)


@hookimpl
def obframe_feeds() -> Sequence[Provider[Feed]]:
    """Offer the Binance feed."""
    summary = "live depth of Binance: spot, USD-M or COIN-M futures"
    contract = "obframe_plugins._contracts:BinanceContract"
    return [Provider("binance", summary, BinanceSettings, open_binance, contract=contract)]
