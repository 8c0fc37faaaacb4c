"""The pages are true: commands run, code works, links lead somewhere, tables are the code's."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from obframe import Gap, GapReason, MarkKind, OrderBook, snapshot_from_json, snapshot_to_json
from obframe.config import load_settings
from obframe.registry import load
from obframe.testing.oracle import read_journal
from obframe.testing.reference import ReferenceBook

CommandLine: TypeAlias = Any
Eventually: TypeAlias = Callable[[Callable[[], bool], str], None]

ROOT = Path(__file__).resolve().parent.parent
SINK_MODULES = ("backfill", "outbox", "sinks")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    lines = (line for block in blocks(page, "sh") for line in block.splitlines())
    return [line for line in lines if line.strip()]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_those_of_the_code(page: Path, tables: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == tables.rewrite(text), "run `make docs`"


def test_the_pages_have_their_tables() -> None:
    parts = {"settings": ["settings"], "hooks": ["values", "hooks"], "exchange": ["faults"]}
    for name, expected in parts.items():
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"<!-- part: (\w+) -->", text) == expected


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    if page.name == "performance.md":
        pytest.skip("the peers' runs write parts of it")
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    wide = [line for line in text.splitlines() if len(line) > 125 and not line.startswith("|")]
    assert not wide


def test_every_page_is_reached_from_the_index() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.name == "index.md" or f"{page.name})" in text, f"nothing links {page.name}"


def test_every_cause_of_a_gap_is_explained() -> None:
    text = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE))
    second = 1_700_000_000
    assert table == {str(reason): Gap("X", second, second, reason).origin for reason in GapReason}


def test_every_mark_is_explained() -> None:
    text = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    section = text.partition("## Marks")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(explained) == sorted(str(kind) for kind in MarkKind)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml_and_json_are_well_formed(page: Path) -> None:
    for block in blocks(page, "toml"):
        tomllib.loads(block)
    for block in blocks(page, "json"):
        for line in block.splitlines():
            json.loads(line)


def test_the_sample_settings_are_accepted(tmp_path: Path) -> None:
    registry = load(["static", "binance", "rocksdb"], kinds=[])
    (block,) = blocks(ROOT / "docs" / "settings.md", "toml")
    path = tmp_path / "obframe.toml"
    path.write_text(block)
    settings = load_settings(registry.sections(), config=path)
    assert settings.retention.max_age == 30 * 86400


def test_the_sample_mistakes_are_told_in_these_words(command_line: CommandLine) -> None:
    (command_line.folder / "obframe.toml").write_text('[rocksdb]\npth = "x"\n')
    result = command_line.run("run", environ={"OBFRAME_RECORDER_QUEUE_ROWS": "many"})
    (shown,) = [
        block for block in blocks(ROOT / "docs" / "settings.md", "text") if "mistakes" in block
    ]
    assert result.stderr == shown


def test_the_commands_of_every_page_exist(command_line: CommandLine) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    helps: dict[str, str] = {}
    for page in PAGES:
        if page.name == "plugins.md":
            continue  # tests/test_wheel.py follows it
        for line in commands(page):
            program, *arguments = shlex.split(line, comments=True)
            match program:
                case "make":
                    assert set(arguments) <= targets, line
                case "pip":
                    # tests/test_wheel.py does this
                    assert arguments[0] == "install", line
                    assert arguments[1:] in [["."], *([f".[{extra}]"] for extra in extras)], line
                case "obframe":
                    command, *_ = arguments
                    if command not in helps:
                        helps[command] = command_line.run(command, "--help").stdout
                    for option in re.findall(r"--[\w-]+", line):
                        assert option in helps[command], f"{page.name}: {line}"
                case _:
                    pytest.fail(f"{page.name}: nothing tests {line!r}")


def start_and_stop(
    command_line: CommandLine, line: str, is_ready: Callable[[], bool], eventually: Eventually
) -> None:
    """Run a command that goes on for ever, until it is ready, then end it as Ctrl-C does."""
    _, *arguments = shlex.split(line)
    with command_line.start(*arguments) as process:
        eventually(is_ready, line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors


def read_and_stop(command_line: CommandLine, line: str) -> None:
    """Run a command that goes on for ever until it prints, then end it as Ctrl-C does."""
    _, *arguments = shlex.split(line)
    with command_line.start(*arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), line
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors


@contextmanager
def runs_at_once(command_line: CommandLine) -> Iterator[Callable[..., None]]:
    """Give a function that starts a command; all of them have ended well on leaving."""
    with ExitStack() as stack:
        started: list[tuple[tuple[str, ...], Any]] = []

        def start(*arguments: str) -> None:
            started.append((arguments, stack.enter_context(command_line.start(*arguments))))

        yield start
        for arguments, process in started:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, (arguments, errors)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["README.md", "docs/querying.md", "docs/recording.md", "docs/keeping.md"]
)
def test_the_commands_of_the_page_run(
    name: str, command_line: CommandLine, eventually: Eventually
) -> None:
    """Each page's commands in order, in an empty folder, with a venue where Binance would be."""
    lines = [line for line in commands(ROOT / name) if line.startswith("obframe ")]
    assert lines
    with command_line.venue("--symbols", "BTCUSDT,ETHUSDT") as urls:
        for url in urls:
            key, _, value = url.removeprefix("--set=").partition("=")
            command_line.environ["OBFRAME_" + key.replace(".", "_").upper()] = value

        def stored() -> bool:
            return bool(command_line.count_rows("ETHUSDT") > 1)

        if not any(line.startswith("obframe run") for line in lines):
            lines.insert(0, "obframe run --duration 3")
        for line in lines:
            if line.startswith("obframe exchange"):
                continue  # test_the_exchange_page_runs does
            if line.startswith("obframe run") and "--duration" not in line:
                start_and_stop(command_line, line, stored, eventually)
                continue
            if "--follow" in line:
                read_and_stop(command_line, line)
                continue
            _, *arguments = shlex.split(line)
            result = command_line.run(*arguments)
            assert result.returncode == 0, f"{line}: {result.stderr}"
            silent = ("gaps", "run", "verify", "retention", "repair", "export", "import")
            assert result.stdout or any(each in line for each in silent), line


@pytest.mark.slow
def test_the_symbols_page_runs(command_line: CommandLine) -> None:
    """Its commands in order, runs that follow each other at once; then its Python."""
    page, folder = ROOT / "docs" / "symbols.md", command_line.folder
    (listed,) = blocks(page, "text")
    (folder / "symbols.txt").write_text(listed)
    wanted = {"BTCUSDT", "ETHUSDT"}
    with command_line.venue("--symbols", "BTCUSDT,ETHUSDT") as urls:
        (rest,) = [url for url in urls if "rest_url" in url]
        command_line.environ["OBFRAME_TOP_REST_URL"] = rest.partition("rest_url=")[2]
        places = 0
        for is_run, lines in groupby(commands(page), lambda line: line.startswith("obframe run ")):
            with runs_at_once(command_line) as start:
                for line in lines:
                    _, *arguments = shlex.split(line)
                    if not is_run:
                        result = command_line.run(*arguments)
                        assert result.returncode == 0, f"{line}: {result.stderr}"
                        continue
                    command_line.environ.pop("PERSISTENT_SYMBOLS", None)
                    if "environment" in line:
                        command_line.environ["PERSISTENT_SYMBOLS"] = "BTCUSDT ETHUSDT"
                    places += 1
                    start(*arguments, "--duration", "4", f"--set=rocksdb.path={places}", *urls)
        for place in map(str, range(1, places + 1)):
            result = command_line.run("symbols", f"--set=rocksdb.path={place}", "--format", "jsonl")
            stored = map(json.loads, result.stdout.splitlines())
            assert {each["symbol"] for each in stored} == wanted, place
    (source,) = blocks(page, "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.stdout == "['BTCUSDT', 'ETHUSDT', 'SOLUSDT']\n", done.stderr


@pytest.mark.slow
def test_the_venues_page_runs(
    command_line: CommandLine, eventually: Eventually, unused_port: int
) -> None:
    """Its commands, runs at once, with a Binance and a Kraken on loopback."""
    lines = [line.replace("9100", str(unused_port)) for line in commands(ROOT / "docs/venues.md")]
    several, query, gaps, alone, exchange, run = lines[:6]
    place = "--set=rocksdb.path=alone"
    with (
        command_line.venue("--symbols", "BTCUSDT") as urls,
        command_line.start(*shlex.split(exchange)[1:]) as kraken,
    ):
        assert kraken.stdout is not None
        printed = [kraken.stdout.readline().strip() for _ in range(3)]
        assert printed[2].startswith("obframe run --plugins rocksdb,kraken"), printed
        url = f"--set=kraken.ws_url=ws://127.0.0.1:{unused_port}/v2"
        with runs_at_once(command_line) as start:
            start(*shlex.split(several)[1:], *urls, url, "--duration", "5")
            start(*shlex.split(alone)[1:], place, url, "--duration", "4")
            start(*shlex.split(run)[1:], "--set=rocksdb.path=last")
        for line in (query, gaps):
            result = command_line.run(*shlex.split(line)[1:])
            assert result.returncode == 0, result.stderr
        stored = command_line.run("symbols", "--format", "jsonl").stdout.splitlines()
        assert {json.loads(each)["symbol"] for each in stored} == {"BTCUSDT", "kraken/BTC/USD"}
        stored = command_line.run("symbols", place, "--format", "jsonl").stdout.splitlines()
        assert {json.loads(each)["symbol"] for each in stored} == {"BTC/USD", "ETH/USD"}


@pytest.mark.slow
def test_the_venues_page_runs_with_coinbase(command_line: CommandLine, unused_port: int) -> None:
    lines = [line.replace("9200", str(unused_port)) for line in commands(ROOT / "docs/venues.md")]
    alone, exchange, run = lines[6:]
    with command_line.start(*shlex.split(exchange)[1:]) as coinbase:
        assert coinbase.stdout is not None
        printed = [coinbase.stdout.readline().strip() for _ in range(3)]
        assert printed[2].startswith("obframe run --plugins rocksdb,coinbase"), printed
        urls = [part for part in shlex.split(run) if part.startswith("coinbase.")]
        options = [*(f"--set={url}" for url in urls), "--duration", "4"]
        wanted = {"alone": {"BTC-USD", "ETH-USD"}, "last": {"coinbase/BTC-USD"}}
        with runs_at_once(command_line) as start:
            for line, place in zip((alone, run), wanted, strict=True):
                start(*shlex.split(line)[1:], *options, f"--set=rocksdb.path={place}")
        for place, symbols in wanted.items():
            stored = ("symbols", f"--set=rocksdb.path={place}", "--format", "jsonl")
            found = command_line.run(*stored).stdout.splitlines()
            assert {json.loads(each)["symbol"] for each in found} == symbols


@pytest.mark.slow
def test_the_exchange_page_runs(command_line: CommandLine, unused_port: int) -> None:
    exchange, run = (line for line in commands(ROOT / "docs" / "exchange.md"))
    exchange, run = (line.replace("9000", str(unused_port)) for line in (exchange, run))
    with command_line.start(*shlex.split(exchange)[1:]) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(3)]
        told = printed[2].strip()
        assert run.startswith(told), printed
        result = command_line.run(*shlex.split(run)[1:])
    assert result.returncode == 0, result.stderr
    assert command_line.run("query", "BTCUSDT", "--format", "jsonl").stdout.count("\n") >= 8


@pytest.mark.slow
def test_the_command_that_a_venue_prints_records_it(command_line: CommandLine) -> None:
    """As it stands, in both formats, of symbols and markets that are not the recorder's own."""
    cases = {
        "spot": ("--symbols", "SOLUSDT"),
        "usdm": ("--symbols", "SOLUSDT", "--market", "usdm"),
        "coinm": ("--market", "coinm"),
        "kraken": ("--venue", "kraken"),
        "coinbase": ("--venue", "coinbase"),
    }
    with ExitStack() as venues, runs_at_once(command_line) as start:
        for name, options in cases.items():
            shape = ("--format", "json") if name in ("spot", "coinm") else ()
            command = ("exchange", "--port", "0", *options, *shape)
            process = venues.enter_context(command_line.start(*command))
            printed = [process.stdout.readline() for _ in range(2 if shape else 3)]
            if shape:
                run = ["run", *json.loads(printed[1])["run"]]
            else:
                _, *run = shlex.split(printed[2])
            start(*run, "--duration", "4", f"--set=rocksdb.path={name}")
    stored = {
        name: {
            json.loads(line)["symbol"]
            for line in command_line.run(
                "symbols", f"--set=rocksdb.path={name}", "--format", "jsonl"
            ).stdout.splitlines()
        }
        for name in cases
    }
    assert stored["spot"] == stored["usdm"] == {"SOLUSDT"}
    assert all(len(stored[name]) == 2 for name in ("coinm", "kraken", "coinbase")), stored


@pytest.fixture(scope="module")
def recorded(
    make_command_line: Callable[[Path], CommandLine], tmp_path_factory: pytest.TempPathFactory
) -> CommandLine:
    """The command line in a folder where a symbol was recorded for six seconds."""
    command_line = make_command_line(tmp_path_factory.mktemp("recorded"))
    with command_line.venue("--symbols", "BTCUSDT") as urls:
        result = command_line.run("run", "--symbols", "BTCUSDT", "--duration", "6", *urls)
        assert result.returncode == 0, result.stderr
    return command_line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["querying", "recording"])
def test_the_python_of_the_page_runs(name: str, recorded: CommandLine) -> None:
    sources = blocks(ROOT / "docs" / f"{name}.md", "python")
    assert sources
    for source in sources:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", source],
            capture_output=True,
            text=True,
            cwd=recorded.folder,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) >= 3


@pytest.mark.slow
def test_the_page_of_sinks_is_true(command_line: CommandLine) -> None:
    page = ROOT / "docs" / "sinks.md"
    (line,) = commands(page)
    _, *arguments = shlex.split(line)
    with command_line.venue("--symbols", "BTCUSDT,ETHUSDT") as urls:
        result = command_line.run(*arguments, "--duration", "5", "--format", "json", *urls)
    assert result.returncode == 0, result.stderr
    (reader,) = blocks(page, "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", reader],
        capture_output=True,
        text=True,
        cwd=command_line.folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == json.loads(result.stdout)["rows"] >= 4
    (message,) = blocks(page, "json")
    assert snapshot_to_json(snapshot_from_json(message.encode())) == message.encode().strip()
    sources = [(ROOT / "obframe" / f"{name}.py").read_text() for name in SINK_MODULES]
    counted = set(re.findall(r'counters\["(\w+)"\]', "".join(sources)))
    text = page.read_text(encoding="utf-8").partition("| counter |")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    told = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert told == {*counted, "lag_seconds"}


def run_python(source: str, folder: Path) -> list[str]:
    """Run a page's code in a folder; return the lines that it prints."""
    command = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_a_book_of_the_page_of_books_is_the_venues(
    market: str, command_line: CommandLine, unused_port: int
) -> None:
    """Its client as it stands there, of futures with what it says of them; some are lost."""
    page, folder = ROOT / "docs" / "books.md", command_line.folder
    (command,) = commands(page)
    source = blocks(page, "python")[0].replace("9000", str(unused_port))
    if market == "usdm":
        for there, futures in (
            ("/api/v3/depth", "/fapi/v1/depth"),
            ("book.follow(message)", "book.follow(message, futures=True)"),
        ):
            assert source.count(there) == 1
            assert futures in page.read_text(encoding="utf-8")
            source = source.replace(there, futures)
    _, *arguments = shlex.split(command.replace("9000", str(unused_port)))
    arguments += ["--record", "journal", "--market", market]
    faults = ("unknown-event@3", "drop@8", "old-snapshot@2", "garbage@20", "dup@30", "reorder@40")
    for fault in faults:
        arguments += ["--fault", fault]
    with command_line.start(*arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        *told, judged = run_python(source, folder)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    assert judged == "the best 20 are the venue's: True"
    rows = [json.loads(line) for line in told if line.startswith("{")]
    lost = [line for line in told if line.endswith(": load a new snapshot")]
    assert len(lost) >= 3  # a message was lost, the snapshot after it too old, one of no use
    (useless,) = [line for line in told if line not in lost and not line.startswith("{")]
    assert "JSON" in useless
    assert len(rows) >= 5
    true = book_by_id(folder / "journal" / "btcusdt.gz")
    for row in rows:
        assert true[row["update_id"]] == (row["bids"], row["asks"])


def book_by_id(journal: Path) -> dict[int, tuple[list[list[str]], list[list[str]]]]:
    """Return the best three levels of a venue's true book at each of its update ids."""
    book = ReferenceBook()
    books = {}
    for message in read_journal(journal):
        if "lastUpdateId" not in message:
            book.apply(message["u"], message["b"], message["a"])
        elif not book.update_id:  # the one with which the journal begins
            book.load(message["lastUpdateId"], message["bids"], message["asks"])
        sides = [[list(level) for level in side] for side in (book.bids(3), book.asks(3))]
        books[book.update_id] = (sides[0], sides[1])
    return books


def test_what_the_page_of_books_prints(tmp_path: Path) -> None:
    page = ROOT / "docs" / "books.md"
    (printed,) = blocks(page, "text")
    _, applying = blocks(page, "python")
    assert run_python(applying, tmp_path) == printed.splitlines()


def test_the_page_of_books_tells_of_all_that_a_book_has() -> None:
    text = (ROOT / "docs" / "books.md").read_text(encoding="utf-8")
    for name in dir(OrderBook):
        assert name.startswith("_") or re.search(rf"`(OrderBook\.)?{name}[`(]", text), name


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
