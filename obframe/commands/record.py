"""The command that records: run."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from obframe.commands.ending import Heard, ending_signals
from obframe.commands.output import Format, flush, note, program_name, say
from obframe.commands.session import Choice, Session
from obframe.errors import ConfigError, ObframeError, Problem, StoreUnavailable
from obframe.feeds import name_some
from obframe.recorder import UNRECORDED, Recorder, RunSummary
from obframe.settings import Duration
from obframe.sinks import SinkPart
from obframe.types import GapReason
from obframe.vetting import FEED, SINK, STORAGE, SYMBOL_SOURCE

logger = logging.getLogger("obframe.run")

_VAIN = 1
_NOT_DRAINED = 3
_SWITCH_INTERVAL = 0.0005
"""Seconds, a tenth of Python's own."""
_OBSERVERS_END = 5.0
"""Seconds that observers have at the end for what they were not told yet."""

_CHATTY = ("aiohttp", "asyncio", "picows", "websockets")


class LineFormatter(logging.Formatter):
    """One line a message, UTC to the millisecond, control characters escaped."""

    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Write one record without its traceback."""
        text = super().formatMessage(record)
        if text.isprintable():
            return text
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def set_up_logging(level: str) -> None:
    """Log to standard error from this level on; libraries only from warnings on, or in debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level.upper() != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


def read_duration(text: str) -> float:
    """Read how long to record.

    Raises:
        ConfigError: It is no duration, or none that records anything.
    """
    try:
        seconds = Duration.parse(text)
    except ValueError as error:
        raise ConfigError([Problem("--duration", "", str(error))]) from error
    if not seconds:
        mend = "give more than 0, such as 90 or 1h30m, or leave it out to record until Ctrl-C"
        raise ConfigError([Problem("--duration", "", f"{text!r} records nothing; {mend}")])
    return seconds


def run(choice: Choice, duration: str | None, log_level: str, output: Format) -> int:
    """Record until told to stop, then say what was stored.

    Raises:
        ObframeError: Plugins, settings or storage are not as they should be, rows were left over
            that the storage did not take, or no second that was due has a row.
    """
    set_up_logging(log_level)
    seconds = None if duration is None else read_duration(duration)
    session = choice.load([SYMBOL_SOURCE, FEED, STORAGE])
    loop, factory = choose_loop(session.settings.recorder.event_loop)
    with asyncio.Runner(loop_factory=factory) as runner:
        summary = runner.run(_record(choice, session, seconds, loop))
    if summary is None:
        return 0
    if output is Format.TABLE:
        note(describe(summary))
    else:
        say(msgspec.json.encode(summary).decode())
    code, failure = _find_failure(summary)
    if summary.abandoned:
        # Threads of theirs may never end, and the interpreter would wait for them.
        note("ended without " + ", ".join(summary.abandoned))
        if failure is not None:
            note(str(failure))
        logging.shutdown()
        flush()
        os._exit(code)
    if failure is not None:
        raise failure
    return 0


def _find_failure(summary: RunSummary) -> tuple[int, ObframeError | None]:
    """Return the exit code of a run, and what went wrong."""
    if not summary.drained:
        why = "rows could not be stored before the end; the log tells how many"
        return _NOT_DRAINED, StoreUnavailable(why)
    if summary.is_vain:
        return _VAIN, ObframeError(f"nothing was recorded: {describe_vain(summary)}")
    return 0, None


def describe_vain(summary: RunSummary) -> str:
    """Say why no second that was due has a row, and the mend."""
    if summary.unknown and len(summary.unknown) == sum(summary.states.values()):
        symbol, said = next(iter(summary.unknown.items()))
        mend = "check how the symbols are written, and which venue they are of"
        return f"no venue knows {name_some(list(summary.unknown))} ({symbol}: {said}); {mend}"
    said = ", ".join(reason for reason in summary.gap_seconds if reason not in UNRECORDED)
    unproven = {name: why for name, why in summary.unproven.items() if name not in summary.unknown}
    if unproven:
        said = "{}: {}".format(*next(iter(unproven.items())))
        if len(unproven) > 1:
            said = f"{name_some(list(unproven))}; {said}"
    mend = "check that the venue can be reached, and trades"
    if summary.updates:
        mend = "updates came, yet none proved a book in time: record for longer"
    return f"no book gave a row ({said}); {mend}"


def choose_loop(wanted: str) -> tuple[str, Callable[[], asyncio.AbstractEventLoop] | None]:
    """Return the name of an event loop and what makes it; None makes asyncio's own.

    Args:
        wanted: ``asyncio``, ``uvloop``, or ``auto`` for ``uvloop`` where it is installed.
    """
    if wanted == "asyncio" or (wanted == "auto" and importlib.util.find_spec("uvloop") is None):
        return "asyncio", None
    return "uvloop", importlib.import_module("uvloop").new_event_loop


def describe(summary: RunSummary) -> str:
    """Say for a person what one run did."""
    unrecorded = {reason: summary.gap_seconds.get(reason, 0) for reason in UNRECORDED}
    own = {key: count for key, count in summary.gap_seconds.items() if key not in unrecorded}
    lines = [f"stored {_count(summary.rows, 'row')}, {_lost(own)}"]
    if any(unrecorded.values()):
        lines.append(f"while not recorded: {_lost(unrecorded)}")
    if summary.updates:
        lines.append(
            f"{_count(summary.updates, 'update')}, book latency p99 "
            f"{summary.book_latency_p99 * 1e3:.2f} ms, "
            f"tick lag p99 {summary.tick_lag_p99 * 1e3:.1f} ms"
        )
    else:
        lines.append("no updates were received")
    lines += _sinks(summary.counters)
    if summary.rows and summary.storage:
        lines.append(f"stored in {summary.storage}")
    if summary.query:
        lines.append(f"see it with: {summary.query}")
    return "\n         ".join(lines)


def suggest_query(choice: Choice, session: Session, symbol: str) -> str:
    """Return the command that shows what was stored of a symbol, from the same folder."""
    provider = session.chosen[STORAGE.name]
    if provider.open_reader is None:
        return ""
    arguments = ["query", symbol, "--last", "5"]
    if provider.name != STORAGE.default:
        for plugin in session.registry.plugins:
            if provider in plugin.providers.get(STORAGE.name, ()):
                arguments += ["--plugins", plugin.name, "--storage", provider.name]
    if choice.config is not None:
        arguments += ["--config", str(choice.config)]
    for each in choice.assignments:
        if each.startswith(f"{provider.name}."):
            arguments += ["--set", each]
    return f"{program_name()} {shlex.join(arguments)}"


def _sinks(counters: Mapping[str, int]) -> Iterator[str]:
    """Say of each sink what it was told, and what it was not."""
    for key, lag in counters.items():
        if key.startswith("sink.") and key.endswith(".lag_seconds"):
            name = key.removeprefix("sink.").removesuffix(".lag_seconds")
            told = counters.get(f"sink.{name}.written", 0)
            text = f"sink {name} was told {_count(told, 'row')}"
            if dropped := counters.get(f"sink.{name}.dropped", 0):
                text += f", {dropped:,} dropped"
            if lost := counters.get(f"sink.{name}.lost_seconds", 0):
                text += f", {_count(lost, 'second')} lost to retention"
            yield text + (f", {lag:,} s behind" if lag else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _lost(seconds: Mapping[GapReason, int]) -> str:
    causes = ", ".join(f"{reason} {count:,}" for reason, count in seconds.items() if count)
    told = f" ({causes})" if causes else ""
    return f"{_count(sum(seconds.values()), 'symbol-second')} without a row{told}"


@dataclass(slots=True)
class Stop:
    """What signals do: the first asks for an orderly end, a second one ends at once."""

    heard: Heard = field(default_factory=Heard)
    recorder: Recorder | None = None

    def on_signal(self, number: int) -> None:
        """Take a signal that has come."""
        match self.heard.take(number):
            case "second":
                os._exit(128 + number)
            case "first":
                logger.info("%s: storing what is held, then ending", signal.Signals(number).name)
                if self.recorder is not None:
                    self.recorder.stop()


async def _record(
    choice: Choice, session: Session, duration: float | None, event_loop: str
) -> RunSummary | None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in ending_signals():
        loop.add_signal_handler(number, stop.on_signal, number)
    async with AsyncExitStack() as stack:
        source = await session.open_symbols(stack)  # first: a bad list opens nothing
        storage = await session.open(stack, STORAGE)
        sinks = {
            provider.name: SinkPart(partial(session.opening, SINK, provider), provider.backfill)
            for provider in session.sinks
        }
        feeds = await session.open_feeds(stack)
        recorder = Recorder(
            feed=feeds,
            storage=storage,
            symbol_source=source,
            sinks=sinks,
            settings=session.settings.recorder,
            retention=session.settings.retention,
            notify=session.registry.notify,
            plugins=[plugin.name for plugin in session.registry.plugins],
            sections=session.settings.providers,
        )
        if stop.heard.asked:
            return None
        if sinks:
            # Their threads give the interpreter back sooner to the one that samples.
            sys.setswitchinterval(_SWITCH_INTERVAL)
        # What has been loaded stays: the collector need not walk through it again while it runs.
        gc.collect()
        gc.freeze()
        stop.recorder = recorder
        names = [f"{SYMBOL_SOURCE.name} {provider.name}" for provider in session.sources]
        names += [f"{kind} {provider.name}" for kind, provider in session.chosen.items()]
        if place := session.locate():
            names[-1] += f" in {place}"
        venues = [f"feed {each}" for each in session.venues.names]
        if len(venues) > 1:
            venues.append(f"default venue {session.venues.default or 'none'}")
        parts = [*names, *venues, f"event loop {event_loop}"]
        parts += [f"sink {name}" for name in sinks]
        logger.info("recording: %s", ", ".join(parts))
        observers = session.registry.observers
        try:
            summary = await recorder.run(duration)
        finally:
            slow = await asyncio.to_thread(observers.close, _OBSERVERS_END)
        counters = {**summary.counters, **observers.counters()}
        abandoned = (*summary.abandoned, *(f"observers of {name}" for name in slow))
        query = ""
        if summary.rows:
            books = recorder.books.synchronizers
            symbols = [sync.instrument.symbol for sync in books if sync.book] or [
                sync.instrument.symbol for sync in books
            ]
            query = suggest_query(choice, session, symbols[0]) if symbols else ""
        return replace(
            summary,
            counters=dict(sorted(counters.items())),
            abandoned=abandoned,
            storage=place,
            query=query,
        )
