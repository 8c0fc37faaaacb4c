"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

FormatName = Literal["table", "json", "jsonl", "csv"]
SummaryFormatName = Literal["table", "json", "jsonl"]

Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugins", metavar="NAMES", help="Plugins to load, by name: a,b."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file; default: obframe.toml here."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as rocksdb.path=data."),
]
StorageName = Annotated[
    str | None,
    typer.Option("--storage", metavar="NAME", help="Which storage, if several are loaded."),
]
Output = Annotated[FormatName, typer.Option("--format", help="How to print.")]
SymbolArgument = Annotated[str, typer.Argument(help="Such as BTCUSDT or kraken/BTC/USD.")]
_TIMES = "Unix seconds, ISO time (UTC), -30s, -1h30m, -7d or now."
Start = Annotated[str | None, typer.Option("--from", metavar="T", help=f"First second: {_TIMES}")]
End = Annotated[
    str | None, typer.Option("--to", metavar="T", help=f"Last second, included: {_TIMES}")
]


def choose(
    plugins: list[str] | None,
    config: Path | None,
    assignments: list[str] | None,
    symbols: str | None = None,
    storage: str | None = None,
    feed: str | None = None,
    symbol_source: str | None = None,
    sinks: list[str] | None = None,
) -> Any:
    """Return what a person chose by options, as the commands take it."""
    from obframe.commands.session import Choice
    from obframe.vetting import FEED, STORAGE, SYMBOL_SOURCE

    names = {STORAGE.name: storage, FEED.name: feed, SYMBOL_SOURCE.name: symbol_source}
    return Choice(
        plugins=tuple(plugins or ()),
        config=config,
        assignments=tuple(assignments or ()),
        symbols=symbols,
        names=names,
        sinks=tuple(sinks or ()),
    )
