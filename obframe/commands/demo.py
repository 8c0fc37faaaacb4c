"""The command that shows all of it: a simulated venue recorded, and what was stored."""

from __future__ import annotations

import json
import os
import select
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

from obframe.commands.output import Format, say, write
from obframe.commands.read import Window, query
from obframe.commands.session import Choice
from obframe.errors import ConfigError, ObframeError, Problem, StorageError, SymbolError
from obframe.protocols import Storage
from obframe.query import Coverage, coverage
from obframe.types import MAX_TIMESTAMP, MIN_TIMESTAMP, Instrument
from obframe.vetting import STORAGE

_START_TIMEOUT = 20.0
_END_TIMEOUT = 20.0
_POLL = 0.25


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
        ObframeError: A symbol is refused, a process failed, or the storage cannot be read.
    """
    if problems := list(_problems(symbols)):
        raise ConfigError([Problem("--symbols", "", problem) for problem in problems])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([Problem("--folder", "", f"{folder}: {error.strerror}")]) from error
    config = folder / "obframe.toml"
    _check_replaceable(config)
    choice = Choice(config=config, names={})
    faults = _faults(seconds, symbols)
    with _venue(folder, symbols, faults) as urls:
        config.write_text(_settings(str(folder / "rows"), symbols), encoding="utf-8")
        started = int(time.time())
        _record(seconds, folder, choice, symbols, urls)
    _report(choice, folder, symbols, started, told=bool(faults))
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
        return subprocess.Popen(command, stdout=stdout, stderr=stderr, env=_environment())


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
    log = folder / "venue.log"
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


def _record(seconds: int, folder: Path, choice: Choice, symbols: Sequence[str], urls: Urls) -> None:
    log = folder / "recorder.log"
    arguments = ["run", "--plugins", "rocksdb", "--config", str(choice.config)]
    arguments += ["--duration", str(seconds)]
    for key, url in urls._asdict().items():
        arguments += ["--set", f"binance.{key}={url}"]
    process = _start(arguments, log, subprocess.DEVNULL)
    try:
        _watch(process, seconds, choice, symbols)
        if process.wait(_END_TIMEOUT) != 0:
            raise _failed(f"the recorder ended with code {process.returncode}", log)
    except subprocess.TimeoutExpired as error:
        raise _failed("the recorder did not end", log) from error
    finally:
        _stop(process)


def _failed(what: str, log: Path) -> ObframeError:
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return ObframeError("\n".join([f"{what}; the end of {log}:", *tail]))


def _watch(
    process: subprocess.Popen[bytes], seconds: int, choice: Choice, symbols: Sequence[str]
) -> None:
    """Show progress until the recorder ends, with what another process can read meanwhile."""
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
            time.sleep(_POLL)
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


def _report(
    choice: Choice, folder: Path, symbols: Sequence[str], started: int, *, told: bool
) -> None:
    say()
    query(choice, symbols[0], Window(None, None, seconds=5), Format.TABLE, None)
    with choice.load([STORAGE]).read() as storage:
        covered = [_cover(storage, symbol, started) for symbol in symbols]
        total = sum(_count(storage, symbol) for symbol in storage.symbols())
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
    program = _program()
    say("\ngo on with:")
    say(f"  {program} query {symbols[0]} --from -1h --config {choice.config}")
    say(f"  {program} run --plugins rocksdb --symbols BTCUSDT,ETHUSDT    # the real venue")


def _program() -> str:
    """Return how this program is called from this folder."""
    script = Path(sys.executable).with_name("obframe")
    if str(script.parent) in os.get_exec_path():
        return "obframe"
    if not script.exists():
        return f"{sys.executable} -m obframe"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def _cover(storage: Storage, symbol: str, started: int) -> Coverage:
    latest = storage.latest(symbol)
    end = max(latest.timestamp if latest is not None else started, started)
    gaps = storage.gaps(symbol, started, end)
    scanned = storage.scan(symbol, started, end)
    first = next((record.timestamp for record in scanned), end)
    for gap in gaps:
        first = min(first, max(gap.start, started))
    return coverage(storage, symbol, first, end)


def _count(storage: Storage, symbol: str) -> int:
    return sum(1 for _ in storage.scan(symbol, MIN_TIMESTAMP, MAX_TIMESTAMP))


def _coverage_cells(each: Coverage) -> list[object]:
    causes = [f"{gap.seconds} s {gap.reason}: {gap.detail}".rstrip(": ") for gap in each.gaps]
    if each.unexplained:
        causes.append(f"{each.unexplained_seconds} s unexplained")
    return [each.symbol, each.stored, each.expected, each.missing_seconds, ", ".join(causes)]
