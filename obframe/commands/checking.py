"""The command that runs the contracts of a plugin's parts."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from obframe.commands.installed import load_one
from obframe.commands.output import Format, note, write
from obframe.errors import ConfigError, Problem
from obframe.protocols import Provider
from obframe.vetting import KINDS, Kind

_TAIL = 12
"""Lines of what a process said last that are shown when it did not come to its end."""


class Verdict(NamedTuple):
    """What came of one rule.

    Attributes:
        kind: The part's kind.
        provider: Its name.
        rule: The rule's name.
        outcome: ``passed``, ``failed`` or ``skipped``.
        seconds: How long it took.
        words: The rule in words.
        why: Why it failed or was skipped.
        detail: For a failed rule all that is known, many lines.
    """

    kind: str
    provider: str
    rule: str
    outcome: str
    seconds: float
    words: str
    why: str
    detail: str = ""


def check(name: str, timeout: float, output: Format) -> int:
    """Run the contract of each part that a plugin offers, and print what came of each rule.

    Args:
        name: The plugin's.
        timeout: Seconds that one rule may take.
        output: How to print.

    Returns:
        1 when a rule is broken, a part names no contract, or none of its rules could be run; else
        0.

    Raises:
        PluginError: The plugin cannot be loaded.
        ConfigError: pytest is not installed.
    """
    plugin = load_one(name)
    offers = [(kind, each) for kind in KINDS for each in plugin.providers.get(kind.name, ())]
    if offers and importlib.util.find_spec("pytest") is None:
        reason = (
            "contracts are run by pytest, which is not installed; pip install 'obframe[testing]'"
        )
        raise ConfigError([Problem("plugins check", "", reason)])
    table = output is Format.TABLE
    # A table is printed at the end, lines of the other formats as they come: in between them
    # nothing else may stand on the same terminal.
    shown = sys.stderr.isatty() and (table or not sys.stdout.isatty())
    counts: Counter[tuple[str, str]] = Counter()
    failed: list[Verdict] = []

    def judged() -> Iterator[Verdict]:
        for kind, provider in offers:
            for verdict in _judge(kind, provider, timeout, shown):
                counts[f"{kind.name} {provider.name}", verdict.outcome] += 1
                if verdict.outcome == "failed":
                    failed.append(verdict)
                yield verdict

    columns = ("part", "rule", "outcome", "why") if table else Verdict._fields
    write(
        output, judged(), columns=columns, cells=_cells if table else tuple, value=Verdict._asdict
    )
    _conclude(plugin.name, counts, failed, output)
    parts = {part for part, _ in counts}
    return 1 if failed or any(not counts[part, "passed"] for part in parts) else 0


def _cells(verdict: Verdict) -> tuple[str, ...]:
    return f"{verdict.kind} {verdict.provider}", verdict.rule, verdict.outcome, verdict.why


def _conclude(
    plugin: str, counts: Counter[tuple[str, str]], failed: list[Verdict], output: Format
) -> None:
    if output is Format.TABLE:
        for verdict in failed:
            note(
                f"{verdict.kind} {verdict.provider} breaks a rule: {verdict.words or verdict.rule}"
            )
            print(f"{verdict.detail or verdict.why}\n", file=sys.stderr)
    if not counts:
        note(f"plugin {plugin!r} offers no part; its hooks are well-formed")
    for part in dict.fromkeys(part for part, _ in counts):
        told = [f"{counts[part, each]} {each}" for each in ("passed", "failed", "skipped")]
        note(f"{part}: rules {', '.join(told)}")


def _judge(kind: Kind, provider: Provider[Any], timeout: float, shown: bool) -> Iterator[Verdict]:
    """Run a part's contract, in a new process after each one that did not come to its end."""
    if not provider.contract:
        why = 'names no contract; write Provider(..., contract="package.module:Class")'
        yield Verdict(kind.name, provider.name, "has a contract", "failed", 0.0, "", why)
        return
    rules: dict[str, str] = {}
    left: list[str] | None = None  # not known yet
    with tempfile.TemporaryDirectory(prefix="obframe-check-") as folder:
        while left is None or left:
            begun = ""
            process = _Process(Path(folder), kind, provider, timeout, left or ())
            with _Progress(f"{kind.name} {provider.name}", shown) as show:
                for event in process.events():
                    match event["event"]:
                        case "rules":
                            rules = rules or event["rules"]
                            left = list(event["rules"])
                        case "began":
                            begun = event["rule"]
                            show(begun)
                        case "judged":
                            assert left is not None
                            left.remove(event["rule"])
                            begun = ""
                            yield _verdict(kind, provider, event, rules)
                        case "refused":
                            what = {"rule": "can be run", "outcome": "failed", "seconds": 0.0}
                            yield _verdict(kind, provider, {**what, **event}, rules)
                            return
            if begun and left is not None:
                left.remove(begun)
                what = {"rule": begun, "outcome": "failed", "seconds": timeout}
                why, detail = process.describe_end()
                yield _verdict(kind, provider, {**what, "why": why, "detail": detail}, rules)
            elif left or not rules:
                what = {"rule": "can be run", "outcome": "failed", "seconds": 0.0}
                why, detail = process.describe_end()
                yield _verdict(kind, provider, {**what, "why": why, "detail": detail}, rules)
                return


def _verdict(
    kind: Kind, provider: Provider[Any], event: dict[str, Any], rules: dict[str, str]
) -> Verdict:
    why = event.get("why", "")
    return Verdict(
        kind=kind.name,
        provider=provider.name,
        rule=event["rule"],
        outcome=event["outcome"],
        seconds=event["seconds"],
        words=rules.get(event["rule"], ""),
        why=why.partition("\n")[0],
        detail=event.get("detail") or (why if event["outcome"] == "failed" else ""),
    )


class _Process:
    """One run of ``obframe.testing.judging``, in a folder that the plugin may fill."""

    def __init__(
        self, folder: Path, kind: Kind, provider: Provider[Any], timeout: float, only: Any
    ) -> None:
        self._folder = folder
        self._log = folder / "said.txt"
        self._timeout = timeout
        program = [sys.executable, "-m", "obframe.testing.judging"]
        what = [provider.contract, kind.name, str(timeout)]
        self._command = [*program, str(folder), *what, *only]
        self._code = 0

    def events(self) -> Iterator[dict[str, Any]]:
        """Start it, and yield what it tells until it ends."""
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PYTEST_") and name != "PERSISTENT_SYMBOLS"
        }
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        if paths := environ.get("PYTHONPATH"):  # it runs in another folder
            environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        with self._log.open("wb") as errors:
            process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            assert process.stdout is not None
            with process.stdout as told:
                for line in told:
                    yield json.loads(line)
            self._code = process.wait()
        finally:
            process.kill()
            process.wait()

    def describe_end(self) -> tuple[str, str]:
        """Say in one line why it ended before its time, and in more what it said last."""
        said = self._log.read_text(encoding="utf-8", errors="replace")
        _, timed_out, stack = said.rpartition("Timeout (")
        if timed_out:  # what the interpreter was at, innermost first
            where = "\n".join(stack.splitlines()[1 : _TAIL + 1])
            return f"did not end within {self._timeout:g} s (--timeout)", where
        tail = "\n".join(said.splitlines()[-_TAIL:])
        return f"the process was ended by it (exit code {self._code})", tail


class _Progress:
    """Shows on a terminal which rule is being run."""

    def __init__(self, part: str, shown: bool) -> None:
        self._part = part
        self._shown = shown
        self._status: Any = None

    def __enter__(self) -> Callable[[str], None]:
        if self._shown:
            from rich.console import Console

            self._status = Console(stderr=True).status(f"{self._part} …")
            self._status.start()
        return self._show

    def _show(self, rule: str) -> None:
        if self._status is not None:
            self._status.update(f"{self._part}: {rule} …")

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
