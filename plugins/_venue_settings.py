"""What the settings of venues' feeds have in common: what is wrong with them, and proxies."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from obframe_plugins._websocket import LIBRARIES, is_installed

_SCHEMES = {"rest_url": ("http", "https"), "ws_url": ("ws", "wss")}


def setting(default: Any, text: str) -> Any:
    """Return a field with its help."""
    return dataclasses.field(default=default, metadata={"help": text})


def check_common(settings: Any, *, least_message_bytes: int = 1024) -> list[str]:
    """Say what is wrong with the settings that every venue has. All floats are times."""
    found = [
        f"{name} is {url!r}; {mend}"
        for name, schemes in _SCHEMES.items()
        if (mend := _check_url(url := getattr(settings, name, ""), schemes))
    ]
    proxy = settings.proxy
    if proxy not in ("", "none") and (mend := _check_url(proxy, ("http",))):
        found.append(f"proxy is {proxy!r}; {mend}, or 'none'")
    if mend := _check_transport(settings.transport):
        found.append(mend)
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if isinstance(item.default, float) and not (0 < value < math.inf):
            found.append(f"{item.name} is {value!r}; use a number of seconds above 0")
    if settings.max_message_bytes < least_message_bytes:
        found.append(
            f"max_message_bytes is {settings.max_message_bytes}; use {least_message_bytes} or more"
        )
    if settings.stale_after > settings.idle_timeout:
        found.append(
            f"stale_after is {settings.stale_after:g}, above idle_timeout "
            f"{settings.idle_timeout:g}; make it the smaller one"
        )
    return found


def _check_url(url: str, schemes: tuple[str, ...]) -> str:
    """Return what is wrong with a URL of the settings; nothing when it is good or empty."""
    if not url:
        return ""
    wanted = " or ".join(f"{scheme}://host" for scheme in schemes)
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        return f"use {wanted}"
    return f"use {wanted} without '?' or '#'" if parts.query or parts.fragment else ""


def _check_transport(name: str) -> str:
    """Return what is wrong with the setting ``transport``, or nothing."""
    if name not in ("auto", *LIBRARIES):
        return f"transport is {name!r}; use auto, {' or '.join(LIBRARIES)}"
    if name != "auto" and not is_installed(name):
        return (
            f"transport is {name!r}, which is not installed; "
            "pip install 'obframe[fast]', or use 'auto'"
        )
    return ""


def find_proxy(wanted: str, url: str) -> str | None:
    """Return the proxy to reach a URL by. This machine is always reached directly.

    Args:
        wanted: A proxy's URL, ``none``, or nothing for what the environment says.
        url: Where to.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if wanted == "none" or _is_loopback(host):
        return None
    if wanted:
        return wanted
    if urllib.request.proxy_bypass(host):
        return None
    secure = parts.scheme in ("https", "wss")
    proxies = urllib.request.getproxies()
    return proxies.get("https" if secure else "http") or proxies.get("all")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
