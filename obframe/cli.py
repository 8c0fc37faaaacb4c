"""The command line: options and exit codes; what a command does stands in ``obframe.commands``.

Exit codes: 0 done, 1 trouble with data, venue or output, 2 a mistake in usage or settings,
3 storage, 4 plugin, 70 a fault of obframe itself, 130 and 143 ended at once by a signal, 141 the
reader of the output went away.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from obframe import __version__, cli_plugins, cli_storage
from obframe.cli_options import (
    Assignments,
    Config,
    End,
    FormatName,
    Output,
    Plugins,
    Start,
    StorageName,
    SummaryFormatName,
    SymbolArgument,
    choose,
)
from obframe.cli_usage import tell_usage
from obframe.errors import (
    ConfigError,
    ObframeError,
    PluginError,
    QueryError,
    StorageError,
    SymbolError,
)

app = typer.Typer(
    name="obframe",
    help="Record order books: a proven top-20 row of every symbol on every second.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_EXIT_CODES: tuple[tuple[type[ObframeError], int], ...] = (
    (ConfigError, 2),
    (QueryError, 2),
    (SymbolError, 2),
    (StorageError, 3),
    (PluginError, 4),
    (ObframeError, 1),
)
_INTERNAL = 70
_INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        from obframe.commands.output import say

        say(f"obframe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    plugins: Plugins = None,
    symbols: Annotated[
        str | None,
        typer.Option(
            "--symbols",
            metavar="A,B",
            help="What to record, such as BTCUSDT,kraken/BTC/USD; default BTCUSDT,ETHUSDT.",
        ),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", metavar="TIME", help="End after so long: 90 (seconds), 1h30m."),
    ] = None,
    storage: StorageName = None,
    feed: Annotated[
        str | None,
        typer.Option(
            "--feed",
            metavar="NAME",
            help="Venue of symbols that name none; default: binance.",
        ),
    ] = None,
    symbol_source: Annotated[
        str | None,
        typer.Option(
            "--symbol-source",
            metavar="A,B",
            help="Whose symbols to record; default: those of all that are loaded.",
        ),
    ] = None,
    sinks: Annotated[
        list[str] | None,
        typer.Option("--sink", metavar="NAMES", help="Which sinks: a,b; default all loaded."),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option("--log-level", help="What to log to standard error."),
    ] = "info",
    output: Annotated[
        SummaryFormatName, typer.Option("--format", help="How to print what was done.")
    ] = "table",
) -> None:
    """Record until Ctrl-C or SIGTERM; then store the rest and end. Twice: end at once."""
    from obframe.commands.output import Format
    from obframe.commands.record import run as record

    choice = choose(plugins, config, assignments, symbols, storage, feed, symbol_source, sinks)
    raise typer.Exit(record(choice, duration, log_level, Format(output)))


@app.command()
def query(
    symbol: SymbolArgument,
    start: Start = None,
    end: End = None,
    output: Output = "table",
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="First N rows only.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="Last N rows of the window only."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on with each new row, until Ctrl-C."),
    ] = False,
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Print stored rows; by default the last minute stored. Works while a recorder runs."""
    from obframe.commands import read
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    if limit is not None and last is not None and not follow:
        raise typer.BadParameter("give --limit, the first rows, or --last, not both")
    window = read.Window(start, end, last=last)
    if follow:
        from obframe.commands import follow as following

        if end is not None:
            raise typer.BadParameter("give --to, where to end, or --follow, not both")
        raise typer.Exit(following.query(choice, symbol, window, Format(output), limit))
    raise typer.Exit(read.query(choice, symbol, window, Format(output), limit))


symbol_commands = typer.Typer(short_help="Print stored symbols; list, add, remove wanted ones.")
app.add_typer(symbol_commands, name="symbols")

SymbolNames = Annotated[list[str], typer.Argument(metavar="SYMBOL", help="Such as BTCUSDT.")]
SymbolSourceName = Annotated[
    str, typer.Option("--symbol-source", metavar="NAME", help="Which symbol source.")
]


@symbol_commands.callback(invoke_without_command=True)
def symbols(
    context: typer.Context,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Print each symbol with rows or gaps; or list and change the set of the source 'runtime'."""
    if context.invoked_subcommand is not None:
        return
    from obframe.commands import read
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(read.symbols(choice, Format(output)))


@symbol_commands.command("list")
def list_symbols(
    output: Output = "table",
    symbol_source: SymbolSourceName = "runtime",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Print the set that a recorder with this symbol source records."""
    from obframe.commands import wanted
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, symbol_source=symbol_source)
    raise typer.Exit(wanted.show(choice, Format(output)))


@symbol_commands.command("add")
def add_symbols(
    names: SymbolNames,
    symbol_source: SymbolSourceName = "runtime",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Record these too, from within a second on if a recorder runs. All are added or none."""
    from obframe.commands import wanted

    choice = choose(plugins, config, assignments, symbol_source=symbol_source)
    raise typer.Exit(wanted.add(choice, names))


@symbol_commands.command("remove")
def remove_symbols(
    names: SymbolNames,
    symbol_source: SymbolSourceName = "runtime",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Record these no longer; what is stored stays. All are removed or none."""
    from obframe.commands import wanted

    choice = choose(plugins, config, assignments, symbol_source=symbol_source)
    raise typer.Exit(wanted.remove(choice, names))


@app.command()
def gaps(
    symbol: SymbolArgument,
    start: Start = None,
    end: End = None,
    output: Output = "table",
    plugins: Plugins = None,
    config: Config = None,
    assignments: Assignments = None,
    storage: StorageName = None,
) -> None:
    """Print the seconds that were not stored, and why. By default all that are recorded."""
    from obframe.commands import read
    from obframe.commands.output import Format

    choice = choose(plugins, config, assignments, storage=storage)
    raise typer.Exit(read.gaps(choice, symbol, read.Window(start, end), Format(output)))


for _command in cli_storage.COMMANDS:
    app.command(_command.__name__.rstrip("_"))(_command)
app.add_typer(cli_plugins.app)


@app.command(short_help="Serve a venue's wire on this machine, with faults on demand.")
def exchange(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="More captures.")
    ] = None,
    capture: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Capture to replay; none: simulate.")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="Times real time for captures; 0: without waiting.")
    ] = 1.0,
    at_end: Annotated[
        Literal["idle", "close", "exit"], typer.Option(help="What to do after the last message.")
    ] = "idle",
    symbols: Annotated[
        str, typer.Option(metavar="N|A,B", help="How many symbols to simulate, or their names.")
    ] = "2",
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 1,
    rate: Annotated[float, typer.Option(help="Simulated depth events a second and symbol.")] = 10.0,
    levels: Annotated[int, typer.Option(help="Simulated levels a side.")] = 1000,
    loop: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Make N events of a book beforehand and serve them for ever, there and back: "
            "for loads of thousands of symbols.",
        ),
    ] = 0,
    venue: Annotated[
        Literal["binance", "kraken", "coinbase"],
        typer.Option(help="Whose wire; kraken and coinbase are simulated only."),
    ] = "binance",
    market: Annotated[
        str, typer.Option(help="spot, usdm or coinm; default: what the captures are, else spot.")
    ] = "",
    weight_limit: Annotated[
        int, typer.Option(help="REST weight allowed a minute; 0: as the market's own.")
    ] = 0,
    tls: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Certificate and key, for https and wss.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 9000,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@N]", help="A fault on demand; see --list-faults."),
    ] = None,
    list_faults: Annotated[
        bool, typer.Option("--list-faults", help="Print the faults and end.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="Directory for a journal of what was truly sent.")
    ] = None,
    output: Annotated[FormatName, typer.Option("--format", help="How to tell the URLs.")] = "table",
) -> None:
    """Serve a venue's wire on this machine: from captures or simulated, with faults on demand."""
    from obframe.commands import venue as served
    from obframe.commands.output import Format

    if list_faults:
        raise typer.Exit(served.list_faults(Format(output)))
    names = tuple(name.strip() for name in symbols.split(",") if name.strip())
    values = {
        "captures": tuple(capture or ()) + tuple(files or ()),
        "speed": speed,
        "at_end": at_end,
        "symbols": int(symbols) if symbols.isascii() and symbols.isdigit() else names,
        "seed": seed,
        "rate": rate,
        "levels": levels,
        "loop": loop,
        "venue": venue,
        "market": market,
        "weight_limit": weight_limit,
        "tls": tls,
        "host": host,
        "port": port,
        "faults": tuple(fault or ()),
        "record": record,
    }
    raise typer.Exit(served.exchange(values, Format(output)))


@app.command()
def demo(
    seconds: Annotated[int, typer.Option(min=2, help="How long to record.")] = 20,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to keep what is recorded.")
    ] = Path("obframe-demo-data"),
    symbols: Annotated[
        str, typer.Option(metavar="A,B", help="What to simulate.")
    ] = "BTCUSDT,ETHUSDT,SOLUSDT",
) -> None:
    """Simulate a venue, record it, and show what was stored. Needs no internet."""
    from obframe.commands.demo import demo as show

    names = [name.strip() for name in symbols.split(",") if name.strip()]
    raise typer.Exit(show(seconds, folder, names))


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    _occupy_standard_files()
    code = 0
    try:
        code = app(standalone_mode=False) or 0
    except typer.TyperException as error:
        code = tell_usage(error)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except ObframeError as error:
        code = next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
        _tell(error)
    except Exception as error:
        # A help text is written by others; what failed then, fails again.
        code = _flush(0) if isinstance(error, OSError) else 0
        if not code:
            if os.environ.get("OBFRAME_TRACEBACK"):
                raise
            code = _INTERNAL
            print(f"obframe: a fault of obframe itself: {_locate(error)}", file=sys.stderr)
            print("set OBFRAME_TRACEBACK=1 to see the traceback, and report it", file=sys.stderr)
    sys.exit(_flush(code))


def _occupy_standard_files() -> None:
    """Have 0, 1 and 2 open, so that no file of a database gets a number that others print to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    if sys.stderr is None:
        # Not for us: print(file=None) would write to standard output.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (it lasts as long as the process)


def _flush(code: int) -> int:
    """Write out what help texts left; return the exit code that then holds."""
    from obframe.commands.output import OutputError, flush

    try:
        flush()
    except SystemExit as end:
        return code or int(end.code or 0)
    except OutputError as error:
        if not code:
            code = 1
            _tell(error)
    return code


def _locate(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {error}{place}"


def _tell(error: ObframeError) -> None:
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, ConfigError) and len(lines) > 1:
        lines.insert(0, f"{len(lines)} mistakes in the settings:")
    if isinstance(error, PluginError) and len(lines) > 1:
        lines.insert(0, f"{len(lines)} plugins cannot be used:")
    if sys.stdout is not None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
    print("obframe: " + "\n  ".join(lines), file=sys.stderr)
