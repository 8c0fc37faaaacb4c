"""Writes the parts of these pages that come from the code: settings, hooks, faults.

``make docs`` runs it; a test fails while a page differs from what it would write.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from obframe import Gap, Instrument, Mark, RunInfo, hookspecs
from obframe.registry import installed_plugins, load
from obframe.settings import CORE_SECTIONS, describe
from obframe.testing.exchange import FAULTS
from obframe.vetting import KINDS

DOCS = Path(__file__).resolve().parent
_HOOK_TERMS = {
    "When": "When",
    "Caller": "Called by",
    "Returns": "May return",
    "Raises": "When it raises",
    "Since": "Since",
}
_PART = re.compile(r"(<!-- part: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CORE = {
    "recorder": "How the recorder samples, holds and stops. Times are in seconds.",
    "retention": "How long what is stored is kept.",
}


def settings() -> str:
    """Describe every section: ours and those of the plugins that come with obframe."""
    ours = [name for name, (entry, *_) in installed_plugins().items() if _is_ours(entry.value)]
    registry = load(ours, kinds=[])
    parts = [_section(name, _CORE[name], kind) for name, kind in CORE_SECTIONS.items()]
    for kind in KINDS:
        for provider in registry.providers(kind):
            heading = f"The {kind.name} `{provider.name}`: {provider.summary}."
            parts.append(_section(provider.name, heading, provider.settings))
    for plugin in registry.plugins:
        for section, declared in plugin.sections.items():
            parts.append(_section(section, _prose(plugin.summary), declared))
    return "\n\n".join(parts)


def _is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "obframe_plugins"


def _section(name: str, heading: str, kind: type[Any]) -> str:
    fields = describe(kind)
    if not fields:
        return f"## {name}\n\n{heading} It has no settings."
    rows = (
        (f"`{each.name}`", each.type, f"`{each.default}`" if each.default else "", each.help)
        for each in fields
    )
    return f"## {name}\n\n{heading}\n\n" + _table(("key", "type", "default", "what it is"), rows)


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def faults() -> str:
    """List every fault of the venue."""
    rows = ((f"`{name}`", text) for name, text in FAULTS.items())
    return _table(("fault", "what happens"), rows)


def hooks() -> str:
    """Give every hook's signature and meaning."""
    source = Path(str(hookspecs.__file__)).read_text(encoding="utf-8")
    return "\n\n".join(
        f"### {node.name}\n\n```python\ndef {node.name}({ast.unparse(node.args)})"
        f" -> {ast.unparse(node.returns)}\n```\n\n{_hook(ast.get_docstring(node) or '')}"
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.returns is not None
    )


def _hook(text: str) -> str:
    told = re.findall(r"^(\w+): (.*(?:\n    .*)*)", text, re.MULTILINE)
    lines = [_item(f"{_HOOK_TERMS[term]}: {_prose(what)}") for term, what in told]
    return f"{_prose(_first_line(text))}\n\n" + "\n".join(lines)


def _item(text: str) -> str:
    wrapped = textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)
    return "- " + "\n  ".join(wrapped)


def values() -> str:
    """List the fields of the values that hooks and protocols hand over."""
    return "\n\n".join(_fields(kind) for kind in (Instrument, Gap, Mark, RunInfo))


def _fields(kind: type[Any]) -> str:
    text = inspect.getdoc(kind) or ""
    told = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE))
    rows = (
        (f"`{name}`", f"`{getattr(hint, '__forward_arg__', hint)}`", _prose(told[name]))
        for name, hint in kind.__annotations__.items()
    )
    heading = f"`{kind.__name__}`: {_prose(_first_line(text))}"
    return heading + "\n\n" + _table(("field", "type", "what it is"), rows)


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


_MAKERS = {"settings": settings, "faults": faults, "hooks": hooks, "values": values}


def rewrite(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{_MAKERS[part[2]]()}\n\n{part[3]}", text)


if __name__ == "__main__":
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        page.write_text(rewrite(old), encoding="utf-8")
