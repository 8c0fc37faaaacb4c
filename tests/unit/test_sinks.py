"""A sink in its own thread and loop: tried again, left alone, opened anew, and never waited for."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest

from obframe import PluginError, Record, Snapshot
from obframe import sinks as sinks_module
from obframe.backfill import StoredOutbox
from obframe.outbox import LiveOutbox
from obframe.positions import Positions
from obframe.settings import RecorderSettings
from obframe.sinks import SinkPart, SinkRunner
from obframe.testing.waiting import until
from obframe_plugins.memory import MemoryStorage

START = 1_700_000_000
QUICK = RecorderSettings(sink_backoff_max=0.01, sink_timeout=0.05)


def snapshot(second: int) -> Snapshot:
    return Snapshot("A", second, START + second, [("1.50", "1")], [("2", "1")])


class Moody:
    """Does with each call what the test says; remembers which threads it was in."""

    def __init__(self, act: Callable[[Sequence[Snapshot]], Any] | None = None) -> None:
        self.act = act
        self.acts: list[Callable[[Sequence[Snapshot]], Any]] = []
        self.calls = 0
        self.seen: list[int] = []
        self.opened = self.closed = 0
        self.open_errors: list[BaseException] = []
        self.threads: set[int] = set()

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        self.calls += 1
        self.threads.add(threading.get_ident())
        if self.act is not None:
            answer = self.act(snapshots)
            if asyncio.iscoroutine(answer):
                await answer
        self.seen += [snapshot.timestamp - START for snapshot in snapshots]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Moody]:
        self.threads.add(threading.get_ident())
        if self.open_errors:
            raise self.open_errors.pop(0)
        self.opened += 1
        yield self
        self.closed += 1
        self.threads.add(threading.get_ident())


@contextmanager
def running(
    sink: Moody, *, rows: int = 1000, settings: RecorderSettings = QUICK
) -> Iterator[SinkRunner]:
    counters: Counter[str] = Counter()
    box = LiveOutbox(rows, counters)
    runner = SinkRunner("moody", SinkPart(sink.open), box, settings, counters)
    runner.start()
    try:
        yield runner
    finally:
        runner.close()
        runner.finished.result(10)


def offer(runner: SinkRunner, *seconds: int) -> None:
    assert isinstance(runner.outbox, LiveOutbox)
    for second in seconds:
        runner.outbox.offer([snapshot(second)])


def fail(error: BaseException) -> Callable[[Sequence[Snapshot]], None]:
    def act(_: Sequence[Snapshot]) -> None:
        raise error

    return act


async def test_a_sink_is_opened_written_and_closed_in_one_thread_that_is_not_ours() -> None:
    sink = Moody()
    with running(sink) as runner:
        offer(runner, 1, 2, 3)
        await until(lambda: sink.seen == [1, 2, 3])
    assert (sink.opened, sink.closed) == (1, 1)
    assert len(sink.threads) == 1
    assert threading.get_ident() not in sink.threads
    assert runner.counters == {"written": 3}


async def test_row_53_a_failed_call_is_tried_again_and_then_dropped_when_it_is_live_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Moody(fail(RuntimeError("no")))
    with running(sink, settings=RecorderSettings(sink_backoff_max=0.01)) as runner:
        offer(runner, 1)
        await until(lambda: runner.counters["dropped"] == 1)
        assert sink.calls == 3
        sink.act = None
        offer(runner, 2)
        await until(lambda: sink.seen == [2])
    assert runner.counters["failures"] == 3
    assert runner.counters["retries"] == 3
    assert runner.counters["breaks"] == 0
    assert caplog.text.count("RuntimeError('no')") == 1, "told once, not each time"


async def test_row_53_a_sink_that_goes_on_failing_is_closed_left_alone_and_opened_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Moody(fail(RuntimeError("no")))
    settings = RecorderSettings(sink_backoff_max=0.02, sink_break_after=4)
    with running(sink, rows=3, settings=settings) as runner:
        offer(runner, *range(1, 21))
        await until(lambda: sink.opened >= 3)
        assert sink.closed >= 2
        assert runner.counters["breaks"] == 1, "one break, however long it lasts"
        sink.act = None
        offer(runner, 30)
        await until(lambda: sink.seen[-1:] == [30])
    assert runner.trouble is None
    assert runner.counters["written"] + runner.counters["dropped"] == 21
    assert caplog.text.count("closed, left alone") == 1
    assert "moody works again" in caplog.text


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), MemoryError()]
)
async def test_row_53_nothing_that_is_raised_ends_the_thread(error: BaseException) -> None:
    sink = Moody(fail(error))
    with running(sink) as runner:
        offer(runner, 1)
        await until(lambda: runner.counters["failures"] == 1)
        sink.act = None
        await until(lambda: sink.seen == [1])


async def test_row_53_a_stray_task_that_ends_the_loop_costs_the_loop_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go() -> None:
        raise SystemExit(3)

    def stray(_: Sequence[Snapshot]) -> Any:
        sink.act = None
        sink.stray = asyncio.get_running_loop().create_task(go())  # type: ignore[attr-defined]
        return asyncio.sleep(0.01)

    sink = Moody(stray)
    with running(sink, settings=RecorderSettings(sink_backoff_max=0.01)) as runner:
        offer(runner, 1)
        await until(lambda: runner.counters["crashes"] == 1)
        offer(runner, 2)
        await until(lambda: sink.seen == [1, 2])
        assert sink.opened == 1, "the sink itself feels nothing"
        del sink.stray  # type: ignore[attr-defined]
    assert "something ended its event loop: SystemExit(3)" in caplog.text


async def test_row_53_a_sink_that_awaits_for_ever_is_cut_off_at_its_time_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Moody(lambda _: asyncio.Event().wait())
    with running(sink) as runner:
        offer(runner, 1)
        await until(lambda: runner.counters["timeouts"] >= 1)
        sink.act = None
        await until(lambda: 1 in sink.seen or runner.counters["dropped"])
    assert "no answer within 0.05 s (recorder.sink_timeout)" in caplog.text


@pytest.mark.parametrize("way", ["blocks", "takes no cancellation"])
async def test_row_53_a_call_that_no_time_out_ends_is_named_and_not_waited_for(
    way: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks_module, "_GRACE", 0.05)
    free = threading.Event()

    async def swallow() -> None:
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    sink = Moody((lambda _: free.wait(30)) if way == "blocks" else (lambda _: swallow()))
    with running(sink, rows=3) as runner:
        longest = 0.0
        for second in range(1, 50):
            began = time.perf_counter()
            offer(runner, second)
            runner.watch()
            longest = max(longest, time.perf_counter() - began)
            await asyncio.sleep(0.005)
        assert runner.counters["stuck"] == 1
        assert runner.trouble is not None
        assert "write has not returned" in runner.trouble
        assert longest < 0.05
        runner.close()
        assert not runner.finished.done()
        free.set()
    assert "moody: its write has not returned for" in caplog.text
    assert "moody: its write has returned" in caplog.text


async def test_a_refusal_to_open_is_an_error_at_the_start() -> None:
    sink = Moody()
    sink.open_errors = [PluginError("moody", "has no path", "give one")]
    counters: Counter[str] = Counter()
    runner = SinkRunner("moody", SinkPart(sink.open), LiveOutbox(3, counters), QUICK, counters)
    runner.start()
    assert isinstance(await asyncio.to_thread(runner.opened.exception, 10), PluginError)
    await asyncio.to_thread(runner.finished.result, 10)


async def test_what_cannot_be_opened_yet_is_tried_again_and_missed_only_what_did_not_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Moody()
    sink.open_errors = [ConnectionRefusedError("no server"), OSError("still none")]
    with running(sink) as runner:
        offer(runner, 1, 2)
        await until(lambda: sink.seen == [1, 2])
    assert runner.counters["open_failures"] == 2
    assert "cannot be opened: ConnectionRefusedError('no server')" in caplog.text


async def test_tasks_that_a_sink_leaves_behind_are_counted_and_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks_module, "_LOOK_EVERY", 1)
    monkeypatch.setattr(sinks_module, "_TASKS_AT_MOST", 10)
    left: list[Any] = []

    def leak(_: Sequence[Snapshot]) -> None:
        left.append(asyncio.get_running_loop().create_task(asyncio.sleep(100)))

    sink = Moody(leak)
    with running(sink) as runner:
        offer(runner, *range(30))
        await until(lambda: runner.counters["tasks_left"] >= 11)
    assert caplog.text.count("tasks behind in its event loop") == 1


async def test_a_sink_too_slow_for_large_calls_is_given_smaller_ones_until_it_keeps_up() -> None:
    storage = MemoryStorage()
    storage.append([Record("A", START + n, snapshot(n).pack()) for n in range(1, 201)])
    counters: Counter[str] = Counter()
    box = StoredOutbox(
        "moody", storage, Positions(None), rows=100, now=START + 200, start="oldest",
        counters=counters,
    )  # fmt: skip
    sink = Moody(lambda snapshots: asyncio.sleep(0.002 * len(snapshots)))
    settings = RecorderSettings(sink_backoff_max=0.01, sink_timeout=0.1, sink_batch_rows=200)
    runner = SinkRunner("moody", SinkPart(sink.open, backfill=True), box, settings, counters)
    runner.start()
    await until(lambda: sink.seen[-1:] == [200], 20)
    runner.close()
    await asyncio.to_thread(runner.finished.result, 10)
    assert sink.seen == list(range(1, 201))
    assert counters["timeouts"] >= 1
    assert counters["backfilled"] == 200


async def test_the_end_waits_for_no_pause_and_what_is_left_of_a_live_sink_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    sink = Moody(fail(RuntimeError("no")))
    with running(sink, settings=RecorderSettings(sink_break_after=2)) as runner:
        offer(runner, *range(10))
        await until(lambda: runner.counters["breaks"] == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 5, "the pause would last longer"
    assert runner.counters["dropped"] == 10
