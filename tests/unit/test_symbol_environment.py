"""The symbol source ``environment``."""

from __future__ import annotations

import os

import pytest

from obframe import ConfigError, Instrument
from obframe_plugins.environment import EnvironmentSettings, open_environment, read_environment


def read(text: str) -> list[str]:
    return sorted(each.symbol for each in read_environment("V", {"V": text}))


@pytest.mark.parametrize(
    "text", ["BTCUSDT,ETHUSDT", " BTCUSDT , ETHUSDT,", "BTCUSDT ETHUSDT", "ETHUSDT\n\tBTCUSDT\n"]
)
def test_names_are_separated_by_commas_or_spaces(text: str) -> None:
    assert read(text) == ["BTCUSDT", "ETHUSDT"]


def test_rows_57_and_58_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("A,B:C,A,D..E")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("environment V, name 2: environment.variable: symbol 'B:C'")
    assert "'A' is given again, as in environment V, name 1" in lines[1]
    assert "'..'" in lines[2]


@pytest.mark.parametrize(
    ("environ", "message"), [({}, "is not set"), ({"V": " , \n"}, "names no symbols")]
)
def test_a_variable_without_symbols_is_a_mistake(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_environment("V", environ)
    assert "write V=BTCUSDT,ETHUSDT" in str(caught.value)


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_variable_needs_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="variable"):
        EnvironmentSettings(name)


async def test_it_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSISTENT_SYMBOLS", "A,B")
    async with open_environment(EnvironmentSettings()) as source:
        os.environ["PERSISTENT_SYMBOLS"] = "C"
        sets = [each async for each in source.watch()]
    assert sets == [{Instrument("A"), Instrument("B")}]
