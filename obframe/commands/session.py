"""What commands share: plugins and settings chosen by options, parts opened and checked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obframe.config import load_settings
from obframe.errors import ObframeError, PluginError
from obframe.protocols import Provider, Storage
from obframe.registry import Registry, load
from obframe.settings import Settings
from obframe.vetting import SINK, STORAGE, Kind, check_protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options by which a person chooses plugins and settings.

    Attributes:
        plugins: Texts of ``--plugins``, each one name or several with commas.
        config: ``--config``.
        assignments: ``--set``.
        symbols: ``--symbols``.
        names: The provider chosen for a kind, by the kind's name.
        sinks: Texts of ``--sink``, likewise; empty for all sinks that are loaded.
    """

    plugins: tuple[str, ...] = ()
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    symbols: str | None = None
    names: dict[str, str | None]
    sinks: tuple[str, ...] = ()

    def load(self, kinds: Collection[Kind]) -> Session:
        """Load the plugins and read the settings.

        Raises:
            PluginError: A plugin cannot be loaded.
            ConfigError: The settings are wrong.
        """
        registry = load(_names(self.plugins), kinds)
        chosen = {kind.name: registry.choose(kind, self.names.get(kind.name)) for kind in kinds}
        settings = load_settings(
            registry.sections(),
            config=self.config,
            environ=os.environ,
            assignments=self.assignments,
            symbols=self.symbols,
            installed=registry.has_section,
        )
        wanted = _names(self.sinks) or [one.name for one in registry.providers(SINK)]
        sinks = [registry.choose(SINK, name) for name in dict.fromkeys(wanted)]
        return Session(registry, settings, chosen, tuple(sinks))


def _names(texts: Iterable[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


@dataclass(frozen=True, slots=True)
class Session:
    """Loaded plugins, their settings, the provider chosen for each kind by its name, the sinks."""

    registry: Registry
    settings: Settings
    chosen: dict[str, Provider[Any]]
    sinks: tuple[Provider[Any], ...] = ()

    async def open(self, stack: AsyncExitStack, kind: Kind) -> Any:
        """Open the chosen provider of a kind; the stack closes it.

        Raises:
            ObframeError: It cannot be opened, or what it opens is not of its kind.
        """
        provider = self.chosen[kind.name]
        settings = self.settings.providers[provider.name]
        try:
            part = await stack.enter_async_context(provider.open(settings))
        except ObframeError:
            raise
        except Exception as error:
            raise _not_opened(provider, kind, error) from error
        check_protocol(part, kind, provider.name)
        return part

    @asynccontextmanager
    async def opening(self, kind: Kind, provider: Provider[Any]) -> AsyncIterator[Any]:
        """Give what a provider opens, checked; closed on leaving.

        Raises:
            ObframeError: It refuses, or what it opens is not of its kind.
        """
        async with provider.open(self.settings.providers[provider.name]) as part:
            check_protocol(part, kind, provider.name)
            yield part

    @contextmanager
    def read(self) -> Iterator[Storage]:
        """Open the chosen storage for reading, beside a process that may be writing it.

        Raises:
            ObframeError: It cannot be opened, or cannot be read by another process.
        """
        provider = self.chosen[STORAGE.name]
        if provider.open_reader is None:
            raise PluginError(
                provider.name,
                "this storage cannot be read by another process than its recorder",
                "record into one that can, such as --storage rocksdb",
            )
        with provider.open_reader(self.settings.providers[provider.name]) as storage:
            check_protocol(storage, STORAGE, provider.name)
            yield storage


def _not_opened(provider: Provider[Any], kind: Kind, error: Exception) -> PluginError:
    reason = f"the {kind.name} could not be opened: {type(error).__name__}: {error}"
    return PluginError(provider.name, reason, f"check its settings, section [{provider.name}]")
