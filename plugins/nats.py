"""NATS JetStream: every row on the subject of its symbol, known by its message id."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from obframe import Duration, PluginError, Provider, Sink, hookimpl
from obframe_plugins._brokers import (
    FORMAT_HELP,
    TIMEOUT_HELP,
    Format,
    check_positive,
    check_template,
    check_url,
    hide,
    load_library,
    refuse,
    secrets_of,
)
from obframe_plugins._nats_link import Access, StreamPlan
from obframe_plugins._nats_sink import NatsSink

OBFRAME_API = 1

logger = logging.getLogger("obframe_plugins.nats")

_SCHEMES = ("nats", "tls", "ws", "wss")
_FOUR_SECONDS = Duration(4)
_TWO_MINUTES = Duration(120)
_WEEK = Duration(7 * 86400)


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Which servers, which stream, and what a stream is made like that is not there yet."""

    servers: tuple[str, ...] = field(
        default=("nats://127.0.0.1:4222",),
        repr=False,
        metadata={"help": "nats://[user:password@]host:port of one cluster; tls:// for TLS"},
    )
    username: str = field(
        default="", repr=False, metadata={"help": "user, where the URLs should not tell it"}
    )
    password: str = field(
        default="",
        repr=False,
        metadata={"help": "password likewise; best from OBFRAME_NATS_PASSWORD"},
    )
    token: str = field(
        default="", repr=False, metadata={"help": "token, for servers that want one"}
    )
    credentials_file: str = field(default="", metadata={"help": ".creds file of a user"})
    nkey_file: str = field(default="", metadata={"help": "file with the seed of an nkey"})
    ca_file: str = field(
        default="", metadata={"help": "certificates to trust for TLS; empty for the system's"}
    )
    cert_file: str = field(default="", metadata={"help": "certificate to show to the server"})
    key_file: str = field(default="", metadata={"help": "its private key"})
    stream: str = field(default="OBFRAME", metadata={"help": "name of the stream"})
    subject: str = field(
        default="obframe.{symbol}",
        metadata={
            "help": "subject of a symbol's rows, with {symbol}; in it '.', '*', '>', '%' and what "
            "is not ASCII become %XX"
        },
    )
    format: Format = field(default="json", metadata={"help": FORMAT_HELP})
    create: bool = field(
        default=True, metadata={"help": "make the stream when there is none of this name"}
    )
    replication: int = field(default=1, metadata={"help": "servers that keep a made stream"})
    max_age: Duration = field(
        default=_WEEK, metadata={"help": "age up to which a made stream keeps rows; 0 for ever"}
    )
    max_bytes: int = field(
        default=0, metadata={"help": "bytes that a made stream keeps at most; 0 for no limit"}
    )
    max_rows_per_symbol: int = field(
        default=0, metadata={"help": "rows that it keeps of a symbol at most; 0 for no limit"}
    )
    duplicate_window: Duration = field(
        default=_TWO_MINUTES,
        metadata={
            "help": "how long a made stream knows message ids; one that is there must do so as "
            "long at least"
        },
    )
    timeout: Duration = field(default=_FOUR_SECONDS, metadata={"help": TIMEOUT_HELP})

    def __post_init__(self) -> None:
        problems = [] if self.servers else ["servers is empty"]
        for server in self.servers:
            problems += check_url("servers", server, _SCHEMES)
        problems += check_template("subject", self.subject, needs_symbol=True)
        problems += check_positive(self, "timeout", "duplicate_window", "replication")
        bad = set(self.subject) & set(" \t\r\n*>")
        if bad or ".." in self.subject or self.subject.strip(".") != self.subject:
            problems.append(
                f"subject is {self.subject!r}; use words joined by single dots, without spaces, "
                "'*' and '>'"
            )
        if not self.stream or set(self.stream) & set(" \t\r\n.*>/\\"):
            problems.append(f"stream is {self.stream!r}; use a name without spaces and . * > / \\")
        problems += [
            f"{name} is {getattr(self, name)}; use 0 or more"
            for name in ("max_bytes", "max_rows_per_symbol")
            if getattr(self, name) < 0
        ]
        if 0 < self.max_age < self.duplicate_window:
            problems.append(
                f"duplicate_window is {self.duplicate_window}, above max_age {self.max_age}; "
                "a server takes no more than that"
            )
        refuse(problems)

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        return [self.password, self.token, *secrets_of(*self.servers)]


@contextlib.asynccontextmanager
async def open_sink(settings: NatsSettings) -> AsyncIterator[Sink]:
    """Open the sink; a server is reached for with the first rows.

    Raises:
        PluginError: The library is missing, or does not take the settings.
    """
    load_library("nats", "nats.js")
    sink = NatsSink(
        _make_access(settings),
        StreamPlan(
            name=settings.stream,
            subject=settings.subject,
            create=settings.create,
            replication=settings.replication,
            max_age=float(settings.max_age),
            max_bytes=settings.max_bytes,
            max_rows_per_symbol=settings.max_rows_per_symbol,
            duplicate_window=float(settings.duplicate_window),
        ),
        format=settings.format,
    )
    try:
        yield sink
    finally:
        await sink.close()
        if sink.counters:
            logger.info("nats: %s", ", ".join(f"{n} {what}" for what, n in sink.counters.items()))


def _make_access(settings: NatsSettings) -> Access:
    for name in ("credentials_file", "nkey_file"):
        path = getattr(settings, name)
        if path and not Path(path).expanduser().is_file():
            raise PluginError("nats", f"{name} {path!r} is no file", f"check nats.{name}")
    options: dict[str, object] = {
        "user": settings.username,
        "password": settings.password,
        "token": settings.token,
        "user_credentials": settings.credentials_file,
        "nkeys_seed": settings.nkey_file,
    }
    files = (settings.ca_file, settings.cert_file, settings.key_file)
    if any(files) or any(server.startswith(("tls:", "wss:")) for server in settings.servers):
        try:
            context = ssl.create_default_context(cafile=settings.ca_file or None)
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file or None)
        except OSError as error:
            reason = hide(f"cannot read its certificates: {error}", settings.secrets)
            raise PluginError("nats", reason, "check nats.ca_file, cert_file, key_file") from error
        options["tls"] = context
    return Access(
        servers=settings.servers,
        options={name: value for name, value in options.items() if value},
        timeout=float(settings.timeout),
        secrets=tuple(settings.secrets),
    )


@hookimpl
def obframe_sinks() -> list[Provider[Sink]]:
    """Offer the sink."""
    summary = "rows to NATS JetStream, one subject a symbol"
    contract = "obframe_plugins._contracts_brokers:NatsContract"
    return [Provider("nats", summary, NatsSettings, open_sink, backfill=True, contract=contract)]
