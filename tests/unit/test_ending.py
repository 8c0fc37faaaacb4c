"""What signals ask for, on a clock that stands still: the first, its echo, and a second one."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import pytest

from obframe.commands.ending import Ending, Heard, ending_signals
from obframe.commands.record import Stop

HUP, INT, TERM = signal.SIGHUP, signal.SIGINT, signal.SIGTERM


@dataclass
class Time:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_same_signal_within_half_a_second_is_an_echo_of_the_first() -> None:
    clock = Time()
    heard = Heard(clock)
    assert not heard.asked
    assert heard.take(TERM) == "first"
    assert heard.asked
    assert heard.take(TERM) == "echo"
    clock.now += 0.49
    assert heard.take(TERM) == "echo"
    clock.now += 0.01
    assert heard.take(TERM) == "second", "an echo does not put off the second one"


def test_another_signal_is_a_second_one_at_once() -> None:
    heard = Heard(Time())
    assert [heard.take(INT), heard.take(TERM)] == ["first", "second"]


def test_a_hang_up_is_a_first_signal_and_never_a_second_one() -> None:
    clock = Time()
    heard = Heard(clock)
    assert heard.take(HUP) == "first"
    clock.now += 5.0
    assert heard.take(HUP) == "echo", "kernel and shell may each tell of the same terminal"
    assert heard.take(TERM) == "second"


@pytest.mark.parametrize(("handler", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_hang_up_ends_a_run_unless_it_is_ignored(handler: signal.Handlers, ends: bool) -> None:
    before = signal.signal(HUP, handler)
    try:
        assert (HUP in ending_signals()) is ends
    finally:
        signal.signal(HUP, before)


def test_a_run_ends_at_once_by_a_second_signal_and_not_by_an_echo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    clock = Time()
    stop = Stop(Heard(clock))
    stop.on_signal(TERM)
    stop.on_signal(TERM)
    assert stop.heard.asked
    assert not codes
    clock.now += 0.5
    stop.on_signal(TERM)
    assert codes == [143]


def test_a_command_that_waits_is_woken_once_and_ended_by_a_second_signal() -> None:
    clock = Time()
    before = signal.getsignal(INT)
    with Ending(Heard(clock)) as ending:
        assert not ending.asked
        signal.raise_signal(INT)
        assert ending.asked
        ending.wait(60)  # woken: it returns at once
        signal.raise_signal(INT)
        clock.now += 0.5
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(INT)
        assert ended.value.code == 130
    assert signal.getsignal(INT) is before
