"""Imports go downward only: read from the syntax trees, lazy and TYPE_CHECKING imports counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom to the top; modules of one layer may import each other, but not in a circle.
LAYERS = (
    {"obframe.errors"},
    {"obframe.types"},
    {"obframe._core"},
    {"obframe.protocols"},
    {"obframe.hookspecs"},
    {
        "obframe.clock",
        "obframe.columns",
        "obframe.config",
        "obframe.feeds",
        "obframe.following",
        "obframe.frames",
        "obframe.gaplog",
        "obframe.hookcalls",
        "obframe.histogram",
        "obframe.layout",
        "obframe.observers",
        "obframe.positions",
        "obframe.proof",
        "obframe.query",
        "obframe.reader",
        "obframe.registry",
        "obframe.retention",
        "obframe.settings",
        "obframe.sync",
        "obframe.union",
        "obframe.times",
        "obframe.transfer",
        "obframe.trust",
        "obframe.verify",
        "obframe.vetting",
        "obframe.window",
    },
    {"obframe.backfill", "obframe.books", "obframe.outbox", "obframe.sinks", "obframe.writer"},
    {"obframe.telling"},
    {"obframe.retainer", "obframe.sampler"},
    {"obframe.recorder"},
    {"obframe"},
    {"obframe.testing"},
    {"obframe.commands"},
    {"obframe.cli_options", "obframe.cli_usage"},
    {"obframe.cli_plugins", "obframe.cli_storage"},
    {"obframe.cli"},
    {"obframe.__main__"},
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
PUBLIC = ("obframe", "obframe.testing")


def modules() -> dict[str, Path]:
    """Map the name of each of our modules to its file; stubs stand for compiled modules."""
    found: dict[str, Path] = {}
    for package, folder in (("obframe", ROOT / "obframe"), ("obframe_plugins", ROOT / "plugins")):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.pyi")]):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each of our modules that a module imports, wherever it does."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else base


def rank(module: str) -> int:
    parts = module.split(".")
    if parts[1:2] in (["testing"], ["commands"]):
        parts = parts[:2]
    return RANK[".".join(parts)]


OURS = sorted(module for module in MODULES if module.split(".")[0] == "obframe")
PLUGINS = sorted(module for module in MODULES if module.split(".")[0] == "obframe_plugins")


def test_the_walk_sees_lazy_and_relative_imports(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from obframe.recorder import Recorder\n"
        "def lazy():\n    import obframe.cli\n    from . import books\n    from .sync import x\n"
    )
    MODULES["obframe.sample"] = path
    try:
        assert {name for _, name in imports("obframe.sample")} == {
            "typing",
            "obframe.recorder",
            "obframe.cli",
            "obframe.books",
            "obframe.sync",
        }
    finally:
        del MODULES["obframe.sample"]


@pytest.mark.parametrize("module", OURS)
def test_imports_go_downward(module: str) -> None:
    assert module.split(".")[1:2] in (["testing"], ["commands"]) or module in RANK, (
        f"{module} has no layer yet: give it one in LAYERS"
    )
    for line, imported in imports(module):
        where = f"{MODULES[module].relative_to(ROOT)}:{line}"
        assert not imported.startswith("obframe_plugins"), f"{where} imports a plugin"
        if imported.split(".")[0] == "obframe":
            assert rank(imported) <= rank(module), f"{where} imports {imported}, which lies above"


@pytest.mark.parametrize("module", PLUGINS)
def test_plugins_import_what_is_public_only(module: str) -> None:
    for line, imported in imports(module):
        where = f"{MODULES[module].relative_to(ROOT)}:{line}"
        if imported.split(".")[0] == "obframe":
            public = imported in PUBLIC or imported.startswith("obframe.testing.")
            assert public, f"{where} imports {imported}, which is not public"


def test_nothing_imports_itself_in_a_circle() -> None:
    graph = {
        module: {name for _, name in imports(module) if name in MODULES and name != module}
        for module in MODULES
    }
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for imported in sorted(graph[module]):
                visit(imported)
            path.pop()
            done.add(module)

    for module in graph:
        visit(module)
