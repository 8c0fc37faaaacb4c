"""The commands that tell of installed plugins: all of them, or one in full."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from obframe.commands.output import Format, note, say, write
from obframe.commands.table import clean, terminal_width
from obframe.errors import PluginError
from obframe.registry import LoadedPlugin, Registry, installed_plugins
from obframe.settings import describe
from obframe.vetting import API, KINDS, OLDEST_API

_WIDTH = 100
"""Characters of a line of help where the terminal's width is not known."""


class Offer(NamedTuple):
    """One line of the list: what one plugin offers of one kind."""

    plugin: str
    kind: str
    provider: str
    version: str
    distribution: str
    summary: str
    default: bool


def list_plugins(output: Format) -> int:
    """Print every installed plugin and what it offers.

    Returns:
        4 when one of them cannot be loaded, else 0.
    """
    failures: list[PluginError] = []
    write(
        output,
        _offers(failures),
        columns=("plugin", "kind", "name", "version", "from", "summary")
        if output is Format.TABLE
        else Offer._fields,
        cells=lambda offer: offer[:-1] if output is Format.TABLE else offer,
        value=Offer._asdict,
        title="installed plugins",
    )
    for failure in failures:
        note(str(failure))
    return 4 if failures else 0


def _offers(failures: list[PluginError]) -> Iterator[Offer]:
    for name in installed_plugins():
        try:
            plugin = load_one(name)
        except PluginError as error:
            failures.append(error)
            continue
        origin = {"version": plugin.version, "distribution": plugin.distribution}
        for kind in KINDS:
            for provider in plugin.providers.get(kind.name, ()):
                default = kind.default == name
                summary = provider.summary
                yield Offer(
                    name, kind.name, provider.name, **origin, summary=summary, default=default
                )
        if not plugin.providers:
            sections = ", ".join(plugin.sections)
            yield Offer(name, "observer", sections, **origin, summary=plugin.summary, default=False)


def load_one(name: str) -> LoadedPlugin:
    """Load one plugin to look at it, by its name or by that of a part it offers.

    Raises:
        PluginError: It is not installed, cannot be imported, or breaks a rule.
    """
    installed = installed_plugins()
    if name in installed:
        registry = Registry()
        registry.add(name)
        return registry.plugins[0]
    names = set(installed)
    for other in installed:
        registry = Registry()
        try:
            registry.add(other)
        except PluginError:
            continue  # it is not asked for
        if name in registry.sections():
            return registry.plugins[0]
        names |= set(registry.sections())
    mend = "installed: " + (", ".join(installed) or "none")
    if close := difflib.get_close_matches(name, names, n=1):
        mend += f"; did you mean {close[0]!r}?"
    raise PluginError(name, "is not installed", mend)


def show(name: str, output: Format) -> int:
    """Print what one plugin offers.

    Raises:
        PluginError: It is not installed, cannot be imported, or breaks a rule.
    """
    plugin = load_one(name)
    if output is Format.TABLE:
        say("\n".join(_describe(plugin)))
    else:
        say(msgspec.json.encode(_values(plugin)).decode())
    return 0


def _values(plugin: LoadedPlugin) -> dict[str, Any]:
    return {
        "plugin": plugin.name,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "module": plugin.module,
        "api": plugin.api,
        "summary": plugin.summary,
        "hooks": plugin.hooks,
        "providers": [
            {
                "kind": kind.name,
                "name": provider.name,
                "summary": provider.summary,
                "default": kind.default == plugin.name,
                "reader": provider.open_reader is not None,
                "contract": provider.contract,
                "settings": _settings(provider.settings),
            }
            for kind in KINDS
            for provider in plugin.providers.get(kind.name, ())
        ],
        "sections": {name: _settings(kind) for name, kind in plugin.sections.items()},
    }


def _settings(kind: type[Any]) -> list[dict[str, str]]:
    return [
        {"name": each.name, "type": each.type, "default": each.default, "help": each.help}
        for each in describe(kind)
    ]


def _describe(plugin: LoadedPlugin) -> Iterator[str]:
    origin = f" {plugin.version}, of {plugin.distribution}" if plugin.distribution else ""
    yield from _wrap(f"{plugin.name}{origin}: {plugin.summary or 'says nothing of itself'}")
    yield f"module: {clean(plugin.module)}"
    span = f"{API}" if OLDEST_API == API else f"{OLDEST_API} to {API}"
    stated = "not said" if plugin.api is None else f"{plugin.api}"
    yield f"made for plugin API: {stated} (supported: {span})"
    yield from _wrap("hooks: " + (", ".join(plugin.hooks) or "none"))
    for kind in KINDS:
        for provider in plugin.providers.get(kind.name, ()):
            yield ""
            default = ", the default" if kind.default == plugin.name else ""
            yield from _wrap(f"{kind.name} {provider.name}{default}: {provider.summary}")
            if provider.contract:
                yield f"  contract: obframe plugins check {plugin.name}"
            yield from _describe_settings(provider.name, provider.settings)
    for name, settings in plugin.sections.items():
        yield ""
        yield from _describe_settings(name, settings)


def _describe_settings(section: str, settings: type[Any]) -> Iterator[str]:
    fields = describe(settings)
    if not fields:
        yield "  no settings"
        return
    yield f"  settings, section [{section}]:"
    for each in fields:
        default = f", default {each.default}" if each.default else ""
        yield from _wrap(f"{each.name}: {each.type}{default}", "    ")
        yield from _wrap(each.help.replace("`", ""), "        ")


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        clean(text),
        terminal_width() or _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
