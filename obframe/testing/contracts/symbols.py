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

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from obframe.protocols import SymbolSource
from obframe.testing.contracts.rules import Contract
from obframe.types import Instrument


class SymbolSourceContract(Contract):
    """Every rule that a symbol source must keep; subclass it as ``Test…``.

    Attributes:
        first: The set that a new source yields first; None: not compared.
        can_change: What is wanted can change: ``change``.
        can_touch: The source can be made to look again at what is the same: ``touch``.
        can_spoil: What the source reads can break and heal: ``spoil`` and ``mend``.
        can_fail: A source without a first set can be made: ``make_failing_source``.
        prompt: Seconds in which a cancelled ``watch`` must end.
        most_blocking: Seconds for which the event loop may stand still at most.
    """

    first: frozenset[Instrument] | None = None
    can_change = False
    can_touch = False
    can_spoil = False
    can_fail = False
    prompt = 2.0
    most_blocking = 0.25

    def make_source(self, tmp_path: Path) -> AbstractAsyncContextManager[SymbolSource]:
        """Return an async context manager around a new source; it may keep files in ``tmp_path``.

        The source should wait for little: a short time between two looks, a short back-off.
        """
        raise NotImplementedError(f"{type(self).__name__}.make_source is needed to test the source")

    def make_failing_source(self, tmp_path: Path) -> AbstractAsyncContextManager[SymbolSource]:
        """Return the same around a source that cannot have its first set (``can_fail``)."""
        raise NotImplementedError(f"{type(self).__name__}.make_failing_source is needed by can_fail")

    async def change(self, tmp_path: Path) -> frozenset[Instrument]:
        """Change what is wanted, and return the whole set as it is now (``can_change``).

        Each call must give another set than the one before.
        """
        raise NotImplementedError(f"{type(self).__name__}.change is needed by can_change")

    async def touch(self, tmp_path: Path) -> None:
        """Have the source look again, with nothing changed, such as by saving a file (``can_touch``)."""
        raise NotImplementedError(f"{type(self).__name__}.touch is needed by can_touch")

    async def spoil(self, tmp_path: Path) -> None:
        """Break what the source reads, such as by nonsense in a file (``can_spoil``)."""
        raise NotImplementedError(f"{type(self).__name__}.spoil is needed by can_spoil")

    async def mend(self, tmp_path: Path) -> frozenset[Instrument]:
        """Heal what ``spoil`` broke, with another set than before, and return it (``can_spoil``)."""
        raise NotImplementedError(f"{type(self).__name__}.mend is needed by can_spoil")
