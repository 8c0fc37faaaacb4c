"""Observers run in threads of their own: what one of them does is nobody else's trouble."""

from __future__ import annotations

import logging
import threading
from functools import partial

import pytest

from obframe import observers as observers_module
from obframe.observers import Observers


def test_calls_come_in_order_and_a_raising_one_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    observers = Observers()
    seen: list[int] = []

    def observe(number: int) -> None:
        seen.append(number)
        if number == 3:
            raise RuntimeError("no")
        if number == 5:
            raise SystemExit(1)

    for number in range(100):
        observers.call("loud", "obframe_gap", partial(observe, number))
    assert observers.close(10) == []
    assert seen == list(range(100))
    assert observers.errors == {("loud", "obframe_gap"): 2}
    assert observers.counters() == {"observer.loud.errors": 2}
    assert caplog.text.count("plugin 'loud': its observer obframe_gap raised") == 2


def test_an_observer_that_never_returns_is_named_and_holds_up_nobody_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(observers_module, "TIMEOUT", 0.01)
    monkeypatch.setattr(observers_module, "QUEUE", 10)
    observers = Observers()
    free, entered = threading.Event(), threading.Event()
    seen: list[int] = []

    def hang(number: int) -> None:
        entered.set()
        free.wait(30)

    told = threading.Semaphore(0)

    def note(number: int) -> None:
        seen.append(number)
        told.release()

    for number in range(31):
        observers.call("hung", "obframe_book_reset", partial(hang, number))
        observers.call("good", "obframe_book_reset", partial(note, number))
        assert told.acquire(timeout=10)
        assert entered.wait(10)
    threading.Event().wait(0.02)
    observers.call("hung", "obframe_book_reset", partial(hang, 31))
    assert observers.close(0.1) == ["hung"]
    assert seen == list(range(31))
    assert observers.counters() == {"observer.hung.dropped": 31, "observer.hung.stuck": 1}
    assert "plugin 'hung': its observer obframe_book_reset has not returned for" in caplog.text
    assert "the oldest calls are dropped" in caplog.text
    assert "at the end; 10 calls after it are dropped" in caplog.text
    free.set()
