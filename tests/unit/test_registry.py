"""The registry, through small distributions made on the fly: found, loaded, checked, refused."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import obframe
from obframe import vetting
from obframe.errors import PluginError
from obframe.registry import Registry, load
from obframe.types import Gap, GapReason, Instrument
from obframe.vetting import FEED, KINDS, SINK, STORAGE, SYMBOL_SOURCE, check_protocol
from obframe_plugins.static import StaticSettings, StaticSymbols

Make = Callable[..., None]

HEAD = """
from contextlib import asynccontextmanager
from dataclasses import dataclass
from obframe import Provider, hookimpl

@dataclass(frozen=True)
class Settings:
    url: str = ""

@asynccontextmanager
async def open_part(settings):
    yield object()

"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Give a function that installs a distribution with one plugin."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(
        name: str, source: str, *, head: str = HEAD, distribution: str = "", module: str = ""
    ) -> None:
        module = module or f"made_{name.replace('-', '_')}"
        distribution = distribution or f"obframe-{name}"
        made.append(module)
        (tmp_path / f"{module}.py").write_text(
            f'"""Plugin {name}."""\n' + head + textwrap.dedent(source)
        )
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(f"[obframe.plugins]\n{name} = {module}\n")

    yield make
    for module in made:
        sys.modules.pop(module, None)


def refused(name: str) -> PluginError:
    with pytest.raises(PluginError) as caught:
        load([name], kinds=[])
    assert caught.value.plugin == name
    return caught.value


SINK_SOURCE = """
@hookimpl
def obframe_sinks():
    return [Provider("{name}", "a sink", Settings, open_part)]
"""


def test_defaults_fill_the_kinds_that_nobody_offers() -> None:
    registry = load(["memory"], kinds=[STORAGE, SYMBOL_SOURCE])
    assert [plugin.name for plugin in registry.plugins] == ["memory", "static"]
    assert registry.choose(STORAGE).name == "memory"
    assert registry.choose(SYMBOL_SOURCE).settings is StaticSettings
    assert registry.providers(SINK) == []
    assert [kind.default for kind in KINDS] == ["static", "binance", "rocksdb", ""]


def test_a_strangers_plugin_is_found_loaded_and_described(make: Make) -> None:
    make("mail", SINK_SOURCE.format(name="mail"))
    registry = load(["mail", "mail"], kinds=[])
    (plugin,) = registry.plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("mail", "obframe-mail", "1.2")
    assert (plugin.module, plugin.summary) == ("made_mail", "Plugin mail.")
    assert (plugin.api, plugin.hooks) == (None, ("obframe_sinks",))
    assert [provider.name for provider in registry.providers(SINK)] == ["mail"]
    assert set(registry.sections()) == {"mail"}


def test_registries_share_nothing(make: Make) -> None:
    make("mail", SINK_SOURCE.format(name="mail"))
    first, second = load(["mail"], kinds=[]), Registry()
    assert first.providers(SINK)
    assert not second.providers(SINK)


def test_row_55_an_unknown_plugin_is_answered_with_those_installed() -> None:
    error = refused("rocksbd")
    assert error.reason == "is not installed"
    assert "static" in error.mend
    assert "did you mean 'rocksdb'?" in error.mend


def test_row_55_a_failing_import_names_plugin_reason_and_mend(make: Make) -> None:
    make("mail", "import a_module_that_nobody_has")
    error = refused("mail")
    assert "ModuleNotFoundError" in error.reason
    assert "install what it needs (a_module_that_nobody_has)" in error.mend
    make("post", "1 / 0")
    error = refused("post")
    assert "ZeroDivisionError" in error.reason
    assert "--plugins" in error.mend
    make("old", "from obframe import what_was_removed")
    assert "another version" in refused("old").mend


@pytest.mark.parametrize(
    ("api", "mend"),
    [
        ("4", "pip install --upgrade obframe, or take an older obframe-mail"),
        ("1", "upgrade the plugin: pip install --upgrade obframe-mail"),
    ],
)
def test_row_55_a_plugin_for_another_api_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch, api: str, mend: str
) -> None:
    """Named are the plugin, the version it is for, those that are supported, and the mend."""
    monkeypatch.setattr(vetting, "OLDEST_API", 2)
    monkeypatch.setattr(vetting, "API", 3)
    make("mail", f"OBFRAME_API = {api}\n" + SINK_SOURCE.format(name="mail"))
    error = refused("mail")
    ours = f"this obframe {obframe.__version__} supports 2 to 3"
    assert error.reason == f"is made for plugin API {api}; {ours}"
    assert mend in error.mend


@pytest.mark.parametrize("api", ["0", "'1'", "True", "1.0", "None"])
def test_what_is_no_version_of_the_api_is_refused(make: Make, api: str) -> None:
    make("mail", f"OBFRAME_API = {api}\n" + SINK_SOURCE.format(name="mail"))
    error = refused("mail")
    assert f"OBFRAME_API is {api}, which is no version" in error.reason
    assert error.mend == "write OBFRAME_API = 1"


@pytest.mark.parametrize("api", ["OBFRAME_API = 1", "OBFRAME_API = 2", ""])
def test_plugins_for_every_supported_api_are_taken(
    make: Make, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    """An old plugin goes on working, and one that does not say is taken to be new."""
    monkeypatch.setattr(vetting, "API", 2)
    make("mail", f"{api}\n" + SINK_SOURCE.format(name="mail"))
    assert load(["mail"], kinds=[]).providers(SINK)


def test_two_distributions_of_one_name_are_a_clash(make: Make) -> None:
    make("mail", SINK_SOURCE.format(name="mail"))
    make("mail", "", distribution="other-mail", module="made_other_mail")
    error = refused("mail")
    assert "obframe-mail 1.2" in error.reason
    assert "other-mail 1.2" in error.reason


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@hookimpl\ndef obframe_sink():\n    return []", "did you mean obframe_sinks?"),
        ("@hookimpl\ndef on_gap(gap):\n    pass", "is no hook"),
        ("def obframe_sinks():\n    return []", "is not marked"),
        ("@hookimpl\nasync def obframe_sinks():\n    return []", "is async"),
        ("@hookimpl\nasync def obframe_gap(gap):\n    yield", "is async"),
        ("@hookimpl\ndef obframe_gap(gap=None):\n    pass", "has an argument with a default"),
        ("@hookimpl\ndef obframe_gap(hole):\n    pass", "hole"),
        ("@hookimpl(wrapper=True)\ndef obframe_gap(gap):\n    yield", "is a wrapper"),
    ],
)
def test_hooks_that_would_never_be_called_are_refused(
    make: Make, source: str, message: str
) -> None:
    make("mail", source)
    assert message in str(refused("mail"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("None", "not a list of Provider"),
        ("['mail']", "not a list of Provider"),
        ("1 / 0", "ZeroDivisionError"),
        ("[Provider('Mail Box', 's', Settings, open_part)]", "is no name"),
        ("[Provider('retention', 's', Settings, open_part)]", "is a section of obframe itself"),
        ("[Provider('mail', '', Settings, open_part)]", "has no summary"),
        ("[Provider('mail', 's', Settings, None)]", "cannot be called"),
        ("[Provider('mail', 's', dict, open_part)]", "no dataclass"),
        ("[Provider('mail', 's', Loose, open_part)]", "can be changed"),
        ("[Provider('mail', 's', Needy, open_part)]", "'url' has no default"),
        ("[Provider('mail', 's', Settings, open_part)] * 2", "so does 'mail'"),
        ("[Provider('mail', 's', Settings, open_part, contract='x')]", "names no class"),
        ("[Provider('mail', 's', Settings, open_part, contract=Settings)]", "names no class"),
    ],
)
def test_what_a_hook_returns_is_checked(make: Make, value: str, message: str) -> None:
    source = """
        @dataclass
        class Loose:
            url: str = ""

        @dataclass(frozen=True)
        class Needy:
            url: str

        @hookimpl
        def obframe_sinks():
            return {value}
        """
    make("mail", textwrap.dedent(source).format(value=value))
    error = refused("mail")
    assert message in error.reason
    assert error.mend


def test_a_name_is_offered_once_and_a_section_has_one_meaning(make: Make) -> None:
    make("mail", SINK_SOURCE.format(name="post"))
    make("other", SINK_SOURCE.format(name="post"))
    with pytest.raises(PluginError, match="so does 'mail'"):
        load(["mail", "other"], kinds=[])
    make("fake", SINK_SOURCE.format(name="static"))
    with pytest.raises(PluginError, match="different settings"):
        load(["fake"], kinds=[SYMBOL_SOURCE])
    both = """
        @hookimpl
        def obframe_sinks():
            return [Provider("both", "a sink", Settings, open_part)]

        @hookimpl
        def obframe_feeds():
            return [Provider("both", "a feed", Settings, open_part)]
        """
    make("both", both)
    registry = load(["both"], kinds=[FEED])
    assert registry.choose(FEED).name == registry.providers(SINK)[0].name == "both"


def test_two_of_one_kind_need_a_choice(make: Make) -> None:
    feed = """
        @hookimpl
        def obframe_feeds():
            return [Provider("{name}", "a feed", Settings, open_part)]
        """
    make("east", feed.format(name="east"))
    make("west", feed.format(name="west"))
    registry = load(["east", "west"], kinds=[FEED])
    with pytest.raises(PluginError, match="choose one with --feed NAME"):
        registry.choose(FEED)
    assert registry.choose(FEED, "west").name == "west"
    with pytest.raises(PluginError, match=r"no loaded plugin offers the feed 'north'.*east, west"):
        registry.choose(FEED, "north")
    with pytest.raises(PluginError, match=r"did you mean 'west'\?"):
        registry.choose(FEED, "wets")
    with pytest.raises(PluginError, match=r"does, with --plugins files$"):
        registry.choose(SINK, "jsonl")
    with pytest.raises(PluginError, match=r"`obframe plugins` lists what each offers"):
        registry.choose(SINK, "parquet")


def test_a_refused_plugin_leaves_nothing_behind(make: Make) -> None:
    make(
        "mail", SINK_SOURCE.format(name="Mail") + "\n@hookimpl\ndef obframe_gap(gap):\n    1 / 0\n"
    )
    registry = Registry()
    with pytest.raises(PluginError):
        registry.add("mail")
    registry.notify("obframe_gap", gap=Gap("BTCUSDT", 1_700_000_000, 1_700_000_000, GapReason.DISK))
    assert registry.observers.close(5) == []
    assert not registry.observers.errors


def test_an_observer_that_raises_is_named_counted_and_passed_over(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    observer = """
        seen = []

        @hookimpl
        def obframe_gap({argument}):
            seen.append(1)
            {action}
        """
    for name, argument, action in (
        ("good", "gap", "seen.append(gap)"),
        ("bad", "gap", "raise RuntimeError('no')"),
        ("blind", "", "pass"),
    ):
        make(name, observer.format(argument=argument, action=action))
    registry = load(["good", "bad", "blind"], kinds=[])
    gap = Gap("BTCUSDT", 1_700_000_000, 1_700_000_002, GapReason.SEQUENCE)
    with caplog.at_level(logging.ERROR):
        registry.notify("obframe_gap", gap=gap)
        registry.notify("obframe_gap", gap=gap)
        assert registry.observers.close(5) == []
    assert sys.modules["made_good"].seen == [1, gap, 1, gap]
    assert sys.modules["made_blind"].seen == [1, 1]
    assert registry.observers.errors == {("bad", "obframe_gap"): 2}
    assert "plugin 'bad'" in caplog.text
    assert "obframe_gap" in caplog.text


def test_sections_of_plugins_that_are_installed_are_known_even_when_not_loaded(make: Make) -> None:
    make("mail", SINK_SOURCE.format(name="post-office"))
    make("broken", "1 / 0")
    registry = load(["static"], kinds=[])
    assert registry.has_section("static")
    assert registry.has_section("rocksdb")
    assert registry.has_section("post-office")
    assert registry.has_section("broken")
    assert not registry.has_section("nowhere")
    assert [plugin.name for plugin in registry.plugins] == ["static"]


def test_what_a_provider_opens_is_checked_by_name() -> None:
    class Half:
        symbols = None
        gaps = 5

        async def append(self, records: object) -> None: ...
        def scan(self, symbol: str) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(PluginError) as caught:
        check_protocol(Half(), STORAGE, "half")
    reason = caught.value.reason
    assert "append must not be async" in reason
    assert "scan(symbol: 'str') -> 'None' does not take 3 arguments" in reason
    assert "gaps cannot be called" in reason
    for member in ("symbols", "latest", "delete_before", "append_gaps", "append_marks", "marks"):
        assert f"{member} is missing" in reason
    assert "close" not in reason

    class Plain:
        def write(self, snapshots: object) -> None: ...

    with pytest.raises(PluginError, match="write must be async"):
        check_protocol(Plain(), SINK, "plain")

    class Awaited:
        async def watch(self) -> object: ...

    with pytest.raises(PluginError, match="watch must not be async"):
        check_protocol(Awaited(), SYMBOL_SOURCE, "awaited")


async def test_our_own_parts_pass_the_check() -> None:
    check_protocol(StaticSymbols(["BTCUSDT"]), SYMBOL_SOURCE, "static")
    provider = load(["memory"], kinds=[]).choose(STORAGE)
    async with provider.open(provider.settings()) as storage:
        check_protocol(storage, STORAGE, "memory")
    sets = [wanted async for wanted in StaticSymbols(["A", "B"]).watch()]
    assert sets == [{Instrument("A"), Instrument("B")}]


SECTIONS_SOURCE = """
@hookimpl
def obframe_settings():
    return {value}
"""


def test_an_observer_has_a_section_of_its_own(make: Make) -> None:
    make("watcher", SECTIONS_SOURCE.format(value="{'watch': Settings}"))
    registry = load(["watcher"], kinds=[])
    (plugin,) = registry.plugins
    assert plugin.sections == registry.sections()
    assert [kind.__name__ for kind in registry.sections().values()] == ["Settings"]
    assert not plugin.providers
    other = Registry()
    other.add("static")
    assert other.has_section("watch")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("None", "not a mapping"),
        ("[Settings]", "not a mapping"),
        ("{'Watch': Settings}", "section 'Watch': is no name"),
        ("{'retention': Settings}", "is a section of obframe itself"),
        ("{'watch': dict}", "no dataclass"),
        ("{'watch': 1 / 0}", "obframe_settings raised ZeroDivisionError"),
        ("{'static': Settings}", "its section 'static' has another meaning already"),
    ],
)
def test_sections_are_checked(make: Make, value: str, message: str) -> None:
    make("watcher", SECTIONS_SOURCE.format(value=value))
    with pytest.raises(PluginError) as caught:
        load(["static", "watcher"], kinds=[])
    assert caught.value.plugin == "watcher"
    assert message in caught.value.reason
    assert caught.value.mend


def test_a_part_cannot_take_the_section_of_an_observer(make: Make) -> None:
    make("watcher", SECTIONS_SOURCE.format(value="{'mail': Settings}"))
    make("mail", SINK_SOURCE.format(name="mail"))
    with pytest.raises(PluginError, match="has the name of a section of plugin 'watcher'"):
        load(["watcher", "mail"], kinds=[])
