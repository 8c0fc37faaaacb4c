"""What a plugin of each kind must keep to, as tests for its author to run.

Subclass a contract as ``Test…``, give its factory method and its flags, and run pytest. Every rule
is one test whose docstring says it in words; a rule that fails says them again. The rules run their
event loops themselves: no pytest plugin and no setting is needed.

``StorageContract`` gives ``make_storage``, ``FeedContract`` ``make_feed``,
``SymbolSourceContract`` ``make_source``, ``SinkContract`` ``make_sink`` and ``read_back``.
"""

import pytest

_WITH_RULES = (
    "storage_rows", "storage_runs", "storage_life", "feed_wanted", "feed_told", "feed_life",
    "session", "symbols", "sink_factory", "sink_rows", "sink_life",
)  # fmt: skip
# Before they are imported: what an assertion compared is shown, as in a test of the author's own.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_RULES))

from obframe.testing.contracts.feed import FeedContract  # noqa: E402
from obframe.testing.contracts.loopback import LoopbackVenue  # noqa: E402
from obframe.testing.contracts.rules import Contract, Rule, rules_of  # noqa: E402
from obframe.testing.contracts.sink import SinkContract  # noqa: E402
from obframe.testing.contracts.storage import StorageContract  # noqa: E402
from obframe.testing.contracts.symbols import SymbolSourceContract  # noqa: E402
from obframe.testing.contracts.venue import FeedRig, FeedVenue  # noqa: E402

__all__ = [
    "Contract",
    "FeedContract",
    "FeedRig",
    "FeedVenue",
    "LoopbackVenue",
    "Rule",
    "SinkContract",
    "StorageContract",
    "SymbolSourceContract",
    "rules_of",
]
