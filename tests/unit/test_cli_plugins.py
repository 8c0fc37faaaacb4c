"""``obframe plugins`` from outside: what is listed, shown, begun and checked."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

CommandLine: TypeAlias = Any

SINK = '''
"""Sends mail."""
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from obframe import Duration, Provider, hookimpl

OBFRAME_API = 1

@dataclass(frozen=True)
class Settings:
    to: str = field(default="ops@example.com", metadata={"help": "Who gets `mail`."})
    every: Duration = field(default=Duration(60), metadata={"help": "How often."})

class Sink:
    async def write(self, snapshots):
        pass

@asynccontextmanager
async def open_sink(settings):
    yield Sink()

@hookimpl
def obframe_sinks():
    return [Provider("post", "mail for operators", Settings, open_sink, contract="CONTRACT")]

@hookimpl
def obframe_gap(gap):
    pass
'''


@pytest.fixture
def mail(command_line: CommandLine) -> CommandLine:
    """The command line with a stranger's plugin installed."""
    install(command_line, "")
    return command_line


def install(command_line: CommandLine, contract: str) -> None:
    (command_line.folder / "mail_plugin.py").write_text(SINK.replace("CONTRACT", contract))
    command_line.install("mail", "mail_plugin", distribution="obframe-mail", version="2.5")


def rows(result: subprocess.CompletedProcess[str], code: int = 0) -> list[dict[str, Any]]:
    assert result.returncode == code, (result.stdout, result.stderr)
    return [json.loads(line) for line in result.stdout.splitlines()]


def failure(result: subprocess.CompletedProcess[str], code: int) -> str:
    assert result.returncode == code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result.stderr


# -- list ------------------------------------------------------------------------------------


def test_plugins_alone_lists_what_is_installed(mail: CommandLine) -> None:
    for command in (["plugins"], ["plugins", "list"]):
        offers = rows(mail.run(*command, "--format", "jsonl"))
        named = {(offer["plugin"], offer["kind"]): offer for offer in offers}
        assert named["rocksdb", "storage"]["default"]
        assert not named["memory", "storage"]["default"]
        assert named["binance", "feed"]["distribution"] == "obframe"
        assert named["static", "symbol source"]["summary"]
        assert named["eventlog", "observer"]["provider"] == "eventlog"
        assert named["mail", "sink"] == {
            "plugin": "mail",
            "kind": "sink",
            "provider": "post",
            "version": "2.5",
            "distribution": "obframe-mail",
            "summary": "mail for operators",
            "default": False,
        }


def test_the_list_is_a_table_that_fits_and_csv(mail: CommandLine) -> None:
    table = mail.run("plugins", "list", environ={"COLUMNS": "80"})
    assert "mail for operators" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80
    found = list(csv.DictReader(io.StringIO(mail.run("plugins", "--format", "csv").stdout)))
    assert {"mail", "rocksdb"} <= {row["plugin"] for row in found}


def test_a_plugin_that_cannot_be_loaded_is_listed_as_such(command_line: CommandLine) -> None:
    (command_line.folder / "broken_plugin.py").write_text("1 / 0\n")
    command_line.install("broken", "broken_plugin")
    result = command_line.run("plugins")
    assert "ZeroDivisionError" in failure(result, 4)
    assert "rocksdb" in result.stdout
    for command in (["run", "--plugins", "broken"], ["plugins", "show", "broken"]):
        assert "'broken': cannot be imported" in failure(command_line.run(*command), 4)


# -- show ------------------------------------------------------------------------------------


def test_show_tells_settings_and_hooks(mail: CommandLine) -> None:
    (shown,) = rows(mail.run("plugins", "show", "mail", "--format", "jsonl"))
    assert shown["hooks"] == ["obframe_sinks", "obframe_gap"]
    assert (shown["version"], shown["distribution"], shown["api"]) == ("2.5", "obframe-mail", 1)
    (provider,) = shown["providers"]
    assert (provider["kind"], provider["name"]) == ("sink", "post")
    assert provider["settings"] == [
        {"name": "to", "type": "text", "default": '"ops@example.com"', "help": "Who gets `mail`."},
        {"name": "every", "type": "duration", "default": '"1m"', "help": "How often."},
    ]
    text = mail.run("plugins", "show", "post").stdout  # by the part's name too
    for part in (
        "mail 2.5, of obframe-mail: Sends mail.",
        "made for plugin API: 1 (supported: 1)",
        "hooks: obframe_sinks, obframe_gap",
        "sink post: mail for operators",
        "settings, section [post]:",
        'to: text, default "ops@example.com"',
        "Who gets mail.",
    ):
        assert part in text


def test_show_fits_the_terminal_and_knows_the_default(command_line: CommandLine) -> None:
    text = command_line.run("plugins", "show", "rocksdb", environ={"COLUMNS": "60"}).stdout
    assert "storage rocksdb, the default" in text
    assert max(map(len, text.splitlines())) <= 60
    text = command_line.run("plugins", "show", "memory").stdout
    assert "no settings" in text
    assert "section [eventlog]" in command_line.run("plugins", "show", "eventlog").stdout


def test_an_unknown_plugin_is_answered_with_those_there_are(mail: CommandLine) -> None:
    for command in ("show", "check"):
        error = failure(mail.run("plugins", command, "pots"), 4)
        assert "'pots': is not installed" in error
        assert "rocksdb" in error
        assert "did you mean 'post'?" in error


# -- check -----------------------------------------------------------------------------------

CONTRACT = """
from contextlib import asynccontextmanager
from obframe import Instrument
from obframe.testing.contracts import SinkContract, SymbolSourceContract

class Sink:
    def __init__(self, rows):
        self.rows = rows

    async def write(self, snapshots):
        self.rows.update({(each.symbol, each.timestamp): each for each in snapshots})

ROWS = {}

class Good(SinkContract):
    @asynccontextmanager
    async def make_sink(self, tmp_path):
        yield Sink(ROWS.setdefault(tmp_path, {}))

    async def read_back(self, tmp_path):
        rows = ROWS.get(tmp_path, {})
        return [rows[key] for key in sorted(rows)]

class Forgetful(Good):
    @asynccontextmanager
    async def make_sink(self, tmp_path):
        ROWS[tmp_path] = {}
        yield Sink(ROWS[tmp_path])

class Stuck(Good):
    def test_nothing_to_write_is_no_error(self, tmp_path):
        while True:
            pass

    def test_many_calls_arrive_in_order(self, tmp_path):
        import os
        os._exit(7)

class Other(SymbolSourceContract):
    pass
"""


@pytest.fixture
def kit(command_line: CommandLine) -> CommandLine:
    (command_line.folder / "mail_contract.py").write_text(CONTRACT)
    return command_line


def test_check_passes_a_plugin_that_keeps_its_contract(kit: CommandLine) -> None:
    install(kit, "mail_contract:Good")
    verdicts = rows(kit.run("plugins", "check", "mail", "--format", "jsonl"))
    assert {verdict["outcome"] for verdict in verdicts} == {"passed", "skipped"}
    assert len(verdicts) >= 20
    assert {(verdict["kind"], verdict["provider"]) for verdict in verdicts} == {("sink", "post")}
    again = next(each for each in verdicts if each["rule"] == "writing again changes nothing")
    assert again["words"].startswith("The same snapshots written again are")
    skipped = next(each for each in verdicts if each["outcome"] == "skipped")
    assert "can_break is not set" in skipped["why"]
    before = sorted(kit.folder.iterdir())
    result = kit.run("plugins", "check", "mail")
    assert "sink post  writing again changes nothing" in result.stdout
    assert f"rules {len(verdicts) - 4} passed, 0 failed, 4 skipped" in result.stderr
    assert [path for path in sorted(kit.folder.iterdir()) if path.name != "__pycache__"] == [
        path for path in before if path.name != "__pycache__"
    ]


def test_check_names_each_broken_rule(kit: CommandLine) -> None:
    install(kit, "mail_contract:Forgetful")
    result = kit.run("plugins", "check", "mail", "--format", "json")
    assert result.returncode == 1
    failed = [each for each in json.loads(result.stdout) if each["outcome"] == "failed"]
    assert [each["rule"] for each in failed] == ["the next sink knows what was written"]
    assert failed[0]["why"].startswith("a consumer does not find BTCUSDT:")
    assert "repeats nothing of it" in failed[0]["words"]
    assert "mail_contract" not in failed[0]["why"]
    assert "laid down by obframe.Sink.write" in failed[0]["detail"]
    table = kit.run("plugins", "check", "mail")
    assert table.returncode == 1
    assert "failed   a consumer does not find" in table.stdout
    assert "sink post breaks a rule: A sink opened anew adds to what is there" in table.stderr


def test_check_goes_on_after_a_plugin_that_hangs_or_ends_the_process(kit: CommandLine) -> None:
    install(kit, "mail_contract:Stuck")
    command = ("plugins", "check", "mail", "--timeout", "1", "--format", "jsonl")
    verdicts = {each["rule"]: each for each in rows(kit.run(*command), 1)}
    stuck, ended = verdicts["nothing to write is no error"], verdicts["many calls arrive in order"]
    assert stuck["why"] == "did not end within 1 s (--timeout)"
    assert "mail_contract.py" in stuck["detail"]
    assert ended["why"] == "the process was ended by it (exit code 7)"
    others = [each for name, each in verdicts.items() if each not in (stuck, ended)]
    assert len(others) >= 18
    assert {each["outcome"] for each in others} == {"passed", "skipped"}


@pytest.mark.parametrize(
    ("contract", "why"),
    [
        ("", "names no contract; write Provider(..., contract="),
        ("mail_contract:Other", "is no subclass of obframe.testing.contracts.sink.SinkContract"),
        ("mail_contract:Missing", "has no attribute 'Missing'"),
        ("nowhere.contract:Good", "ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_check_refuses_what_is_no_contract(kit: CommandLine, contract: str, why: str) -> None:
    install(kit, contract)
    (verdict,) = rows(kit.run("plugins", "check", "mail", "--format", "jsonl"), 1)
    assert verdict["outcome"] == "failed"
    assert why in verdict["why"]


def test_check_finds_nothing_to_check_in_an_observer(command_line: CommandLine) -> None:
    result = command_line.run("plugins", "check", "eventlog")
    assert result.returncode == 0
    assert "'eventlog' offers no part" in result.stderr


# -- new -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Mail", "is no name for a plugin"),
        ("1st", "is no name for a plugin"),
        ("a--b", "is no name for a plugin"),
        ("a/b", "is no name for a plugin"),
        ("-x", ""),
        ("x" * 25, "has 25 characters"),
        ("recorder", "is a section of obframe's own settings"),
        ("import", "is a word of Python's"),
        ("rocksdb", "is installed already (obframe)"),
    ],
)
def test_new_refuses_a_name_that_cannot_be(command_line: CommandLine, name: str, why: str) -> None:
    error = failure(command_line.run("plugins", "new", "--kind", "sink", name), 2)
    assert why in error
    assert list(command_line.folder.iterdir()) == []


def test_new_leaves_what_is_there(command_line: CommandLine) -> None:
    folder = command_line.folder / "obframe-mail"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    error = failure(command_line.run("plugins", "new", "mail", "--kind", "sink"), 2)
    assert "obframe-mail is there already and is left as it is" in error
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]
    link = command_line.folder / "link"
    link.symlink_to("nowhere")
    command = ("plugins", "new", "mail", "--kind", "sink", "--folder", "link")
    assert "is there already" in failure(command_line.run(*command), 2)
    (command_line.folder / "file").touch()
    command = ("plugins", "new", "mail", "--kind", "sink", "--folder", "file/below")
    assert "file/below cannot be written: " in failure(command_line.run(*command), 2)
    assert sorted(path.name for path in command_line.folder.iterdir()) == [
        "file",
        "link",
        "obframe-mail",
    ]


def test_new_writes_a_project_and_says_how_to_go_on(command_line: CommandLine) -> None:
    command = ("plugins", "new", "my-mail", "--kind", "sink", "--folder", "deep/down")
    result = command_line.run(*command)
    assert result.returncode == 0, result.stderr
    for line in ("cd deep/down", "pip install -e '.[test]'", "obframe plugins check my-mail"):
        assert line in result.stdout
    folder = command_line.folder / "deep" / "down"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/obframe_my_mail/__init__.py",
        "src/obframe_my_mail/contract.py",
        "src/obframe_my_mail/plugin.py",
        "src/obframe_my_mail/py.typed",
        "tests/test_plugin.py",
    }
    assert list((command_line.folder / "deep").iterdir()) == [folder]
    everything = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "myplugin" not in everything.lower()
    assert '\n        Provider(\n            "my-mail",\n' in everything


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["storage", "feed", "symbols", "sink"])
def test_a_new_plugin_passes_its_own_checks(command_line: CommandLine, kind: str) -> None:
    """Tests and contract, as installed from the folder; the command line's contract run too."""
    assert command_line.run("plugins", "new", "begun", "--kind", kind).returncode == 0
    folder = command_line.folder / "obframe-begun"
    source = folder / "src"
    info = source / "obframe_begun-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: obframe-begun\nVersion: 0.1.0\n")
    entry = "[obframe.plugins]\nbegun = obframe_begun.plugin\n"
    (info / "entry_points.txt").write_text(entry)
    command_line.environ["PYTHONPATH"] = str(source)
    tested = call(command_line, folder, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert " passed" in tested
    assert "failed" not in tested
    shown = command_line.run("plugins", "check", "begun")
    assert shown.returncode == 0, (shown.stdout, shown.stderr)
    assert ", 0 failed, " in shown.stderr


def call(command_line: CommandLine, folder: Path, module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=command_line.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "x2-y_3", "b" * 24])
@pytest.mark.parametrize("kind", ["storage", "feed", "symbols", "sink"])
def test_a_new_plugin_is_clean_whatever_its_name(
    command_line: CommandLine, kind: str, name: str
) -> None:
    """Lint and format do not depend on how long the name is."""
    command = ("plugins", "new", name, "--kind", kind, "--folder", "it")
    assert command_line.run(*command).returncode == 0
    folder = command_line.folder / "it"
    assert "All checks passed" in call(command_line, folder, "ruff", "check", ".")
    assert "already formatted" in call(command_line, folder, "ruff", "format", "--check", ".")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["storage", "feed", "symbols", "sink"])
def test_a_new_plugin_is_typed_strictly(command_line: CommandLine, kind: str) -> None:
    command = ("plugins", "new", "begun", "--kind", kind, "--folder", "it")
    assert command_line.run(*command).returncode == 0
    root = Path(__file__).resolve().parent.parent.parent
    command_line.environ["MYPYPATH"] = str(root)
    cache = ("--cache-dir", str(command_line.folder.parent / "mypy-cache"))
    told = call(command_line, command_line.folder / "it", "mypy", "--follow-imports=silent", *cache)
    assert "Success: no issues found in 4 source files" in told
