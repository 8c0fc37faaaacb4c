"""obframe: an order-book recorder with a plugin for every part.

Everything a plugin may import stands here or in ``obframe.testing``. The way through the house:
``registry`` loads plugins, ``settings`` reads the configuration, ``recorder`` runs
feed → ``sync`` → ``books`` → snapshot → storage and sinks, ``query`` reads a storage, ``cli`` is
the command line, ``_core`` is the compiled hot path.
"""

import importlib as _importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING
from typing import Any as _Any

from obframe._core import (
    ColumnDecoder,
    DepthSnapshot,
    DepthUpdate,
    Level,
    Level2Event,
    OrderBook,
    Snapshot,
    parse_depth_snapshot,
    parse_depth_update,
    parse_level2,
    parse_level_objects,
)
from obframe.errors import (
    CapacityError,
    ConfigError,
    DecodeError,
    FeedError,
    InvalidEvent,
    MalformedMessage,
    MessageError,
    MissingExtra,
    ObframeError,
    PluginError,
    Problem,
    QueryError,
    SequenceError,
    SinkError,
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreLocked,
    StoreUnavailable,
    SymbolError,
    UnknownSymbol,
)
from obframe.hookspecs import hookimpl
from obframe.layout import (
    SNAPSHOT_COLUMNS,
    snapshot_from_json,
    snapshot_id,
    snapshot_to_cells,
    snapshot_to_json,
)
from obframe.protocols import (
    Backup,
    BatchScan,
    EditableSymbolSource,
    Emit,
    Feed,
    FeedEvent,
    Maintenance,
    Measurable,
    Provider,
    Repaired,
    Sink,
    Storage,
    SymbolSource,
    Tell,
    Usage,
)
from obframe.settings import Duration, Size
from obframe.trust import Trust
from obframe.types import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    SNAPSHOT_DEPTH,
    BookState,
    FeedStatus,
    Gap,
    GapReason,
    Instrument,
    Mark,
    MarkKind,
    Record,
    RowBatch,
    RunInfo,
    StateChange,
    StreamEvent,
    check_symbol,
)

if TYPE_CHECKING:
    from obframe.query import Coverage, Row
    from obframe.reader import Reader, open  # noqa: A004
    from obframe.window import Window

__version__ = _version("obframe")

# What reads a store is loaded when it is first asked for: no recorder and no plugin needs it.
_LAZY = {
    "Coverage": "obframe.query",
    "Reader": "obframe.reader",
    "Row": "obframe.query",
    "Span": "obframe.query",
    "Window": "obframe.window",
    "open": "obframe.reader",
    "subtract": "obframe.query",
}

__all__ = [
    "MAX_TIMESTAMP",
    "MIN_TIMESTAMP",
    "SNAPSHOT_COLUMNS",
    "SNAPSHOT_DEPTH",
    "Backup",
    "BatchScan",
    "BookState",
    "CapacityError",
    "ColumnDecoder",
    "ConfigError",
    "Coverage",
    "DecodeError",
    "DepthSnapshot",
    "DepthUpdate",
    "Duration",
    "EditableSymbolSource",
    "Emit",
    "Feed",
    "FeedError",
    "FeedEvent",
    "FeedStatus",
    "Gap",
    "GapReason",
    "Instrument",
    "InvalidEvent",
    "Level",
    "Level2Event",
    "Maintenance",
    "MalformedMessage",
    "Mark",
    "MarkKind",
    "Measurable",
    "MessageError",
    "MissingExtra",
    "ObframeError",
    "OrderBook",
    "PluginError",
    "Problem",
    "Provider",
    "QueryError",
    "Reader",
    "Record",
    "Repaired",
    "Row",
    "RowBatch",
    "RunInfo",
    "SequenceError",
    "Sink",
    "SinkError",
    "Size",
    "Snapshot",
    "Span",
    "StateChange",
    "Storage",
    "StorageError",
    "StoreCorrupt",
    "StoreFormatError",
    "StoreLocked",
    "StoreUnavailable",
    "StreamEvent",
    "SymbolError",
    "SymbolSource",
    "Tell",
    "Trust",
    "UnknownSymbol",
    "Usage",
    "Window",
    "__version__",
    "check_symbol",
    "hookimpl",
    "open",
    "parse_depth_snapshot",
    "parse_depth_update",
    "parse_level2",
    "parse_level_objects",
    "snapshot_from_json",
    "snapshot_id",
    "snapshot_to_cells",
    "snapshot_to_json",
    "subtract",
]


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'obframe' has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
