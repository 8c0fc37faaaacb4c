"""Retention: ages by symbol, the cap in bytes, and what is spared longest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe import Duration, Size, Usage
from obframe.retention import Cut, Held, plan
from obframe.settings import RetentionSettings

T = 1_737_158_400
MB = 1_000_000


def usage(total: int, **symbols: int) -> Usage:
    return Usage(total, 0, symbols)


def test_each_symbol_loses_what_is_past_its_age() -> None:
    settings = RetentionSettings(
        max_age=Duration(100), overrides=("BTC*=1h", "*/USD=0", "ETHBTC=10s")
    )
    held = [Held(name, T, T + 5000) for name in ("BTCUSDT", "ETHBTC", "XRPUSDT", "kraken/X/USD")]
    assert plan(settings, held, None, T + 5000.9) == [
        Cut("BTCUSDT", T + 1400, "age", 1400, None),
        Cut("ETHBTC", T + 4990, "age", 4990, None),
        Cut("XRPUSDT", T + 4900, "age", 4900, None),
    ]


def test_of_a_symbol_no_longer_recorded_all_goes() -> None:
    settings = RetentionSettings(max_age=Duration(100))
    held = [Held("OLD", T, T + 9)]
    assert plan(settings, held, usage(10 * MB, OLD=MB), T + 5000) == [
        Cut("OLD", T + 4900, "age", 10, MB)
    ]


def test_below_the_cap_nothing_goes_and_near_it_the_oldest_of_all() -> None:
    settings = RetentionSettings(max_age=Duration(0), max_bytes=Size(1000 * MB))
    held = [Held("A", T, T + 999), Held("B", T + 500, T + 999)]
    assert plan(settings, held, usage(950 * MB, A=600 * MB, B=350 * MB), T + 1000) == []
    (only,) = plan(settings, held, usage(960 * MB, A=610 * MB, B=350 * MB), T + 1000)
    assert only == Cut("A", T + 181, "bytes", 181, only.bytes)  # to 850 MB; B begins later
    assert 110 * MB <= (only.bytes or 0) <= 111 * MB
    both = plan(settings, held, usage(1500 * MB, A=1000 * MB, B=500 * MB), T + 1000)
    assert {cut.before for cut in both} == {T + 575}
    assert 650 * MB <= sum(cut.bytes or 0 for cut in both) <= 652 * MB


def test_what_has_an_age_of_its_own_is_spared_by_the_cap() -> None:
    settings = RetentionSettings(
        max_age=Duration(0), max_bytes=Size(1000 * MB), overrides=("KEEP=0",)
    )
    held = [Held("KEEP", T, T + 999), Held("OTHER", T + 900, T + 999)]
    cuts = plan(settings, held, usage(960 * MB, KEEP=700 * MB, OTHER=260 * MB), T + 1000)
    assert [cut.symbol for cut in cuts] == ["OTHER"]
    cuts = plan(settings, held, usage(1960 * MB, KEEP=1700 * MB, OTHER=260 * MB), T + 1000)
    assert [cut.symbol for cut in cuts] == ["KEEP", "OTHER"]
    assert cuts[1].before == T + 999  # the newest row stays


def test_without_shares_of_symbols_the_cap_takes_by_seconds() -> None:
    """A storage may know its size, and not whose it is: that is no reason to delete all."""
    settings = RetentionSettings(max_age=Duration(0), max_bytes=Size(1000 * MB))
    held = [Held("A", T, T + 999), Held("B", T, T + 999)]
    cuts = plan(settings, held, usage(1000 * MB), T + 1000)
    assert {cut.before for cut in cuts} == {T + 150}
    cuts = plan(settings, held, usage(1000 * MB, A=500 * MB), T + 1000)
    assert {cut.before for cut in cuts} == {T + 150}


def test_what_age_frees_counts_before_the_cap() -> None:
    settings = RetentionSettings(max_age=Duration(500), max_bytes=Size(1000 * MB))
    held = [Held("A", T, T + 999)]
    (cut,) = plan(settings, held, usage(1200 * MB, A=1000 * MB), T + 1000)
    assert cut.cause == "age"


@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(1, 5000), st.integers(0, 500)),
        min_size=1,
        max_size=6,
    ),
    st.integers(100, 2000),
)
def test_a_cut_frees_what_is_wanted_and_never_the_newest_row(
    spans: list[tuple[int, int, int]], cap: int
) -> None:
    held = [
        Held(f"S{n}", T + first, T + first + length) for n, (first, length, _) in enumerate(spans)
    ]
    sizes = {f"S{n}": size * MB for n, (*_, size) in enumerate(spans)}
    total = sum(sizes.values())
    settings = RetentionSettings(max_age=Duration(0), max_bytes=Size(cap * MB))
    cuts = plan(settings, held, Usage(total, 0, sizes), T + 20_000.0)
    assert all(cut.before <= max(each.newest for each in held) for cut in cuts)
    if total <= 0.95 * cap * MB:
        assert cuts == []
    else:
        freed = sum(cut.bytes or 0 for cut in cuts)
        newest = max(each.newest for each in held)
        exhausted = all(cut.before >= newest for cut in cuts)
        assert freed >= total - 0.85 * cap * MB - len(held) or exhausted


@pytest.mark.parametrize(
    ("text", "size"), [("500", 500), ("50GB", 50 * 10**9), ("1.5 TiB", 3 * 2**39), (7, 7)]
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "5 GBs", "1e3", True, -1, 1.5, "٣GB"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        Size.parse(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 50 * 10**9, 3 * 2**39])
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    assert Size.parse(str(Size(size))) == size


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"overrides": ("BTCUSDT",)}, "SYMBOL=AGE"),
        ({"overrides": ("BTCUSDT=soon",)}, "expected a duration"),
        ({"max_bytes": Size(5)}, "at least 50000000"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RetentionSettings(**arguments)  # type: ignore[arg-type]
