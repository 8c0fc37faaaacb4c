"""Observer ``eventlog``: a line of JSON for each run, lost book and gap, for those who watch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from obframe import Gap, Instrument, RunInfo, hookimpl

OBFRAME_API = 1


@dataclass(frozen=True, slots=True)
class EventLogSettings:
    """Settings of the observer ``eventlog``.

    Raises:
        ValueError: There is no path.
    """

    path: str = field(
        default="obframe-events.jsonl", metadata={"help": "File that lines are appended to."}
    )

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is empty; name a file")


class EventLog:
    """Appends events to a file, each as one line that is there when ``write`` returns."""

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def open(self, path: str) -> None:
        """Append to this file from now on.

        Raises:
            OSError: It cannot be written.
        """
        self.close()
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (close closes)

    def write(self, event: str, **what: object) -> None:
        """Append one event; nothing while no file is open."""
        if self._file is not None:
            told = {"time": round(time.time(), 3), "event": event, **what}
            self._file.write(json.dumps(told, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


_LOG = EventLog()


@hookimpl
def obframe_settings() -> Mapping[str, type[Any]]:
    """Have the section ``eventlog``."""
    return {"eventlog": EventLogSettings}


@hookimpl
def obframe_run_started(run: RunInfo) -> None:
    """Open the file and tell of the run."""
    _LOG.open(run.settings["eventlog"].path)
    _LOG.write(
        "run_started",
        run=run.run_id,
        started=run.started,
        version=run.version,
        plugins=run.plugins,
    )


@hookimpl
def obframe_book_reset(instrument: Instrument, reason: str, at: int) -> None:
    """Tell of the book."""
    _LOG.write("book_reset", symbol=instrument.symbol, reason=reason, at=at)


@hookimpl
def obframe_gap(gap: Gap) -> None:
    """Tell of the gap."""
    _LOG.write(
        "gap",
        symbol=gap.symbol,
        start=gap.start,
        end=gap.end,
        seconds=gap.seconds,
        reason=str(gap.reason),
        origin=gap.origin,
        detail=gap.detail,
    )


@hookimpl
def obframe_run_finished(run: RunInfo, error: BaseException | None) -> None:
    """Tell how the run ended, and close the file."""
    try:
        told = None if error is None else f"{type(error).__name__}: {error}"
        _LOG.write("run_finished", run=run.run_id, error=told)
    finally:
        _LOG.close()
