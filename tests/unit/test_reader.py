"""A store opened in a script: what it answers, and what it says when it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import obframe
from obframe import (
    ConfigError,
    Gap,
    GapReason,
    Mark,
    MarkKind,
    PluginError,
    QueryError,
    Record,
    Snapshot,
    StorageError,
    SymbolError,
    Trust,
    UnknownSymbol,
)
from obframe.reader import Reader, to_second
from obframe_plugins.memory import MemoryStorage
from obframe_plugins.rocksdb import RocksSettings, RocksStorage

T = 1_737_158_400


def record(second: int) -> Record:
    return Record("AAA", second, Snapshot("AAA", 7, second, [("1.50", "2")], []).pack())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of ten minutes of one symbol with a hole, written by a storage that is closed."""
    with closing(RocksStorage.open(RocksSettings(path=str(tmp_path / "rows")))) as storage:
        storage.append([record(T + n) for n in range(600) if n not in (590, 591)])
        storage.append_gaps([Gap("AAA", T + 590, T + 591, GapReason.SEQUENCE)])
        storage.append_gaps([Gap("BBB", T, T + 9, GapReason.UNKNOWN_SYMBOL)])
        storage.append_marks([Mark("AAA", T + 592, T + 592, MarkKind.EPOCH)])
    return tmp_path / "rows"


def test_every_question_in_one_session(path: Path) -> None:
    with obframe.open(path) as store:
        assert store.symbols() == ["AAA", "BBB"]
        newest = store.latest("AAA")
        assert newest is not None
        assert (newest.timestamp, newest.trust) == (T + 599, Trust.LIVE)
        assert newest.snapshot is not None
        assert newest.snapshot.bids == [("1.50", "2")]
        assert store.latest("BBB") is None
        minute = [n for n in range(540, 600) if n not in (590, 591)]
        assert [row.timestamp - T for row in store.rows("AAA")] == minute
        window = store.window("AAA")
        assert (window.timestamp - T).tolist() == minute
        assert window.coverage == store.coverage("AAA")
        assert window.coverage.missing_seconds == 2
        assert window.coverage.causes == {GapReason.SEQUENCE: 2}
        assert window.trust[minute.index(592)] == Trust.EPOCH
        assert [gap.start - T for gap in store.gaps("AAA")] == [590]
        assert store.gaps("AAA", T, T + 9) == []
        windows = store.windows("AAA", T, seconds=250)
        assert [len(each) for each in windows] == [250, 250, 98]
        assert len(windows) == 3
        followed = list(store.follow("AAA", T + 580, timeout=0.1))
        assert [row.timestamp - T for row in followed] == [n for n in minute if n >= 580]
        assert len(store.window("AAA", T, depth=1, floats=True).bid_prices) == 598
    with pytest.raises(StorageError, match="closed"):
        store.symbols()
    store.close()


def test_times_are_what_people_have_at_hand(path: Path) -> None:
    moscow = timezone(timedelta(hours=3))
    with obframe.open(path) as store:
        for start in (
            T + 60,
            T + 60.9,
            str(T + 60),
            "2025-01-18T00:01",
            datetime(2025, 1, 18, 0, 1),
            datetime(2025, 1, 18, 0, 1, tzinfo=UTC),
            datetime(2025, 1, 18, 3, 1, tzinfo=moscow),
        ):
            window = store.window("AAA", start, T + 70)
            assert (window.coverage.start, len(window)) == (T + 60, 11), start
        assert store.window("AAA", end=T + 70).coverage.start == T + 11
    assert to_second("-1h", T) == T - 3600
    for bad in (float("nan"), T * 1000, -1, "yesterday", datetime(1970, 1, 1)):
        with pytest.raises(QueryError):
            to_second(bad, T)


def test_a_symbol_that_is_not_stored_is_an_error_everywhere(path: Path) -> None:
    with obframe.open(path) as store:
        calls: list[Any] = [
            store.latest, store.rows, store.window, store.coverage, store.gaps, store.follow,
            lambda symbol: store.windows(symbol, T),
            lambda symbol: store.window(symbol, T, T + 9),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(UnknownSymbol, match="did you mean AAA"):
                call("AA")


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no database there"):
        obframe.open(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"path: expected text or a path, such as .*, got 5$"):
        obframe.open(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"rocksdb\.colour: unknown key; keys here: path, "):
        obframe.open(tmp_path / "nothing", colour="red")
    with pytest.raises(ConfigError, match="compression_level"):
        obframe.open(tmp_path / "nothing", compression_level=99)
    with pytest.raises(PluginError, match="is not installed"):
        obframe.open(tmp_path / "nothing", storage="rocksbd")
    with pytest.raises(ConfigError, match="path"):
        obframe.open(tmp_path / "nothing", storage="memory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (
            lambda store: store.rows(None),
            "symbol None: is no text; give a symbol such as 'BTCUSDT'",
        ),
        (lambda store: store.gaps(5), "symbol 5: is no text; give a symbol"),
        (lambda store: store.rows("AAA", []), "time '[]' is no time; give Unix seconds, "),
        (lambda store: store.rows("AAA", float("inf")), "time 'inf' is no time; give "),
        (lambda store: store.rows("AAA", 10**400), f"time '1{'0' * 79}' is no time; give "),
        (lambda store: store.follow("AAA", timeout="2"), "timeout '2' is no number of seconds; "),
        (lambda store: store.follow("AAA", timeout=-1), "timeout '-1' is no number of seconds; "),
        (
            lambda store: store.window("AAA", depth=2**70),
            f"depth '{2**70}' is no number of ",
        ),
        (
            lambda store: store.window("AAA", depth=0),
            "depth '0' is no number of levels; give ",
        ),
        (lambda store: store.windows("AAA", T, depth="x"), "depth 'x' is no number of levels; "),
        (lambda store: store.windows("AAA", T, seconds="x"), "seconds 'x' is no length of a "),
    ],
)
def test_what_cannot_be_asked_for_is_told_with_the_mend(
    path: Path, ask: Callable[[Any], object], told: str
) -> None:
    with obframe.open(path) as store, pytest.raises((QueryError, SymbolError)) as refused:
        ask(store)
    assert str(refused.value).startswith(told)


def test_a_reader_wraps_any_storage() -> None:
    storage = MemoryStorage()
    now = int(time.time())
    storage.append([record(now - n) for n in range(5)])
    with Reader(storage) as store:
        assert len(store.window("AAA", "-1m")) == 5
        assert [row.timestamp for row in store.follow("AAA", timeout=0)] == [
            now - n for n in reversed(range(5))
        ]
