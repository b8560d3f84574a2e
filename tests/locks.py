"""Locks of rows on PostgreSQL. SQLite has none, because it has one writer at a time."""

from django.db import connection


def is_blocking() -> bool:
    """Whether another transaction waits for a lock of the transaction of this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))")
        return bool(cursor.fetchone()[0])
