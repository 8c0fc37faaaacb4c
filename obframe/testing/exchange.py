"""A venue on your desk: Binance's wire on loopback, from captures or a seeded simulation.

One port serves REST and websockets. ``Exchange`` runs it inside a test, ``serve`` as a process.
``exchange_kraken`` and ``exchange_coinbase`` do the same with other venues' wires.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
from aiohttp import web

from obframe.testing.exchange_capture import CaptureSource
from obframe.testing.exchange_channel import Channel, wrap
from obframe.testing.exchange_coinbase import CoinbaseExchange
from obframe.testing.exchange_faults import FAULTS, Fault, FaultPlan, parse_fault
from obframe.testing.exchange_hub import STALL_SECONDS, ExchangeStats, Fired, Sockets
from obframe.testing.exchange_journal import Journal
from obframe.testing.exchange_kraken import KrakenExchange
from obframe.testing.exchange_loop import LoopSource
from obframe.testing.exchange_market import MARKETS, Depth, Event, Levels, Source
from obframe.testing.exchange_options import ExchangeOptions
from obframe.testing.exchange_rest import Rest, Weights
from obframe.testing.exchange_script import ScriptedSource
from obframe.testing.exchange_simulation import SimulationSource
from obframe.testing.exchange_socket import Connection, frame
from obframe.testing.exchange_ticker import Volumes

__all__ = [
    "FAULTS",
    "CoinbaseExchange",
    "Exchange",
    "ExchangeOptions",
    "ExchangeStats",
    "Fired",
    "KrakenExchange",
    "make_exchange",
    "serve",
]

_log = logging.getLogger(__name__)

_COALESCE_SECONDS = 0.004
"""Least sleep: what falls due in it goes out in one write, and wake-ups stay few."""
_JOURNAL_SECONDS = 1.0


def make_source(options: ExchangeOptions) -> Source:
    """Return the market that the options ask for.

    Raises:
        ValueError: A capture cannot be used.
    """
    if options.captures:
        return CaptureSource(options.captures, options.speed, options.market)
    market = MARKETS[options.market or "spot"]
    simulation = market, options.symbols, options.seed, options.rate, options.levels
    return LoopSource(*simulation, options.loop) if options.loop else SimulationSource(*simulation)


class Exchange:
    """The venue. An async context manager: inside, it listens and its market moves.

    Args:
        options: All its parameters.
        source: Its market, instead of the one that the options ask for.

    Attributes:
        rest_url: Such as ``http://127.0.0.1:40123``.
        ws_url: Such as ``ws://127.0.0.1:40123``.
        journal: What truly happened, when ``options.record`` is set.
        finished: Set when the captures have come to their end.
        volumes: What was traded of each symbol in 24 hours, as ``ticker/24hr`` tells it.

    Raises:
        ValueError: Captures or the journal's directory cannot be used, or a fault names a symbol
            that is not listed.
    """

    rest_url: str
    ws_url: str

    def __init__(self, options: ExchangeOptions, source: Source | None = None) -> None:
        self.options = options
        self.faults = FaultPlan()
        self.source = source or make_source(options)
        self.market = self.source.market
        self.volumes = Volumes(self.source.listings)
        for text in options.faults:
            self.inject(text)
        self.journal = Journal(options.record) if options.record else None
        self.finished = asyncio.Event()
        self._sockets = Sockets(options, self.market, self.faults)
        self._halts: dict[str, float] = {}
        self._first_served: dict[str, int] = {}
        self._channels = {symbol: self._open_channels(symbol) for symbol in self.source.listings}
        self._pump_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Exchange:
        options = self.options
        weights = Weights(
            options.weight_limit or self.market.weight_limit, options.ban_seconds, time.monotonic
        )
        app = web.Application()
        app.add_routes([*Rest(self, weights).routes(), *self._sockets.routes()])
        app.add_routes(self.volumes.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(
                self._runner, options.host, options.port, ssl_context=_read_tls(options.tls)
            ).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        host = f"[{host}]" if ":" in host else host
        secure = "s" if options.tls else ""
        self.rest_url, self.ws_url = f"http{secure}://{host}:{port}", f"ws{secure}://{host}:{port}"
        if self.journal:
            self._sockets.spawn(self._keep_journal(self.journal))
        self._pump_task = asyncio.create_task(self._pump())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._pump_task:
            self._pump_task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ValueError):
                await self._pump_task
        await self._sockets.stop(self._runner.cleanup)
        if self.journal:
            self.journal.flush()

    @property
    def stats(self) -> ExchangeStats:
        """What the venue did so far."""
        return self._sockets.stats

    @property
    def fired(self) -> list[Fired]:
        """Every strike of a fault so far."""
        return self._sockets.fired

    def inject(self, text: str) -> None:
        """Have a fault strike; its N counts from now, so without one it strikes next.

        Raises:
            ValueError: The fault is not known, or its symbol not listed.
        """
        fault = parse_fault(text, "binance")
        if fault.symbol and fault.symbol not in self.source.listings:
            listed = ", ".join(self.source.listings)
            raise ValueError(f"fault {text!r}: no symbol {fault.symbol!r}: choose from {listed}")
        self.faults.arm(fault)

    def heal(self, name: str) -> None:
        """Have a fault strike no more."""
        self.faults.disarm(name)

    def change(self, symbol: str, bids: Levels, asks: Levels) -> None:
        """Have a book of a scripted market change, and send the event at once.

        Raises:
            ValueError: The market moves by itself.
            KeyError: The symbol is not listed.
        """
        if not isinstance(self.source, ScriptedSource):
            raise ValueError("the market moves by itself: give Exchange a ScriptedSource")
        self._publish(self.source.change(symbol, bids, asks))
        self._sockets.flush()

    def reset_connections(self) -> None:
        """Break every websocket connection, as a network does."""
        self._sockets.reset_all()

    async def wait_finished(self) -> None:
        """Wait for the captures' end; a simulation has none.

        Raises:
            ValueError: A capture turned out to be damaged on the way.
        """
        if self._pump_task:
            await asyncio.shield(self._pump_task)

    # What the channels and the REST side ask of the venue.

    def audience(self, name: str) -> Collection[Connection]:
        """Return the connections that are subscribed to a stream."""
        return self._sockets.audience(name)

    def depth(self, symbol: str) -> Depth:
        """Return the whole true book of a symbol."""
        return self.source.depth(symbol)

    def halt(self, symbol: str, until: float) -> None:
        """Have ``exchangeInfo`` tell of a halt until then (monotonic seconds)."""
        self._halts[symbol] = until

    def halted(self, symbol: str) -> bool:
        """Tell whether trading in a symbol is halted."""
        return time.monotonic() < self._halts.get(symbol, 0.0)

    def first_served(self, symbol: str) -> int | None:
        """Return the ``U`` of the first event of a symbol that had an audience."""
        return self._first_served.get(symbol)

    def touch(self, connection: Connection) -> None:
        """Have the connection flushed with the next pass."""
        self._sockets.touch(connection)

    def note(self, fault: Fault, where: str) -> None:
        """Note that a fault struck, and where."""
        self._sockets.note(fault, where)

    def count_message(self) -> None:
        """Note one more message to one client."""
        self.stats.messages += 1

    def count_request(self) -> None:
        """Note one more REST request."""
        self.stats.rest_requests += 1

    def shut_down(self, seconds: float) -> None:
        """Announce the end on every connection, and close them all after that."""
        self._sockets.shut_down(seconds)

    # The market.

    def _open_channels(self, symbol: str) -> list[Channel]:
        """Make a channel for each cadence; captures have but one, whatever the name."""
        groups: dict[float, list[str]] = {}
        for suffix, seconds in self.market.cadences.items():
            cadence = 0.0 if self.options.captures else seconds
            groups.setdefault(cadence, []).append(f"{symbol.lower()}@{suffix}")
        for names in groups.values():
            self._sockets.depth_streams.update(names)
        return [
            Channel(
                self,
                symbol,
                tuple(names),
                seconds=seconds,
                futures=self.market.futures,
                clock=time.monotonic,
            )
            for seconds, names in groups.items()
        ]

    async def _pump(self) -> None:
        if self.source.waits:
            await self._sockets.wanted.wait()
        start, batch = time.monotonic(), 0
        try:
            while (due := self.source.due()) is not None:
                late = time.monotonic() - start - due
                if self.source.paced and late < 0:
                    self._sockets.flush()
                    await asyncio.sleep(max(-late, _COALESCE_SECONDS))
                    batch = 0
                    continue
                if self.source.paced and late > STALL_SECONDS:
                    start += late  # the process stood still: go on from here, not in one burst
                event = self.source.advance()
                if event is not None:
                    self._publish(event)
                batch += 1
                if batch % 32 == 0:
                    self._sockets.flush()
                    await (asyncio.sleep(0) if self.source.paced else self._sockets.drain())
        except ValueError:
            _log.exception("the venue's market stands still")
            raise
        finally:
            self._sockets.flush()
            self.finished.set()
        if self.options.at_end != "idle":
            self._sockets.close_all("End of the captures")

    def _publish(self, event: Event) -> None:
        if event.depth:
            self.stats.events += 1
            if self.journal:
                self.journal.event(event)
            channels = self._channels[event.symbol]
            if event.symbol not in self._first_served and any(
                self.audience(name) for channel in channels for name in channel.names
            ):
                self._first_served[event.symbol] = event.first
            for channel in channels:
                channel.publish(event)
            return
        for connection in self.audience(event.stream):
            data = wrap(event.stream, event.data, connection.subscriptions.combined)
            connection.send(frame(data))
            self.touch(connection)

    async def _keep_journal(self, journal: Journal) -> None:
        """Begin each symbol's journal with its whole book, and flush on every second."""
        for symbol in self.source.listings:
            depth = self.source.depth(symbol)
            body = {"lastUpdateId": depth.last_update_id, "bids": depth.bids, "asks": depth.asks}
            journal.snapshot(symbol, msgspec.json.encode(body))
        while True:
            journal.flush()
            await asyncio.sleep(_JOURNAL_SECONDS)


def _read_tls(path: Path | None) -> ssl.SSLContext | None:
    if path is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


def make_exchange(options: ExchangeOptions) -> Exchange | KrakenExchange | CoinbaseExchange:
    """Return the venue that the options name.

    Raises:
        ValueError: As ``Exchange``.
    """
    if options.venue == "kraken":
        return KrakenExchange(options)
    return CoinbaseExchange(options) if options.venue == "coinbase" else Exchange(options)


async def serve(
    options: ExchangeOptions,
    *,
    on_ready: Callable[[str, str], None],
    venue: Exchange | KrakenExchange | CoinbaseExchange | None = None,
) -> None:
    """Run a venue until SIGINT, SIGTERM or, with ``at_end="exit"``, the captures' end.

    Args:
        options: All its parameters.
        on_ready: Called once with the REST and the websocket URL when both answer.
        venue: The venue, when it was made of the options before.

    Raises:
        ValueError: As ``Exchange``, or a capture turns out to be damaged on the way.
        OSError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    with contextlib.ExitStack() as handlers:
        async with venue or make_exchange(options) as serving:
            for number in (signal.SIGINT, signal.SIGTERM):
                # Not every thread and platform can: then the caller's own way of ending applies.
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.add_signal_handler(number, stopped.set)
                    handlers.callback(loop.remove_signal_handler, number)
            on_ready(serving.rest_url, serving.ws_url)
            ended = asyncio.ensure_future(serving.wait_finished())
            stop = asyncio.ensure_future(stopped.wait())
            try:
                await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    ended.result()
                    if options.at_end != "exit":
                        await stop
            finally:
                ended.cancel()
                stop.cancel()
