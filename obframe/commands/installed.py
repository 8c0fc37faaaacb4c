"""The command that lists plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from obframe.commands.output import Format, note, write
from obframe.errors import PluginError
from obframe.registry import Registry, installed_plugins
from obframe.vetting import KINDS


class Offer(NamedTuple):
    """One line of the list: what one plugin offers of one kind."""

    plugin: str
    kind: str
    provider: str
    distribution: str
    summary: str
    default: bool


def plugins(output: Format) -> int:
    """Print every installed plugin and what it offers.

    Returns:
        4 when one of them cannot be loaded, else 0.
    """
    failures: list[PluginError] = []
    write(
        output,
        _offers(failures),
        columns=("plugin", "kind", "name", "from", "summary")
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
        registry = Registry()
        try:
            registry.add(name)
        except PluginError as error:
            failures.append(error)
            continue
        (plugin,) = registry.plugins
        for kind in KINDS:
            for provider in plugin.providers.get(kind.name, ()):
                yield Offer(
                    plugin=name,
                    kind=kind.name,
                    provider=provider.name,
                    distribution=plugin.distribution,
                    summary=provider.summary,
                    default=kind.default == name,
                )
        if not plugin.providers:
            yield Offer(name, "observer", "", plugin.distribution, plugin.summary, False)
