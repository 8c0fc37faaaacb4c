"""Kafka: every row with its symbol as the key, by an idempotent producer."""

from __future__ import annotations

import atexit
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from obframe import Duration, PluginError, Provider, Sink, hookimpl
from obframe_plugins._brokers import (
    FORMAT_HELP,
    SYMBOL,
    TIMEOUT_HELP,
    Format,
    check_positive,
    check_template,
    hide,
    load_library,
    refuse,
)
from obframe_plugins._kafka_sink import KafkaSink

OBFRAME_API = 1

logger = logging.getLogger("obframe_plugins.kafka")

_FOUR_SECONDS = Duration(4)
_TOPIC = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST_TOPIC = 249
_OWN = {
    "acks", "bootstrap.servers", "enable.idempotence", "message.timeout.ms",
    "delivery.timeout.ms", "transactional.id", "sasl.password", "sasl.username",
    "security.protocol", "sasl.mechanism", "sasl.mechanisms", "compression.type",
    "compression.codec", "partitioner",
}  # fmt: skip
"""Properties that the sink relies on, or that have a setting of their own."""

_UNDER_WAY: dict[KafkaSettings, KafkaSink] = {}
"""Sinks that were closed while rows were under way: opened again, they go on with them."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Which brokers, which topic, and how to enter."""

    servers: tuple[str, ...] = field(
        default=("127.0.0.1:9092",), metadata={"help": "host:port of some brokers of one cluster"}
    )
    topic: str = field(
        default="obframe",
        metadata={
            "help": "topic; with {symbol} one for each symbol, in it '.' and what a topic cannot "
            "hold become .XX"
        },
    )
    format: Format = field(default="json", metadata={"help": FORMAT_HELP})
    compression: Literal["none", "lz4", "zstd", "gzip", "snappy"] = field(
        default="lz4", metadata={"help": "of batches of messages"}
    )
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = field(
        default="plaintext", metadata={"help": "ssl for TLS, sasl for a user and a password"}
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = field(
        default="PLAIN", metadata={"help": "how a user is proven"}
    )
    username: str = field(default="", repr=False, metadata={"help": "user, for sasl"})
    password: str = field(
        default="",
        repr=False,
        metadata={"help": "password, for sasl; best from OBFRAME_KAFKA_PASSWORD"},
    )
    ca_file: str = field(
        default="", metadata={"help": "certificates to trust for TLS; empty for the system's"}
    )
    cert_file: str = field(default="", metadata={"help": "certificate to show to the brokers"})
    key_file: str = field(default="", metadata={"help": "its private key"})
    options: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={"help": "further properties of librdkafka, each `name=value`"},
    )
    timeout: Duration = field(default=_FOUR_SECONDS, metadata={"help": TIMEOUT_HELP})

    def __post_init__(self) -> None:
        problems = [] if self.servers else ["servers is empty"]
        problems += [
            f"servers has {server!r}; use host:port"
            for server in self.servers
            if not re.fullmatch(r"[^\s/@,]+:\d{1,5}", server)
        ]
        wrong = check_template("topic", self.topic, needs_symbol=False)
        rest = self.topic.replace(SYMBOL, "x")
        if not wrong and not (_TOPIC.fullmatch(rest) and len(rest) <= _LONGEST_TOPIC):
            wrong = [f"topic is {self.topic!r}; use up to 249 of A-Z a-z 0-9 . _ -"]
        problems += wrong
        problems += check_positive(self, "timeout")
        for option in self.options:
            name, equals, _ = option.partition("=")
            if not equals or not name.strip():
                problems.append(f"options has {name!r}; write it as name=value")
            elif name.strip() in _OWN:
                problems.append(
                    f"options has {name.strip()!r}, which the sink sets itself; "
                    "use the settings of [kafka]"
                )
        if self.security.startswith("sasl") and not (self.username and self.password):
            problems.append(f"security is {self.security}; set username and password too")
        refuse(problems)

    @property
    def secrets(self) -> list[str]:
        """What no log may show."""
        values = [option.partition("=")[2].strip() for option in self.options]
        return [self.password, *(value for value in values if len(value) > 5)]

    @property
    def access(self) -> dict[str, Any]:
        """What producer and consumer need to reach and to enter the brokers."""
        properties: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.servers),
            "client.id": "obframe",
            "log_level": 2,
            "security.protocol": self.security,
        }
        if self.security.startswith("sasl"):
            properties["sasl.mechanism"] = self.sasl_mechanism
            properties["sasl.username"] = self.username
            properties["sasl.password"] = self.password
        files = {
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.cert_file,
            "ssl.key.location": self.key_file,
        }
        properties |= {name: file for name, file in files.items() if file}
        for option in self.options:
            name, _, value = option.partition("=")
            properties[name.strip()] = value.strip()
        return properties


@contextlib.asynccontextmanager
async def open_sink(settings: KafkaSettings) -> AsyncIterator[Sink]:
    """Open the sink; a broker is reached for in the background, rows wait for it.

    Raises:
        PluginError: The library is missing, or does not take the settings.
    """
    (library,) = load_library("kafka", "confluent_kafka")
    sink = _UNDER_WAY.pop(settings, None)
    if sink is None:
        sink = _make_sink(settings)
        try:
            sink.start()
        except library.KafkaException as error:
            reason = hide(f"cannot use its settings: {error}", settings.secrets)
            raise PluginError("kafka", reason, "check the section [kafka]") from None
    try:
        yield sink
    finally:
        if not await sink.close():
            _UNDER_WAY[settings] = sink
        if sink.counters:
            logger.info("kafka: %s", ", ".join(f"{n} {what}" for what, n in sink.counters.items()))


def _make_sink(settings: KafkaSettings) -> KafkaSink:
    return KafkaSink(
        settings.access,
        topic=settings.topic,
        format=settings.format,
        compression=settings.compression,
        timeout=float(settings.timeout),
        secrets=settings.secrets,
    )


@atexit.register
def _end() -> None:
    while _UNDER_WAY:
        _UNDER_WAY.popitem()[1].end()


@hookimpl
def obframe_sinks() -> list[Provider[Sink]]:
    """Offer the sink."""
    summary = "rows to Kafka, keyed by symbol"
    contract = "obframe_plugins._contracts_brokers:KafkaContract"
    return [Provider("kafka", summary, KafkaSettings, open_sink, backfill=True, contract=contract)]
