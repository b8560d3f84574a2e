"""The services for tests can be started, stopped, killed, paused and restarted on the same port."""

import boto3
import psycopg
import pytest
import redis

from tests.services import PostgresProcess, RedisProcess, S3Process


def test_redis_can_be_paused_killed_and_started_empty():
    with RedisProcess() as server, redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as client:
        client.set("key", "value")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.get("key")
        server.resume()
        assert client.get("key") == b"value"
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.start()
        assert client.get("key") is None


def test_postgres_keeps_its_data_after_stop_kill_and_start():
    with PostgresProcess() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (number int)")
        for end in (server.stop, server.kill):
            with psycopg.connect(server.url) as connection:
                end()
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT 1")
            server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_postgres_can_be_paused_and_resumed():
    with PostgresProcess() as server, psycopg.connect(server.url, tcp_user_timeout=500) as connection:
        connection.execute("SELECT 1")
        server.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url, connect_timeout=2)
        server.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_s3_has_a_bucket_and_is_empty_after_a_restart():
    with S3Process() as server:
        store = boto3.client(
            "s3",
            endpoint_url=server.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        store.put_object(Bucket=server.bucket, Key="clip", Body=b"sound")
        assert store.get_object(Bucket=server.bucket, Key="clip")["Body"].read() == b"sound"
        server.stop()
        server.start()
        assert "Contents" not in store.list_objects_v2(Bucket=server.bucket)


def test_a_server_that_is_not_installed_skips_the_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="redis-server is not installed"):
        RedisProcess()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="redis-server is not installed"):
        RedisProcess()
