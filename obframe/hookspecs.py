"""The hooks a plugin may implement. Called at start and on rare events, never per message.

Each says when it is called and by what, what it may return, what happens when it raises, and since
which version of obframe it is there; ``docs/hooks.md`` shows all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

from obframe.protocols import Feed, Provider, Sink, Storage, SymbolSource
from obframe.types import Gap, Instrument, RunInfo

PROJECT = "obframe"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def obframe_symbol_sources() -> Sequence[Provider[SymbolSource]]:  # type: ignore[empty-body]
    """Offer symbol sources: what says which instruments are wanted.

    When: Once, when the plugin is loaded, before any settings are read.
    Caller: The registry, for every command that loads plugins; nothing is opened by it.
    Returns: A list of ``Provider``, or of none. Its ``open`` yields a ``SymbolSource``.
    Raises: The plugin is refused, with its name and the error (exit code 4).
    Since: 0.1.0
    """


@hookspec
def obframe_feeds() -> Sequence[Provider[Feed]]:  # type: ignore[empty-body]
    """Offer feeds: what speaks to a venue.

    When: Once, when the plugin is loaded, before any settings are read.
    Caller: The registry, for every command that loads plugins; nothing is opened by it.
    Returns: A list of ``Provider``, or of none. Its ``open`` yields a ``Feed``.
    Raises: The plugin is refused, with its name and the error (exit code 4).
    Since: 0.1.0
    """


@hookspec
def obframe_storages() -> Sequence[Provider[Storage]]:  # type: ignore[empty-body]
    """Offer storages: where rows, gaps and marks are kept.

    When: Once, when the plugin is loaded, before any settings are read.
    Caller: The registry, for every command that loads plugins; nothing is opened by it.
    Returns: A list of ``Provider``, or of none. Its ``open`` yields a ``Storage``; its
        ``open_reader``, where given, one to read from beside the process that writes.
    Raises: The plugin is refused, with its name and the error (exit code 4).
    Since: 0.1.0
    """


@hookspec
def obframe_sinks() -> Sequence[Provider[Sink]]:  # type: ignore[empty-body]
    """Offer sinks: who else is told of every row.

    When: Once, when the plugin is loaded, before any settings are read.
    Caller: The registry, for every command that loads plugins; nothing is opened by it.
    Returns: A list of ``Provider``, or of none. Its ``open`` yields a ``Sink``.
    Raises: The plugin is refused, with its name and the error (exit code 4).
    Since: 0.1.0
    """


@hookspec
def obframe_settings() -> Mapping[str, type[Any]]:  # type: ignore[empty-body]
    """Offer sections of settings that belong to no part, such as those of an observer.

    When: Once, when the plugin is loaded, before any settings are read.
    Caller: The registry, for every command that loads plugins.
    Returns: A settings dataclass, as a ``Provider`` has one, by the name of its section. What is
        set is handed over by ``obframe_run_started``, in ``run.settings``.
    Raises: The plugin is refused, with its name and the error (exit code 4).
    Since: 0.1.0
    """


@hookspec
def obframe_run_started(run: RunInfo) -> None:
    """Observe that everything is open and the recorder begins.

    When: Once a run, before the first row is sampled.
    Caller: The recorder, in a thread of the plugin's own, one call after the other.
    Returns: Nothing; what is returned is ignored.
    Raises: Logged with the plugin's name, counted, and passed over; the run goes on.
    Since: 0.1.0
    """


@hookspec
def obframe_run_finished(run: RunInfo, error: BaseException | None) -> None:
    """Observe that the recorder has stopped; ``error`` is None after an orderly end.

    When: Once a run, after the last row is stored and every sink is done, before parts are closed.
        Not when the process is killed.
    Caller: The recorder, in a thread of the plugin's own, one call after the other.
    Returns: Nothing; what is returned is ignored.
    Raises: Logged with the plugin's name, counted, and passed over.
    Since: 0.1.0
    """


@hookspec
def obframe_book_reset(instrument: Instrument, reason: str, at: int) -> None:
    """Observe that a live book was thrown away at Unix second ``at`` and is being proven anew.

    When: Each time that a book which gave rows loses its proof: a hole in the stream, a lost
        connection, a halt. ``reason`` is one of ``GapReason``.
    Caller: The recorder, in a thread of the plugin's own, one call after the other.
    Returns: Nothing; what is returned is ignored.
    Raises: Logged with the plugin's name, counted, and passed over; the book is proven all the
        same.
    Since: 0.1.0
    """


@hookspec
def obframe_gap(gap: Gap) -> None:
    """Observe that a gap has ended: a run of seconds without rows, all of one cause.

    When: Once a gap, when its last second is known: rows come again, the cause changes, or the run
        ends. The storage is handed it at about that time, before or after.
    Caller: The recorder, in a thread of the plugin's own, one call after the other.
    Returns: Nothing; what is returned is ignored.
    Raises: Logged with the plugin's name, counted, and passed over; the gap is stored all the same.
    Since: 0.1.0
    """
