"""What a sink delivers: all of it, to the last digit, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from obframe._core import Level, Snapshot
from obframe.protocols import Sink
from obframe.testing.contracts.rules import rule
from obframe.testing.contracts.sink_factory import SinkFactory, T, make_snapshots, name_row
from obframe.vetting import SINK, check_protocol

_MOMENTS = (0, 1, 2, 5, 20)
"""Turns of the event loop after which a write is cancelled."""


class RowRules(SinkFactory):
    """What arrives at the other end."""

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
            await self.check_read(tmp_path, [])

    @rule(Sink.write)
    async def test_a_second_of_several_symbols_arrives(self, tmp_path: Path) -> None:
        """All snapshots of one second arrive."""
        written = make_snapshots(["BTCUSDT", "ETHUSDT", "BTCUSDT_260327"], 0, 0)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self.check_read(tmp_path, written)

    @rule(Sink.write)
    async def test_several_seconds_in_one_call_arrive_in_order(self, tmp_path: Path) -> None:
        """A call may hold several seconds; each symbol's arrive oldest first."""
        written = make_snapshots(["ETHUSDT", "BTCUSDT"], 0, 11)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self.check_read(tmp_path, written)

    @rule(Sink.write)
    async def test_many_calls_arrive_in_order(self, tmp_path: Path) -> None:
        """One call after another, as the recorder makes them, all arrive."""
        written = []
        async with self.make_sink(tmp_path) as sink:
            for at in range(12):
                second = make_snapshots(["BTCUSDT", "ETHUSDT"], at, at)
                await sink.write(second)
                written += second
            await self.check_read(tmp_path, written)

    @rule(Sink.write, "backfill")
    async def test_a_symbol_may_lag_behind_another(self, tmp_path: Path) -> None:
        """A symbol's older second arrives, though newer ones of another were written before."""
        late, early = make_snapshots(["BTCUSDT"], 100, 102), make_snapshots(["ETHUSDT"], 0, 2)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(late)
            await sink.write(early)
            await self.check_read(tmp_path, [*late, *early])

    @rule(Sink.write, "backfill")
    async def test_a_long_back_fill_arrives(self, tmp_path: Path) -> None:
        """After an outage one call may hold minutes of seconds."""
        written = make_snapshots(["BTCUSDT"], 0, 599)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self.check_read(tmp_path, written)

    @rule(Sink.write)
    async def test_every_digit_arrives(self, tmp_path: Path) -> None:
        """Prices and quantities arrive as the texts they are, zeros at the end included."""
        levels: list[list[Level]] = [
            [("61736.01000000", "1.50000000"), ("61736.00", "0.00000001")],
            [("0.000000000000000001", "1000000000000"), ("0.1", "0.10")],
            [("9007199254740993.5", "3"), ("100", "1.0")],
        ]
        written = [
            Snapshot("BTCUSDT", 2**53 + 1 + at, T + at, [side[1]], [side[0]])
            for at, side in enumerate(levels)
        ]
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self.check_read(tmp_path, written)

    @rule(Sink.write)
    async def test_books_of_any_shape_arrive(self, tmp_path: Path) -> None:
        """A side may be empty, or have fewer levels than the other."""
        level: Level = ("100.0", "1.0")
        shapes: list[tuple[list[Level], list[Level]]] = [
            ([level], []), ([], [level]), ([("99.0", "2"), ("98.0", "1")], [level]),
        ]  # fmt: skip
        written = [
            Snapshot("BTCUSDT", 7 + at, T + at, bids, asks)
            for at, (bids, asks) in enumerate(shapes)
        ]
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self.check_read(tmp_path, written)

    @rule(Sink.write)
    async def test_any_symbol_arrives(self, tmp_path: Path) -> None:
        """Any symbol that a key can hold arrives and is kept apart from the others."""
        symbols = ["kraken/BTC/USD", "BTC-USD", "BTC", "btc", "BTCUSDT_260327", "1000PEPE"]
        symbols += ["币安人生USDT", "a.b*c>d", "per%cent", "it's", 'a"b', "a,b;c", "x" * 128]
        written = make_snapshots(symbols, 0, 1)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
            await self.check_read(tmp_path, written)

    # At least once, and once as a consumer sees it

    @rule(Sink.write, "backfill")
    async def test_writing_again_changes_nothing(self, tmp_path: Path) -> None:
        """The same snapshots written again are, by symbol and second, there once."""
        written = make_snapshots(["BTCUSDT", "ETHUSDT"], 0, 4)
        async with self.make_sink(tmp_path) as sink:
            for _ in range(3):
                await sink.write(written)
            await self.check_read(tmp_path, written)

    @rule(Sink.write, "backfill")
    async def test_an_overlapping_call_adds_what_is_new(self, tmp_path: Path) -> None:
        """Of a call that holds known and new seconds the new ones arrive."""
        symbols = ["BTCUSDT", "ETHUSDT"]
        async with self.make_sink(tmp_path) as sink:
            await sink.write(make_snapshots(symbols, 0, 5))
            await sink.write(make_snapshots(symbols, 3, 9))
            await self.check_read(tmp_path, make_snapshots(symbols, 0, 9))

    @rule(Sink.write)
    async def test_what_was_accepted_outlives_the_sink(self, tmp_path: Path) -> None:
        """What ``write`` returned for is at the other end when the sink is closed."""
        written = make_snapshots(["BTCUSDT", "ETHUSDT"], 0, 4)
        async with self.make_sink(tmp_path) as sink:
            await sink.write(written)
        await self.check_read(tmp_path, written)

    @rule(Sink.write, "backfill")
    async def test_the_next_sink_knows_what_was_written(self, tmp_path: Path) -> None:
        """A sink opened anew adds to what is there, and repeats nothing of it."""
        for start in (0, 4, 8):
            async with self.make_sink(tmp_path) as sink:
                await sink.write(make_snapshots(["BTCUSDT"], max(start - 2, 0), start + 3))
        await self.check_read(tmp_path, make_snapshots(["BTCUSDT"], 0, 11))

    @rule(Sink.write, "backfill")
    async def test_a_cancelled_write_can_be_repeated(self, tmp_path: Path) -> None:
        """A write that was cancelled anywhere, and is written again, loses and repeats nothing."""
        written = []
        async with self.make_sink(tmp_path) as sink:
            for number, turns in enumerate(_MOMENTS):
                batch = make_snapshots(["BTCUSDT", "ETHUSDT"], 10 * number, 10 * number + 9)
                task = asyncio.ensure_future(sink.write(batch))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task}, timeout=self.prompt)
                await sink.write(batch)
                written += batch
            await self.check_read(tmp_path, written)

    @rule(Sink.write)
    async def test_a_cancelled_write_ends_promptly(self, tmp_path: Path) -> None:
        """A cancelled ``write`` ends within ``prompt`` seconds, by ``CancelledError`` or done."""
        async with self.make_sink(tmp_path) as sink:
            for number, turns in enumerate(_MOMENTS):
                batch = make_snapshots(["BTCUSDT"], 200 * number, 200 * number + 199)
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
                names = {name_row(snapshot) for snapshot in batch}
                expected = [self.expect(snapshot) for snapshot in batch]
                found = list(await self.read_back(tmp_path))
                lost = [item for item in expected if item not in found]
                assert not lost, f"cancelled, it returned, and {len(lost)} of {len(names)} are lost"
