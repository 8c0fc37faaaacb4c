"""Redis Streams: a stream for each symbol, every row under the id of its second."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

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
from obframe_plugins._redis_sink import Limits, RedisSink

OBFRAME_API = 1

logger = logging.getLogger("obframe_plugins.redis")

_SCHEMES = ("redis", "rediss", "unix")
_FOUR_SECONDS = Duration(4)
_FOR_EVER = Duration(0)


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Which server, what its streams are called, and how long they get."""

    url: str = field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        metadata={
            "help": "redis://[user:password@]host:port/database; rediss:// for TLS, unix:///path "
            "for a socket; Valkey is served alike"
        },
    )
    username: str = field(
        default="", repr=False, metadata={"help": "user, where the URL should not tell it"}
    )
    password: str = field(
        default="",
        repr=False,
        metadata={"help": "password likewise; best from OBFRAME_REDIS_PASSWORD"},
    )
    key: str = field(
        default="obframe:{symbol}", metadata={"help": "key of a symbol's stream, with {symbol}"}
    )
    format: Format = field(default="json", metadata={"help": FORMAT_HELP})
    max_length: int = field(
        default=100_000,
        metadata={"help": "rows that a stream keeps at least (MAXLEN ~); 0 for no limit"},
    )
    max_age: Duration = field(
        default=_FOR_EVER,
        metadata={"help": "age up to which a stream keeps rows at least (MINID ~); 0 for no limit"},
    )
    fsync: bool = field(
        default=False,
        metadata={
            "help": "count a row as delivered when the server's append-only file is on the disk "
            "(WAITAOF, Redis 7.2 or Valkey)"
        },
    )
    replicas: int = field(
        default=0,
        metadata={"help": "replicas that must have a row before it counts as delivered (WAIT)"},
    )
    timeout: Duration = field(default=_FOUR_SECONDS, metadata={"help": TIMEOUT_HELP})
    ca_file: str = field(
        default="", metadata={"help": "certificates to trust for rediss://; empty for the system's"}
    )
    cert_file: str = field(default="", metadata={"help": "certificate to show to the server"})
    key_file: str = field(default="", metadata={"help": "its private key"})

    def __post_init__(self) -> None:
        problems = check_url("url", self.url, _SCHEMES)
        problems += check_template("key", self.key, needs_symbol=True)
        problems += check_positive(self, "timeout")
        problems += [
            f"{name} is {getattr(self, name)}; use 0 or more"
            for name in ("max_length", "replicas")
            if getattr(self, name) < 0
        ]
        if 0 < self.max_age < 1:
            problems.append(f"max_age is {self.max_age}; use 1s or more, or 0")
        refuse(problems)

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        return [self.password, *secrets_of(self.url)]


@contextlib.asynccontextmanager
async def open_sink(settings: RedisSettings) -> AsyncIterator[Sink]:
    """Open the sink; the server is reached for with the first rows.

    Raises:
        PluginError: The library is missing, or does not take the settings.
    """
    load_library("redis", "redis.asyncio", "hiredis")
    try:
        client = _make_client(settings)
    except Exception as error:
        reason = hide(f"cannot use its settings: {error}", settings.secrets)
        raise PluginError("redis", reason, "check the section [redis]") from None
    limits = Limits(int(settings.max_length), int(settings.max_age))
    sink = RedisSink(
        client,
        key=settings.key,
        format=settings.format,
        limits=limits,
        fsync=settings.fsync,
        replicas=settings.replicas,
        timeout=float(settings.timeout),
        secrets=settings.secrets,
    )
    try:
        yield sink
    finally:
        with contextlib.suppress(Exception):
            await client.aclose()
        if sink.counters:
            logger.info("redis: %s", ", ".join(f"{n} {w}" for w, n in sink.counters.items()))


def _make_client(settings: RedisSettings) -> Any:
    from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {}
    if settings.username:
        options["username"] = settings.username
    if settings.password:
        options["password"] = settings.password
    if settings.url.startswith("rediss:"):
        files = {
            "ssl_ca_certs": settings.ca_file,
            "ssl_certfile": settings.cert_file,
            "ssl_keyfile": settings.key_file,
        }
        options |= {name: file for name, file in files.items() if file}
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=1,
        socket_timeout=float(settings.timeout),
        socket_connect_timeout=float(settings.timeout),
        retry=Retry(NoBackoff(), 0),  # the framework tries again, and knows when
        client_name="obframe",
        **options,
    )
    return Redis.from_pool(pool)


@hookimpl
def obframe_sinks() -> list[Provider[Sink]]:
    """Offer the sink."""
    summary = "rows to Redis Streams, one stream a symbol"
    contract = "obframe_plugins._contracts_brokers:RedisContract"
    return [Provider("redis", summary, RedisSettings, open_sink, backfill=True, contract=contract)]
