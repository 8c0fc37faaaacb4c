"""The queue before a sink: bounded, timed, and broken off while the sink goes on failing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from obframe import Snapshot
from obframe.sinks import SinkRunner
from obframe.testing.waiting import until


def second(timestamp: int) -> list[Snapshot]:
    return [Snapshot("BTCUSDT", 1, timestamp, [("1", "1")], [("2", "1")])]


class Moody:
    """Raises while it is told to."""

    def __init__(self) -> None:
        self.fails = True
        self.calls = 0
        self.seen: list[int] = []

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        self.calls += 1
        if self.fails:
            raise RuntimeError("no")
        self.seen += [snapshot.timestamp for snapshot in snapshots]


async def test_row_53_a_sink_that_goes_on_failing_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sink = Moody()
    runner = SinkRunner("moody", sink, queue_seconds=3, timeout=1)
    task = asyncio.create_task(runner.run())
    for i in range(20):
        runner.submit(second(i))
        await asyncio.sleep(0)
    await until(lambda: runner.counters["breaks"] == 1)
    assert sink.calls == 5
    for i in range(20, 30):
        runner.submit(second(i))
    assert sink.calls == 5, "nobody knocks while the breaker is open"
    runner.close()
    await asyncio.wait_for(task, 5)
    assert runner.counters["dropped"] == 30
    assert caplog.text.count("moody") <= 2


async def test_row_53_a_sink_that_works_again_is_told_what_is_held(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("obframe.sinks._PAUSE_FIRST", 0.01)
    sink = Moody()
    runner = SinkRunner("moody", sink, queue_seconds=3, timeout=1)
    task = asyncio.create_task(runner.run())
    for i in range(5):
        runner.submit(second(i))
        await asyncio.sleep(0)
    await until(lambda: runner.counters["breaks"] >= 1)
    sink.fails = False
    for i in range(10, 20):
        runner.submit(second(i))
    await until(lambda: sink.seen[-3:] == [17, 18, 19])
    assert "works again" in caplog.text
    assert runner.counters["written"] + runner.counters["dropped"] == 15
    runner.close()
    await asyncio.wait_for(task, 5)
