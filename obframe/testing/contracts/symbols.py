"""The rules of ``obframe.SymbolSource``, each as one test.

The source's author subclasses ``SymbolSourceContract``, gives ``make_source`` and what the source
can do::

    class TestMine(SymbolSourceContract):
        can_change = True

        @asynccontextmanager
        async def make_source(self, tmp_path):
            (tmp_path / "symbols").write_text("BTCUSDT")
            yield WatchedFile(tmp_path / "symbols")

        async def change(self, tmp_path):
            (tmp_path / "symbols").write_text("BTCUSDT ETHUSDT")
            return frozenset({Instrument("BTCUSDT"), Instrument("ETHUSDT")})
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from obframe.protocols import SymbolSource
from obframe.testing.contracts.rules import Contract, rule
from obframe.testing.waiting import until
from obframe.testing.watching import Leftovers, LoopWatch
from obframe.types import Instrument
from obframe.vetting import SYMBOL_SOURCE, check_protocol


class _Watch:
    """One ``watch()`` under way, as the recorder follows it.

    Attributes:
        sets: What it yielded, in order.
        task: Follows it.
    """

    def __init__(self, source: SymbolSource, patience: float) -> None:
        self.sets: list[frozenset[Instrument]] = []
        self._patience = patience
        self.task = asyncio.create_task(self._follow(source), name="watch")

    async def _follow(self, source: SymbolSource) -> None:
        async for wanted in source.watch():
            self.sets.append(wanted)

    @property
    def error(self) -> BaseException | None:
        """What ended the watch, if anything did."""
        ended = self.task.done() and not self.task.cancelled()
        return self.task.exception() if ended else None

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: The watch ended, or the condition did not come about.
        """
        try:
            await until(lambda: condition() or self.task.done(), self._patience)
        except TimeoutError:
            told = f"{what}, and did not within {self._patience:g} s; it told {self.describe()}"
            raise AssertionError(told) from None
        if not condition():
            how = f"raised {self.error!r}" if self.error else "ended"
            raise AssertionError(f"{what}, but watch() {how}; it told {self.describe()}")

    async def first(self) -> frozenset[Instrument]:
        """Wait for the first set."""
        await self.until(lambda: self.sets, "the set that is wanted should have been told at once")
        return self.sets[0]

    async def told(self, wanted: frozenset[Instrument]) -> None:
        """Wait until this set is the newest."""
        names = describe(wanted)
        await self.until(
            lambda: self.sets and self.sets[-1] == wanted,
            f"what is wanted has changed: the whole new set {names} should have been told",
        )

    async def cancel(self, patience: float) -> bool:
        """Cancel it; return whether it ended within so many seconds."""
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=patience)
        return self.task.done()

    def describe(self) -> str:
        """Say what it told so far."""
        return ", ".join(describe(wanted) for wanted in self.sets) or "nothing"


def describe(wanted: object) -> str:
    """Write a set of instruments, or whatever it is, in a few words."""
    if isinstance(wanted, frozenset) and all(isinstance(item, Instrument) for item in wanted):
        return "{" + ", ".join(sorted(item.symbol for item in wanted)) + "}"
    return repr(wanted)


class SymbolSourceContract(Contract):
    """Every rule that a symbol source must keep; subclass it as ``Test…``.

    Attributes:
        first: The set that a new source yields first; None: not compared.
        can_change: What is wanted can change: ``change``.
        can_touch: The source can be made to look again at what is the same: ``touch``.
        can_spoil: What the source reads can break and heal: ``spoil`` and ``mend``.
        can_fail: A source without a first set can be made: ``make_failing_source``.
        prompt: Seconds in which a cancelled ``watch`` must end.
        quiet: Seconds to wait for what must not happen: longer than the source takes for a look.
        most_blocking: Seconds for which the event loop may stand still at most.
    """

    first: frozenset[Instrument] | None = None
    can_change = False
    can_touch = False
    can_spoil = False
    can_fail = False
    prompt = 2.0
    quiet = 0.3
    most_blocking = 0.25

    def make_source(self, tmp_path: Path) -> AbstractAsyncContextManager[SymbolSource]:
        """Return an async context manager around a new source; it may keep files in ``tmp_path``.

        The source should wait for little: a short time between two looks, a short back-off.
        """
        raise NotImplementedError(f"{type(self).__name__}.make_source is needed to test the source")

    def make_failing_source(self, tmp_path: Path) -> AbstractAsyncContextManager[SymbolSource]:
        """Return the same around a source that cannot have its first set (``can_fail``)."""
        raise NotImplementedError(
            f"{type(self).__name__}.make_failing_source is needed by can_fail"
        )

    async def change(self, tmp_path: Path) -> frozenset[Instrument]:
        """Change what is wanted, and return the whole set as it is now (``can_change``).

        Each call must give another set than the one before.
        """
        raise NotImplementedError(f"{type(self).__name__}.change is needed by can_change")

    async def touch(self, tmp_path: Path) -> None:
        """Have the source look again at what is the same, as by saving a file (``can_touch``)."""
        raise NotImplementedError(f"{type(self).__name__}.touch is needed by can_touch")

    async def spoil(self, tmp_path: Path) -> None:
        """Break what the source reads, such as by nonsense in a file (``can_spoil``)."""
        raise NotImplementedError(f"{type(self).__name__}.spoil is needed by can_spoil")

    async def mend(self, tmp_path: Path) -> frozenset[Instrument]:
        """Heal what ``spoil`` broke, with another set, and return it (``can_spoil``)."""
        raise NotImplementedError(f"{type(self).__name__}.mend is needed by can_spoil")

    @asynccontextmanager
    async def _watch(self, source: SymbolSource) -> AsyncIterator[_Watch]:
        watch = _Watch(source, self.patience)
        try:
            yield watch
        finally:
            await watch.cancel(self.prompt)

    # What is told

    @rule(SymbolSource)
    async def test_is_a_symbol_source(self, tmp_path: Path) -> None:
        """It has the method of the protocol, which gives an asynchronous iterator."""
        async with self.make_source(tmp_path) as source:
            check_protocol(source, SYMBOL_SOURCE, type(source).__name__)
            watch = source.watch()
            assert hasattr(watch, "__anext__"), f"watch() gave a {type(watch).__name__}"

    @rule(SymbolSource.watch)
    async def test_what_is_wanted_is_told_at_once(self, tmp_path: Path) -> None:
        """The set that is wanted is yielded at the start, without waiting for a change."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            await watch.first()

    @rule(SymbolSource.watch)
    async def test_what_is_told_is_a_frozenset_of_instruments(self, tmp_path: Path) -> None:
        """Each set is a ``frozenset`` of ``Instrument``: not of texts, and none that can change."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            await watch.first()
            if self.can_change:
                wanted = await self.change(tmp_path)
                await watch.until(lambda: set(watch.sets[-1]) == wanted, "the change should come")
            for told in watch.sets:
                assert isinstance(told, frozenset), f"a {type(told).__name__}: {told!r}"
                others = [item for item in told if not isinstance(item, Instrument)]
                assert not others, f"these are no instruments: {others}"

    @rule(SymbolSource.watch)
    async def test_no_symbol_stands_twice(self, tmp_path: Path) -> None:
        """No two instruments of a set have the same symbol: rows are kept by symbol."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            symbols = Counter(item.symbol for item in await watch.first())
            twice = sorted(symbol for symbol, count in symbols.items() if count > 1)
            assert not twice, f"these stand twice: {', '.join(twice)}"

    @rule(SymbolSource.watch, "first")
    async def test_the_first_set_is_the_one_asked_for(self, tmp_path: Path) -> None:
        """The first set is what the source was told to want."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            told = await watch.first()
            assert told == self.first, f"{describe(told)} was told, {describe(self.first)} is right"

    @rule(SymbolSource.watch, "can_change")
    async def test_a_change_is_told_whole(self, tmp_path: Path) -> None:
        """After each change the whole set is yielded anew, not what was added or removed."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            before = await watch.first()
            for _ in range(3):
                wanted = await self.change(tmp_path)
                assert wanted != before, "change() must give another set each time"
                await watch.told(wanted)
                before = wanted

    @rule(SymbolSource.watch, "can_touch")
    async def test_what_did_not_change_is_not_told_again(self, tmp_path: Path) -> None:
        """A set is yielded again only when it is another one."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            await watch.first()
            for _ in range(3):
                await self.touch(tmp_path)
                await asyncio.sleep(self.quiet)
            assert len(watch.sets) == 1, f"nothing changed, and it told {watch.describe()}"

    # Beginning and end

    @rule(SymbolSource.watch)
    async def test_after_the_first_set_it_ends_or_stays_open(self, tmp_path: Path) -> None:
        """A source whose set never changes ends without an error; any other stays open."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            await watch.first()
            await asyncio.sleep(self.quiet)
            assert watch.error is None, f"nothing happened, and watch() raised {watch.error!r}"
            if self.can_change:
                assert not watch.task.done(), "the set can change, and watch() has ended"

    @rule(SymbolSource.watch)
    async def test_watching_again_begins_with_the_set_as_it_is(self, tmp_path: Path) -> None:
        """A second ``watch`` begins with the set as it is then; the recorder watches anew."""
        async with self.make_source(tmp_path) as source:
            async with self._watch(source) as watch:
                wanted = await watch.first()
            if self.can_change:
                wanted = await self.change(tmp_path)
            async with self._watch(source) as watch:
                told = await watch.first()
                assert told == wanted, f"{describe(told)} was told, {describe(wanted)} is wanted"

    @rule(SymbolSource.watch)
    async def test_cancelling_ends_a_watch_promptly(self, tmp_path: Path) -> None:
        """A cancelled watch ends within ``prompt`` seconds, by ``CancelledError``."""
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            await watch.first()
            await asyncio.sleep(0.01)
            over = watch.task.done()
            ended = await watch.cancel(self.prompt)
            assert ended, f"watch() did not end within {self.prompt:g} s"
            assert over or watch.task.cancelled(), "the cancellation did not come out of watch()"

    @rule(SymbolSource.watch)
    async def test_nothing_is_left_behind(self, tmp_path: Path) -> None:
        """When the source is closed, its tasks, threads and sockets are gone."""
        before = Leftovers()
        async with self.make_source(tmp_path) as source, self._watch(source) as watch:
            await watch.first()
        left = await before.wait(self.prompt)
        assert not left, f"left behind by the source: {', '.join(left)}"

    @rule(SymbolSource.watch)
    async def test_the_loop_is_not_blocked(self, tmp_path: Path) -> None:
        """The event loop never stands still for longer than ``most_blocking``."""
        async with self.make_source(tmp_path) as source:
            with LoopWatch() as seen:
                async with self._watch(source) as watch:
                    await watch.first()
                    if self.can_change:
                        await watch.told(await self.change(tmp_path))
            longest = seen.longest
            assert longest.seconds <= self.most_blocking, (
                f"it stood still for {longest.seconds:.2f} s in {longest.where}"
            )

    # Trouble

    @rule(SymbolSource.watch, "can_fail")
    async def test_a_source_without_a_first_set_says_why(self, tmp_path: Path) -> None:
        """When the first set cannot be had, opening or watching raises, and says why."""
        error: BaseException | None = None
        told: list[frozenset[Instrument]] = []
        try:
            async with self.make_failing_source(tmp_path) as source, self._watch(source) as watch:
                await asyncio.wait({watch.task}, timeout=self.patience)
                error, told = watch.error, watch.sets
        except Exception as raised:
            error = raised
        assert not told, f"it cannot know what is wanted, and told {describe(told[0])}"
        assert error is not None, f"it did not raise within {self.patience:g} s"
        assert str(error).strip(), f"{type(error).__name__} does not say what failed"

    @rule(SymbolSource.watch, "can_spoil")
    async def test_trouble_later_leaves_the_set_as_it_is(self, tmp_path: Path) -> None:
        """When what it reads breaks, no other set is yielded; it may raise, and is watched anew."""
        async with self.make_source(tmp_path) as source:
            async with self._watch(source) as watch:
                first = await watch.first()
                await self.spoil(tmp_path)
                await asyncio.sleep(self.quiet)
                assert watch.sets == [first], (
                    f"a fault is no change, and it told {watch.describe()}"
                )
                quietly = watch.task.done() and watch.error is None
                assert not quietly, "what it reads broke, and watch() ended as if all was told"
                again = watch.task.done()
                wanted = await self.mend(tmp_path)
                if not again:
                    await watch.told(wanted)
            if again:
                async with self._watch(source) as watch:
                    await watch.told(wanted)
