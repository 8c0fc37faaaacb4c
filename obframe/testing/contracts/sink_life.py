"""A sink in trouble and at its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

from obframe._core import Snapshot
from obframe.protocols import Sink
from obframe.testing.contracts.rules import rule
from obframe.testing.contracts.sink_factory import SinkFactory, make_snapshots
from obframe.testing.running import run_to_end
from obframe.testing.watching import Leftovers, LoopWatch


class LifeRules(SinkFactory):
    """What a sink does when the other end fails it, and when it is closed."""

    # Trouble

    @rule(Sink.write, "can_break")
    async def test_an_outage_raises(self, tmp_path: Path) -> None:
        """A ``write`` that cannot be accepted raises within ``give_up`` seconds."""
        async with self.make_sink(tmp_path) as sink:
            await sink.write(make_snapshots(["BTCUSDT"], 0, 0))
            await self.break_(tmp_path)
            try:
                task = asyncio.ensure_future(sink.write(make_snapshots(["BTCUSDT"], 1, 2)))
                await asyncio.wait({task}, timeout=self.give_up)
                ended, error = task.done(), task.exception() if task.done() else None
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
            finally:
                await self.mend(tmp_path)
            assert ended, f"the other end is down, and write() says nothing for {self.give_up:g} s"
            assert error is not None, "the other end is down, and write() says that it accepted"
            assert str(error).strip(), f"{type(error).__name__} does not say what failed"

    @rule(Sink.write, "backfill", "can_break")
    async def test_nothing_is_lost_by_an_outage(self, tmp_path: Path) -> None:
        """Written again after an outage, by the same sink, everything is there once."""
        before, during = make_snapshots(["BTCUSDT"], 0, 4), make_snapshots(["BTCUSDT"], 5, 9)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(before)
            await self.break_(tmp_path)
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self.give_up):
                    await sink.write(during)
            await self.mend(tmp_path)
            await self._write_again(sink, during)
            await self.check_read(tmp_path, [*before, *during])

    @rule(Sink.write, "backfill", "can_break")
    async def test_an_outage_in_the_middle_of_a_write_loses_nothing(self, tmp_path: Path) -> None:
        """Whatever a write came to that met the outage, written again everything is there once."""
        written = []
        async with self.make_sink(tmp_path) as sink:
            for number, turns in enumerate((1, 3, 10)):
                batch = make_snapshots(["BTCUSDT", "ETHUSDT"], 50 * number, 50 * number + 49)
                task = asyncio.ensure_future(sink.write(batch))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await self.break_(tmp_path)
                await asyncio.wait({task}, timeout=self.give_up)
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
                await self.mend(tmp_path)
                await self._write_again(sink, batch)
                written += batch
            await self.check_read(tmp_path, written)

    async def _write_again(self, sink: Sink, batch: Sequence[Snapshot]) -> None:
        """Write as the recorder does after an outage: again and again, until it is accepted."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience + self.give_up
        while True:
            try:
                async with asyncio.timeout(self.give_up):
                    return await sink.write(batch)
            except Exception as error:
                if loop.time() > deadline:
                    text = f"the other end is back, and write() still raises {error!r}"
                    raise AssertionError(text) from error
                await asyncio.sleep(0.05)

    # Beginning and end

    @rule(Sink)
    async def test_closing_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """When the sink is closed, its tasks, threads and sockets are gone."""
        before = Leftovers()
        async with self.make_sink(tmp_path) as sink:
            await sink.write(make_snapshots(["BTCUSDT"], 0, 4))
        left = await before.wait(self.prompt)
        assert not left, f"left behind by the sink: {', '.join(left)}"

    @rule(Sink)
    async def test_closing_is_prompt(self, tmp_path: Path) -> None:
        """The sink closes within ``prompt`` seconds."""
        loop = asyncio.get_running_loop()
        async with self.make_sink(tmp_path) as sink:
            await sink.write(make_snapshots(["BTCUSDT"], 0, 4))
            began = loop.time()
        took = loop.time() - began
        assert took <= self.prompt, f"it took {took:.1f} s"

    @rule(Sink, "can_break")
    async def test_closing_is_prompt_during_an_outage(self, tmp_path: Path) -> None:
        """The sink closes within ``prompt`` seconds, though the other end is down."""
        loop = asyncio.get_running_loop()
        try:
            async with self.make_sink(tmp_path) as sink:
                await sink.write(make_snapshots(["BTCUSDT"], 0, 4))
                await self.break_(tmp_path)
                task = asyncio.ensure_future(sink.write(make_snapshots(["BTCUSDT"], 5, 9)))
                await asyncio.wait({task}, timeout=0.1)
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
                began = loop.time()
            took = loop.time() - began
        finally:
            await self.mend(tmp_path)
        assert took <= self.prompt, f"it took {took:.1f} s"

    @rule(Sink.write)
    async def test_the_loop_is_not_blocked(self, tmp_path: Path) -> None:
        """The event loop never stands still for longer than ``most_blocking``."""
        # Made before: the time that it takes is not the sink's.
        calls = [make_snapshots(["BTCUSDT", "ETHUSDT"], at, at) for at in range(10)]
        calls.append(make_snapshots(["BTCUSDT"], 10, 309))
        async with self.make_sink(tmp_path) as sink:
            with LoopWatch() as watch:
                for snapshots in calls:
                    await sink.write(snapshots)
            longest = watch.longest
            assert longest.seconds <= self.most_blocking, (
                f"it stood still for {longest.seconds:.2f} s in {longest.where}"
            )

    @rule(Sink)
    def test_it_works_in_another_thread(self, tmp_path: Path) -> None:
        """The sink is opened, written and closed in a thread with an event loop of its own."""
        written = make_snapshots(["BTCUSDT"], 0, 4)
        faults: list[BaseException] = []

        async def live() -> None:
            async with self.make_sink(tmp_path) as sink:
                await sink.write(written)
                await self.check_read(tmp_path, written)

        def work() -> None:
            try:
                run_to_end(live(), self.limit)
            except BaseException as error:
                faults.append(error)

        thread = threading.Thread(target=work, name="sink-contract")
        thread.start()
        thread.join()
        if faults:
            raise faults[0]
