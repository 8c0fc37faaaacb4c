"""Settings: sources and their order, coercion, and every mistake at once with its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from obframe.config import load_settings
from obframe.errors import ConfigError, Problem
from obframe.settings import Duration, RecorderSettings, RetentionSettings, describe
from obframe_plugins.static import StaticSettings


@dataclass(frozen=True, slots=True)
class VenueSettings:
    rest_url: str = field(default="https://venue", metadata={"help": "Where REST is."})
    market: Literal["spot", "usdm"] = field(default="spot", metadata={"help": "Which."})
    depth: int = 1000
    proxy: str | None = None
    verify: bool = True
    path: Path = Path("data")
    back_off: Duration = Duration(1)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth must be 1 or more, got {self.depth}")
        if self.weight < 0:
            raise ValueError(f"weight must be 0 or more, got {self.weight}")
        if self.market == "usdm" and self.depth > 1000:
            raise ValueError("usdm takes at most 1000 levels")


SECTIONS: dict[str, type[Any]] = {"static": StaticSettings, "venue": VenueSettings}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "obframe.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def problems(**arguments: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load_settings(SECTIONS, **arguments)
    return list(caught.value.problems)


def test_defaults_are_two_symbols_and_seven_days() -> None:
    settings = load_settings(SECTIONS)
    assert settings.providers["static"].symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.retention.max_age == 7 * 86400
    assert settings.recorder == RecorderSettings()


def test_sources_rise_from_file_to_environment_to_set_to_symbols() -> None:
    write(
        '[static]\nsymbols = ["FILE"]\n'
        '[venue]\nrest_url = "file"\ndepth = 5\nweight = 2\nback_off = "500ms"\npath = "~/x"\n'
    )
    environ = {
        "PERSISTENT_SYMBOLS": "ENV, OTHER,",
        "OBFRAME_VENUE_DEPTH": "6",
        "OBFRAME_VENUE_WEIGHT": "3",
        "OBFRAME_VENUE_VERIFY": "false",
        "OBFRAME_RECORDER_QUEUE_ROWS": "7",
        "OBFRAME_RETENTION_MAX_AGE": "1d12h",
        "UNRELATED": "x",
    }
    settings = load_settings(
        SECTIONS, environ=environ, assignments=["venue.weight=4", "venue.market=usdm"]
    )
    assert settings.providers["static"].symbols == ("ENV", "OTHER")
    assert settings.providers["venue"] == VenueSettings(
        rest_url="file",
        market="usdm",
        depth=6,
        verify=False,
        path=Path("~/x").expanduser(),
        back_off=Duration(0.5),
        weight=4.0,
    )
    assert settings.recorder.queue_rows == 7
    assert settings.retention.max_age == 129_600
    both = load_settings(
        SECTIONS, environ=environ, assignments=["static.symbols=SET"], symbols="LINE,OPTION"
    )
    assert both.providers["static"].symbols == ("LINE", "OPTION")


def test_a_named_file_is_read_and_must_exist() -> None:
    write("[venue]\ndepth = 9\n", "other.toml")
    assert load_settings(SECTIONS, config=Path("other.toml")).providers["venue"].depth == 9
    (problem,) = problems(config=Path("absent.toml"))
    assert problem.where == "absent.toml"
    assert "No such file" in problem.message


def test_row_57_every_mistake_of_every_source_at_once_with_file_and_line() -> None:
    write(
        "# a comment\n"
        'stray = "x"\n'
        "\n"
        "[static]\n"
        "symbols = [\n"
        '  "BTCUSDT",  # twice\n'
        '  "BTCUSDT",\n'
        "]\n"
        "[venue]\n"
        'rest_ulr = "x"\n'
        'depth = "many"\n'
        "weight = -1\n"
        "back_off = -5\n"
        'market = "moon"\n'
        "[vneue]\n"
        "a = 1\n"
        "[recorder]\n"
        "queue_rows = 0\n"
        "late_tolerance = 2.0\n"
    )
    found = problems(
        environ={"OBFRAME_VENUE_VERIFY": "perhaps", "OBFRAME_VENU_DEPTH": "1"},
        assignments=["venue.depth", "nothing.here=1", "venue.path2=x"],
    )
    listed = [(problem.where, problem.key) for problem in found]
    assert sorted(listed) == sorted(
        [
            ("obframe.toml:2", "stray"),
            ("obframe.toml:5", "static.symbols"),
            ("obframe.toml:10", "venue.rest_ulr"),
            ("obframe.toml:11", "venue.depth"),
            ("obframe.toml:12", "venue.weight"),
            ("obframe.toml:13", "venue.back_off"),
            ("obframe.toml:14", "venue.market"),
            ("obframe.toml:15", "vneue"),
            ("obframe.toml:18", "recorder.queue_rows"),
            ("obframe.toml:19", "recorder.late_tolerance"),
            ("environment OBFRAME_VENUE_VERIFY", "venue.verify"),
            ("environment OBFRAME_VENU_DEPTH", "venu_depth"),
            ("--set", ""),
            ("--set nothing.here", "nothing"),
            ("--set venue.path2", "venue.path2"),
        ]
    )
    text = "\n".join(str(problem) for problem in found)
    assert "did you mean 'rest_url'?" in text
    assert "did you mean 'venue'?" in text
    assert "did you mean 'venue_depth'?" in text
    assert "symbol 'BTCUSDT' is given 2 times" in text
    assert "'many'" in text
    assert 'one of "spot", "usdm"' in text


@pytest.mark.parametrize(
    "symbol", ["A:B", "../x", "A\x00B", "A\nB", "", " ", "A B", "x" * 129, "\ud800"]
)
def test_row_58_a_symbol_that_cannot_be_part_of_a_key_is_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match="symbol"):
        StaticSettings(symbols=(symbol, "BTCUSDT"))


def test_row_58_all_bad_symbols_are_named_and_control_characters_escaped() -> None:
    (problem,) = problems(symbols="A:B,C\nD,E,E")
    assert problem.where == "--symbols"
    assert "'A:B'" in problem.message
    assert "'C\\nD'" in problem.message
    assert "'E' is given 2 times" in problem.message
    assert "\n" not in str(problem)


def test_unicode_symbols_of_the_venue_are_taken() -> None:
    assert (
        load_settings(SECTIONS, symbols="币安人生USDT")
        .providers["static"]
        .symbols[0]
        .endswith("USDT")
    )


def test_no_symbols_at_all_is_a_mistake() -> None:
    (problem,) = problems(symbols=" , ")
    assert "no symbols" in problem.message


def test_symbols_need_the_static_source() -> None:
    with pytest.raises(ConfigError, match=r"--symbols: sets static\.symbols"):
        load_settings({"venue": VenueSettings}, symbols="A")
    settings = load_settings({"venue": VenueSettings}, environ={"PERSISTENT_SYMBOLS": "A"})
    assert "static" not in settings.providers


def test_values_that_do_not_fit_together_name_all_places() -> None:
    write('[venue]\nmarket = "usdm"\n')
    (problem,) = problems(assignments=["venue.depth=5000"])
    assert problem.where == "obframe.toml:2, --set venue.depth"
    assert problem.key == "venue"


def test_toml_mistakes_carry_their_line() -> None:
    write("[venue]\ndepth = 1\ndepth = 2\n")
    (problem,) = problems()
    assert problem.where == "obframe.toml:3"
    Path("obframe.toml").write_bytes(b'[venue]\nrest_url = "\xff"\n')
    (problem,) = problems()
    assert "UTF-8" in problem.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("venue.depth = 'x'\n", 1),
        ("\n\nvenue = { weight = 1, depth = 'x' }\n", 3),
        ('[venue]\nrest_url = """\ndepth = 1\n"""\n"depth" = \'x\'\n', 5),
        ("[ venue ] # here\n\n  depth = []\n", 3),
        ("[venue.depth]\na = 1\n", 1),
    ],
)
def test_the_line_is_found_however_the_key_is_written(text: str, line: int) -> None:
    write(text)
    assert [problem.where for problem in problems()] == [f"obframe.toml:{line}"]


@pytest.mark.parametrize("value", ["5", "true", "1.5", "[1]", "{ a = 1 }", "2024-01-01"])
def test_a_file_must_give_the_right_type(value: str) -> None:
    write(f"[venue]\nrest_url = {value}\n")
    (problem,) = problems()
    assert problem.key == "venue.rest_url"
    assert "expected text, got " in problem.message


@pytest.mark.parametrize(
    "assignment",
    [
        "venue.depth=1.5",
        "venue.depth=",
        "venue.weight=nan",
        "venue.verify=maybe",
        "venue.back_off=5y",
    ],
)
def test_text_that_is_not_of_the_type_is_refused(assignment: str) -> None:
    assert len(problems(assignments=[assignment])) == 1


def test_sections_of_installed_plugins_that_are_not_loaded_are_passed_over() -> None:
    write("[nats]\nurl = 5\n")
    environ = {"OBFRAME_NATS_URL": "x", "OBFRAME_MY_SINK_URL": "x"}
    assignments = ["nats.url=x"]
    settings = load_settings(
        SECTIONS,
        environ=environ,
        assignments=assignments,
        installed={"nats", "my-sink"}.__contains__,
    )
    assert set(settings.providers) == {"static", "venue"}
    assert len(problems(environ=environ, assignments=assignments)) == 4


def test_variables_of_the_build_are_no_settings() -> None:
    load_settings(SECTIONS, environ={"OBFRAME_CAPTURES": "x", "OBFRAME_REQUIRE_CAPTURES": "1"})


def test_sections_with_underscores_and_hyphens_are_found_in_the_environment() -> None:
    sections = {"venue": VenueSettings, "venue_two": VenueSettings, "venue-three": VenueSettings}
    environ = {"OBFRAME_VENUE_TWO_DEPTH": "2", "OBFRAME_VENUE_THREE_DEPTH": "3"}
    settings = load_settings(sections, environ=environ)
    assert settings.providers["venue_two"].depth == 2
    assert settings.providers["venue-three"].depth == 3
    assert settings.providers["venue"].depth == 1000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[(90, 90), (0.5, 0.5), ("90", 90), ("7d", 604_800), ("12h", 43_200), ("1h30m", 5400)],
        *[("500ms", 0.5), ("2w", 1_209_600), (" 1.5m ", 90), ("0", 0)],
    ],
)
def test_durations_are_read(value: object, seconds: float) -> None:
    assert Duration.parse(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "d", "5y", "1h x", "-1", "-1h", "nan", "inf", "１h", True, -1]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, []])
def test_what_is_no_number_of_seconds_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(value)


def test_durations_print_as_they_are_written() -> None:
    texts = ["7d", "12h", "90s", "1m", "0.5s", "0s"]
    assert [str(Duration.parse(text)) for text in texts] == texts


@pytest.mark.parametrize(
    "values",
    [
        {"queue_rows": 0},
        {"late_tolerance": 0.0},
        {"late_tolerance": 1.0},
        {"drain_timeout": 0.0},
        {"summary_interval": float("inf")},
        {"sink_queue_rows": 0},
        {"sink_batch_rows": 0},
        {"sink_break_after": 0},
        {"sink_backoff_max": 0.0},
        {"sink_timeout": -1.0},
    ],
)
def test_the_recorder_refuses_senseless_values(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        RecorderSettings(**values)


def test_retention_may_be_off_but_not_run_without_a_pause() -> None:
    assert RetentionSettings(max_age=Duration(0)).max_age == 0
    with pytest.raises(ValueError, match="interval"):
        RetentionSettings(interval=Duration(0))


def test_help_tells_type_default_and_purpose_of_each_field() -> None:
    described = {each.name: each for each in describe(VenueSettings)}
    assert (described["market"].type, described["market"].default) == (
        'one of "spot", "usdm"',
        '"spot"',
    )
    assert described["rest_url"].help == "Where REST is."
    assert (described["back_off"].type, described["back_off"].default) == ("duration", '"1s"')
    assert described["verify"].default == "true"
    symbols = describe(StaticSettings)[0]
    assert (symbols.type, symbols.default) == ("list of text", '["BTCUSDT", "ETHUSDT"]')


def test_values_that_only_go_together_are_judged_together() -> None:
    @dataclass(frozen=True)
    class Pair:
        low: int = 5
        high: int = 30

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low is {self.low}, above high {self.high}")

    good = load_settings({"pair": Pair}, assignments=["pair.high=2", "pair.low=1"])
    assert good.providers["pair"] == Pair(1, 2)
    with pytest.raises(ConfigError, match="low is 7, above high 6"):
        load_settings({"pair": Pair}, assignments=["pair.high=6", "pair.low=7"])
