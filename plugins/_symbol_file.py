"""The text of a file of symbols: lines, a JSON list, or TOML. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from obframe import ConfigError, Instrument, Problem
from obframe_plugins._symbol_lists import collect

MOST_BYTES = 4 * 1024 * 1024

_COMMENT = re.compile(r"(^|\s)#.*")
_SEPARATED = re.compile(r"[\s,;]")


def parse_file(path: str, content: bytes, key: str) -> frozenset[Instrument]:
    """Return the instruments that a file names.

    Args:
        path: Its path, which stands in every problem; its ending tells the syntax.
        content: All of it.
        key: The setting that led to it.

    Raises:
        ConfigError: It is not of its syntax, names no symbol, or some badly or twice; it holds a
            problem for each, with the line where the syntax has lines.
    """
    ending = PurePath(path).suffix.lower()
    try:
        if len(content) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES >> 20} MiB")
        text = content.decode("utf-8-sig")
        if ending in (".json", ".toml"):
            written = _read_json(text) if ending == ".json" else _read_toml(text)
            named = [(f"{path}, symbol {i}", name) for i, name in enumerate(written, 1)]
        else:
            named = [(f"{path}:{number}", name) for number, name in _read_lines(text)]
    except (ValueError, RecursionError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError([Problem(path, key, f"{reason}; it is no file of symbols")]) from error
    if not named:
        message = "names no symbols: write at least one, such as BTCUSDT"
        raise ConfigError([Problem(path, key, message)])
    several = [
        Problem(where, key, f"{name[:80]!r} holds {found[0]!r}: write one symbol a line")
        for where, name in named
        if (found := _SEPARATED.search(name))
    ]
    if not several:
        return collect(named, key)
    try:
        collect([line for line in named if not _SEPARATED.search(line[1])], key)
    except ConfigError as error:
        several.extend(error.problems)
    raise ConfigError(several)


def _read_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(), which takes characters for line ends that no editor does.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if name := _COMMENT.sub("", line).strip():
            yield number, name


def _read_json(text: str) -> list[str]:
    try:
        return _check_list(json.loads(text), "a list of texts")
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error


def _read_toml(text: str) -> list[str]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from error
    if unknown := set(table) - {"symbols"}:
        raise ValueError(f"holds {', '.join(sorted(unknown))} beside symbols")
    return _check_list(table.get("symbols"), "symbols = [...] with texts")


def _check_list(value: Any, wanted: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"does not hold {wanted}")
    for number, name in enumerate(value, 1):
        if not isinstance(name, str):
            raise ValueError(f"does not hold {wanted}: number {number} is {name!r:.80}")
    return value
