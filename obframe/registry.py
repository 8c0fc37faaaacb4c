"""Loads plugins by name, checks what they offer, and calls their observers. Nothing is global."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from obframe import hookspecs
from obframe.errors import PluginError
from obframe.hookcalls import call_hook, is_traced
from obframe.observers import Observers
from obframe.protocols import Provider
from obframe.vetting import (
    HOOKS,
    KINDS,
    Kind,
    check_api,
    check_hooks,
    check_providers,
    check_sections,
)

logger = logging.getLogger("obframe.registry")

GROUP = "obframe.plugins"


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that passed every check.

    Attributes:
        name: Its entry point's name.
        distribution: The distribution that brought it; empty when unknown.
        version: That distribution's version; empty when unknown.
        module: What its entry point names, such as ``package.module``.
        api: The version of the plugin API that it says it is for; None when it says nothing.
        summary: First line of its docstring.
        hooks: Those it implements, in the order of ``obframe.hookspecs``.
        providers: What it offers, by kind's name.
        sections: Its settings that belong to no provider, by section.
    """

    name: str
    distribution: str
    version: str
    module: str
    api: int | None
    summary: str
    hooks: tuple[str, ...]
    providers: Mapping[str, tuple[Provider[Any], ...]]
    sections: Mapping[str, type[Any]] = field(default_factory=dict)


def installed_plugins() -> dict[str, list[EntryPoint]]:
    """List all installed plugins' entry points by name; several under one name are a clash."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        same = found.setdefault(entry.name, [])
        # An editable install and its checkout may both be on the path and tell the same.
        if all((entry.value, _project(entry)) != (other.value, _project(other)) for other in same):
            same.append(entry)
    return found


def _project(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _version(entry: EntryPoint) -> str:
    return entry.dist.version if entry.dist is not None else ""


class Registry:
    """The plugins of one run. Made by ``load``.

    Attributes:
        plugins: In the order they were loaded.
        observers: Where observers run.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._installed = installed_plugins()
        self._trace = is_traced(os.environ)
        self.plugins: list[LoadedPlugin] = []
        self.observers = Observers()

    def add(self, name: str) -> None:
        """Load and check one more plugin; loading it twice changes nothing.

        Raises:
            PluginError: It is not installed, cannot be imported, or breaks a rule.
        """
        if any(plugin.name == name for plugin in self.plugins):
            return
        entry = self._entry(name)
        module = _import(entry)
        check_api(name, module, _project(entry))
        check_hooks(name, module)
        try:
            self._manager.register(module, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(name, str(error), "correct the hook's arguments") from error
        try:
            self.plugins.append(self._collect(name, entry, module))
        except PluginError:
            self._manager.unregister(name=name)
            raise

    def _entry(self, name: str) -> EntryPoint:
        entries = self._installed.get(name, [])
        if len(entries) > 1:
            projects = " and ".join(f"{_project(entry)} {_version(entry)}" for entry in entries)
            reason = f"is offered by several distributions: {projects}"
            raise PluginError(name, reason, "uninstall all but one")
        if not entries:
            mend = "installed: " + (", ".join(self._installed) or "none")
            if close := difflib.get_close_matches(name, self._installed, n=1):
                mend += f"; did you mean {close[0]!r}?"
            raise PluginError(name, "is not installed", mend)
        return entries[0]

    def _collect(self, name: str, entry: EntryPoint, module: object) -> LoadedPlugin:
        providers: dict[str, tuple[Provider[Any], ...]] = {}
        for kind in KINDS:
            for result in self._offers(kind.hook, name):
                for provider in check_providers(name, kind, result):
                    self._check_clash(name, kind, provider, providers)
                    providers[kind.name] = (*providers.get(kind.name, ()), provider)
        own = {one.name: one.settings for many in providers.values() for one in many}
        sections: dict[str, type[Any]] = {}
        for result in self._offers("obframe_settings", name):
            for section, settings in check_sections(name, result).items():
                if {**self.sections(), **own}.get(section, settings) is not settings:
                    reason = f"its section {section!r} has another meaning already"
                    raise PluginError(name, reason, "give the section another name")
                sections[section] = settings
        return LoadedPlugin(
            name=name,
            distribution=_project(entry),
            version=_version(entry),
            module=entry.value,
            api=getattr(module, "OBFRAME_API", None),
            summary=(inspect.getdoc(module) or "").partition("\n")[0].replace("``", ""),
            hooks=tuple(hook for hook in HOOKS if any(self._implementations(hook, name))),
            providers=providers,
            sections=sections,
        )

    def _offers(self, hook: str, plugin: str) -> Iterator[Any]:
        """Call a plugin's hook that offers something, and yield what it returned."""
        for implementation in self._implementations(hook, plugin):
            try:
                result = call_hook(hook, implementation, trace=self._trace)
            except Exception as error:
                reason = f"{hook} raised {type(error).__name__}: {error}"
                raise PluginError(plugin, reason, "correct the hook") from error
            yield result

    def _check_clash(
        self,
        name: str,
        kind: Kind,
        provider: Provider[Any],
        own: Mapping[str, Sequence[Provider[Any]]],
    ) -> None:
        mend = "give one of them another name"
        what = f"{kind.name} {provider.name!r}"
        others = [(name, each, other) for each, many in own.items() for other in many]
        others += [
            (plugin.name, each, other)
            for plugin in self.plugins
            for each, many in plugin.providers.items()
            for other in many
        ]
        for plugin, other_kind, other in others:
            if other.name != provider.name:
                continue
            if other_kind == kind.name:
                raise PluginError(name, f"offers the {what}, and so does {plugin!r}", mend)
            if other.settings is not provider.settings:
                reason = f"{what} and {other_kind} of the same name have different settings"
                raise PluginError(name, f"{reason} (plugin {plugin!r})", mend)
        for loaded in self.plugins:
            if loaded.sections.get(provider.name, provider.settings) is not provider.settings:
                reason = f"{what} has the name of a section of plugin {loaded.name!r}"
                raise PluginError(name, reason, mend)

    def _implementations(self, hook: str, plugin: str | None = None) -> Iterator[pluggy.HookImpl]:
        """Yield the implementations of a hook, all or one plugin's, in the order of loading."""
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            if plugin in (None, implementation.plugin_name):
                yield implementation

    def providers(self, kind: Kind) -> list[Provider[Any]]:
        """List what the loaded plugins offer of a kind."""
        return [one for plugin in self.plugins for one in plugin.providers.get(kind.name, ())]

    def choose(self, kind: Kind, name: str | None = None) -> Provider[Any]:
        """Return the provider of this name, or the only one.

        Raises:
            PluginError: There is none of this name, or several and none was named.
        """
        offered = {provider.name: provider for provider in self.providers(kind)}
        names = ", ".join(offered) or "none"
        if name is None:
            if len(offered) == 1:
                return next(iter(offered.values()))
            reason = f"{len(offered)} loaded plugins offer a {kind.name}: {names}"
            raise PluginError(names, reason, f"choose one with {kind.option} NAME")
        if name not in offered:
            reason = f"no loaded plugin offers the {kind.name} {name!r} (loaded: {names})"
            raise PluginError(name, reason, self._find_offer(kind, name, offered))
        return offered[name]

    def _find_offer(self, kind: Kind, name: str, offered: Collection[str]) -> str:
        """Say how to come by a provider that no loaded plugin offers."""
        if close := difflib.get_close_matches(name, offered, n=1):
            return f"did you mean {close[0]!r}?"
        for other in self._others():
            if any(provider.name == name for provider in other.providers(kind)):
                return f"load the plugin that does, with --plugins {other.plugins[0].name}"
        return "load the plugin that does with --plugins; `obframe plugins` lists what each offers"

    def sections(self) -> dict[str, type[Any]]:
        """Return every settings dataclass of the loaded plugins by section."""
        found = {one.name: one.settings for kind in KINDS for one in self.providers(kind)}
        for plugin in self.plugins:
            found.update(plugin.sections)
        return found

    def has_section(self, section: str) -> bool:
        """Tell whether a plugin that is installed, loaded or not, has this section of settings.

        Loads the other plugins to look at what they offer when no plugin bears the name itself.
        """
        if section in self._installed or section in self.sections():
            return True
        return any(section in other.sections() for other in self._others())

    def _others(self) -> Iterator[Registry]:
        """Yield the plugins that are installed and not loaded, each loaded by itself."""
        loaded = {plugin.name for plugin in self.plugins}
        for name in self._installed:
            if name not in loaded:
                probe = Registry()
                try:
                    probe.add(name)
                except PluginError:
                    continue  # it is not asked for in this run
                yield probe

    def notify(self, hook: str, **arguments: Any) -> None:
        """Have every observer of a hook called, in order, in its plugin's own thread.

        Returns at once. An observer that raises or does not return is named, counted and passed
        over; see ``obframe.observers``.
        """
        for implementation in self._implementations(hook):
            call = partial(call_hook, hook, implementation, arguments, trace=self._trace)
            self.observers.call(implementation.plugin_name, hook, call)


def load(names: Sequence[str] = (), kinds: Collection[Kind] = KINDS) -> Registry:
    """Load plugins by entry-point name, then the defaults of the kinds that none of them offers.

    Args:
        names: Entry-point names in order.
        kinds: The kinds that this run needs; only these get a default.

    Raises:
        PluginError: A plugin is unknown, cannot be loaded, or breaks a rule; it tells of all that
            are or do.
    """
    registry = Registry()
    errors: list[PluginError] = []
    for name in dict.fromkeys(names):
        try:
            registry.add(name)
        except PluginError as error:
            errors.append(error)
    if errors:
        raise PluginError.of_several(errors) from errors[0].__cause__
    for kind in KINDS:
        if kind in kinds and kind.default and not registry.providers(kind):
            registry.add(kind.default)
    return registry


def _import(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        reason = f"cannot be imported: {type(error).__name__}: {error}"
        mend = f"correct {entry.value} or leave it out of --plugins"
        if isinstance(error, ModuleNotFoundError) and error.name:
            project = _project(entry) or "the plugin"
            mend = f"install what it needs ({error.name}), or reinstall {project} with its extras"
        elif isinstance(error, ImportError):
            mend = f"it may be made for another version of obframe or of {error.name}: upgrade it"
        raise PluginError(entry.name, reason, mend) from error
