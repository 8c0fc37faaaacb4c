"""docs/testing.md as an author would follow it: its code in a folder of its own, and pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import obframe.testing
from obframe.testing.contracts import (
    Contract,
    FeedContract,
    SinkContract,
    StorageContract,
    SymbolSourceContract,
    rules_of,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
SOURCE = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
CONTRACTS = (FeedContract, SinkContract, StorageContract, SymbolSourceContract)


def run(folder: Path, source: str, *options: str) -> str:
    """Run pytest as it comes, on one file."""
    (folder / "test_mine.py").write_text(source, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_code_of_the_page_passes_without_any_plugin_of_pytest(tmp_path: Path) -> None:
    told = run(tmp_path, SOURCE, "-p", "no:asyncio", "-W", "error")
    assert re.search(r"^\d{3} passed, \d+ skipped in ", told, re.MULTILINE), told


def test_a_broken_rule_is_told_as_the_page_shows(tmp_path: Path) -> None:
    broken = SOURCE.replace("if row.timestamp > self._newest.get(row.symbol, 0):", "if True:")
    assert broken != SOURCE
    told = run(tmp_path, broken, "-k", "TestLines and overlapping")
    (shown,) = re.findall(r"^```text\n(E  .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for line in shown.splitlines():
        assert line.removeprefix("E").strip() in told, told


def test_what_an_assertion_compared_is_shown(tmp_path: Path) -> None:
    """As in a test of the author's own: pytest rewrites the contracts' assertions."""
    broken = SOURCE.replace("storage = MemoryStorage()", "storage = Short()").replace(
        "class TestMine",
        "class Short(MemoryStorage):\n"
        "    def scan(self, symbol, start, end):\n"
        "        return super().scan(symbol, start, end - 1)\n\n\n"
        "class TestMine",
    )
    told = run(tmp_path, broken, "-k", "TestMine and both_ends")
    assert re.search(r"^E +Right contains one more item: Record\(", told, re.MULTILINE), told
    assert "the rule: ``start`` and ``end`` are inside" in told


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_rule_says_itself_in_one_line(contract: type[Contract]) -> None:
    rules = rules_of(contract)
    assert len(rules) == len([name for name in dir(contract) if name.startswith("test_")])
    for rule in rules:
        assert rule.words.endswith("."), rule
        assert len(rule.words) < 100, rule
        assert all(hasattr(contract, flag) for flag in rule.needs), rule


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_flag_is_explained(contract: type[Contract]) -> None:
    explained = " ".join(base.__doc__ or "" for base in contract.__mro__)
    flags = {
        name
        for base in contract.__mro__
        if issubclass(base, Contract)
        for name, value in vars(base).items()
        if not name.startswith(("_", "test_")) and isinstance(value, bool | int | float)
    }
    assert flags
    for name in flags:
        assert f"        {name}: " in explained, name


def test_everything_that_is_exported_is_on_the_page() -> None:
    for name in obframe.testing.__all__:
        assert getattr(obframe.testing, name) is not None
        assert f"`{name}`" in PAGE or name in SOURCE, f"{name} is not on the page"
    assert dir(obframe.testing) == obframe.testing.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        obframe.testing.Nothing  # noqa: B018


def test_the_kit_loads_neither_pytest_nor_hypothesis_until_they_are_needed() -> None:
    check = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "import obframe.testing as kit\n"
        "kit.FakeClock, kit.Exchange, kit.ReferenceBook, kit.FeedListener, kit.LoopWatch\n"
        "for name in ('SinkContract', 'strategies'):\n"
        "    try:\n"
        "        getattr(kit, name)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "obframe.testing.SinkContract needs pytest: pip install 'obframe[testing]'",
        "obframe.testing.strategies needs hypothesis: pip install 'obframe[testing]'",
    ], done.stderr
