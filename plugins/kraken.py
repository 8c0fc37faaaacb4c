"""The Kraken feed: spot books of the WebSocket API v2, checked after every message.

``_kraken_book`` holds the venue's rule, ``_kraken_stream`` is one connection, ``_kraken_control``
its requests, ``_kraken_wire`` the venue's words. ``_websocket`` is the seam to the libraries that
carry connections.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter

from obframe import Emit, Feed, GapReason, Instrument, Provider, StreamEvent, hookimpl
from obframe_plugins._kraken_context import CLOSED_STATUSES, Context, Counters, logger
from obframe_plugins._kraken_settings import KrakenSettings
from obframe_plugins._kraken_stream import Connection
from obframe_plugins._link import Shares, Turns
from obframe_plugins._pacing import RollingLimit
from obframe_plugins._venue import StreamLost
from obframe_plugins._websocket import choose

__all__ = ["KrakenFeed", "KrakenSettings", "obframe_feeds"]

OBFRAME_API = 1

MOST_CONNECTIONS = 120
"""New connections in ten minutes: the venue turns away an address after about 150."""

_TRADING = (GapReason.CONNECTING, "")
_UNCHECKED = (GapReason.SYNCING, "")


class KrakenFeed:
    """Streams the books of Kraken's spot market.

    Args:
        settings: Where and how.
        rng: Source of all jitter.
    """

    def __init__(self, settings: KrakenSettings, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._random = rng or random.Random()
        self._counters = Counters()
        self._connections = RollingLimit(MOST_CONNECTIONS, 600.0)
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
        run = self._run = _Run(
            Context(
                self._settings,
                self._counters,
                self._connections,
                self._random,
                emit,
                open_socket,
                self._last_ids,
            )
        )
        try:
            run.subscribe(list(self._wanted.values()))
            await asyncio.get_running_loop().create_future()  # until cancelled
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
        gone = [item for item in instruments if self._wanted.pop(item.symbol, None) is not None]
        if self._run is not None:
            self._run.unsubscribe(gone)

    def request_snapshot(self, instrument: Instrument) -> None:
        """Ask for a whole book: the symbol is subscribed anew, if it is not on its way already."""
        if self._run is not None and instrument.symbol in self._wanted:
            self._run.renew(instrument.native)

    def counters(self) -> Mapping[str, int]:
        """Return what happened so far."""
        return dataclasses.asdict(self._counters)


class _Link:
    """A share of the instruments, kept streaming over one connection after the other."""

    def __init__(self, run: _Run, context: Context, instruments: Collection[Instrument]) -> None:
        self.instruments = {item.native: item for item in instruments}
        self.connection: Connection | None = None
        self._run = run
        self._context = context
        self._turns = Turns(context, context.settings, logger)

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these too."""
        self.instruments.update({item.native: item for item in instruments})
        self._context.tell(StreamEvent.CONNECTING, instruments, GapReason.CONNECTING)
        if self.connection is not None:
            self.connection.add(instruments)

    def remove(self, symbols: Collection[str]) -> None:
        """Want these no longer."""
        for symbol in symbols:
            self.instruments.pop(symbol, None)
        if self.connection is not None:
            self.connection.remove(symbols)

    async def run(self) -> None:
        """Keep the instruments streaming until cancelled."""
        while True:
            await self._turns.wait(self.instruments.values())
            connection = self.connection = Connection(
                self._context, self.instruments.values(), self._run.moved
            )
            try:
                lost = await connection.task
            finally:
                self.connection = None
                if not connection.task.done():
                    connection.task.cancel()
                    self._context.finish(connection.task)
            self._turns.end(lost, connection.good_seconds)
            self._tell_lost(lost)

    def fail(self, error: Exception) -> None:
        """Say that ``run`` ended by a fault of ours; it is about to be called anew."""
        why = f"{type(error).__name__}: {error}"
        self._turns.lost = StreamLost(GapReason.INTERNAL, why)
        self._tell_lost(self._turns.lost)

    def _tell_lost(self, lost: StreamLost) -> None:
        instruments = self.instruments.values()
        self._context.tell(StreamEvent.DISCONNECTED, instruments, lost.reason, str(lost))


class _Run:
    """One call of ``run``: spreads the instruments over connections and follows their standing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._links = Shares(
            context,
            "a share of streams",
            context.settings.symbols_per_connection,
            partial(_Link, self, context),
            attrgetter("native"),
        )
        self._standings: dict[Instrument, tuple[GapReason, str]] = {}

    def subscribe(self, instruments: Collection[Instrument]) -> None:
        """Stream these too."""
        self._standings.update(dict.fromkeys(instruments, _UNCHECKED))
        self._links.add(instruments)
        if self._context.pairs:
            self.moved()

    def unsubscribe(self, instruments: Collection[Instrument]) -> None:
        """Stream these no longer."""
        for instrument in instruments:
            self._standings.pop(instrument, None)
        self._links.remove([item.native for item in instruments])

    def renew(self, symbol: str) -> None:
        """Have a symbol subscribed anew."""
        link = self._links.find(symbol)
        if link is not None and link.connection is not None:
            link.connection.renew(symbol)

    def moved(self) -> None:
        """Follow what the venue says of its pairs and of itself."""
        for instrument, before in list(self._standings.items()):
            now = self._standing(instrument.native)
            if now != before:
                self._standings[instrument] = now
                self._tell_standing(instrument, before, now)
        for link in self._links:
            if link.connection is not None:
                link.connection.follow_pairs()

    async def close(self) -> None:
        """End everything that runs, and wait for it."""
        self._links.close()
        await self._context.drain()

    def _standing(self, symbol: str) -> tuple[GapReason, str]:
        pairs, engine = self._context.pairs, self._context.engine
        pair = pairs.get(symbol)
        if not pairs:
            return _UNCHECKED
        if pair is None:
            return GapReason.UNKNOWN_SYMBOL, f"Kraken has no pair {symbol}{_hint(symbol, pairs)}"
        if pair.status in CLOSED_STATUSES:
            return GapReason.HALTED, f"its status is {pair.status}"
        if engine in CLOSED_STATUSES:
            return GapReason.HALTED, f"the status of the whole venue is {engine}"
        return _TRADING

    def _tell_standing(
        self, instrument: Instrument, before: tuple[GapReason, str], now: tuple[GapReason, str]
    ) -> None:
        symbol = instrument.native
        reason, detail = now
        if now == _TRADING:
            if before != _UNCHECKED:
                logger.info("%s: trades again", symbol)
                self._context.tell(StreamEvent.TRADING, [instrument])
            return
        if reason is GapReason.UNKNOWN_SYMBOL:
            logger.error("%s: is not recorded: %s", symbol, detail)
        else:
            logger.warning("%s: is not trading: %s", symbol, detail)
        self._context.tell(StreamEvent.HALTED, [instrument], reason, detail)


def _hint(symbol: str, pairs: Collection[str]) -> str:
    """Return the pair that was probably meant."""
    plain = _plain(symbol)
    alike = next((pair for pair in pairs if _plain(pair) == plain), None)
    return f"; did you mean {alike}?" if alike else "; its pairs are written like BTC/USD"


def _plain(symbol: str) -> str:
    letters = "".join(each for each in symbol.upper() if each.isalnum())
    return letters.replace("XBT", "BTC").replace("XDG", "DOGE")


@asynccontextmanager
async def open_kraken(settings: KrakenSettings) -> AsyncIterator[Feed]:
    """Open a Kraken feed; its connections live as long as its ``run``."""
    yield KrakenFeed(settings)


@hookimpl
def obframe_feeds() -> Sequence[Provider[Feed]]:
    """Offer the Kraken feed."""
    summary = "live books of Kraken's spot market (WebSocket v2), checked by their checksums"
    contract = "obframe_plugins._contracts_kraken:KrakenContract"
    return [Provider("kraken", summary, KrakenSettings, open_kraken, contract=contract)]
