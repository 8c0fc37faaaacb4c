"""Runs the rules of one contract, and tells of each as a line of JSON on standard output.

``obframe plugins check`` runs it as a process of its own: a plugin that hangs, or ends the
interpreter, takes nothing with it but this. Lines are objects with ``event``: ``rules`` lists the
names of all, ``began`` names one, ``judged`` says what came of it, ``refused`` why there is nothing
to run.
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

from obframe.vetting import FEED, SINK, STORAGE, SYMBOL_SOURCE

_CONTRACTS = {
    FEED.name: "FeedContract",
    SINK.name: "SinkContract",
    STORAGE.name: "StorageContract",
    SYMBOL_SOURCE.name: "SymbolSourceContract",
}

_FILE = "test_contract.py"


class Refusal(Exception):
    """The contract cannot be run; says why."""


class Judge:
    """Listens to pytest. A pytest plugin.

    Args:
        reference: Where the contract is.
        kind: Name of the kind that it has to be for.
        out: Where events are printed.
        only: Run these rules; empty for all.
        limit: Seconds that one rule may take; then the process dumps where it is and ends.
        errors: Where the dump goes.
    """

    def __init__(
        self,
        reference: str,
        kind: str,
        out: TextIO,
        only: Sequence[str],
        limit: float,
        errors: TextIO,
    ) -> None:
        self._reference = reference
        self._kind = kind
        self._out = out
        self._only = frozenset(only)
        self._limit = limit
        self._errors = errors
        self._reports: list[pytest.TestReport] = []

    def tell(self, event: str, **what: Any) -> None:
        """Print one event."""
        self._out.write(json.dumps({"event": event, **what}) + "\n")
        self._out.flush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool | None:
        """Import the contract: not before, so that pytest shows what its assertions compared."""
        try:
            find_contract(self._reference, self._kind)
        except Refusal as refusal:
            self.tell("refused", why=str(refusal))
            return True  # that was all there is to collect
        return None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """List the rules; keep those that are asked for."""
        if self._only:
            items[:] = [item for item in items if _name(item.nodeid) in self._only]
        rules = {_name(item.nodeid): _words(item) for item in items}
        self.tell("rules", rules=rules)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Say why nothing could be collected."""
        if report.failed:
            self.tell("refused", why=str(report.longrepr))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say which rule comes now."""
        self._reports = []
        self.tell("began", rule=_name(nodeid))
        faulthandler.dump_traceback_later(self._limit, exit=True, file=self._errors)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what set-up, call and tear-down came to."""
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Say what came of the rule."""
        faulthandler.cancel_dump_traceback_later()
        worst = next((each for each in self._reports if each.failed), None)
        skipped = next((each for each in self._reports if each.skipped), None)
        told = worst or skipped
        self.tell(
            "judged",
            rule=_name(nodeid),
            outcome="failed" if worst else "skipped" if skipped else "passed",
            seconds=round(sum(each.duration for each in self._reports), 3),
            why=_why(told) if told else "",
            detail=told.longreprtext if worst and told else "",
        )


def _name(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")


def _words(item: pytest.Item) -> str:
    function = getattr(item, "function", None)
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split()).replace("``", "")


def _why(report: pytest.TestReport) -> str:
    """Return in one line what was wrong, or why a rule was skipped."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].removeprefix("AssertionError: ") if lines else "failed without a word"


def find_contract(reference: str, kind: str) -> type[Any]:
    """Import a contract.

    Args:
        reference: Such as ``package.module:Class``.
        kind: Name of the kind that it has to be for.

    Raises:
        Refusal: It cannot be imported, or is no contract of this kind.
    """
    module, _, name = reference.partition(":")
    if module not in sys.modules:  # what its assertions compare is shown, too
        pytest.register_assert_rewrite(module)
    wanted = getattr(importlib.import_module("obframe.testing.contracts"), _CONTRACTS[kind])
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise Refusal(f"{reference} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, wanted)):
        raise Refusal(f"{reference} is no subclass of {wanted.__module__}.{wanted.__qualname__}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say: folder, reference, kind, limit, then names of rules."""
    folder, reference, kind, limit, *only = arguments
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    errors = os.fdopen(os.dup(2), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the plugin prints is not what is told
    judge = Judge(reference, kind, out, only, float(limit), errors)
    module, _, name = reference.partition(":")
    home = Path(folder)
    (home / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (home / _FILE).write_text(f"from {module} import {name} as TestContract\n", encoding="utf-8")
    options = ["-c", str(home / "pytest.ini"), "--rootdir", folder, "--basetemp", str(home / "tmp")]
    options += ["-p", "no:cacheprovider", "-p", "no:terminal"]
    return int(pytest.main([*options, str(home / _FILE)], plugins=[judge]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
