"""How a signal ends a command: the first asks for an orderly end, a second one ends at once."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, Literal

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_ECHO: Final = 0.5
"""Seconds in which the first signal may come again: `timeout` signals a process, then its group."""


def ending_signals() -> list[signal.Signals]:
    """Return what ends a recording in order: also a terminal that is closed, unless under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [*SIGNALS] if ignored else [*SIGNALS, signal.SIGHUP]


class Heard:
    """Tells the first signal from its echo and from a second one.

    Args:
        clock: Tells seconds that only go on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None

    @property
    def asked(self) -> bool:
        """Whether any signal came."""
        return self._first is not None

    def take(self, number: int) -> Literal["first", "echo", "second"]:
        """Take a signal that has come, and tell which it is."""
        now = self._clock()
        if self._first is None:
            self._first = number, now
            return "first"
        if number == signal.SIGHUP:
            return "echo"  # of a terminal that goes, each of kernel and shell tells; nobody hurries
        first, since = self._first
        return "echo" if number == first and now - since < _ECHO else "second"


class Ending:
    """Signals to a command that waits: the first wakes it, a second one ends it at once.

    Args:
        heard: Tells which signal it is.
        signals: Which are heard, from entering to leaving.
    """

    def __init__(self, heard: Heard | None = None, signals: Sequence[int] = SIGNALS) -> None:
        self._heard = heard or Heard()
        self._signals = signals

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._heard.asked

    def __enter__(self) -> Ending:
        # A lock of any kind could be held by the very code that a handler interrupts.
        self._read_end, self._write_end = os.pipe()
        self._before = {number: signal.signal(number, self._hear) for number in self._signals}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_end)
        os.close(self._write_end)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        match self._heard.take(number):
            case "first":
                os.write(self._write_end, b"x")
            case "second":
                raise SystemExit(128 + number)

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass, or fewer when a signal comes."""
        select.select([self._read_end], [], [], seconds)
