"""Snapshots on request: queued by weight, retried until they are had or wanted no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from obframe import (
    CapacityError,
    GapReason,
    Instrument,
    MessageError,
    StreamEvent,
    parse_depth_snapshot,
)
from obframe_plugins._binance_context import Context, logger
from obframe_plugins._binance_rest import NO_SUCH_SYMBOL, RestClient
from obframe_plugins._http import RestError
from obframe_plugins._venue import supervise

_LONG_QUEUE = 10.0


class Snapshots:
    """The snapshots that were asked for.

    Each request waits by itself, so that one that fails or is slow holds up no other.

    Args:
        context: The feed's run.
        rest: Sends the requests.
        unknown: Told of an instrument that the venue says it does not know, and its words.
    """

    def __init__(
        self, context: Context, rest: RestClient, unknown: Callable[[Instrument, str], None]
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._rest = rest
        self._unknown = unknown
        self._slots = asyncio.Semaphore(context.settings.rest_concurrency)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._instruments: dict[str, Instrument] = {}
        self._troubled: set[str] = set()
        self._reporter: asyncio.Handle | None = None

    def request(self, instrument: Instrument) -> None:
        """Queue a request, unless one is queued already."""
        symbol = instrument.symbol
        if symbol in self._tasks:
            return
        self._instruments[symbol] = instrument
        self._tasks[symbol] = asyncio.create_task(
            supervise(
                f"the snapshot of {symbol}",
                lambda: self._deliver(instrument),
                self._context.new_backoff(),
                logger=logger,
            )
        )
        if self._reporter is None:
            self._reporter = asyncio.get_running_loop().call_soon(self._report)

    def cancel(self, symbol: str) -> None:
        """Drop a request."""
        task = self._forget(symbol)
        if task is not None:
            task.cancel()
            self._context.finish(task)

    def close(self) -> None:
        """Drop all requests."""
        if self._reporter is not None:
            self._reporter.cancel()
        for symbol in list(self._tasks):
            self.cancel(symbol)

    def pause(self, why: str) -> None:
        """Tell all that wait for a snapshot why they go on waiting."""
        opened = [i for s, i in self._instruments.items() if self._context.opening(s) is not None]
        self._tell_trouble(opened, GapReason.SNAPSHOT, why)

    def _forget(self, symbol: str) -> asyncio.Task[None] | None:
        self._instruments.pop(symbol, None)
        self._troubled.discard(symbol)
        return self._tasks.pop(symbol, None)

    async def _deliver(self, instrument: Instrument) -> None:
        symbol = instrument.symbol
        context, settings = self._context, self._settings
        parameters = {"symbol": symbol, "limit": str(settings.limit)}
        backoff = context.new_backoff()
        while True:
            opening = await context.wait_open(symbol)
            if self._rest.pause:
                self._tell_trouble([instrument], GapReason.SNAPSHOT, self._rest.pause)
            reason, wait = GapReason.SNAPSHOT, 0.0
            try:
                async with self._slots:
                    body = await self._rest.get(
                        "/depth", parameters, settings.snapshot_weight, settings.request_timeout
                    )
                snapshot = parse_depth_snapshot(body, symbol, settings.limit)
            except RestError as error:
                if error.code in NO_SUCH_SYMBOL:
                    self._forget(symbol)
                    self._unknown(instrument, str(error))
                    return
                why, wait = str(error), error.retry_after
            except MessageError as error:
                why = f"the venue's answer is no book: {error}"
            except CapacityError as error:
                reason, why = GapReason.CAPACITY, str(error)
            else:
                if context.opening(symbol) == opening:
                    break
                # The stream was lost meanwhile: what was fetched belongs to the one before.
                continue
            context.counters.snapshot_retries += 1
            delay = max(backoff.next(), wait)
            if symbol not in self._troubled:
                logger.warning("%s: no snapshot: %s; next try in %.1f s", symbol, why, delay)
            self._tell_trouble([instrument], reason, why)
            await asyncio.sleep(delay)
        # Before it is delivered: it may be answered by a request for another one.
        self._forget(symbol)
        context.deliver(snapshot)

    def _tell_trouble(
        self, instruments: Collection[Instrument], reason: GapReason, why: str
    ) -> None:
        """Tell of a request in trouble, once until it is delivered."""
        new = [item for item in instruments if item.symbol not in self._troubled]
        self._troubled.update(item.symbol for item in new)
        self._context.tell(StreamEvent.SNAPSHOT_FAILED, new, reason, why)

    def _report(self) -> None:
        """Log when the queue ends, as long as that is not soon."""
        self._reporter = None
        count = len(self._tasks)
        weight = self._settings.snapshot_weight
        seconds = self._rest.wait_for_all(count * weight)
        if count and seconds > _LONG_QUEUE:
            logger.info(
                "%d snapshots are queued; the last is due in about %.0f s (weight %d each, "
                "%d a minute)",
                count,
                seconds,
                weight,
                self._settings.weight_budget,
            )
            loop = asyncio.get_running_loop()
            self._reporter = loop.call_later(_LONG_QUEUE, self._report)
