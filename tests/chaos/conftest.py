"""The servers of these tests: PostgreSQL and Redis once, web processes for each test anew."""

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
    """Nobody has spoken yet: neither the provider nor the ledger knows of anything."""
    redis.flush()
    sandbox.settings(concurrency=60, first_byte_ms=20, character_limit=10_000_000)
    cluster = Cluster(tmp_path, sandbox, postgres, redis)
    yield cluster
    cluster.close()
