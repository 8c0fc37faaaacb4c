"""The command ``obframe plugins``: its options; what it does stands in ``obframe.commands``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from obframe.cli_options import FormatName, SummaryFormatName

app = typer.Typer(
    name="plugins",
    help="List, show, begin and check plugins.",
    add_completion=False,
    rich_markup_mode=None,
)

Output = Annotated[FormatName, typer.Option("--format", help="How to print.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A plugin, such as rocksdb.")]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, output: Output = "table") -> None:
    """List, show, begin and check plugins; without a command: list."""
    if context.invoked_subcommand is None:
        list_plugins(output)


@app.command("list")
def list_plugins(output: Output = "table") -> None:
    """Print the installed plugins and what they offer."""
    from obframe.commands import installed
    from obframe.commands.output import Format

    raise typer.Exit(installed.list_plugins(Format(output)))


@app.command()
def show(
    name: Name,
    output: Annotated[SummaryFormatName, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Print what a plugin offers: parts, settings with their defaults, hooks."""
    from obframe.commands import installed
    from obframe.commands.output import Format

    raise typer.Exit(installed.show(name, Format(output)))


@app.command()
def new(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Of the plugin, such as parquet: a-z, 0-9, - and _."),
    ],
    kind: Annotated[
        Literal["storage", "feed", "symbols", "sink"],
        typer.Option("--kind", help="What it will be; what is written works at once."),
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="To be made; default: obframe-NAME here."),
    ] = None,
) -> None:
    """Write a new plugin's project: package, settings, contract, tests, README, CI."""
    from obframe.commands import scaffold

    raise typer.Exit(scaffold.new(name, kind, folder))


@app.command()
def check(
    name: Name,
    output: Output = "table",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Longest for one rule.")
    ] = 120.0,
) -> None:
    """Run the contract of each part that a plugin offers; exit code 1 when a rule is broken."""
    from obframe.commands import checking
    from obframe.commands.output import Format

    raise typer.Exit(checking.check(name, timeout, Format(output)))
