"""Locks of rows on PostgreSQL. SQLite has none, because it has one writer at a time."""

from django.db import connection


def is_blocking() -> bool:
    """Whether another transaction waits for a lock of the transaction of this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))")
        return bool(cursor.fetchone()[0])


def blocked_transactions() -> int:
    """Return how many transactions wait for the transaction of this thread, or for one that waits for it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE blocked (pid) AS (SELECT pg_backend_pid() UNION SELECT pg_locks.pid FROM pg_locks, blocked "
            "WHERE NOT granted AND blocked.pid = ANY (pg_blocking_pids(pg_locks.pid))) "
            "SELECT count(*) - 1 FROM blocked"
        )
        return int(cursor.fetchone()[0])
