"""The command that writes a new plugin's project, from the templates beside this module.

The templates are a plugin called ``myplugin`` of each kind, which works as it stands; what is
written differs in the name, and in what a kind needs.
"""

from __future__ import annotations

import keyword
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from obframe.commands.output import say
from obframe.errors import ConfigError, Problem
from obframe.registry import installed_plugins
from obframe.settings import CORE_SECTIONS

MAX_NAME = 24
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_PLACEHOLDER = re.compile("obframe-myplugin|obframe_myplugin|myplugin")


class _Kind(NamedTuple):
    """What a kind's project has beside the others.

    Attributes:
        what: For a person.
        dependency: What it needs besides obframe; empty: nothing.
        trial: The commands to see it at work.
    """

    what: str
    dependency: str
    trial: tuple[str, ...]


_RUN = "obframe run --plugins"
_AIOHTTP = "aiohttp>=3.14,<4"
_KINDS = {
    "storage": _Kind("a storage", "", (f"{_RUN} myplugin",)),
    "feed": _Kind("a feed", _AIOHTTP, (f"{_RUN} rocksdb,myplugin",)),
    "symbols": _Kind(
        "a symbol source", "", ("echo BTCUSDT > symbols.txt", f"{_RUN} rocksdb,myplugin")
    ),
    "sink": _Kind("a sink", _AIOHTTP, (f"{_RUN} rocksdb,myplugin",)),
}

_COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "readme.md",
    ".gitignore": "gitignore",
    ".github/workflows/test.yml": "workflow.yml",
    "src/obframe_myplugin/__init__.py": "init.py",
}
_OWN = {
    "src/obframe_myplugin/plugin.py": "plugin.py",
    "src/obframe_myplugin/contract.py": "contract.py",
    "tests/test_plugin.py": "test_plugin.py",
}
_EMPTY = ("src/obframe_myplugin/py.typed",)


def new(name: str, kind: str, folder: Path | None) -> int:
    """Write the project of a plugin, all of it or nothing, and say how to go on.

    Args:
        name: The plugin's.
        kind: ``storage``, ``feed``, ``symbols`` or ``sink``.
        folder: To be made; None for ``obframe-NAME`` in the current one.

    Raises:
        ConfigError: The name cannot be used, the folder is there already, or it cannot be written.
    """
    if problem := check_name(name):
        raise ConfigError([Problem("NAME", "", f"{name!r} {problem}")])
    target = folder if folder is not None else Path(_rename("obframe-myplugin", name))
    if target.exists() or target.is_symlink():
        reason = f"{target} is there already and is left as it is; name another folder"
        raise ConfigError([Problem("--folder", "", reason)])
    try:
        _write(target, dict(project(name, kind)))
    except OSError as error:
        reason = f"{target} cannot be written: {error.strerror or error}"
        raise ConfigError([Problem("--folder", "", reason)]) from error
    trial = "".join(f"  {_rename(line, name)}\n" for line in _KINDS[kind].trial)
    say(
        f"wrote {_KINDS[kind].what} that works: {target}\n"
        f"\n"
        f"  cd {shlex.quote(str(target))}\n"
        f"  pip install -e '.[test]'\n"
        f"  pytest\n"
        f"  obframe plugins check {name}\n"
        f"{trial}"
        f"\n"
        f"then make it yours: src/{_rename('obframe_myplugin', name)}/plugin.py"
    )
    return 0


def check_name(name: str) -> str:
    """Return what is wrong with a name for a new plugin; empty when nothing is."""
    if not _NAME.fullmatch(name):
        return "is no name for a plugin: use a-z, 0-9 and single - or _ between, a letter first"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters; use {MAX_NAME} at most"
    if name in CORE_SECTIONS:
        return "is a section of obframe's own settings; choose another"
    if keyword.iskeyword(name):
        return "is a word of Python's; choose another"
    installed = {entry.replace("_", "-"): found for entry, found in installed_plugins().items()}
    if found := installed.get(name.replace("_", "-")):
        projects = ", ".join(sorted({entry.dist.name for entry in found if entry.dist}))
        return f"is installed already ({projects or 'of an unknown distribution'}); choose another"
    return ""


def project(name: str, kind: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of each file of a new plugin's project."""
    templates = files(__package__) / "templates"
    about = _KINDS[kind]
    for path, source in _COMMON.items():
        text = (templates / source).read_text(encoding="utf-8")
        text = text.replace("A plugin for obframe", f"{about.what.capitalize()} for obframe")
        text = text.replace("A plugin for [obframe]", f"{about.what.capitalize()} for [obframe]")
        if about.dependency:
            text = text.replace('["obframe>=', f'["{about.dependency}", "obframe>=')
        yield _rename(path, name), _rename(text, name)
    for path, source in _OWN.items():
        text = (templates / kind / source).read_text(encoding="utf-8")
        yield _rename(path, name), _rename(text, name)
    for path in _EMPTY:
        yield _rename(path, name), ""


def _rename(text: str, name: str) -> str:
    words = re.split("[-_]", name)
    renamed = {
        "obframe-myplugin": "obframe-" + "-".join(words),
        "obframe_myplugin": "obframe_" + "_".join(words),
        "myplugin": name,
    }
    return _PLACEHOLDER.sub(lambda found: renamed[found[0]], text)


def _write(target: Path, texts: dict[str, str]) -> None:
    """Write the files beside the target and move them there at once: whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for path, text in texts.items():
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        draft.chmod(0o755 & ~_umask())
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
