"""The commands that look after a storage: options; the rest stands in ``obframe.commands``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from obframe.cli_options import (
    Assignments,
    Config,
    End,
    Output,
    Plugins,
    Start,
    StorageName,
    choose,
)

Symbols = Annotated[
    list[str] | None, typer.Argument(metavar="SYMBOL", help="Default: all that are stored.")
]


def stats(
    symbols: Symbols = None,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Print how much is stored, and how fast it grows.

    For each symbol: first and last row, rows, coverage, size; and when the disk is full.
    """
    from obframe.commands import keep
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(keep.stats(choice, symbols or (), Format(output)))


def verify(
    symbols: Symbols = None,
    start: Start = None,
    end: End = None,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Look at every stored row and at all gaps.

    Prints what is not as it must be, and exits with 1 when data are wrong.
    """
    from obframe.commands import keep
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(keep.verify(choice, symbols or (), start, end, Format(output)))


def retention(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show it; works while a recorder runs.")
    ] = False,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Delete what retention no longer keeps. A recorder does so by itself."""
    from obframe.commands import keep
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(keep.retention(choice, dry_run, Format(output)))


def backup(
    folder: Annotated[Path, typer.Argument(help="Where backups are kept; made if need be.")],
    keep: Annotated[
        int, typer.Option(metavar="N", min=0, help="Remove all but the newest N; 0: keep all.")
    ] = 0,
    only_list: Annotated[
        bool, typer.Option("--list", help="List the backups that are there, take none.")
    ] = False,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Back the storage up while it is recorded.

    Only what is new since the last backup in the folder is copied.
    """
    from obframe.commands import copies
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    if only_list:
        raise typer.Exit(copies.backups(choice, folder, Format(output)))
    raise typer.Exit(copies.backup(choice, folder, keep, Format(output)))


def restore(
    folder: Annotated[Path, typer.Argument(help="Where the backups are.")],
    name: Annotated[str | None, typer.Option("--name", help="Which; default: the newest.")] = None,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Put a backup where nothing is stored yet.

    The settings, such as rocksdb.path, say where.
    """
    from obframe.commands import copies
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(copies.restore(choice, folder, name, Format(output)))


def repair(
    target: Annotated[str, typer.Argument(help="Path of the new storage; nothing is there yet.")],
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Save what can be read of a damaged storage.

    It goes into a new one; what is lost becomes gaps and makes the exit code 1.
    """
    from obframe.commands import copies
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(copies.repair(choice, target, Format(output)))


def export(
    file: Annotated[Path, typer.Argument(help="Ends in .jsonl, .csv (also .gz) or .parquet.")],
    symbols: Symbols = None,
    start: Start = None,
    end: End = None,
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Write rows to a file, digit for digit."""
    from obframe.commands import copies

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(copies.export(choice, file, symbols or (), start, end))


def import_(
    files: Annotated[list[Path], typer.Argument(help="As export or the file sinks write them.")],
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Store the rows of files.

    What is stored already stays. No recorder may be running.
    """
    from obframe.commands import copies

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(copies.import_(choice, files))


COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    stats,
    verify,
    retention,
    backup,
    restore,
    repair,
    export,
    import_,
)
