"""What the sinks to brokers share: their libraries, names made of symbols, and texts for people."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from types import ModuleType
from urllib.parse import quote, unquote, urlsplit

from obframe import PluginError

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
        raise PluginError(
            plugin,
            f"its library {library} cannot be imported: {error}",
            f"pip install 'obframe[{plugin}]'",
        ) from error


def check_template(name: str, template: str, needs_symbol: bool) -> str:
    """Say what is wrong with a template for names; nothing when it can be used."""
    if not template or template.isspace():
        return f"{name} is empty"
    if needs_symbol and SYMBOL not in template:
        return f"{name} is {template!r}; it must hold {SYMBOL}, each symbol has its own"
    rest = template.replace(SYMBOL, "")
    if "{" in rest or "}" in rest:
        return f"{name} is {template!r}; {SYMBOL} is all that is replaced in it"
    return ""


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text for people without user names and passwords of URLs and without the secrets."""
    for secret in sorted({each for each in secrets if each}, key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, HIDDEN)
    return _USER_INFO.sub(HIDDEN, text)


def secrets_of(*urls: str) -> list[str]:
    """Return the passwords and tokens that stand in URLs, as written and unquoted."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        # What stands before the @ alone, without a colon, is a token to NATS.
        for secret in (parts.password, parts.username if parts.password is None else None):
            if secret:
                found += [secret, unquote(secret)]
    return found


def check_url(name: str, url: str, schemes: Iterable[str]) -> str:
    """Say what is wrong with a server's URL, without telling its password; nothing when it is good."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in schemes and bool(parts.hostname or parts.scheme == "unix")
        is_good = is_good and parts.port != 0
    except ValueError:
        is_good = False
    if is_good:
        return ""
    # A password with a slash or a hash sign makes the rest of the URL nonsense: nothing is shown.
    shown = repr(url) if "@" not in url else "not shown, as it may hold a password"
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    return f"{name} is no URL of a server ({shown}); use {wanted}host:port, and quote what is no letter or digit in a password (%2F for /)"
