"""Reads settings: file, environment, ``--set`` and ``--symbols``, in rising order.

A section is ``recorder``, ``retention``, the name of a loaded provider, or one that a loaded plugin
has besides. Every mistake in every source is collected and raised as one ``ConfigError``.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from obframe.errors import ConfigError, Problem
from obframe.settings import CORE_SECTIONS, Duration, Settings, Size, is_list, type_text

DEFAULT_FILE = "obframe.toml"
ENVIRONMENT_PREFIX = "OBFRAME_"
SYMBOLS_VARIABLE = "PERSISTENT_SYMBOLS"
SYMBOLS_KEY = ("static", "symbols")

# Variables of our own build and test tools that share the prefix.
_NOT_SETTINGS = frozenset(
    {
        "OBFRAME_CAPTURES",
        "OBFRAME_CFLAGS",
        "OBFRAME_CORRUPTION_ROUNDS",
        "OBFRAME_CRASH_ROUNDS",
        "OBFRAME_LOAD_SECONDS",
        "OBFRAME_REQUIRE_CAPTURES",
        "OBFRAME_REQUIRE_SERVERS",
        "OBFRAME_TRACEBACK",
        "OBFRAME_TRACE_HOOKS",
    }
)


def load_settings(
    sections: Mapping[str, type[Any]],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    symbols: str | None = None,
    installed: Callable[[str], bool] = lambda _section: False,
    refusals: Callable[[Sequence[str]], Iterable[str]] | None = None,
) -> Settings:
    """Read all sources into settings.

    Args:
        sections: The settings dataclass of each section of the loaded plugins.
        config: The file of ``--config``, which must exist; None reads ``obframe.toml`` in the
            current folder if there is one.
        environ: The environment; None for an empty one.
        assignments: The texts of ``--set``, such as ``rocksdb.path=data``.
        symbols: The text of ``--symbols``, such as ``BTCUSDT,ETHUSDT``.
        installed: Whether a section belongs to a plugin that is installed but not loaded in this
            run; such sections are passed over.
        refusals: Tells what is wrong with ``static.symbols``, seen together with the loaded feeds.

    Raises:
        ConfigError: Something is wrong; it holds every mistake of every source.
    """
    reader = _Reader({**CORE_SECTIONS, **sections}, installed)
    reader.read_file(config)
    reader.read_environment(environ or {})
    for assignment in assignments:
        reader.read_assignment(assignment)
    if symbols is not None:
        reader.read_symbols(symbols)
    made = reader.finish(refusals)
    return Settings(recorder=made.pop("recorder"), retention=made.pop("retention"), providers=made)


@dataclass(frozen=True, slots=True)
class _Given:
    where: Callable[[], str]
    value: Any


class _Reader:
    """Collects values and problems source by source; later sources win."""

    def __init__(self, sections: Mapping[str, type[Any]], installed: Callable[[str], bool]) -> None:
        self._sections = sections
        self._installed = installed
        self._hints = {
            name: get_type_hints(kind, include_extras=True) for name, kind in sections.items()
        }
        self._given: dict[str, dict[str, _Given]] = {name: {} for name in sections}
        self._problems: list[Problem] = []

    def read_file(self, config: Path | None) -> None:
        path = config if config is not None else Path(DEFAULT_FILE)
        if config is None and not path.is_file():
            return
        try:
            text = path.read_text(encoding="utf-8")
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"line (\d+)", str(error))
            self._problem(f"{path}:{line[1]}" if line else str(path), "", f"is not TOML: {error}")
            return
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            mend = "give --config a file that can be read"
            if isinstance(error, FileNotFoundError):
                mend = "check the path, or leave --config out"
            self._problem(str(path), "", f"cannot be read: {reason}; {mend}")
            return
        lines = _Lines(path, text)
        for section, content in table.items():
            if not isinstance(content, dict):
                mend = "put it under a section such as [static]"
                if section == "symbols":
                    mend = "write it as symbols under [static]"
                self._problem(lines.where(section), section, f"stands in no section; {mend}")
            elif self._known(lines.where, section, section):
                for key, value in content.items():
                    where = _bind(lines.where, section, key)
                    self._take(where, section, key, value, is_text=False)

    def read_environment(self, environ: Mapping[str, str]) -> None:
        if SYMBOLS_VARIABLE in environ and SYMBOLS_KEY[0] in self._sections:
            where = _bind("environment {}".format, SYMBOLS_VARIABLE)
            self._take(where, *SYMBOLS_KEY, environ[SYMBOLS_VARIABLE], is_text=True)
        for variable in sorted(environ):
            if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
                continue
            where = _bind("environment {}".format, variable)
            rest = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
            section, key = self._split_variable(rest)
            if section in self._sections:
                self._take(where, section, key, environ[variable], is_text=True)
            elif not self._is_installed_variable(rest):
                self._problem(
                    where(),
                    rest,
                    f"names no section{_closest(rest, self._variables(), '; did you mean ')}",
                )

    def _split_variable(self, rest: str) -> tuple[str, str]:
        # Names of sections may hold underscores: prefer the split that yields a known key.
        splits = [
            (section, rest[len(prefix) :])
            for section in sorted(self._sections, key=len, reverse=True)
            if rest.startswith(prefix := section.replace("-", "_") + "_")
        ]
        exact = [split for split in splits if split[1] in self._hints[split[0]]]
        return (exact or splits or [("", "")])[0]

    def _is_installed_variable(self, rest: str) -> bool:
        words = rest.split("_")
        return any(
            self._installed(joiner.join(words[:count]))
            for count in range(1, len(words))
            for joiner in ("_", "-")
        )

    def _variables(self) -> Iterable[str]:
        return (f"{name}_{key}" for name, hints in self._hints.items() for key in hints)

    def read_assignment(self, assignment: str) -> None:
        name, equals, value = assignment.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            self._problem("--set", "", f"{assignment!r} is not of the form section.key=value")
        elif self._known("--set {}".format, section, name.strip()):
            self._take(_bind("--set {}".format, name.strip()), section, key, value, is_text=True)

    def read_symbols(self, symbols: str) -> None:
        if SYMBOLS_KEY[0] in self._sections:
            self._take(lambda: "--symbols", *SYMBOLS_KEY, symbols, is_text=True)
        else:
            message = (
                "sets static.symbols, but the symbol source 'static' is not loaded in this run; "
                "add static to --plugins to record these too"
            )
            self._problem("--symbols", "", message)

    def _known(self, where: Callable[[str], str], section: str, shown: str) -> bool:
        if section in self._sections:
            return True
        if not self._installed(section):
            mend = _closest(section, self._sections, "did you mean ")
            mend = mend or "sections here: " + ", ".join(self._sections)
            self._problem(where(shown), section, f"no plugin has this section; {mend}")
        return False

    def _take(
        self, where: Callable[[], str], section: str, key: str, value: Any, *, is_text: bool
    ) -> None:
        hints = self._hints[section]
        dotted = f"{section}.{key}"
        if key not in hints:
            mend = _closest(key, hints, "did you mean ") or "keys here: " + ", ".join(hints)
            self._problem(where(), dotted, f"unknown key; {mend}")
            return
        try:
            converted = _convert(value, hints[key], is_text)
        except msgspec.ValidationError as error:
            self._problem(where(), dotted, _refusal(error, value, hints[key]))
        else:
            self._given[section][key] = _Given(where, converted)

    def finish(
        self, refusals: Callable[[Sequence[str]], Iterable[str]] | None = None
    ) -> dict[str, Any]:
        made = {name: self._make(name, kind) for name, kind in self._sections.items()}
        section, key = SYMBOLS_KEY
        if refusals is not None and made.get(section) is not None:
            given = self._given[section].get(key)
            where = "defaults" if given is None else given.where()
            for refusal in refusals(getattr(made[section], key)):
                self._problem(where, f"{section}.{key}", refusal)
        if self._problems:
            raise ConfigError(self._problems)
        return made

    def _make(self, section: str, kind: type[Any]) -> Any:
        given = self._given[section]
        try:
            return kind(**{key: one.value for key, one in given.items()})
        except ValueError as error:
            whole = error
        refused = False
        for key, one in given.items():
            # Each value alone against the defaults, so that no refusal hides another.
            try:
                kind(**{key: one.value})
            except ValueError as error:
                refused = True
                self._problem(one.where(), f"{section}.{key}", str(error))
        if not refused:  # the values are good one by one, but do not go together
            where = ", ".join(dict.fromkeys(one.where() for one in given.values()))
            self._problem(where or "defaults", section, str(whole))
        return None

    def _problem(self, where: str, key: str, message: str) -> None:
        self._problems.append(Problem(where, key, message))


def _bind(function: Callable[..., str], *arguments: str) -> Callable[[], str]:
    return lambda: function(*arguments)


def _convert(value: Any, annotation: Any, is_text: bool) -> Any:
    if is_text and is_list(annotation):
        value = [part.strip() for part in value.split(",") if part.strip()]
    converted = msgspec.convert(value, annotation, strict=not is_text, dec_hook=_decode)
    if isinstance(converted, float) and math.isnan(converted):
        raise msgspec.ValidationError("NaN is not a value")
    return converted


def _decode(kind: type[Any], value: Any) -> Any:
    if kind in (Duration, Size):
        try:
            return kind.parse(value)
        except ValueError as error:
            raise _OwnWords(str(error)) from error
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
        return Path(value).expanduser()
    raise ValueError(f"settings cannot hold values of the type {kind.__name__}")


_TYPE_MISMATCH = re.compile(r"Expected `[^`]*`, got `|Invalid enum value ")


def _refusal(error: msgspec.ValidationError, value: Any, annotation: Any) -> str:
    """Say once what was given and what is wanted; msgspec's own words name Python's types."""
    if isinstance(error.__cause__, _OwnWords):
        return str(error.__cause__)
    wanted = f"expected {type_text(annotation)}, got {_shorten(value)}"
    if _TYPE_MISMATCH.match(str(error)):
        return wanted
    return f"{error}; {wanted}"


class _OwnWords(ValueError):
    """A refusal whose text tells the value already."""


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _closest(word: str, choices: Iterable[str], lead: str) -> str:
    found = difflib.get_close_matches(word, list(choices), n=1)
    return f"{lead}{found[0]!r}?" if found else ""


class _Lines:
    """Finds the line at which a key of a TOML text is set.

    tomllib tells no lines. A key's statement begins after the longest beginning of the text that
    parses and does not hold the key yet; this holds for every way TOML has to write it.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines(keepends=True)
        self._found: dict[tuple[str, ...], int] | None = None

    def where(self, *keys: str) -> str:
        if self._found is None:
            self._found = self._scan()
        line = self._found.get(keys)
        return f"{self._path}:{line}" if line else str(self._path)

    def _scan(self) -> dict[tuple[str, ...], int]:
        found: dict[tuple[str, ...], int] = {}
        whole = 0
        for count in range(1, len(self._lines) + 1):
            try:
                table = tomllib.loads("".join(self._lines[:count]))
            except tomllib.TOMLDecodeError:
                continue
            for section, content in table.items():
                found.setdefault((section,), whole + 1)
                for key in content if isinstance(content, dict) else ():
                    found.setdefault((section, key), whole + 1)
            whole = count
        return found
