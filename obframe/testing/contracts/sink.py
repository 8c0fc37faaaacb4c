"""The rules of ``obframe.Sink``, each as one test.

The sink's author subclasses ``SinkContract``, gives ``make_sink``, and in ``read_back`` what a
consumer finds at the other end::

    class TestMine(SinkContract):
        @asynccontextmanager
        async def make_sink(self, tmp_path):
            yield MySink(tmp_path / "rows")

        async def read_back(self, tmp_path):
            lines = (tmp_path / "rows").read_bytes().splitlines()
            return [Snapshot.unpack(b64decode(row), symbol) for symbol, row in map(bytes.split, lines)]
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from obframe._core import Snapshot
from obframe.protocols import Sink
from obframe.testing.contracts.rules import Contract


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
