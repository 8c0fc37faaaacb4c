"""Every part of ours names the contract that tests it, and every plugin the API it is made for."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from obframe.protocols import Provider
from obframe.registry import Registry, installed_plugins, load
from obframe.testing.judging import find_contract
from obframe.vetting import API, KINDS, Kind

CommandLine: TypeAlias = Any


def ours() -> Registry:
    names = [
        name
        for name, entries in installed_plugins().items()
        if all(entry.value.startswith("obframe_plugins.") for entry in entries)
    ]
    return load(names, kinds=[])


def parts() -> list[Any]:
    registry = ours()
    return [
        pytest.param(kind, provider, id=f"{kind.name} {provider.name}".replace(" ", "-"))
        for kind in KINDS
        for provider in registry.providers(kind)
    ]


@pytest.mark.parametrize(("kind", "provider"), parts())
def test_the_part_names_its_contract(kind: Kind, provider: Provider[Any]) -> None:
    assert provider.contract, f"Provider({provider.name!r}, ..., contract=...) is missing"
    find_contract(provider.contract, kind.name)


def test_every_plugin_says_which_api_it_is_made_for() -> None:
    said = {plugin.name: plugin.api for plugin in ours().plugins}
    assert "rocksdb" in said
    assert set(said.values()) == {API}, said


def test_check_runs_the_contract_of_a_part_of_ours(command_line: CommandLine) -> None:
    result = command_line.run("plugins", "check", "static")
    assert result.returncode == 0, result.stderr
    assert "what is wanted is told at once" in result.stdout
