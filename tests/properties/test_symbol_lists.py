"""Files of symbols read back what was written; rankings keep their promises for every list."""

from __future__ import annotations

import json
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from obframe import ConfigError, Instrument, Problem, SymbolError, check_symbol
from obframe_plugins._ranking import Ranking, Ticker
from obframe_plugins._symbol_file import parse_file


def _is_symbol(text: str) -> bool:
    try:
        check_symbol(text)
    except SymbolError:
        return False
    return not text.startswith("#") and not set(text) & set(",;") and text[0] != "\ufeff"


symbols = st.one_of(
    st.from_regex(r"[A-Z0-9]{1,8}USDT", fullmatch=True),
    st.sampled_from(["kraken/BTC/USD", "A#B", "币安USDT", "BTC-USD"]),
    st.text(min_size=1, max_size=8).filter(_is_symbol),
)
spaces = st.text(" \t", max_size=3)
noise = st.one_of(
    st.just(""), spaces, st.text(max_size=10).map(lambda text: "#" + " ".join(text.splitlines()))
)


@st.composite
def texts(draw: st.DrawFn, names: list[str]) -> str:
    """Write names one a line, with spaces, comments, empty lines and any line end."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = []
    for name in names:
        lines += draw(st.lists(noise, max_size=2))
        comment = draw(st.sampled_from(["", " # why: a, b", "\t#"]))
        lines.append(draw(spaces) + name + draw(spaces) + comment)
    return end.join(lines) + draw(st.sampled_from(["", end]))


def read(content: bytes, path: str = "list.txt") -> list[str]:
    return sorted(each.symbol for each in parse_file(path, content, "file.path"))


def mistakes(content: bytes, path: str = "list.txt") -> list[Problem]:
    """Return what is wrong with a file; nothing when it is good."""
    try:
        read(content, path)
    except ConfigError as error:
        return list(error.problems)
    return []


@given(st.lists(symbols, min_size=1, max_size=8, unique=True), st.data(), st.booleans())
def test_what_is_written_is_read(names: list[str], data: st.DataObject, marked: bool) -> None:
    text = data.draw(texts(names))
    assert read(text.encode("utf-8-sig" if marked else "utf-8")) == sorted(names)
    assert read(json.dumps(names).encode(), "list.json") == sorted(names)
    assert read(f"symbols = {json.dumps(names, ensure_ascii=False)}".encode(), "x.toml") == sorted(
        names
    )


@given(st.lists(symbols, min_size=1, max_size=8, unique=True), st.data())
def test_a_name_given_twice_is_always_found(names: list[str], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(names))
    at = data.draw(st.integers(0, len(names)))
    text = "\n".join([*names[:at], again, *names[at:]])
    (mistake,) = mistakes(text.encode())
    assert "given again" in mistake.message


@given(st.binary(max_size=60), st.sampled_from(["a.txt", "a.json", "a.toml"]))
@example(b"[[[[", "a.json")
@example(b"symbols = 1_", "a.toml")
def test_any_bytes_are_symbols_or_mistakes(content: bytes, path: str) -> None:
    found = mistakes(content, path)
    assert all(problem.where.startswith(path) for problem in found)
    if not found:
        names = read(content, path)
        assert names
        assert [check_symbol(name) for name in names] == names


tickers = st.lists(
    st.builds(
        Ticker,
        st.integers(0, 30).map(lambda n: Instrument(f"S{n:02}")),
        st.sampled_from(["USDT", "BTC"]),
        st.integers(0, 20).map(Decimal),
        st.booleans(),
    ),
    unique_by=lambda ticker: ticker.instrument,
    max_size=30,
)
rankings = st.builds(
    Ranking,
    st.integers(1, 12),
    st.sampled_from([(), ("USDT",), ("USDT", "BTC")]),
    st.sampled_from([(), ("S0*",), ("S?1", "S2*")]),
    st.sampled_from([(), ("*5",)]),
    st.floats(0, 1),
)


@given(tickers, rankings, st.sets(st.integers(0, 30).map(lambda n: Instrument(f"S{n:02}"))))
def test_a_ranking_takes_the_top_and_keeps_what_stands_at_the_border(
    found: list[Ticker], ranking: Ranking, held: set[Instrument]
) -> None:
    chosen = ranking.choose(found, held)
    allowed = {t.instrument: t for t in found if ranking.fits(t)}
    candidates = {name for name, t in allowed.items() if t.trading or name in held}
    assert chosen <= candidates
    assert len(chosen) == min(ranking.count, len(candidates))
    # Once chosen, the same list changes nothing: no symbol goes to and fro.
    assert ranking.choose(found, chosen) == chosen
    for name in candidates - chosen:
        better = {each for each in chosen if allowed[each].volume >= allowed[name].volume}
        worse = chosen - better
        assert worse <= held, "only what was there before stands above what has more volume"
    plain = Ranking(ranking.count, ranking.quotes, ranking.include, ranking.exclude, 0)
    volumes = sorted((allowed[name].volume for name in candidates), reverse=True)
    top = sorted((allowed[name].volume for name in plain.choose(found, held)), reverse=True)
    assert top == volumes[: ranking.count]
