"""The built wheel: what is in it, and that it works outside the checkout."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import venv as virtual
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .wheelhouse import pack_wheels

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WITHOUT_PYTEST = """
from obframe.testing import Exchange, FakeClock, ReferenceBook
try:
    from obframe.testing import StorageContract
except ImportError as error:
    print(error)
"""


def call(*command: str | Path, cwd: Path, environ: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that one worker of the run fills, while the others wait for it.

    Workers have a folder each, in one of the run. setuptools puts a source distribution together in
    the checkout itself: two that did so at once would remove each other's files.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = factory.mktemp(name)
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build source distribution and, from it, the wheel."""

    def build(folder: Path) -> None:
        command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
        call(*command, cwd=folder)

    return make_once(tmp_path_factory, "dist", build)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack wheels of all that the tests install beside obframe."""
    needed = ["obframe[testing]", "build", "mypy", "pip", "ruff", "setuptools"]
    return make_once(tmp_path_factory, "wheels", lambda folder: pack_wheels(folder, needed))


@pytest.fixture(scope="module")
def names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel(names: set[str]) -> None:
    for package, folder in (("obframe", ROOT / "obframe"), ("obframe_plugins", ROOT / "plugins")):
        for pattern in ("*.py", "*.pyi"):
            for path in folder.rglob(pattern):
                assert f"{package}/{path.relative_to(folder).as_posix()}" in names
        assert f"{package}/py.typed" in names
    templates = ROOT / "obframe" / "commands" / "templates"
    for path in [*templates.glob("*.*"), *templates.glob("[!.]*/*.py")]:
        name = path.relative_to(templates).as_posix()
        if not name.startswith("."):  # ruff keeps a cache there
            assert f"obframe/commands/templates/{name}" in names
    assert any(name.startswith("obframe/_core.") and name.endswith(".so") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    for name in names:
        assert name.startswith(("obframe/", "obframe_plugins/", "obframe-")), name
        assert not name.endswith((".c", ".pyx", ".html", ".pyc")), name
        assert "test_" not in name or name.startswith("obframe/commands/templates/"), name


def test_the_source_distribution_holds_source_only(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        held = content.getnames()
    assert any(name.endswith("/obframe/_core.pyx") for name in held)
    assert any(name.endswith("/plugins/rocksdb.py") for name in held)
    made = [name for name in held if name.endswith((".c", ".so", ".pyc"))]
    written = ("/benchmarks/structures/", "/safety/book.c", "/safety/levels.c", "/safety/rows.c")
    assert not [name for name in made if not any(part in name for part in written)]


class Environment:
    """A clean virtual environment with the wheel in it, far from the checkout and any index.

    Attributes:
        folder: Where it is.
        environ: What commands of it get; it has pip install from some folders of wheels only.
    """

    def __init__(self, folder: Path, *wheels: Path) -> None:
        self.folder = folder
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OBFRAME_", "PIP_", "PYTHON")) and name != "PERSISTENT_SYMBOLS"
        }
        self.environ["PIP_CONFIG_FILE"] = os.devnull
        self.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        self.environ["PIP_FIND_LINKS"] = " ".join(map(str, wheels))
        self.environ["PIP_NO_COMPILE"] = "1"  # most of it is never imported
        self.environ["PIP_NO_INDEX"] = "1"
        virtual.create(folder)
        self.install("pip", python=Path(sys.executable))

    def install(self, *wanted: str | Path, python: Path | None = None) -> None:
        pip = (python or self.folder / "bin" / "python", "-m", "pip")
        into = ("--python", self.folder / "bin" / "python") if python else ()
        call(*pip, *into, "install", "--quiet", *wanted, cwd=self.folder, environ=self.environ)

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        program, *arguments = [str(part) for part in command]
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=cwd,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def succeed(self, *command: str | Path, cwd: Path) -> str:
        done = self.run(*command, cwd=cwd)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(built: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the wheel with nothing but its own dependencies."""
    environment = Environment(tmp_path_factory.mktemp("venv") / "venv", built, wheels)
    environment.install("obframe")
    return environment


def test_the_wheel_works_in_a_clean_environment(installed: Environment, tmp_path: Path) -> None:
    where = installed.succeed(
        "python", "-c", "import obframe; print(obframe.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(installed.folder)
    listed = installed.succeed("obframe", "plugins", "--format", "csv", cwd=tmp_path)
    for name in ("binance", "eventlog", "file", "memory", "rocksdb", "runtime", "static", "top"):
        assert f"\n{name}," in listed
    shown = installed.succeed("obframe", "demo", "--seconds", "4", cwd=tmp_path)
    for part in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "a row"):
        assert part in shown


def test_contracts_say_what_they_need(installed: Environment, tmp_path: Path) -> None:
    if installed.run("python", "-c", "import pytest", cwd=tmp_path).returncode == 0:
        pytest.skip("another test has installed pytest by now")
    told = installed.succeed("python", "-c", WITHOUT_PYTEST, cwd=tmp_path)
    assert told.strip().endswith("pip install 'obframe[testing]'")
    refused = installed.run("obframe", "plugins", "check", "memory", cwd=tmp_path)
    assert refused.returncode == 2
    assert "which is not installed; pip install 'obframe[testing]'" in refused.stderr


KINDS = {"keep": "storage", "live": "feed", "pick": "symbols", "tell": "sink"}


def test_a_new_plugin_of_each_kind_works_with_the_wheel(
    installed: Environment, tmp_path: Path
) -> None:
    """Begun, built, installed beside obframe's wheel, checked there, and recorded with.

    ``live`` streams from the loopback venue what ``pick`` names, ``keep`` stores it and ``tell``
    posts it: what was stored and what was posted are the same, digit for digit.
    """
    for name, kind in KINDS.items():
        installed.succeed("obframe", "plugins", "new", name, "--kind", kind, cwd=tmp_path)
        project = tmp_path / f"obframe-{name}"
        build = (sys.executable, "-m", "build", "--no-isolation", "--wheel")
        call(*build, "--outdir", tmp_path / "wheels", project, cwd=tmp_path)
    installed.install("obframe[testing]", *sorted((tmp_path / "wheels").glob("*.whl")))
    for name in KINDS:
        checked = installed.run("obframe", "plugins", "check", name, cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert " 0 failed" in checked.stderr
        tests = tmp_path / f"obframe-{name}"
        installed.succeed("pytest", "-q", "-p", "no:cacheprovider", cwd=tests)

    wanted = tmp_path / "symbols.txt"
    wanted.write_text("AAA\n")
    with receiver() as (url, posted), venue(installed, tmp_path, "AAA,BBB") as urls:
        settings = {
            "live.ws_url": urls["ws_url"],
            "live.rest_url": urls["rest_url"],
            "pick.interval": "0.2",
            "tell.url": url,
        }
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        plugins = ("--plugins", ",".join(KINDS), "--duration", "60")
        command = [str(installed.folder / "bin" / "obframe"), "run", *plugins, *sets]
        with subprocess.Popen(
            command, cwd=tmp_path, env=installed.environ, stderr=subprocess.PIPE, text=True
        ) as recorder:

            def posts(symbol: str, least: int) -> bool:
                assert recorder.poll() is None, recorder.communicate()
                return sum(of == symbol for of, _ in tuple(posted)) >= least

            wait_for(lambda: posts("AAA", 1))
            wanted.write_text("AAA\nBBB\n")
            wait_for(lambda: posts("BBB", 3))
            recorder.terminate()
            _, log = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, log
    for symbol in ("AAA", "BBB"):
        query = ("query", symbol, "--plugins", "keep", "--from", "-1h", "--format", "jsonl")
        lines = installed.succeed("obframe", *query, cwd=tmp_path).splitlines()
        stored = {row["timestamp"]: book_of(row) for row in map(json.loads, lines)}
        assert len(stored) >= 3, log
        assert stored == {
            second: book_of(row) for (of, second), row in posted.items() if of == symbol
        }


def test_the_guide_can_be_followed(installed: Environment, tmp_path: Path) -> None:
    """Every command of docs/plugins.md in its order, every file written when the page says so."""
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    steps = re.findall(
        r"^(?:`([\w/.]+)`\n\n)?```(sh|python)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    script = ["set -ex"]
    for number, (path, language, text) in enumerate(steps):
        if language == "sh":
            script.append(text)
        elif path:
            (tmp_path / f"{number}").write_text(text, encoding="utf-8")
            script.append(f"cp ../{number} {path}")
    with venue(installed, tmp_path, "BTCUSDT,ETHUSDT") as urls:
        environ = {
            **installed.environ,
            "PATH": f"{installed.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "OBFRAME_BINANCE_WS_URL": urls["ws_url"],
            "OBFRAME_BINANCE_REST_URL": urls["rest_url"],
        }
        call("bash", "-c", "\n".join(script), cwd=tmp_path, environ=environ)
    project = tmp_path / "obframe-best"
    assert {path.suffix for path in (project / "dist").iterdir()} == {".whl", ".gz"}
    with contextlib.closing(sqlite3.connect(project / "best.sqlite")) as connection:
        kept = connection.execute("SELECT * FROM best WHERE symbol = 'ETHUSDT'").fetchall()
    query = ("query", "ETHUSDT", "--from", "-1h", "--format", "jsonl")
    rows = list(map(json.loads, installed.succeed("obframe", *query, cwd=project).splitlines()))
    assert rows
    assert sorted(kept) == [
        ("ETHUSDT", row["timestamp"], row["bids"][0][0], row["asks"][0][0]) for row in rows
    ]


def book_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["update_id"], row["bids"], row["asks"]


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, dict[tuple[str, int], Any]]]:
    """Take posted rows on loopback; gives the URL and the rows by symbol and second."""
    rows: dict[tuple[str, int], Any] = {}

    class Take(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for row in map(json.loads, body.splitlines()):
                rows[row["symbol"], row["timestamp"]] = row
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/rows", rows
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def venue(installed: Environment, folder: Path, symbols: str) -> Iterator[dict[str, str]]:
    """Serve the simulated venue from the environment; gives its URLs."""
    command = [str(installed.folder / "bin" / "obframe"), "exchange", "--symbols", symbols]
    with subprocess.Popen(
        [*command, "--port", "0", "--format", "json"],
        cwd=folder,
        env=installed.environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
