"""What commands share: plugins and settings chosen by options, parts opened and checked."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obframe.config import SYMBOLS_KEY, load_settings
from obframe.errors import ObframeError, PluginError
from obframe.feeds import FeedSet, Venues
from obframe.protocols import Provider, Storage
from obframe.registry import Registry, load
from obframe.settings import Settings
from obframe.vetting import FEED, STORAGE, SYMBOL_SOURCE, Kind, check_protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options by which a person chooses plugins and settings.

    Attributes:
        plugins: Texts of ``--plugins``, each one name or several with commas.
        config: ``--config``.
        assignments: ``--set``.
        symbols: ``--symbols``.
        names: The provider chosen for a kind, by the kind's name.
    """

    plugins: tuple[str, ...] = ()
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    symbols: str | None = None
    names: dict[str, str | None]

    def load(self, kinds: Collection[Kind]) -> Session:
        """Load the plugins and read the settings.

        Raises:
            PluginError: A plugin cannot be loaded.
            ConfigError: The settings are wrong.
        """
        names = [name.strip() for text in self.plugins for name in text.split(",")]
        registry = load([name for name in names if name], kinds)
        chosen = {
            kind.name: registry.choose(kind, self.names.get(kind.name))
            for kind in kinds
            if kind is not FEED
        }
        venues = (
            _choose_venues(registry, self.names.get(FEED.name)) if FEED in kinds else Venues(())
        )
        uses_static = getattr(chosen.get(SYMBOL_SOURCE.name), "name", "") == SYMBOLS_KEY[0]
        settings = load_settings(
            registry.sections(),
            config=self.config,
            environ=os.environ,
            assignments=self.assignments,
            symbols=self.symbols,
            installed=registry.has_section,
            refusals=venues.refusals if venues.names and uses_static else None,
        )
        return Session(registry, settings, chosen, venues)


@dataclass(frozen=True, slots=True)
class Session:
    """Loaded plugins and their settings.

    Attributes:
        registry: The plugins.
        settings: All settings.
        chosen: The provider chosen for each kind but feeds, by the kind's name.
        venues: The loaded feeds, which are all used, and the default one among them.
    """

    registry: Registry
    settings: Settings
    chosen: dict[str, Provider[Any]]
    venues: Venues

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
