"""What every error of obframe has in common."""

from __future__ import annotations

import pickle

import pytest

from obframe import errors

ERRORS = [
    errors.ObframeError("text"),
    errors.ConfigError([errors.Problem("--set", "rocksdb.path", "is no path")]),
    errors.PluginError("kraken", "cannot be loaded", "install it"),
    errors.MalformedMessage("no JSON", 7, "BTCUSDT"),
    errors.InvalidEvent("BTCUSDT", "u", "-1", "is below 0"),
    errors.SequenceError("BTCUSDT", 1, 2, 3),
    errors.CapacityError("BTCUSDT", "bids[3].price", "1e99", "too large", row=4),
    errors.DecodeError("is cut short", 3, row=1),
    errors.SymbolError("a:b", "has a colon"),
    errors.QueryError("depth", "-1", "is below 0"),
    errors.UnknownSymbol("btc", ["BTCUSDT"]),
    errors.MissingExtra("numpy", "numpy", "this"),
    errors.FeedError("refused"),
    errors.SinkError("refused"),
    errors.StoreUnavailable("disk full", "/rows"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_from_another_process_as_it_was(error: errors.ObframeError) -> None:
    error.add_note("seen by a worker")
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.args == error.args
    assert getattr(other, "msg", None) == getattr(error, "msg", None)


def test_all_errors_are_tried() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    leaves = {kind for kind in kinds if issubclass(kind, errors.ObframeError)}
    with_own_making = {kind for kind in leaves if "__init__" in vars(kind)}
    assert with_own_making <= {type(error) for error in ERRORS} | {errors.StorageError}
