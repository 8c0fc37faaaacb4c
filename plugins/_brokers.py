"""What the sinks to brokers share: their libraries, names made of symbols, texts for people."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from obframe import PluginError, Snapshot, snapshot_to_json

Format: TypeAlias = Literal["json", "msgpack"]

ENCODERS: dict[str, Callable[[Snapshot], bytes]] = {
    "json": snapshot_to_json,
    "msgpack": Snapshot.pack,
}
"""By format; ``msgpack`` is the stored bytes as they are, which do not say the symbol."""

FORMAT_HELP = "json, or msgpack: the stored bytes as they are"
TIMEOUT_HELP = "how long one answer may take; stay below recorder.sink_timeout"
SYMBOL = "{symbol}"
HIDDEN = "***"
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def load_library(plugin: str, *modules: str) -> tuple[ModuleType, ...]:
    """Import what a plugin needs beyond obframe, when it is opened and not before.

    Raises:
        PluginError: It is not installed, or cannot be imported.
    """
    try:
        return tuple(importlib.import_module(module) for module in modules)
    except ImportError as error:
        library = modules[0].partition(".")[0]
        reason = f"its library {library} cannot be imported: {error}"
        raise PluginError(plugin, reason, f"pip install 'obframe[{plugin}]'") from error


def check_template(name: str, template: str, *, needs_symbol: bool) -> list[str]:
    """Say what is wrong with a template for names."""
    if not template.strip():
        return [f"{name} is empty"]
    if needs_symbol and SYMBOL not in template:
        return [f"{name} is {template!r}; it must hold {SYMBOL}, as each symbol has its own"]
    rest = template.replace(SYMBOL, "")
    if "{" in rest or "}" in rest:
        return [f"{name} is {template!r}; {SYMBOL} is all that is replaced in it"]
    return []


def check_url(name: str, url: str, schemes: Iterable[str]) -> list[str]:
    """Say what is wrong with a server's URL, without telling its password."""
    try:
        parts = urlsplit(url)
        if parts.scheme in schemes and parts.port != 0 and (parts.hostname or parts.path):
            return []
    except ValueError:
        pass
    # A password that is not quoted makes the rest of the URL nonsense: nothing of it is shown.
    shown = "has a part before @ that cannot be read; quote it (%2F for /)"
    if "@" not in url:
        shown = f"is {url!r}"
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    return [f"{name} {shown}; use {wanted}host:port"]


def check_positive(settings: object, *names: str) -> list[str]:
    """Say which of these settings are not above 0."""
    return [
        f"{name} is {value}; use more than 0"
        for name in names
        if not (value := getattr(settings, name)) > 0
    ]


def refuse(problems: Iterable[str]) -> None:
    """Raise one error of all that is wrong with some settings.

    Raises:
        ValueError: There is a problem.
    """
    if told := "; ".join(problems):
        raise ValueError(told)


def secrets_of(*urls: str) -> list[str]:
    """Return the passwords and tokens that stand in URLs, as written and unquoted."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        # What stands before the @ alone, without a colon, is a token to NATS.
        secret = parts.username if parts.password is None else parts.password
        if secret:
            found += [secret, unquote(secret)]
    return found


def hide(text: object, secrets: Iterable[str] = ()) -> str:
    """Return a text for people without the user's part of URLs and without the secrets."""
    told = str(text)
    for secret in sorted({each for each in secrets if each}, key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            told = told.replace(form, HIDDEN)
    return _USER_INFO.sub(HIDDEN, told)
