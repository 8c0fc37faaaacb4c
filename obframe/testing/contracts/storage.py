"""The rules of ``obframe.Storage``, each as one test.

A backend's author subclasses ``StorageContract``, gives ``make_storage`` and runs pytest::

    class TestMine(StorageContract):
        persistent = True

        @contextmanager
        def make_storage(self, tmp_path):
            with open_mine(tmp_path / "rows") as storage:
                yield storage
"""

from __future__ import annotations

from obframe.testing.contracts.storage_life import LifeRules
from obframe.testing.contracts.storage_rows import RowRules
from obframe.testing.contracts.storage_runs import RunRules


class StorageContract(LifeRules, RunRules, RowRules):
    """Every rule that a storage must keep; subclass it as ``Test…``.

    Attributes:
        persistent: Rows survive closing and opening again at the same ``tmp_path``.
        supports_reader: ``make_reader`` gives a second view that sees what was acknowledged.
        is_exclusive: A second storage cannot be opened while the first is open.
        can_break: Writing can be made to fail for a while: ``break_`` and ``mend``.
        can_damage: What is stored can be damaged: ``damage``.
    """
