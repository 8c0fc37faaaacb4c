"""The command that shows all of it: a simulated venue recorded, and what was stored."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from obframe.commands.ending import Ending, ending_signals
from obframe.commands.output import Format, note, program_name, say, write
from obframe.commands.read import Window, query
from obframe.commands.session import Choice
from obframe.errors import ConfigError, ObframeError, Problem, StorageError, SymbolError
from obframe.protocols import Storage
from obframe.query import Coverage, coverage
from obframe.recorder import UNRECORDED
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Instrument
from obframe.vetting import STORAGE

_START_TIMEOUT = 20.0
_END_TIMEOUT = 20.0
_POLL = 0.25
_VENUE_LOG = "venue.log"
_VAIN = (1, -signal.SIGTERM)
"""How a recorder ends that is stopped before it has stored anything."""


class Urls(NamedTuple):
    """Where the simulated venue answers."""

    rest_url: str
    ws_url: str


def demo(seconds: int, folder: Path, symbols: Sequence[str]) -> int:
    """Simulate a venue in a process of its own, record it in another, and print what was stored.

    Args:
        seconds: How long to record.
        folder: Where data, settings and logs are kept.
        symbols: What to simulate and record.

    Raises:
        ObframeError: A symbol is refused, a process failed, the storage cannot be read, or it was
            stopped before anything was stored.
    """
    if problems := list(_problems(symbols)):
        raise ConfigError([Problem("--symbols", "", problem) for problem in problems])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([Problem("--folder", "", f"{folder}: {error.strerror}")]) from error
    folder = folder.absolute()  # what is printed is to work from anywhere
    config = folder / "obframe.toml"
    _check_replaceable(config)
    _check_own(folder, config)
    choice = Choice(config=config, names={})
    faults = _faults(seconds, symbols)
    # Its children hear nothing of the terminal, so Ctrl-\ has to end them too.
    with Ending(signals=[*ending_signals(), signal.SIGQUIT]) as ending:
        with _venue(folder, symbols, faults) as urls:
            config.write_text(_settings(str(folder / "rows"), symbols), encoding="utf-8")
            started = int(time.time())
            if not ending.asked:
                _record(seconds, folder, choice, symbols, urls, ending)
        if ending.asked and not _has_rows(choice, symbols, started):
            raise ObframeError("stopped before anything was stored")
        _report(choice, folder, symbols, started, told=bool(faults) and not ending.asked)
    return 0


def _problems(symbols: Sequence[str]) -> Iterator[str]:
    if not symbols:
        yield "no symbols are given: name at least one, such as BTCUSDT"
    for symbol, count in Counter(symbols).items():
        if count > 1:
            yield f"symbol {symbol!r} is given {count} times"
        try:
            if Instrument.parse(symbol).venue:
                yield f"symbol {symbol!r} names a venue: the demo simulates one, without a name"
        except SymbolError as error:
            yield str(error)


def _check_replaceable(config: Path) -> None:
    """Raise unless there are no settings yet, or just what a demo writes."""
    try:
        text = config.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        text = ""
    try:
        table = tomllib.loads(text)
        if text == _settings(table["rocksdb"]["path"], table["static"]["symbols"]):
            return
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        pass  # not as a demo writes them, so they are somebody's own
    reason = f"{config} was not written by the demo and is left alone; give another folder"
    raise ConfigError([Problem("--folder", "", reason)])


def _check_own(folder: Path, config: Path) -> None:
    """Raise unless a demo may write here: it did before, or nothing is here."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ConfigError([Problem("--folder", "", f"{folder}: {error.strerror}")]) from error
    # A demo that was killed while its venue began leaves no more than the venue's log.
    if config.name in names or names <= {_VENUE_LOG}:
        return
    what = "is a RocksDB database" if "CURRENT" in names else "is not empty and no demo's"
    mend = "it is left alone; give a new folder, or the one of an earlier demo"
    raise ConfigError([Problem("--folder", "", f"{folder} {what}: {mend}")])


def _settings(rows: str, symbols: Sequence[str]) -> str:
    # JSON's strings and lists of strings are TOML's too.
    path = json.dumps(rows, ensure_ascii=False)
    listed = json.dumps(list(symbols), ensure_ascii=False)
    return (
        "# Written by obframe demo: where its rows are, for query, symbols and gaps.\n"
        f"[rocksdb]\npath = {path}\n\n[static]\nsymbols = {listed}\n"
    )


def _environment() -> dict[str, str]:
    """Return the environment without settings of the user's own recorder."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OBFRAME_") and name != "PERSISTENT_SYMBOLS"
    }


def _start(arguments: Sequence[str], log: Path, stdout: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "obframe", *arguments]
    with log.open("wb") as stderr:
        # In a group of its own, out of the reach of Ctrl-C: the demo ends one after the other.
        return subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env=_environment(), process_group=0
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _venue(folder: Path, symbols: Sequence[str], faults: Sequence[str]) -> Iterator[Urls]:
    log = folder / _VENUE_LOG
    arguments = ["exchange", "--port", "0", "--symbols", ",".join(symbols), "--format", "json"]
    arguments += ["--rate", "10", *faults]
    process = _start(arguments, log, subprocess.PIPE)
    try:
        assert process.stdout is not None
        with process.stdout as output:
            ready, _, _ = select.select([output], [], [], _START_TIMEOUT)
            line = output.readline() if ready else b""
        if not line:
            raise _failed("the simulated venue did not start", log)
        yield Urls(**json.loads(line))
    finally:
        _stop(process)


def _faults(seconds: int, symbols: Sequence[str]) -> list[str]:
    """Have the venue lose one message of the second symbol, so that there is a gap to look at."""
    if seconds < 10 or len(symbols) < 2:
        return []
    lost, slow = f"drop@{seconds * 4}", "slow-rest@2"
    return [
        "--fault",
        f"{lost}:symbol={symbols[1]}",
        "--fault",
        f"{slow}:symbol={symbols[1]},seconds=2",
    ]


def _record(
    seconds: int,
    folder: Path,
    choice: Choice,
    symbols: Sequence[str],
    urls: Urls,
    ending: Ending,
) -> None:
    log = folder / "recorder.log"
    arguments = ["run", "--plugins", "rocksdb", "--config", str(choice.config)]
    arguments += ["--duration", str(seconds)]
    for key, url in urls._asdict().items():
        arguments += ["--set", f"binance.{key}={url}"]
    process = _start(arguments, log, subprocess.DEVNULL)
    try:
        _watch(process, seconds, choice, symbols, ending)
        stopped = ending.asked and process.poll() is None
        if stopped:
            note("storing what is held, then ending")
            process.terminate()
        if process.wait(_END_TIMEOUT) not in ((0, *_VAIN) if stopped else (0,)):
            raise _failed(f"the recorder ended with code {process.returncode}", log)
    except subprocess.TimeoutExpired as error:
        raise _failed("the recorder did not end", log) from error
    finally:
        _stop(process)


def _failed(what: str, log: Path) -> ObframeError:
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return ObframeError("\n".join([f"{what}; the end of {log}:", *tail]))


def _watch(
    process: subprocess.Popen[bytes],
    seconds: int,
    choice: Choice,
    symbols: Sequence[str],
    ending: Ending,
) -> None:
    """Show progress until an end, with what another process can read meanwhile."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[newest]}"),
    )
    begun = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        what = f"recording {', '.join(symbols)}"
        task = progress.add_task(what, total=seconds, newest="connecting")
        while process.poll() is None and time.monotonic() - begun < seconds + _END_TIMEOUT:
            done = min(time.monotonic() - begun, seconds)
            progress.update(task, completed=done, newest=_newest(choice, symbols[0]))
            ending.wait(_POLL)
            if ending.asked:
                return
        progress.update(task, completed=seconds)


def _newest(choice: Choice, symbol: str) -> str:
    try:
        with choice.load([STORAGE]).read() as storage:
            record = storage.latest(symbol)
    except StorageError:
        return "opening"  # the recorder has not made the database yet
    if record is None:
        return "synchronising"
    return f"newest row {time.time() - record.timestamp:.1f} s old"


def _has_rows(choice: Choice, symbols: Sequence[str], started: int) -> bool:
    try:
        with choice.load([STORAGE]).read() as storage:
            found = [storage.latest(symbol) for symbol in symbols]
    except StorageError:
        return False  # the recorder has not made the database
    return any(record is not None and record.timestamp >= started for record in found)


def _report(
    choice: Choice, folder: Path, symbols: Sequence[str], started: int, *, told: bool
) -> None:
    with choice.load([STORAGE]).read() as storage:
        covered = [_cover(storage, symbol, started) for symbol in symbols]
        total = sum(_count(storage, symbol) for symbol in storage.symbols())
    say()
    query(choice, symbols[0], Window(str(covered[0].start), None, last=5), Format.TABLE, None)
    write(
        Format.TABLE,
        covered,
        columns=("symbol", "rows", "of seconds", "missing", "why"),
        cells=_coverage_cells,
        value=lambda each: {"symbol": each.symbol},
        title="what this run stored",
    )
    rows = folder / "rows"
    size = sum(path.stat().st_size for path in rows.glob("*.sst"))
    say(f"{total:,} rows of all runs take {size:,} bytes on disk", end="")
    say(f", {size / total:.0f} a row; they are kept in {rows}" if total else "")
    if told:
        say(f"the venue was told to lose a message of {symbols[1]}: nobody else felt it")
    program, config = program_name(), shlex.quote(str(choice.config))
    say("\ngo on with:")
    say(f"  {program} query {symbols[0]} --from -1h --config {config}")
    say(f"  {program} run --plugins rocksdb --symbols BTCUSDT,ETHUSDT    # the real venue")


def _cover(storage: Storage, symbol: str, started: int) -> Coverage:
    """Tell of the seconds that this run accounts for; the time before it was nobody's to record."""
    seconds = [record.timestamp for record in storage.scan(symbol, started, MAX_TIMESTAMP)]
    for gap in storage.gaps(symbol, started, MAX_TIMESTAMP):
        if gap.reason not in UNRECORDED:
            seconds += max(gap.start, started), gap.end
    first, last = min(seconds, default=started), max(seconds, default=started)
    return coverage(storage, symbol, first, last)


def _count(storage: Storage, symbol: str) -> int:
    return sum(1 for _ in storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP))


def _coverage_cells(each: Coverage) -> list[object]:
    causes = []
    for gap in each.gaps:
        seconds = min(gap.end, each.end) - max(gap.start, each.start) + 1
        causes.append(f"{seconds} s {gap.reason}: {gap.detail}".rstrip(": "))
    if each.unexplained:
        causes.append(f"{each.unexplained_seconds} s unexplained")
    return [each.symbol, each.stored, each.expected, each.missing_seconds, ", ".join(causes)]
