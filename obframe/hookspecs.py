"""The hooks a plugin may implement. Called at start and on rare events, never per message."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from obframe.protocols import Feed, Provider, Sink, Storage, SymbolSource
from obframe.types import Gap, Instrument, RunInfo

PROJECT = "obframe"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:  # type: ignore[empty-body]
    """Return the symbol sources this plugin offers. Called once, at start."""


@hookspec
def obframe_feeds() -> Sequence[Provider[Feed]]:  # type: ignore[empty-body]
    """Return the feeds this plugin offers. Called once, at start."""


@hookspec
def obframe_storages() -> Sequence[Provider[Storage]]:  # type: ignore[empty-body]
    """Return the storages this plugin offers. Called once, at start."""


@hookspec
def obframe_sinks() -> Sequence[Provider[Sink]]:  # type: ignore[empty-body]
    """Return the sinks this plugin offers. Called once, at start."""


@hookspec
def obframe_run_started(run: RunInfo) -> None:
    """Observe that the recorder has opened its storage and begins to record."""


@hookspec
def obframe_run_finished(run: RunInfo, error: BaseException | None) -> None:
    """Observe that the recorder has stopped; ``error`` is None after an orderly end."""


@hookspec
def obframe_book_reset(instrument: Instrument, reason: str, at: int) -> None:
    """Observe that a book was thrown away at Unix second ``at`` and is being proven anew."""


@hookspec
def obframe_gap(gap: Gap) -> None:
    """Observe that a gap was closed and recorded."""
