"""The sinks to brokers against the contract of sinks, with real servers that go down and up."""

from __future__ import annotations

import pytest

from obframe.testing.brokers import KafkaCluster, NatsServer, ValkeyServer
from obframe_plugins._contracts_kafka import KafkaContract
from obframe_plugins._contracts_nats import NatsContract
from obframe_plugins._contracts_redis import RedisContract


class TestRedis(RedisContract):
    @pytest.fixture(autouse=True)
    def _server(self, valkey: ValkeyServer) -> None:
        self.server = valkey


class TestNats(NatsContract):
    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self.server = nats_server


class TestKafka(KafkaContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, kafka_cluster: KafkaCluster) -> None:
        self.cluster = kafka_cluster
        kafka_cluster.create_topic("obframe")
