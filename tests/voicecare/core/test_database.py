"""Database access from the event loop, in separate threads."""

import asyncio
import threading

import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import Settings

from voicecare.core.database import own_db_thread, run_in_db_thread

pytestmark = pytest.mark.django_db(transaction=True)  # the threads may keep connections of other tests


async def test_hanging_database_threads_do_not_block_name_resolution():
    """Every new connection to the provider needs name resolution."""
    back = threading.Event()
    hanging = [asyncio.create_task(run_in_db_thread(back.wait, 10)) for _ in range(40)]
    try:
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert not any(task.done() for task in hanging)
    finally:
        back.set()
    assert all(await asyncio.gather(*hanging))


async def test_results_and_errors_of_the_function_are_passed_on():
    assert await run_in_db_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await run_in_db_thread(divmod, 7, 0)


async def test_own_db_thread_uses_one_thread_and_closes_its_connections():
    async with own_db_thread("own"):
        names = await asyncio.gather(*(run_in_db_thread(threading.get_ident) for _ in range(5)))
        used = await run_in_db_thread(_open_connection)
    assert len(set(names)) == 1
    assert threading.get_ident() not in names
    assert used.connection is None
    assert await run_in_db_thread(threading.get_ident) not in names


async def test_with_debug_a_thread_forgets_the_statements_of_its_previous_call(settings: Settings):
    """Django forgets them only in the threads of HTTP requests."""
    settings.DEBUG = True
    async with own_db_thread("own"):
        kept = [await run_in_db_thread(_query) for _ in range(20)]
    assert kept[1:] == [1] * 19  # the first call also opens the connection


def _query() -> int:
    """Run one statement and return the number of statements that Django keeps in this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return len(connection.queries_log)


def _open_connection() -> BaseDatabaseWrapper:
    connection.ensure_connection()
    return connections["default"]
