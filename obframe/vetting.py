"""The kinds of parts that plugins offer, and the checks that an offer passes at start."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from obframe import hookspecs
from obframe.errors import PluginError
from obframe.protocols import Feed, Provider, Sink, Storage, SymbolSource
from obframe.settings import CORE_SECTIONS

API = 1
"""Version of the hooks and protocols; a plugin may say which it is for: ``OBFRAME_API = 1``.

It rises when a plugin made for the version before has to be told apart from one made for this.
"""

OLDEST_API = 1
"""Plugins for this version and all up to ``API`` are taken. It rises two minor versions of obframe
after the one that warned of it, at the earliest."""

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith(hookspecs.PROJECT + "_"))
"""Names of all hooks."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_CONTRACT = re.compile(r"([^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of part that plugins offer.

    Attributes:
        name: For a person.
        hook: The hook that collects its providers.
        protocol: What its providers open.
        default: Name of the plugin loaded when no named one offers this kind; empty for none.
        option: The command line's option that chooses between several; empty where all are used.
    """

    name: str
    hook: str
    protocol: type[Any]
    default: str
    option: str


SYMBOL_SOURCE = Kind(
    "symbol source", "obframe_symbol_sources", SymbolSource, "static", "--symbol-source"
)
FEED = Kind("feed", "obframe_feeds", Feed, "binance", "--feed")
STORAGE = Kind("storage", "obframe_storages", Storage, "rocksdb", "--storage")
SINK = Kind("sink", "obframe_sinks", Sink, "", "")
KINDS = (SYMBOL_SOURCE, FEED, STORAGE, SINK)


def check_api(name: str, module: object, project: str = "") -> None:
    """Refuse a plugin made for a version of the hooks and protocols that is not supported.

    Args:
        name: The plugin's name.
        module: The plugin; it may have ``OBFRAME_API``.
        project: The distribution that brought it, for the mend.

    Raises:
        PluginError: It is; or ``OBFRAME_API`` is no version.
    """
    wanted = getattr(module, "OBFRAME_API", API)
    if type(wanted) is not int or wanted < 1:
        reason = f"OBFRAME_API is {wanted!r}, which is no version of the plugin API"
        raise PluginError(name, reason, f"write OBFRAME_API = {API}")
    if OLDEST_API <= wanted <= API:
        return
    ours = f"this obframe {importlib.metadata.version('obframe')}"
    span = f"{API}" if OLDEST_API == API else f"{OLDEST_API} to {API}"
    mend = f"upgrade the plugin: pip install --upgrade {project or name}"
    if wanted > API:
        mend = f"upgrade obframe: pip install --upgrade obframe, or take an older {project or name}"
    raise PluginError(name, f"is made for plugin API {wanted}; {ours} supports {span}", mend)


def check_hooks(name: str, module: object) -> None:
    """Refuse hooks that pluggy would let pass and never call, or call in vain.

    Raises:
        PluginError: A hook is misspelt, unmarked, async, a wrapper, or has defaults.
    """
    marker = hookspecs.PROJECT + "_impl"
    own = getattr(module, "__name__", None)
    for attribute in dir(module):
        function = inspect.getattr_static(module, attribute, None)
        function = getattr(function, "__func__", function)
        if not inspect.isroutine(function):
            continue
        options = getattr(function, marker, None)
        if options is None:
            if attribute in HOOKS and getattr(function, "__module__", None) == own:
                raise PluginError(name, f"{attribute} is not marked", "decorate it with @hookimpl")
            continue
        hook = options.get("specname") or attribute
        if hook not in HOOKS:
            close = difflib.get_close_matches(hook, HOOKS, n=1)
            mend = f"did you mean {close[0]}?" if close else "hooks: " + ", ".join(HOOKS)
            raise PluginError(name, f"{hook} is no hook of obframe", mend)
        if options.get("wrapper") or options.get("hookwrapper"):
            raise PluginError(name, f"{hook} is a wrapper", "hooks here are called one by one")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            reason = f"{hook} is async, and would never be awaited"
            raise PluginError(name, reason, "make it a plain function")
        parameters = inspect.signature(function).parameters.values()
        if any(parameter.default is not parameter.empty for parameter in parameters):
            reason = f"{hook} has an argument with a default, which would hide the real value"
            raise PluginError(name, reason, "remove the default")


def check_providers(plugin: str, kind: Kind, result: object) -> Sequence[Provider[Any]]:
    """Check what a plugin's hook returned.

    Returns:
        The same, known to be providers.

    Raises:
        PluginError: It is not a sequence of well-formed providers.
    """
    if not isinstance(result, Sequence) or not all(isinstance(one, Provider) for one in result):
        reason = f"{kind.hook} returned {result!r:.80}, not a list of Provider"
        raise PluginError(plugin, reason, "return [Provider(...)]")
    for provider in result:
        _check_provider(plugin, kind, provider)
    return result


def _check_provider(plugin: str, kind: Kind, provider: Provider[Any]) -> None:
    what = f"{kind.name} {provider.name!r}"

    def refuse(reason: str, mend: str) -> PluginError:
        return PluginError(plugin, f"{what}: {reason}", mend)

    _check_section(plugin, what, provider.name, provider.settings)
    if not isinstance(provider.summary, str) or not provider.summary.strip():
        raise refuse("has no summary", "say in one line what it is")
    if not callable(provider.open):
        raise refuse("open cannot be called", "give a function that takes the settings")
    if not isinstance(provider.contract, str) or not _CONTRACT.fullmatch(provider.contract):
        reason = f"its contract is {provider.contract!r}, which names no class"
        raise refuse(reason, "write it as package.module:Class, or leave it out")


def check_sections(plugin: str, result: object) -> Mapping[str, type[Any]]:
    """Check the sections of settings that a plugin's hook returned.

    Returns:
        The same, known to be settings dataclasses by name.

    Raises:
        PluginError: It is no mapping, or one of them is not well-formed.
    """
    if not isinstance(result, Mapping):
        reason = f"obframe_settings returned {result!r:.80}, not a mapping"
        raise PluginError(plugin, reason, 'return {"section": SettingsDataclass}')
    for section, settings in result.items():
        _check_section(plugin, f"section {section!r}", section, settings)
    return result


def _check_section(plugin: str, what: str, section: object, settings: object) -> None:
    def refuse(reason: str, mend: str) -> PluginError:
        return PluginError(plugin, f"{what}: {reason}", mend)

    if not isinstance(section, str) or not _NAME.fullmatch(section):
        raise refuse("is no name for a section", "use a-z, 0-9, _ and -, beginning with a letter")
    if section in CORE_SECTIONS:
        raise refuse("is a section of obframe itself", "give it another name")
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        raise refuse("its settings are no dataclass", "use @dataclass(frozen=True)")
    if not settings.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise refuse("its settings can be changed", "use @dataclass(frozen=True)")
    for field in dataclasses.fields(settings):
        if field.default is field.default_factory is dataclasses.MISSING:
            raise refuse(f"its setting {field.name!r} has no default", "give it one")


def check_protocol(part: object, kind: Kind, name: str) -> None:
    """Check what a provider opened against its protocol, member by member.

    Args:
        part: The object.
        kind: Which kind it should be.
        name: The provider's name, for the message.

    Raises:
        PluginError: Members are missing, not callable, async where they must not be or the other
            way round, or do not take the protocol's arguments; the message names all of them.
    """
    faults: list[str] = []
    for member, specified in vars(kind.protocol).items():
        if member.startswith("_") or not inspect.isfunction(specified):
            continue
        found = getattr(part, member, None)
        if found is None:
            faults.append(f"{member} is missing")
        elif not callable(found):
            faults.append(f"{member} cannot be called")
        else:
            faults.extend(_compare(member, specified, found))
    if faults:
        reason = f"what it opens is not a {kind.name}: " + ", ".join(faults)
        raise PluginError(name, reason, f"see obframe.protocols.{kind.protocol.__name__}")


def _compare(
    member: str, specified: Callable[..., Any], found: Callable[..., Any]
) -> Iterator[str]:
    must_wait = inspect.iscoroutinefunction(specified)
    if inspect.iscoroutinefunction(found) != must_wait:
        yield f"{member} must {'' if must_wait else 'not '}be async"
    arguments = len(inspect.signature(specified).parameters) - 1
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return  # built-in callables may have none
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        yield f"{member}{signature} does not take {arguments} arguments"
