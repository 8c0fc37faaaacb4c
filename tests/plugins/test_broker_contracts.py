"""The sinks to brokers against the contract of sinks."""

from __future__ import annotations

from obframe_plugins._contracts_brokers import KafkaContract, NatsContract, RedisContract


class TestRedis(RedisContract):
    """Valkey."""


class TestNats(NatsContract):
    """NATS."""


class TestKafka(KafkaContract):
    """Kafka."""
