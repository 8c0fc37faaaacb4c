"""What simulated venues on the desk share, whatever their wire: a market, clients, a journal.

``ExchangeOptions`` say how. Update ids of the journal are the times of the events, in Unix
microseconds, so that ``oracle.truth_by_time`` can tell what a row had to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec
from aiohttp import web

from obframe.testing.exchange_control import Subscriptions
from obframe.testing.exchange_faults import Fault, FaultPlan, Scope, parse_fault
from obframe.testing.exchange_hub import STALL_SECONDS, ExchangeStats, Fired
from obframe.testing.exchange_journal import Journal
from obframe.testing.exchange_market import MARKETS, Depth, Event
from obframe.testing.exchange_options import ExchangeOptions
from obframe.testing.exchange_simulation import SimulationSource
from obframe.testing.exchange_socket import Connection

_log = logging.getLogger(__name__)

_COALESCE_SECONDS = 0.004
_MOST_AT_ONCE = 32
_JOURNAL_SECONDS = 1.0
_HANDSHAKE_SECONDS = 2.0


class Client(Protocol):
    """One connection, and what it is subscribed to."""

    connection: Connection


C = TypeVar("C", bound=Client)


class SimulatedExchange(Generic[C]):
    """A venue. An async context manager: inside, it listens and its market moves.

    A subclass says what its wire is: ``routes``, ``make_client``, ``welcome``, ``obey`` and
    ``publish``.

    Args:
        options: Its parameters.
        names: The symbols to simulate.
        incoming_limit: Messages a second that a client may send.

    Attributes:
        rest_url: Such as ``http://127.0.0.1:40123``.
        ws_url: The same for websockets, with ``ws_path``.
        stats: What it did so far.
        fired: Every strike of a fault so far.
        journal: What truly happened, when ``options.record`` is set.

    Raises:
        ValueError: A fault names a symbol that is not listed, or the journal cannot be used.
    """

    rest_url: str
    ws_url: str
    ws_path = ""

    def __init__(self, options: ExchangeOptions, names: Sequence[str], incoming_limit: int) -> None:
        self.options = options
        self.stats = ExchangeStats()
        self.fired: list[Fired] = []
        self.faults = FaultPlan()
        # The number formats of a futures market: as many decimals as the tick and the step have.
        self.source = SimulationSource(
            MARKETS["usdm"], names, options.seed, options.rate, options.levels
        )
        self.moments = dict.fromkeys(names, time.time_ns() // 1000)
        self.clients: dict[C, None] = {}
        self._incoming_limit = incoming_limit
        for text in options.faults:
            self.inject(text)
        self.journal = Journal(options.record) if options.record else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deserted = asyncio.Event()
        self._deserted.set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.options.host, self.options.port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        host = f"[{host}]" if ":" in host else host
        self.rest_url, self.ws_url = f"http://{host}:{port}", f"ws://{host}:{port}{self.ws_path}"
        if self.journal:
            self.spawn(self._keep_journal(self.journal))
        self.market = self.spawn(self._pump())
        self.spawn(self.beat())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for client in list(self.clients):
            client.connection.drop(1001, "Going away")
            if client.connection.hole:
                client.connection.reset()
        # While the server is being released it reads no more, so no handshake would end.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._deserted.wait(), _HANDSHAKE_SECONDS)
        await self._runner.cleanup()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.journal:
            self.journal.flush()

    def inject(self, text: str) -> None:
        """Have a fault strike; its N counts from now, so without one it strikes next.

        Raises:
            ValueError: The fault is not known here, or its symbol not listed.
        """
        fault = parse_fault(text, self.options.venue)
        if fault.symbol and fault.symbol not in self.moments:
            listed = ", ".join(self.moments)
            raise ValueError(f"fault {text!r}: no symbol {fault.symbol!r}: choose from {listed}")
        self.faults.arm(fault)

    async def wait_finished(self) -> None:
        """Wait for the market's end; a simulation has none."""
        await asyncio.shield(self.market)

    def depth(self, symbol: str) -> Depth:
        """Return the whole true book of a symbol."""
        return self.source.depth(symbol)

    # -- what its wire is ------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """Return what is served; websockets by ``accept``."""
        raise NotImplementedError

    def make_client(self, connection: Connection) -> C:
        """Return a client of a new connection."""
        raise NotImplementedError

    def welcome(self, client: C) -> None:
        """Say what is said first."""

    def obey(self, client: C, text: str) -> None:
        """Do what a client asks for."""
        raise NotImplementedError

    def publish(self, event: Event, moment: int) -> None:
        """Tell whoever wants to know of an event, at its time in Unix microseconds."""
        raise NotImplementedError

    async def beat(self) -> None:
        """Say what is said by the clock; runs as long as the venue."""

    # -- the market ------------------------------------------------------------------------------

    async def _pump(self) -> None:
        start, batch = time.monotonic(), 0
        while True:
            late = time.monotonic() - start - self.source.due()
            if late < 0 or batch >= _MOST_AT_ONCE:
                self.flush()
                await asyncio.sleep(max(-late, _COALESCE_SECONDS))
                batch = 0
                continue
            batch += 1
            if late > STALL_SECONDS:
                start += late  # the process stood still: go on from here, not in one burst
            event = self.source.advance()
            try:
                self._happen(event)
            except Exception:
                _log.exception("the venue's market stands still")
                raise

    def _happen(self, event: Event) -> None:
        before = self.moments[event.symbol]
        moment = self.moments[event.symbol] = max(before + 1, time.time_ns() // 1000)
        self.stats.events += 1
        if self.journal:
            _note_event(self.journal, event, before, moment)
        self.publish(event, moment)

    # -- clients ---------------------------------------------------------------------------------

    async def accept(self, request: web.Request) -> web.StreamResponse:
        """Serve one websocket connection to its end."""
        websocket = web.WebSocketResponse(
            timeout=_HANDSHAKE_SECONDS, autoping=False, autoclose=False, compress=False
        )
        await websocket.prepare(request)
        transport = request.transport
        if transport is None:
            return websocket
        connection = Connection(
            websocket,
            transport,
            Subscriptions(False, []),
            incoming_limit=self._incoming_limit,
            buffer_limit=int(self.options.buffer_mib * 2**20),
            spawn=self.spawn,
        )
        client = self.make_client(connection)
        self.stats.connections += 1
        self.stats.clients += 1
        self.clients[client] = None
        self._deserted.clear()
        try:
            if refused := self.faults.due(Scope.ACCEPT):
                self.note(refused[0][0], f"connection {self.stats.connections}")
                connection.drop(1001, "Going away")
            self.welcome(client)
            connection.flush()
            while (text := await connection.receive()) is not None:
                self.obey(client, text)
                connection.flush()
            await connection.finish()
        finally:
            self.clients.pop(client, None)
            self.stats.clients -= 1
            if not self.clients:
                self._deserted.set()
        return websocket

    # -- beside ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write out what gathered, and part from clients that do not read."""
        for client in self.clients:
            if not client.connection.flush():
                self.stats.slow_clients += 1

    def note(self, fault: Fault, where: str) -> None:
        """Note that a fault struck, and where."""
        _log.warning("fault %s strikes: %s", fault.name, where)
        self.fired.append(Fired(time.time(), fault.name, where))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Keep a task until it ends, or the venue does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep_journal(self, journal: Journal) -> None:
        """Begin each symbol's journal with its whole book, and flush on every second."""
        for symbol, moment in self.moments.items():
            depth = self.source.depth(symbol)
            body = {"lastUpdateId": moment, "bids": depth.bids, "asks": depth.asks}
            journal.snapshot(symbol, msgspec.json.encode(body))
        while True:
            journal.flush()
            await asyncio.sleep(_JOURNAL_SECONDS)


def _note_event(journal: Journal, event: Event, before: int, moment: int) -> None:
    data = {"e": "depthUpdate", "s": event.symbol, "U": before + 1, "u": moment, "pu": before}
    data |= {"b": event.bids, "a": event.asks}
    journal.event(Event(event.symbol, "book", msgspec.json.encode(data), depth=True))
