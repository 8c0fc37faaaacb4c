"""obframe: an order-book recorder with a plugin for every part.

Everything a plugin may import stands here or in ``obframe.testing``. The way through the house:
``registry`` loads plugins, ``settings`` reads the configuration, ``recorder`` runs
feed → ``sync`` → ``books`` → snapshot → storage and sinks, ``query`` reads a storage, ``cli`` is
the command line, ``_core`` is the compiled hot path.
"""

from importlib.metadata import version as _version

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
)
from obframe.errors import (
    CapacityError,
    ConfigError,
    DecodeError,
    FeedError,
    InvalidEvent,
    MalformedMessage,
    MessageError,
    ObframeError,
    PluginError,
    Problem,
    QueryError,
    StorageError,
    StoreCorrupt,
    StoreFormatError,
    StoreLocked,
    StoreUnavailable,
    SymbolError,
)
from obframe.hookspecs import hookimpl
from obframe.protocols import Emit, Feed, FeedEvent, Provider, Sink, Storage, SymbolSource
from obframe.settings import Duration
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
    RunInfo,
    StateChange,
    StreamEvent,
    check_symbol,
)

__version__ = _version("obframe")

__all__ = [
    "MAX_TIMESTAMP",
    "MIN_TIMESTAMP",
    "SNAPSHOT_DEPTH",
    "BookState",
    "CapacityError",
    "ColumnDecoder",
    "ConfigError",
    "DecodeError",
    "DepthSnapshot",
    "DepthUpdate",
    "Duration",
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
    "MalformedMessage",
    "Mark",
    "MarkKind",
    "MessageError",
    "ObframeError",
    "OrderBook",
    "PluginError",
    "Problem",
    "Provider",
    "QueryError",
    "Record",
    "RunInfo",
    "Sink",
    "Snapshot",
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
    "__version__",
    "check_symbol",
    "hookimpl",
    "parse_depth_snapshot",
    "parse_depth_update",
    "parse_level2",
]
