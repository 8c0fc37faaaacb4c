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

from obframe.testing.contracts.sink_life import LifeRules
from obframe.testing.contracts.sink_rows import RowRules


class SinkContract(LifeRules, RowRules):
    """Every rule that a sink must keep; subclass it as ``Test…``.

    Attributes:
        backfill: The sink's provider asks for every stored row, at least once; False for one that
            is told of live seconds only, and may see one twice or lose it.
        can_break: The other end can be taken away and brought back: ``break_`` and ``mend``.
        prompt: Seconds in which the sink must close, and end a cancelled ``write``.
        give_up: Seconds after which a ``write`` to an other end that is down must have raised.
        most_blocking: Seconds for which the event loop may stand still at most. The loop is the
            sink's own, but while it stands still no time-out ends a write.
    """
