"""One sink in a thread and an event loop of its own: opened, written to, and closed there.

Whatever a sink does, raise, hang, block or flood, the recorder's loop goes on: all that it ever
does is to put rows into the sink's outbox. What the sink fails at is tried again, later and later;
when it goes on failing it is closed, left alone for a while, and opened anew.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from obframe.errors import ObframeError
from obframe.outbox import Batch, Outbox
from obframe.protocols import Sink
from obframe.settings import RecorderSettings

logger = logging.getLogger("obframe.sinks")

_RETRY_FIRST: Final = 0.25
_LIVE_TRIES: Final = 3
"""How often a sink without back-fill is given the same snapshots."""
_GRACE: Final = 1.0
"""Seconds beyond its time-out after which a call counts as stuck."""
_IDLE: Final = 1.0
_TASKS_AT_MOST: Final = 1000
_LOOK_EVERY: Final = 60
"""Calls between two looks at how many tasks the sink has left behind."""


@dataclass(frozen=True, slots=True)
class SinkPart:
    """A sink as the recorder takes it.

    Attributes:
        open: Gives a context manager around the sink; called in the sink's own loop, again after
            each break.
        backfill: Whether it is given every stored row, or live snapshots only.
    """

    open: Callable[[], AbstractAsyncContextManager[Sink]]
    backfill: bool = False


class SinkRunner:
    """Keeps one sink told.

    Args:
        name: For logs.
        part: What opens the sink.
        outbox: What it is told from.
        settings: Bounds and times.
        counters: ``written`` snapshots; ``failures`` of a call, of which ``timeouts``; ``retries``;
            ``breaks``: how often the sink was closed and left alone; ``open_failures``;
            ``read_failures`` of the storage; ``stuck``: calls that no time-out could end;
            ``crashes`` of its event loop. Those of the outbox besides.

    Attributes:
        opened: Done when the sink was opened for the first time, or refused to be; once it is
            cancelled, a refusal is a failure like any other.
        finished: Done when the sink is closed for good.
        trouble: What ails the sink, while it does; else None.
    """

    def __init__(
        self,
        name: str,
        part: SinkPart,
        outbox: Outbox,
        settings: RecorderSettings,
        counters: Counter[str],
    ) -> None:
        self.name = name
        self.outbox = outbox
        self.counters = counters
        self.opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.finished: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.trouble: str | None = None
        self._part = part
        self._settings = settings
        self._timeout = settings.sink_timeout
        self._closing = threading.Event()
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink-{name}", daemon=True)
        self._calling: tuple[str, float] | None = None
        self._stuck = False
        self._failing = 0  # failures since the last success
        self._broken = False
        self._named: set[str] = set()  # kinds of failures logged since then
        self._batch_rows = settings.sink_batch_rows
        self._random = random.Random()  # many recorders must not come back at once

    # -- the recorder's side ---------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; it opens the sink."""
        self._thread.start()

    def close(self) -> None:
        """Let the sink be told what waits, if it takes it, and be closed. Returns at once."""
        self._closing.set()
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._ended.set)
        self.outbox.bell.ring()

    def abandon(self) -> None:
        """Count what is held by a sink that will not take it."""
        self.outbox.close()

    def watch(self) -> None:
        """Name a call that no time-out can end; called about once a second."""
        calling = self._calling
        if calling is None:
            return
        what, since = calling
        lasting = time.monotonic() - since
        if lasting > self._timeout + _GRACE and not self._stuck:
            self._stuck = True
            self.counters["stuck"] += 1
            self.trouble = f"{what} has not returned for {lasting:.0f} s"
            logger.error(
                "sink %s: its %s has not returned for %.0f s and cannot be ended: it blocks its "
                "thread, or takes no cancellation; nobody else waits for it",
                self.name, what, lasting,
            )  # fmt: skip

    # -- the sink's thread -----------------------------------------------------------------------

    def _work(self) -> None:
        pause = _RETRY_FIRST
        while not self.finished.done():
            try:
                with asyncio.Runner() as runner:
                    self._run(runner.get_loop())
            except BaseException as error:
                logger.error("sink %s: its event loop ended badly: %r", self.name, error)
            if not self.finished.done():  # a fault of ours
                self._closing.wait(pause)
                pause = min(pause * 2, self._settings.sink_backoff_max)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        life = loop.create_task(self._live())
        while not life.done():
            try:
                loop.run_until_complete(life)
            except BaseException as error:
                # A task that the sink left behind raised what ends a loop: this one goes on.
                self.counters["crashes"] += 1
                logger.critical("sink %s: something ended its event loop: %r", self.name, error)

    def _end(self) -> None:
        self._settle_opening(None)
        if not self.finished.done():
            self.finished.set_result(None)

    async def _live(self) -> None:
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.outbox.bell.bind()
        if self._closing.is_set():
            self._ended.set()
        await self.outbox.save(now=True)
        while True:
            async with AsyncExitStack() as stack:
                sink = await self._open(stack)
                if sink is None or await self._serve(sink):
                    break
            await self._rest(self._failing)
            if self._closing.is_set():
                break
        await self.outbox.save(now=True)
        self.outbox.close()
        self._end()

    async def _open(self, stack: AsyncExitStack) -> Sink | None:
        """Open the sink, however long it takes; None when it refused, or the end came first."""
        while not self._closing.is_set():
            inner = AsyncExitStack()
            try:
                with self._call("open"):
                    async with asyncio.timeout(self._timeout):
                        sink = await inner.enter_async_context(self._part.open())
            except BaseException as error:
                if isinstance(error, ObframeError) and self._settle_opening(error):
                    return None
                self.counters["open_failures"] += 1
                self._failing += 1
                self._tell(error, "cannot be opened")
                await self._rest(self._failing)
            else:
                stack.push_async_callback(self._shut, inner)
                self._settle_opening(None)
                return sink
        return None

    def _settle_opening(self, refusal: ObframeError | None) -> bool:
        """Say how the first opening went; False when nobody waits for that any more."""
        try:
            if refusal is None:
                self.opened.set_result(None)
            else:
                self.opened.set_exception(refusal)
        except concurrent.futures.InvalidStateError:
            return False
        return True

    async def _shut(self, stack: AsyncExitStack) -> None:
        try:
            with self._call("close"):
                async with asyncio.timeout(self._timeout):
                    await stack.aclose()
        except BaseException as error:
            logger.error("sink %s could not be closed: %s", self.name, self._why(error))

    async def _serve(self, sink: Sink) -> bool:
        """Tell the sink what waits; True at the end, False when it goes on failing."""
        tries = calls = unread = 0
        while True:
            self.outbox.bell.listen()
            try:
                batch = await self.outbox.next(self._batch_rows)
            except Exception as error:
                self.counters["read_failures"] += 1
                self._tell(error, "waits, for rows cannot be read back")
                if self._closing.is_set():
                    return True
                unread += 1
                await self._rest(unread)
                continue
            unread = 0
            if self._closing.is_set() and (batch is None or batch.stored):
                return True  # reading back goes on in the next run
            if batch is None:
                await self.outbox.bell.wait(_IDLE)
                await self.outbox.save()
                continue
            if not batch.snapshots or await self._write(sink, batch):
                self.outbox.told(batch)
                await self.outbox.save()
                tries = 0
                calls += 1
                if calls % _LOOK_EVERY == 0:
                    self._count_tasks()
                continue
            tries += 1
            if tries >= _LIVE_TRIES and self.outbox.give_up(batch):
                tries = 0
            if self._closing.is_set() and self._failing > 1:
                return True
            if self._failing >= self._settings.sink_break_after:
                self._break()
                return False
            self.counters["retries"] += 1
            await self._rest(self._failing)

    def _break(self) -> None:
        if not self._broken:
            self.counters["breaks"] += 1
            logger.error(
                "sink %s failed %d times in a row: it is closed, left alone for a while and opened "
                "anew, until it works again", self.name, self._failing,
            )  # fmt: skip
        self._broken = True

    async def _write(self, sink: Sink, batch: Batch) -> bool:
        try:
            with self._call("write"):
                async with asyncio.timeout(self._timeout) as bound:
                    await sink.write(batch.snapshots)
        except BaseException as error:
            self.counters["failures"] += 1
            if bound.expired():
                self.counters["timeouts"] += 1
                # Perhaps it is too much for one call.
                self._batch_rows = max(self._batch_rows // 2, 1)
            self._failing += 1
            self._tell(error, "failed")
            return False
        self.counters["written"] += len(batch.snapshots)
        self._batch_rows = min(self._batch_rows * 2, self._settings.sink_batch_rows)
        if self.trouble is not None:
            logger.warning("sink %s works again", self.name)
        self.trouble = None
        self._failing = 0
        self._broken = False
        self._named.clear()
        return True

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        """Mark a call of the plugin's code as under way, for ``watch``."""
        self._calling = what, time.monotonic()
        try:
            yield
        finally:
            self._calling = None
            if self._stuck:
                self._stuck = False
                logger.warning("sink %s: its %s has returned", self.name, what)

    def _tell(self, error: BaseException, what: str) -> None:
        """Take note of a failure; the first of its kind since the last success is logged."""
        why = self._why(error)
        if what not in self._named:
            logger.error("sink %s %s: %s", self.name, what, why)
        self._named.add(what)
        self.trouble = f"{what}: {why}"

    def _why(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError) and not str(error):
            return f"no answer within {self._timeout:g} s (recorder.sink_timeout)"
        return str(error) if isinstance(error, ObframeError) else repr(error)

    async def _rest(self, failures: int) -> None:
        """Wait longer with each failure in a row, but not when the end is asked for."""
        most = min(_RETRY_FIRST * 2 ** min(failures - 1, 30), self._settings.sink_backoff_max)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), most * self._random.uniform(0.5, 1.0))

    def _count_tasks(self) -> None:
        left = len(asyncio.all_tasks()) - 1
        if left > _TASKS_AT_MOST and not self.counters["tasks_left"]:
            logger.error(
                "sink %s has left %d tasks behind in its event loop, and they grow", self.name, left
            )
        if left > _TASKS_AT_MOST:
            self.counters["tasks_left"] = left
