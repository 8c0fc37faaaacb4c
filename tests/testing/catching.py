"""Runs one rule of a contract against what breaks it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from obframe.testing.contracts import Contract, Rule, rules_of


class Broken(NamedTuple):
    """What breaks a rule, and words of the failure that must follow."""

    part: Any
    words: str


Table = Mapping[str, Broken | Sequence[Broken]]


def cases(table: Table, contract: type[Contract]) -> list[Any]:
    """Return one pytest parameter for each broken part; every rule must have one."""
    rules = {rule.name: rule for rule in rules_of(contract)}
    assert set(table) == set(rules), set(table) ^ set(rules)
    found = []
    for name, entry in table.items():
        for broken in [entry] if isinstance(entry, Broken) else entry:
            made = getattr(broken.part, "__name__", str(broken.part))
            found.append(pytest.param(rules[name], broken, id=f"{name[5:]}-{made}"))
    return found


def check_caught(contract: Contract, rule: Rule, words: str, tmp_path: Path) -> None:
    """Check that the rule fails, with these words and its own."""
    failures = []
    for number, arguments in enumerate(_variants(contract, rule)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            _run(contract, rule, folder, arguments)
        except (Exception, pytest.fail.Exception) as error:
            failures.append((str(error), error.__notes__))
    assert failures, f"{rule.name} does not catch it"
    assert any(words in text for text, _ in failures), failures
    assert all(str(rule) in notes for _, notes in failures)


def _run(contract: Any, rule: Rule, folder: Path, arguments: dict[str, Any]) -> None:
    test = getattr(contract, rule.name)
    if "storage" not in inspect.signature(test).parameters:
        test(folder, **arguments)
        return
    with contract.make_storage(folder) as storage:  # as the contract's fixture does
        test(storage, **arguments)


def _variants(contract: Contract, rule: Rule) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each variant that ``parametrize`` makes."""
    marks = [
        mark
        for mark in getattr(getattr(contract, rule.name), "pytestmark", [])
        if mark.name == "parametrize"
    ]
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        yield {mark.args[0]: value for mark, value in zip(marks, values, strict=True)}
