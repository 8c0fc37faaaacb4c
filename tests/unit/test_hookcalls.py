"""Calls of hooks: arguments by name, and the trace on standard error."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import pluggy
import pytest

from obframe import hookspecs
from obframe.hookcalls import call_hook, is_traced
from obframe.types import Gap, GapReason

CommandLine: TypeAlias = Any

GAP = Gap(
    "BTCUSDT", 1_700_000_000, 1_700_000_002, GapReason.SEQUENCE, "5 after 3\nnot 4" + "x" * 99
)


class Watcher:
    """Observes gaps in the way that a test wants."""

    def __init__(self, result: object = None, error: Exception | None = None) -> None:
        self.result = result
        self.error = error
        self.seen: list[Gap] = []

    @hookspecs.hookimpl
    def obframe_gap(self, gap: Gap) -> object:
        self.seen.append(gap)
        if self.error is not None:
            raise self.error
        return self.result


def implementation(watcher: object) -> pluggy.HookImpl:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(watcher, "watcher")
    (found,) = manager.hook.obframe_gap.get_hookimpls()
    return found


def test_without_a_trace_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher(result=5)
    assert call_hook("obframe_gap", implementation(watcher), {"gap": GAP, "other": 1}) == 5
    assert watcher.seen == [GAP]
    assert capsys.readouterr() == ("", "")


def test_the_trace_tells_call_plugin_result_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    result = ["y" * 1000]
    watcher = implementation(Watcher(result))
    assert call_hook("obframe_gap", watcher, {"gap": GAP}, trace=True) is result
    told = capsys.readouterr()
    assert not told.out
    (line,) = told.err.splitlines()
    found = re.fullmatch(
        r"obframe: hook obframe_gap\(gap=(Gap\(symbol='BTCUSDT', .*…)\) of plugin 'watcher'"
        r" returned (\['y+…) in \d+\.\d{3} ms",
        line,
    )
    assert found is not None, line
    assert len(found[1]) == 100
    assert len(found[2]) == 200


def test_the_trace_tells_an_error_and_lets_it_through(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = implementation(Watcher(error=RuntimeError("no\nluck")))
    with pytest.raises(RuntimeError):
        call_hook("obframe_gap", watcher, {"gap": GAP}, trace=True)
    assert " raised RuntimeError: no luck in " in capsys.readouterr().err


def test_a_value_that_cannot_be_shown_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Shy:
        def __repr__(self) -> str:
            raise ValueError

    shy = Shy()
    assert call_hook("obframe_gap", implementation(Watcher(shy)), {"gap": GAP}, trace=True) is shy
    assert "returned <Shy whose repr raises ValueError>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "traced"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_the_variable_turns_it_on(value: str, traced: bool) -> None:
    assert is_traced({"OBFRAME_TRACE_HOOKS": value}) is traced
    assert not is_traced({})


def test_a_whole_run_is_traced(command_line: CommandLine) -> None:
    """Offers and observers alike, on standard error only, and the variable is no setting."""
    with command_line.venue("--symbols", "AAA") as urls:
        options = ("--plugins", "memory,eventlog", "--symbols", "AAA", "--duration", "2")
        environ = {"OBFRAME_TRACE_HOOKS": "1"}
        result = command_line.run("run", *options, "--format", "json", *urls, environ=environ)
    assert result.returncode == 0, result.stderr
    assert "obframe: hook" not in result.stdout
    calls = [line for line in result.stderr.splitlines() if line.startswith("obframe: hook ")]
    hooks = {re.findall(r"hook (\w+)\(.* of plugin '(\w+)' ", line)[0] for line in calls}
    assert {
        ("obframe_storages", "memory"),
        ("obframe_feeds", "binance"),
        ("obframe_symbol_sources", "static"),
        ("obframe_settings", "eventlog"),
        ("obframe_run_started", "eventlog"),
        ("obframe_run_finished", "eventlog"),
    } <= hooks
