"""Fixtures that every part may use."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import obframe
from obframe import StorageError, UnknownSymbol
from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer, skipping

ROOT = Path(__file__).resolve().parent.parent

# No test trusts an authority of the world. Where this names them all in one file, each command that
# loads aiohttp would read them, which takes longer than most of what it imports.
os.environ["SSL_CERT_FILE"] = os.devnull

# Chosen by --hypothesis-profile. The default draws the same examples every time; the nightly run
# draws new ones.
settings.register_profile("default", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("short", settings.get_profile("default"), max_examples=20)
settings.register_profile(
    "nightly",
    max_examples=10_000,
    deadline=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: two workers then end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def captures() -> Path:
    """Return the folder of recorded market data, or skip the test.

    It is ``OBFRAME_CAPTURES``, by default ``../shared/captures`` beside the project. With
    ``OBFRAME_REQUIRE_CAPTURES=1`` a missing folder fails the test instead.
    """
    setting = os.environ.get("OBFRAME_CAPTURES")
    folder = Path(setting) if setting else ROOT.parent / "shared" / "captures"
    if not (folder / "spot").is_dir() or not (folder / "usdm").is_dir():
        message = f"no captures in {folder}; set OBFRAME_CAPTURES to where they lie"
        if os.environ.get("OBFRAME_REQUIRE_CAPTURES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


class CommandLine:
    """The command line, run as processes in a folder of its own, free of the caller's settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OBFRAME_") and name != "PERSISTENT_SYMBOLS"
        }
        self.environ["COLUMNS"] = "200"

    def install(
        self, name: str, module: str, *, distribution: str = "", version: str = "1"
    ) -> None:
        """Have a distribution in the folder that offers a plugin; its module lies there too."""
        distribution = distribution or name
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        about = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(about)
        (info / "entry_points.txt").write_text(f"[obframe.plugins]\n{name} = {module}\n")
        self.environ["PYTHONPATH"] = str(self.folder)

    def run(
        self, *arguments: str, environ: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "obframe", *arguments],
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def count_rows(self, symbol: str) -> int:
        """Count what a recorder has stored of a symbol by now, without a command that asks."""
        try:
            with obframe.open(self.folder / "obframe-data") as store:
                return len(list(store.rows(symbol)))
        except (StorageError, UnknownSymbol):
            return 0

    @contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command beside the test; it is killed at the end if it still runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "obframe", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def venue(self, *arguments: str) -> Iterator[list[str]]:
        """Start a venue; gives the options that lead a recorder to it."""
        command = ("exchange", "--port", "0", "--format", "json", *arguments)
        with self.start(*command) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            urls = json.loads(line)
            yield [f"--set=binance.{key}={url}" for key, url in urls.items()]


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    """Return the command line in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def make_command_line() -> Callable[[Path], CommandLine]:
    """Return what makes the command line in a folder."""
    return CommandLine


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], None]:
    """Return a function that waits for a condition of another process, up to 30 s."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"did not happen: {what}"
            time.sleep(0.05)

    return wait


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Return a running Valkey; it is killed at the end."""
    server = ValkeyServer(tmp_path / "valkey")
    with skipping():
        server.start()
    yield server
    server.kill()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """Return a running NATS server with JetStream; it is killed at the end."""
    server = NatsServer(tmp_path / "nats")
    with skipping():
        server.start()
    yield server
    server.kill()


@pytest.fixture
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Return a Kafka cluster of three brokers in this process."""
    with skipping():
        cluster = KafkaCluster()
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PEM file of a key and a certificate that nobody trusts."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("certificate")
    key, cert, both = folder / "key", folder / "cert", folder / "both"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


@pytest.fixture
def kept_memory() -> Callable[[Callable[[], object], int, int], int]:
    """Return what tells how many bytes work leaves: done so often, after so often before."""

    def measure(work: Callable[[], object], before: int, times: int) -> int:
        work()
        tracemalloc.start()
        try:
            for _ in range(before):
                work()
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
            for _ in range(times):
                work()
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - held
        finally:
            tracemalloc.stop()

    return measure
