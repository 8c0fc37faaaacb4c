"""What is public is what is exported, and plugins need no more than that."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import obframe

ROOT = Path(__file__).resolve().parent.parent
FIRST_PARTY = sorted((ROOT / "plugins").rglob("*.py"))


def test_all_is_what_the_package_holds() -> None:
    held = {
        name
        for name, value in ((name, getattr(obframe, name)) for name in dir(obframe))
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(obframe.__all__) == held - {"TYPE_CHECKING"} | {"__version__"}
    assert len(obframe.__all__) == len(set(obframe.__all__))


def test_every_error_is_exported() -> None:
    errors = importlib.import_module("obframe.errors")
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined <= set(obframe.__all__)


def imported_from_obframe(path: Path) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "obframe":
            for alias in node.names:
                yield node.lineno, node.module or "", alias.name


@pytest.mark.parametrize("path", FIRST_PARTY, ids=lambda path: path.name)
def test_our_plugins_import_public_names_only(path: Path) -> None:
    for line, module, name in imported_from_obframe(path):
        source = importlib.import_module(module)
        is_module = (module, name) == ("obframe.testing", "contracts")  # imported when asked for
        assert is_module or hasattr(source, name), f"{path.name}:{line}: {module} has no {name}"
        if module == "obframe":
            assert name in obframe.__all__, f"{path.name}:{line}: {name} is not public"


def test_the_version_is_that_of_the_distribution() -> None:
    assert obframe.__version__ == importlib.metadata.version("obframe")
