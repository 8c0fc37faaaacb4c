"""What keeps a venue's connections alive, whichever venue: limits, back-off, and orderly ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from obframe import Emit, FeedStatus, GapReason, Instrument, StreamEvent
from obframe_plugins._pacing import Backoff, RollingLimit
from obframe_plugins._venue import (
    LinkSettings,
    StreamLost,
    describe_close,
    describe_failure,
    supervise,
)
from obframe_plugins._websocket import Closed, Open, Options, Socket, Take

_KINDS_LOGGED = 100
_WAIT_LOGGED = 1.0
_CLOSE_TIMEOUT = 1.0


class BackoffSettings(LinkSettings, Protocol):
    """The settings about trying again. Times in seconds."""

    @property
    def backoff_max(self) -> float:
        """Upper bound of the delay between two attempts."""
        ...

    @property
    def stable_after(self) -> float:
        """Of good data until earlier failures are forgotten."""
        ...


@dataclass(slots=True)
class LinkCounters:
    """What happened so far on the connections of one feed."""

    messages: int = 0
    bytes: int = 0
    malformed: int = 0
    invalid: int = 0
    capacity: int = 0
    unsubscribed: int = 0
    unknown_events: int = 0
    connections: int = 0
    reconnects: int = 0
    silences: int = 0
    refused: int = 0
    resubscribed: int = 0


class LinkContext:
    """One run of a feed: where events go, and when connections may be opened.

    Args:
        settings: The feed's.
        counters: The feed's; they outlive a run.
        connections: Limits new connections; outlives a run.
        rng: Source of all jitter.
        emit: Where events go.
        open_socket: Opens websocket connections.
        logger: The feed's.
    """

    def __init__(
        self,
        settings: BackoffSettings,
        counters: LinkCounters,
        connections: RollingLimit,
        rng: random.Random,
        emit: Emit,
        open_socket: Open,
        logger: logging.Logger,
    ) -> None:
        self.rng = rng
        self.emit = emit
        self._open_socket = open_socket
        self._link_settings = settings
        self._link_counters = counters
        self._logger = logger
        self._connections = connections
        self._connections_held_until = 0.0
        self._logged_kinds: set[str] = set()
        self._ending: set[asyncio.Task[Any]] = set()

    def tell(
        self,
        event: StreamEvent,
        instruments: Collection[Instrument],
        reason: GapReason | None = None,
        detail: str = "",
    ) -> None:
        """Emit a status of the streams of these instruments, if there are any."""
        if instruments:
            self.emit(FeedStatus(event, frozenset(instruments), reason, detail))

    def finish(self, ending: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
        """Let something come to its end in the background; ``drain`` waits for it."""
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.debug("an ending failed", exc_info=error)

    async def drain(self) -> None:
        """Wait until everything given to ``finish`` has ended."""
        while self._ending:
            await asyncio.wait(set(self._ending))

    async def hold(
        self, url: str, take: Take, live: Callable[[Socket], Coroutine[Any, Any, NoReturn]]
    ) -> StreamLost:
        """Open a connection and keep it to its end; return why that came.

        Raises nothing but cancellation.

        Args:
            url: Where to.
            take: Takes the messages.
            live: What is done with the open connection, until it fails.
        """
        socket: Socket | None = None
        try:
            socket = await self._connect(url, take)
            await live(socket)
        except StreamLost as lost:
            return lost
        except Closed as error:
            return describe_close(error, self._link_settings)
        except Exception as error:
            self._logger.exception("a connection failed for a fault of ours")
            return StreamLost(GapReason.INTERNAL, f"{type(error).__name__}: {error}")
        finally:
            if socket is not None:
                socket.mute()
                # In the background: the loss is to be told now, not after the closing handshake.
                self.finish(socket.close())

    async def _connect(self, url: str, take: Take) -> Socket:
        settings = self._link_settings
        options = Options(
            max_message_bytes=settings.max_message_bytes,
            open_timeout=settings.open_timeout,
            close_timeout=_CLOSE_TIMEOUT,
            proxy=settings.proxy_for(url),
            user_agent="obframe",
        )
        try:
            return await self._open_socket(url, options, take)
        except Exception as error:
            raise describe_failure(error, url, settings) from error

    def new_backoff(self) -> Backoff:
        """Return delays that have seen no failure yet."""
        return Backoff(self._link_settings.backoff_max, self.rng)

    def hold_connections(self, seconds: float) -> None:
        """Open no connection for a while: the venue turned this address away."""
        until = asyncio.get_running_loop().time() + seconds
        self._connections_held_until = max(self._connections_held_until, until)

    async def permit_connection(self) -> None:
        """Wait until the venue's limit on new connections leaves room for one, and take it."""
        loop = asyncio.get_running_loop()
        told = False
        while True:
            now = loop.time()
            held, full = self._connections_held_until - now, self._connections.delay(1, now)
            if held <= 0 and full <= 0:
                break
            if full > _WAIT_LOGGED and not told:
                told = True
                self._logger.warning(
                    "%d connections were opened within %g s, the most the venue allows: "
                    "waiting %.1f s",
                    self._connections.limit,
                    self._connections.period,
                    full,
                )
            await asyncio.sleep(max(held, full))
        self._connections.spend(1, loop.time())
        self._link_counters.connections += 1

    def log_unknown(self, kind: str) -> None:
        """Log an event of unknown type, once for each type and not for ever more types."""
        self._link_counters.unknown_events += 1
        if kind not in self._logged_kinds and len(self._logged_kinds) < _KINDS_LOGGED:
            self._logged_kinds.add(kind)
            self._logger.info("events of type %s are ignored", kind)


def name_count(number: int, what: str) -> str:
    """Say how many there are of what has a plain plural."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class Turns:
    """When the next connection of one share of streams may be opened, after the one before it.

    Args:
        context: The feed's run.
        settings: The feed's.
        logger: The feed's.

    Attributes:
        backoff: The delays.
        lost: Why the last connection ended; None before there was one.
    """

    def __init__(
        self, context: LinkContext, settings: BackoffSettings, logger: logging.Logger
    ) -> None:
        self.lost: StreamLost | None = None
        self._context = context
        self._stable_after = settings.stable_after
        self._logger = logger
        self._counters = context._link_counters
        self.backoff = context.new_backoff()

    async def wait(self, instruments: Collection[Instrument]) -> None:
        """Wait as long as it takes; tell meanwhile that these instruments' stream is opened."""
        lost = self.lost
        reason, detail = GapReason.CONNECTING, ""
        if lost is not None:
            self._counters.reconnects += 1
            delay = max(self.backoff.next(), lost.retry_after)
            self._logger.warning(
                "a connection of %s is lost: %s; next try in %.1f s",
                name_count(len(instruments), "stream"),
                lost,
                delay,
            )
            await asyncio.sleep(delay)
            reason, detail = lost.reason, str(lost)
        self._context.tell(StreamEvent.CONNECTING, instruments, reason, detail)
        await self._context.permit_connection()

    def end(self, lost: StreamLost, good_seconds: float) -> None:
        """Note why a connection ended, and for how long good data had come over it."""
        self.lost = lost
        self._context.hold_connections(lost.retry_after)
        if good_seconds >= self._stable_after:
            self.backoff.reset()


class Share(Protocol):
    """Instruments that are streamed over one connection after the other."""

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """What is wanted, by name."""

    def add(self, instruments: Collection[Instrument]) -> None:
        """Want these too."""

    def remove(self, symbols: Collection[str]) -> None:
        """Want these no longer."""

    async def run(self) -> None:
        """Keep them streaming until cancelled."""

    def fail(self, error: Exception) -> None:
        """Say that ``run`` ended by a fault of ours; it is about to be called anew."""


S = TypeVar("S", bound=Share)


class Shares(Generic[S]):
    """All that is wanted of a venue, spread over shares that each have room for so much.

    Args:
        context: The feed's run.
        what: What a share is called in the log.
        most: Instruments of a share.
        make: Makes a share of some instruments.
        name: What a share knows an instrument by.
    """

    def __init__(
        self,
        context: LinkContext,
        what: str,
        most: int,
        make: Callable[[Collection[Instrument]], S],
        name: Callable[[Instrument], str] = attrgetter("symbol"),
    ) -> None:
        self._context = context
        self._what = what
        self._most = most
        self._make = make
        self._name = name
        self._tasks: dict[S, asyncio.Task[None]] = {}
        self._places: dict[str, S] = {}

    def __iter__(self) -> Iterator[S]:
        return iter(self._tasks)

    def find(self, symbol: str) -> S | None:
        """Return the share that has a symbol."""
        return self._places.get(symbol)

    def add(self, instruments: Collection[Instrument]) -> None:
        """Give the instruments to shares that have room, and make as many more as it takes."""
        left = list(instruments)
        for share in self._tasks:
            room = self._most - len(share.instruments)
            if room > 0 and left:
                self._place(share, left[:room])
                share.add(left[:room])
                left = left[room:]
        while left:
            share = self._make(left[: self._most])
            self._place(share, left[: self._most])
            left = left[self._most :]
            context = self._context
            work = supervise(
                self._what, share.run, context.new_backoff(), share.fail, logger=context._logger
            )
            self._tasks[share] = asyncio.create_task(work)

    def _place(self, share: S, instruments: Collection[Instrument]) -> None:
        self._places.update({self._name(item): share for item in instruments})

    def remove(self, symbols: Collection[str]) -> None:
        """Take the symbols out of their shares, and end those that have none left."""
        for symbol in symbols:
            share = self._places.pop(symbol, None)
            if share is not None:
                share.remove([symbol])
                if not share.instruments:
                    self._end(share)

    def close(self) -> None:
        """End all; the feed's run waits for it."""
        for share in list(self._tasks):
            self._end(share)

    def _end(self, share: S) -> None:
        task = self._tasks.pop(share)
        task.cancel()
        self._context.finish(task)
