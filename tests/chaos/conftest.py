"""Fixtures of the outage tests: one PostgreSQL and one Redis for all tests, new web processes for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.sandbox import SandboxProcess
from tests.services import PostgresProcess, RedisProcess


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as process:
        yield process


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture
def cluster(
    postgres: PostgresProcess, redis: RedisProcess, sandbox: SandboxProcess, tmp_path: Path
) -> Iterator[Cluster]:
    """A new cluster without any usage at the provider or in the ledger."""
    redis.flush()
    sandbox.settings(concurrency=60, first_byte_ms=20, character_limit=10_000_000)
    cluster = Cluster(tmp_path, sandbox, postgres, redis)
    yield cluster
    cluster.close()
