"""Every hook is documented with its exact signature, and works through a whole run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import pytest

from obframe import hookspecs
from obframe.registry import installed_plugins, load

CommandLine: TypeAlias = Any

ROOT = Path(__file__).resolve().parent.parent
HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if name.startswith("obframe_") and inspect.isfunction(function)
}
OFFERS = {
    "obframe_symbol_sources",
    "obframe_feeds",
    "obframe_storages",
    "obframe_sinks",
    "obframe_settings",
}

# Observes everything and offers a sink; writes a line for each call.
WITNESS = '''
"""Writes down every call."""
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

from obframe import Provider, hookimpl


def write(hook, **what):
    with open("witness.jsonl", "a") as file:
        print(json.dumps({"hook": hook, **what}), file=file)


@dataclass(frozen=True)
class Settings:
    pass


class Sink:
    async def write(self, snapshots):
        write("sink", rows=[[each.symbol, each.timestamp] for each in snapshots])


@asynccontextmanager
async def open_sink(settings):
    yield Sink()


@hookimpl
def obframe_sinks():
    write("obframe_sinks")
    return [Provider("witness", "writes down every call", Settings, open_sink)]


@hookimpl
def obframe_run_started(run):
    write("obframe_run_started", run_id=run.run_id, plugins=run.plugins, version=run.version)


@hookimpl
def obframe_run_finished(run, error):
    write("obframe_run_finished", run_id=run.run_id, error=repr(error))


@hookimpl
def obframe_book_reset(instrument, reason, at):
    write("obframe_book_reset", symbol=instrument.symbol, reason=reason, at=at)


@hookimpl
def obframe_gap(gap):
    write("obframe_gap", symbol=gap.symbol, start=gap.start, end=gap.end, reason=gap.reason)
    raise RuntimeError("an observer's trouble is its own")
'''


@pytest.mark.parametrize("name", HOOKS)
def test_the_hook_is_documented_as_it_is(name: str) -> None:
    """Signature, meaning and the five things an author has to know, word for word."""
    page = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    documented = re.findall(rf"^def {name}(\(.* -> .*)$", page, re.MULTILINE)
    signature = inspect.signature(HOOKS[name])
    assert documented == [str(signature).replace("'", "")]
    (part,) = re.findall(rf"^### {name}\n(.*?)(?=^### |^<!-- end)", page, re.DOTALL | re.MULTILINE)
    told = dict(re.findall(r"^- ([\w ]+): (.+)$", part, re.MULTILINE))
    assert list(told) == ["When", "Called by", "May return", "When it raises", "Since"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["Since"])
    text = " ".join((inspect.getdoc(HOOKS[name]) or "").split()).replace("``", "`")
    for what in (*told.values(), part.split("```")[2].strip().split("\n")[0]):
        assert what in text
    stated = re.findall(r"^(\w+): ", inspect.getdoc(HOOKS[name]) or "", re.MULTILINE)
    assert stated == ["When", "Caller", "Returns", "Raises", "Since"]


def test_every_argument_and_result_of_a_hook_is_typed() -> None:
    for name, hook in HOOKS.items():
        hints = get_type_hints(hook)
        assert set(hints) == {*inspect.signature(hook).parameters, "return"}, name


@pytest.mark.parametrize("name", HOOKS)
def test_a_plugin_of_ours_uses_the_hook(name: str) -> None:
    registry = load([each for each in installed_plugins() if is_ours(each)], kinds=[])
    assert [plugin.name for plugin in registry.plugins if name in plugin.hooks]
    parts = [*(ROOT / "obframe").glob("*.py"), *(ROOT / "obframe" / "commands").glob("*.py")]
    callers = [path.name for path in parts if f'"{name}"' in path.read_text(encoding="utf-8")]
    assert callers, f"nothing calls {name}"


def is_ours(name: str) -> bool:
    return all(each.value.startswith("obframe_plugins.") for each in installed_plugins()[name])


def test_row_53_and_56_hooks_through_a_whole_run(command_line: CommandLine) -> None:
    """A book is lost and proven anew; every hook tells its part, and a raising one harms nobody."""
    folder = command_line.folder
    (folder / "witness.py").write_text(WITNESS)
    command_line.install("witness", "witness")
    faults = ("--fault", "drop@20:symbol=BBB", "--fault", "slow-rest@2:symbol=BBB,seconds=2")
    with command_line.venue("--symbols", "AAA,BBB", *faults) as urls:
        options = ("--plugins", "rocksdb,witness", "--symbols", "AAA,BBB", "--duration", "8")
        result = command_line.run("run", *options, *urls)
    assert result.returncode == 0, result.stderr
    calls = [json.loads(line) for line in (folder / "witness.jsonl").read_text().splitlines()]
    by_hook: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        by_hook.setdefault(call["hook"], []).append(call)
    assert set(by_hook) == {*HOOKS, "sink"} - (OFFERS - {"obframe_sinks"})

    (started,) = by_hook["obframe_run_started"]
    (finished,) = by_hook["obframe_run_finished"]
    assert started["run_id"] == finished["run_id"]
    assert finished["error"] == "None"
    assert set(started["plugins"]) == {"rocksdb", "witness", "static", "binance"}
    assert calls.index(started) < calls.index(by_hook["sink"][0])
    assert calls[-1] == finished

    assert {(call["symbol"], call["reason"]) for call in by_hook["obframe_book_reset"]} == {
        ("BBB", "sequence")
    }
    listed = command_line.run("gaps", "BBB", "--format", "jsonl").stdout.splitlines()
    stored = {(gap["start"], gap["end"], gap["reason"]) for gap in map(json.loads, listed)}
    told = {
        (call["start"], call["end"], call["reason"])
        for call in by_hook["obframe_gap"]
        if call["symbol"] == "BBB"
    }
    assert told == stored
    assert any(reason == "sequence" for _, _, reason in told)
    assert "plugin 'witness': its observer obframe_gap raised" in result.stderr

    sampled = {tuple(row) for call in by_hook["sink"] for row in call["rows"]}
    rows = {
        (row["symbol"], row["timestamp"])
        for symbol in ("AAA", "BBB")
        for row in map(
            json.loads, command_line.run("query", symbol, "--format", "jsonl").stdout.splitlines()
        )
    }
    assert sampled == rows
