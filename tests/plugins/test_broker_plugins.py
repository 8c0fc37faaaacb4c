"""The plugins of brokers where their libraries are missing, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obframe_plugins._brokers import check_template, check_url, hide, secrets_of
from obframe_plugins._delivered import Delivered

CommandLine: TypeAlias = Any

LIBRARIES = {"redis": "redis", "nats": "nats", "kafka": "confluent_kafka"}


@pytest.fixture
def bare(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Return the command line where none of the libraries can be imported."""
    folder = tmp_path / "missing"
    for library in LIBRARIES.values():
        (folder / library).mkdir(parents=True)
        text = f"raise ModuleNotFoundError({f'No module named {library!r}'!r})\n"
        (folder / library / "__init__.py").write_text(text)
    command_line.environ["PYTHONPATH"] = str(folder)
    return command_line


def test_without_their_libraries_the_plugins_are_listed_all_the_same(bare: CommandLine) -> None:
    result = bare.run("plugins")
    assert result.returncode == 0, result.stderr
    for summary in ("rows to Redis Streams", "rows to NATS JetStream", "rows to Kafka"):
        assert summary in result.stdout


@pytest.mark.parametrize("name", LIBRARIES)
def test_without_its_library_a_run_is_refused_with_the_mend(name: str, bare: CommandLine) -> None:
    result = bare.run("run", "--plugins", f"memory,{name}", "--duration", "1")
    assert result.returncode == 4, result.stderr
    assert f"its library {LIBRARIES[name]} cannot be imported" in result.stderr
    assert f"pip install 'obframe[{name}]'" in result.stderr
    assert "Traceback" not in result.stderr


# -- what is known to be delivered -----------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 30))))
def test_runs_of_seconds_hold_what_was_put_in(rows: list[tuple[str, int]]) -> None:
    delivered, model = Delivered(), set()
    for row in rows:
        delivered.add(*row)
        model.add(row)
        assert len(delivered) == len(model)
    for symbol in "ABC":
        for second in range(-1, 32):
            assert delivered.has(symbol, second) == ((symbol, second) in model)


def test_a_week_of_seconds_takes_two_numbers() -> None:
    delivered = Delivered()
    for second in range(604_800):
        delivered.add("A", second)
    assert delivered._runs == {"A": ([0], [604_799])}


# -- texts -----------------------------------------------------------------------------------------

SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])).map("Zz9".__add__)


@given(SECRETS, st.booleans())
def test_no_text_shows_a_password_in_any_form(secret: str, has_user: bool) -> None:
    quoted = quote(secret, safe="")
    url = f"redis://{'user:' if has_user else ''}{quoted}@host:1/0"
    told = hide(f"{url} failed: {secret} or {quoted}", secrets_of(url))
    assert "Zz9" not in told
    assert "host:1/0 failed" in told


@pytest.mark.parametrize(
    "url", ["redis://host", "redis://u:p@host:1/0", "redis://[::1]:6379", "unix:///run/redis.sock"]
)
def test_urls_that_are_good(url: str) -> None:
    assert check_url("url", url, ("redis", "unix")) == []


@pytest.mark.parametrize(
    "url", ["", "host:1", "http://host", "redis://", "redis://h:x", "redis://h:0"]
)
def test_urls_that_are_not(url: str) -> None:
    (told,) = check_url("url", url, ("redis", "unix"))
    assert told.startswith(f"url is {url!r}; use redis:// or unix://")


def test_templates() -> None:
    assert check_template("key", "a{symbol}b", needs_symbol=True) == []
    assert check_template("topic", "rows", needs_symbol=False) == []
    for bad in (" ", "rows", "{symbol}{time}", "{symbol"):
        assert check_template("key", bad, needs_symbol=True)
