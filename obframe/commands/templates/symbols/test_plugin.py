"""The contract of symbol sources, and what is this one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from obframe import Instrument, ObframeError, SymbolError

from obframe_myplugin.contract import FileContract
from obframe_myplugin.plugin import FileSymbols, SymbolsSettings, read_symbols


class TestContract(FileContract):
    """Every rule that a symbol source must keep."""


def test_obframe_takes_the_plugin() -> None:
    command = [sys.executable, "-m", "obframe", "plugins", "show", "myplugin"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "section [myplugin]" in shown.stdout


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [({"path": ""}, "path is empty"), ({"interval": 0.0}, "interval must be more than 0")],
)
def test_settings_that_cannot_be_used_are_refused(
    settings: dict[str, str | float], mistake: str
) -> None:
    with pytest.raises(ValueError, match=mistake):
        SymbolsSettings(**settings)  # type: ignore[arg-type]


def test_blank_lines_and_remarks_name_no_symbol() -> None:
    found = read_symbols("# majors\n\nBTCUSDT\n  ETHUSDT  # as well\nBTCUSDT\n")
    assert found == {Instrument("BTCUSDT"), Instrument("ETHUSDT")}


def test_a_file_without_symbols_is_refused() -> None:
    with pytest.raises(ValueError, match="names no symbol"):
        read_symbols("# nothing yet\n")


async def test_a_missing_file_is_named_with_the_mend(tmp_path: Path) -> None:
    source = FileSymbols(tmp_path / "missing.txt", 1.0)
    with pytest.raises(ObframeError, match=r"cannot be read: .* myplugin\.path"):
        await anext(source.watch())


def test_what_is_no_symbol_is_named() -> None:
    with pytest.raises(SymbolError, match="BTC USDT"):
        read_symbols("BTC USDT\n")
