"""What commands share: plugins and settings chosen by options, parts opened and checked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obframe.config import SYMBOLS_KEY, load_settings
from obframe.errors import ObframeError, PluginError
from obframe.feeds import FeedSet, Venues
from obframe.protocols import Provider, Storage, SymbolSource
from obframe.reader import open_reader
from obframe.registry import Registry, load
from obframe.settings import Settings
from obframe.union import unite
from obframe.vetting import FEED, SINK, STORAGE, SYMBOL_SOURCE, Kind, check_protocol


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
        chosen = {
            kind.name: registry.choose(kind, self.names.get(kind.name))
            for kind in kinds
            if kind not in (FEED, SYMBOL_SOURCE)
        }
        wanted = self.names.get(SYMBOL_SOURCE.name)
        sources = _choose_sources(registry, wanted) if SYMBOL_SOURCE in kinds else ()
        venues = (
            _choose_venues(registry, self.names.get(FEED.name)) if FEED in kinds else Venues(())
        )
        uses_static = any(provider.name == SYMBOLS_KEY[0] for provider in sources)
        settings = load_settings(
            registry.sections(),
            config=self.config,
            environ=os.environ,
            assignments=self.assignments,
            symbols=self.symbols,
            installed=registry.has_section,
            refusals=venues.refusals if venues.names and uses_static else None,
        )
        named = _names(self.sinks) or [one.name for one in registry.providers(SINK)]
        sinks = tuple(registry.choose(SINK, name) for name in dict.fromkeys(named))
        return Session(registry, settings, chosen, sources, venues, sinks)


def _names(texts: Iterable[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


@dataclass(frozen=True, slots=True)
class Session:
    """Loaded plugins and their settings.

    Attributes:
        registry: The plugins.
        settings: All settings.
        chosen: The storage's provider, by its kind's name.
        sources: The providers of the symbol sources whose sets are recorded together.
        venues: The loaded feeds, which are all used, and the default one among them.
        sinks: The sinks that are used.
    """

    registry: Registry
    settings: Settings
    chosen: dict[str, Provider[Any]]
    sources: tuple[Provider[Any], ...]
    venues: Venues
    sinks: tuple[Provider[Any], ...] = ()

    def locate(self) -> str:
        """Return where the chosen storage keeps its rows, or nothing if it does not tell."""
        path = getattr(self.settings.providers[self.chosen[STORAGE.name].name], "path", None)
        if not isinstance(path, str | Path) or not str(path) or "://" in str(path):
            return ""
        return os.path.abspath(path)

    async def open_symbols(self, stack: AsyncExitStack) -> SymbolSource:
        """Open the symbol sources, as one; the stack closes them.

        Raises:
            ObframeError: One cannot be opened, or what it opens is no symbol source.
        """
        opened = {
            provider.name: await self.open_provider(stack, SYMBOL_SOURCE, provider)
            for provider in self.sources
        }
        return unite(opened)

    async def open_feeds(self, stack: AsyncExitStack) -> FeedSet:
        """Open the loaded feeds; the stack closes them.

        Raises:
            ObframeError: One cannot be opened, or what it opens is not a feed.
        """
        feeds = {
            provider.name: await self.open_provider(stack, FEED, provider)
            for provider in self.registry.providers(FEED)
        }
        return FeedSet(feeds, self.venues.default)

    async def open(self, stack: AsyncExitStack, kind: Kind) -> Any:
        """Open the chosen provider of a kind; the stack closes it.

        Raises:
            ObframeError: It cannot be opened, or what it opens is not of its kind.
        """
        return await self.open_provider(stack, kind, self.chosen[kind.name])

    async def open_provider(
        self, stack: AsyncExitStack, kind: Kind, provider: Provider[Any]
    ) -> Any:
        """Open one provider; the stack closes it.

        Raises:
            ObframeError: It cannot be opened, or what it opens is not of its kind.
        """
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
        with open_reader(provider, self.settings.providers[provider.name]) as storage:
            yield storage


def _choose_sources(registry: Registry, wanted: str | None) -> tuple[Provider[Any], ...]:
    """Return the symbol sources that ``--symbol-source A,B`` names; else all that are loaded."""
    if wanted is None:
        return tuple(registry.providers(SYMBOL_SOURCE))
    names = dict.fromkeys(name.strip() for name in wanted.split(","))
    return tuple(registry.choose(SYMBOL_SOURCE, name) for name in names)


def _choose_venues(registry: Registry, wanted: str | None) -> Venues:
    """Return the venues of the loaded feeds.

    The default one is that of ``--feed``; else the one that is the default when none is named; else
    the only one; else there is none, and every symbol has to name its venue.
    """
    names = [provider.name for provider in registry.providers(FEED)]
    if wanted is not None or len(names) == 1:
        return Venues(names, registry.choose(FEED, wanted).name)
    return Venues(names, FEED.default if FEED.default in names else "")


def _not_opened(provider: Provider[Any], kind: Kind, error: Exception) -> PluginError:
    reason = f"the {kind.name} could not be opened: {type(error).__name__}: {error}"
    return PluginError(provider.name, reason, f"check its settings, section [{provider.name}]")
