"""The rules of ``obframe.Sink``, each as one test.

The sink's author subclasses ``SinkContract``, gives ``make_sink``, and in ``read_back`` what a
consumer finds at the other end::

    class TestMine(SinkContract):
        @asynccontextmanager
        async def make_sink(self, tmp_path):
            yield MySink(tmp_path / "rows")

        async def read_back(self, tmp_path):
            return list(consume(tmp_path / "rows"))
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from obframe._core import Level, Snapshot
from obframe.protocols import Sink
from obframe.testing.contracts.rules import Contract, rule
from obframe.testing.running import run_to_end
from obframe.testing.watching import Leftovers, LoopWatch
from obframe.vetting import SINK, check_protocol

_T = 1_737_158_400
_MOMENTS = (0, 1, 2, 5, 20)
"""Turns of the event loop after which a write is cancelled."""


def _snapshot(symbol: str, second: int) -> Snapshot:
    step = second % 1000
    bids = [(f"{100 - level}.{step:03d}0", f"{level + 1}.50000000") for level in range(20)]
    asks = [(f"{101 + level}.{step:03d}0", f"{level + 1}.25000000") for level in range(20)]
    return Snapshot(symbol, 10_000_000 + second, second, bids, asks)


def _snapshots(symbols: Iterable[str], start: int, end: int) -> list[Snapshot]:
    """Return the seconds from ``start`` to ``end`` after ``_T``, all of a symbol after another."""
    return [_snapshot(symbol, _T + at) for symbol in symbols for at in range(start, end + 1)]


def _name(snapshot: Snapshot) -> str:
    return f"{snapshot.symbol}:{snapshot.timestamp}"


class SinkContract(Contract):
    """Every rule that a sink must keep; subclass it as ``Test…``.

    Attributes:
        can_break: The other end can be taken away and brought back: ``break_`` and ``mend``.
        prompt: Seconds in which the sink must close, and end a cancelled ``write``.
        give_up: Seconds after which a ``write`` to an other end that is down must have raised.
        most_blocking: Seconds for which the event loop may stand still at most.
    """

    can_break = False
    prompt = 5.0
    give_up = 15.0
    most_blocking = 0.25

    def make_sink(self, tmp_path: Path) -> AbstractAsyncContextManager[Sink]:
        """Return an async context manager around a sink.

        Called again with the same path after the first was closed, it reaches the same other end;
        with another path an other end, or a part of it, where nothing was written yet.
        """
        raise NotImplementedError(f"{type(self).__name__}.make_sink is needed to test the sink")

    async def read_back(self, tmp_path: Path) -> Sequence[Any]:
        """Return what a consumer has by now of all that was written, oldest first for each symbol.

        A consumer that drops what it knows already, by an id that the sink gives, does so here.
        Snapshots, or whatever ``expect`` makes of one. Called while the sink is open, and after.
        """
        raise NotImplementedError(f"{type(self).__name__}.read_back is needed to test the sink")

    def expect(self, snapshot: Snapshot) -> Any:
        """Return what a consumer has of one snapshot: all of it, where this is not overridden."""
        return snapshot

    async def break_(self, tmp_path: Path) -> None:
        """Take the other end away: no write can be accepted any more (``can_break``)."""
        raise NotImplementedError(f"{type(self).__name__}.break_ is needed by can_break")

    async def mend(self, tmp_path: Path) -> None:
        """Bring the other end back, with all it had accepted (``can_break``)."""
        raise NotImplementedError(f"{type(self).__name__}.mend is needed by can_break")

    async def _check(self, tmp_path: Path, written: Sequence[Snapshot]) -> None:
        """Check that a consumer has what was written, all of it once, in order for each symbol."""
        found = list(await self.read_back(tmp_path))
        names = []
        strange = []
        left = [(self.expect(snapshot), snapshot) for snapshot in written]
        known = list(left)
        twice = []
        for item in found:
            for index, (expected, snapshot) in enumerate(left):
                if expected == item:
                    names.append(_name(snapshot))
                    del left[index]
                    break
            else:
                again = [snapshot for expected, snapshot in known if expected == item]
                if again:
                    twice.append(_name(again[0]))
                else:
                    strange.append(item)
        missing = [_name(snapshot) for _, snapshot in left]
        assert not strange, f"a consumer finds what was never written: {_some(strange)}"
        assert not missing, f"a consumer does not find {_some(missing)}"
        assert not twice, f"a consumer finds these twice: {_some(twice)}"
        for symbol in {snapshot.symbol for snapshot in written}:
            order = [name for name in names if name.rpartition(":")[0] == symbol]
            assert order == sorted(order), f"a consumer finds this order: {_some(order)}"

    # What arrives

    @rule(Sink)
    async def test_is_a_sink(self, tmp_path: Path) -> None:
        """It has the method of the protocol, and that is async."""
        async with self.make_sink(tmp_path) as sink:
            check_protocol(sink, SINK, type(sink).__name__)

    @rule(Sink.write)
    async def test_nothing_to_write_is_no_error(self, tmp_path: Path) -> None:
        """An empty call writes nothing."""
        async with self.make_sink(tmp_path) as sink:
            await sink.write([])
            await self._check(tmp_path, [])

    @rule(Sink.write)
    async def test_a_second_of_several_symbols_arrives(self, tmp_path: Path) -> None:
        """All snapshots of one second arrive."""
        written = _snapshots(["BTCUSDT", "ETHUSDT", "BTCUSDT_260327"], 0, 0)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_several_seconds_in_one_call_arrive_in_order(self, tmp_path: Path) -> None:
        """A call may hold several seconds; each symbol's arrive oldest first."""
        written = _snapshots(["ETHUSDT", "BTCUSDT"], 0, 11)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_many_calls_arrive_in_order(self, tmp_path: Path) -> None:
        """One call after another, as the recorder makes them, all arrive."""
        written = []
        async with self.make_sink(tmp_path) as sink:
            for at in range(12):
                second = _snapshots(["BTCUSDT", "ETHUSDT"], at, at)
                await sink.write(second)
                written += second
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_a_symbol_may_lag_behind_another(self, tmp_path: Path) -> None:
        """A symbol's older second arrives, though newer ones of another were written before."""
        late, early = _snapshots(["BTCUSDT"], 100, 102), _snapshots(["ETHUSDT"], 0, 2)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(late)
            await sink.write(early)
            await self._check(tmp_path, [*late, *early])

    @rule(Sink.write)
    async def test_a_long_back_fill_arrives(self, tmp_path: Path) -> None:
        """After an outage one call may hold minutes of seconds."""
        written = _snapshots(["BTCUSDT"], 0, 599)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_every_digit_arrives(self, tmp_path: Path) -> None:
        """Prices and quantities arrive as the texts they are, zeros at the end included."""
        levels: list[list[Level]] = [
            [("61736.01000000", "1.50000000"), ("61736.00", "0.00000001")],
            [("0.000000000000000001", "1000000000000"), ("0.1", "0.10")],
            [("9007199254740993.5", "3"), ("100", "1.0")],
        ]
        written = [
            Snapshot("BTCUSDT", 2**53 + 1 + at, _T + at, [side[1]], [side[0]])
            for at, side in enumerate(levels)
        ]
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_books_of_any_shape_arrive(self, tmp_path: Path) -> None:
        """A side may be empty, or have fewer levels than the other."""
        level: Level = ("100.0", "1.0")
        shapes: list[tuple[list[Level], list[Level]]] = [
            ([level], []), ([], [level]), ([("99.0", "2"), ("98.0", "1")], [level]),
        ]  # fmt: skip
        written = [
            Snapshot("BTCUSDT", 7 + at, _T + at, bids, asks)
            for at, (bids, asks) in enumerate(shapes)
        ]
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_any_symbol_arrives(self, tmp_path: Path) -> None:
        """Any symbol that a key can hold arrives and is kept apart from the others."""
        symbols = ["kraken/BTC/USD", "BTC-USD", "BTC", "btc", "BTCUSDT_260327", "1000PEPE"]
        symbols += ["币安人生USDT", "a.b*c>d", "per%cent", "it's", 'a"b', "a,b;c", "x" * 128]
        written = _snapshots(symbols, 0, 1)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self._check(tmp_path, written)

    # At least once, and once as a consumer sees it

    @rule(Sink.write)
    async def test_writing_again_changes_nothing(self, tmp_path: Path) -> None:
        """The same snapshots written again are, by symbol and second, there once."""
        written = _snapshots(["BTCUSDT", "ETHUSDT"], 0, 4)
        async with self.make_sink(tmp_path) as sink:
            for _ in range(3):
                await sink.write(written)
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_an_overlapping_call_adds_what_is_new(self, tmp_path: Path) -> None:
        """Of a call that holds known and new seconds the new ones arrive."""
        symbols = ["BTCUSDT", "ETHUSDT"]
        async with self.make_sink(tmp_path) as sink:
            await sink.write(_snapshots(symbols, 0, 5))
            await sink.write(_snapshots(symbols, 3, 9))
            await self._check(tmp_path, _snapshots(symbols, 0, 9))

    @rule(Sink.write)
    async def test_what_was_accepted_outlives_the_sink(self, tmp_path: Path) -> None:
        """What ``write`` returned for is at the other end when the sink is closed."""
        written = _snapshots(["BTCUSDT", "ETHUSDT"], 0, 4)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
        await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_the_next_sink_knows_what_was_written(self, tmp_path: Path) -> None:
        """A sink opened anew adds to what is there, and repeats nothing of it."""
        for start in (0, 4, 8):
            async with self.make_sink(tmp_path) as sink:
                await sink.write(_snapshots(["BTCUSDT"], max(start - 2, 0), start + 3))
        await self._check(tmp_path, _snapshots(["BTCUSDT"], 0, 11))

    @rule(Sink.write)
    async def test_a_cancelled_write_can_be_repeated(self, tmp_path: Path) -> None:
        """A write that was cancelled anywhere, and is written again, loses and repeats nothing."""
        written = []
        async with self.make_sink(tmp_path) as sink:
            for number, turns in enumerate(_MOMENTS):
                batch = _snapshots(["BTCUSDT", "ETHUSDT"], 10 * number, 10 * number + 9)
                task = asyncio.ensure_future(sink.write(batch))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
                await sink.write(batch)
                written += batch
            await self._check(tmp_path, written)

    @rule(Sink.write)
    async def test_a_cancelled_write_ends_promptly(self, tmp_path: Path) -> None:
        """A cancelled ``write`` ends within ``prompt`` seconds, by ``CancelledError`` or done."""
        async with self.make_sink(tmp_path) as sink:
            for number, turns in enumerate(_MOMENTS):
                batch = _snapshots(["BTCUSDT"], 200 * number, 200 * number + 199)
                task = asyncio.ensure_future(sink.write(batch))
                for _ in range(turns):
                    await asyncio.sleep(0)
                over = task.done()
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
                assert task.done(), f"write() did not end within {self.prompt:g} s"
                if task.cancelled() or over:
                    continue
                assert task.exception() is None, f"cancelled, it raised {task.exception()!r}"
                # Returned all the same: then it says that everything was accepted.
                names = {_name(snapshot) for snapshot in batch}
                expected = [self.expect(snapshot) for snapshot in batch]
                found = list(await self.read_back(tmp_path))
                lost = [item for item in expected if item not in found]
                assert not lost, f"cancelled, it returned, and {len(lost)} of {len(names)} are lost"

    # Trouble

    @rule(Sink.write, needs="can_break")
    async def test_an_outage_raises(self, tmp_path: Path) -> None:
        """A ``write`` that cannot be accepted raises within ``give_up`` seconds."""
        async with self.make_sink(tmp_path) as sink:
            await sink.write(_snapshots(["BTCUSDT"], 0, 0))
            await self.break_(tmp_path)
            try:
                task = asyncio.ensure_future(sink.write(_snapshots(["BTCUSDT"], 1, 2)))
                await asyncio.wait({task}, timeout=self.give_up)
                ended, error = task.done(), task.exception() if task.done() else None
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
            finally:
                await self.mend(tmp_path)
            assert ended, f"the other end is down, and write() says nothing for {self.give_up:g} s"
            assert error is not None, "the other end is down, and write() says that it accepted"
            assert str(error).strip(), f"{type(error).__name__} does not say what failed"

    @rule(Sink.write, needs="can_break")
    async def test_nothing_is_lost_by_an_outage(self, tmp_path: Path) -> None:
        """Written again after an outage, by the same sink, everything is there once."""
        before, during = _snapshots(["BTCUSDT"], 0, 4), _snapshots(["BTCUSDT"], 5, 9)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(before)
            await self.break_(tmp_path)
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self.give_up):
                    await sink.write(during)
            await self.mend(tmp_path)
            await self._write_again(sink, during)
            await self._check(tmp_path, [*before, *during])

    @rule(Sink.write, needs="can_break")
    async def test_an_outage_in_the_middle_of_a_write_loses_nothing(self, tmp_path: Path) -> None:
        """Whatever a write came to that met the outage, written again everything is there once."""
        written = []
        async with self.make_sink(tmp_path) as sink:
            for number, turns in enumerate((1, 3, 10)):
                batch = _snapshots(["BTCUSDT", "ETHUSDT"], 50 * number, 50 * number + 49)
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
            await self._check(tmp_path, written)

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
            await sink.write(_snapshots(["BTCUSDT"], 0, 4))
        left = await before.wait(self.prompt)
        assert not left, f"left behind by the sink: {', '.join(left)}"

    @rule(Sink)
    async def test_closing_is_prompt(self, tmp_path: Path) -> None:
        """The sink closes within ``prompt`` seconds."""
        loop = asyncio.get_running_loop()
        async with self.make_sink(tmp_path) as sink:
            await sink.write(_snapshots(["BTCUSDT"], 0, 4))
            began = loop.time()
        took = loop.time() - began
        assert took <= self.prompt, f"it took {took:.1f} s"

    @rule(Sink, needs="can_break")
    async def test_closing_is_prompt_during_an_outage(self, tmp_path: Path) -> None:
        """The sink closes within ``prompt`` seconds, though the other end is down."""
        loop = asyncio.get_running_loop()
        try:
            async with self.make_sink(tmp_path) as sink:
                await sink.write(_snapshots(["BTCUSDT"], 0, 4))
                await self.break_(tmp_path)
                task = asyncio.ensure_future(sink.write(_snapshots(["BTCUSDT"], 5, 9)))
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
        async with self.make_sink(tmp_path) as sink:
            with LoopWatch() as watch:
                for at in range(10):
                    await sink.write(_snapshots(["BTCUSDT", "ETHUSDT"], at, at))
                await sink.write(_snapshots(["BTCUSDT"], 10, 309))
            longest = watch.longest
            assert longest.seconds <= self.most_blocking, (
                f"it stood still for {longest.seconds:.2f} s in {longest.where}"
            )

    @rule(Sink)
    def test_it_works_in_another_thread(self, tmp_path: Path) -> None:
        """The sink is opened, written and closed in a thread with an event loop of its own."""
        written = _snapshots(["BTCUSDT"], 0, 4)
        faults: list[BaseException] = []

        async def live() -> None:
            async with self.make_sink(tmp_path) as sink:
                await sink.write(written)
                await self._check(tmp_path, written)

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


def _some(names: Sequence[object], most: int = 6) -> str:
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
