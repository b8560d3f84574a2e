"""Database access from the event loop: the ORM runs in threads."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import ParamSpec, TypeVar

from channels.db import DatabaseSyncToAsync
from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 8

_own_thread: ContextVar[ThreadPoolExecutor | None] = ContextVar("own_thread", default=None)


async def run_in_db_thread(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Runs the function in a database thread and returns its result. Raises what it raises.

    The thread's connection is closed first if it is older than CONN_MAX_AGE.
    """
    executor = _own_thread.get() or _process_executor()
    run = DatabaseSyncToAsync(function, thread_sensitive=False, executor=executor)
    result: T = await run(*arguments, **keywords)
    return result


@asynccontextmanager
async def own_db_thread(name: str) -> AsyncIterator[None]:
    """Inside, `run_in_db_thread` uses one thread of its own, and its connections are closed at the end.

    For event loops that live shortly, such as `asyncio.run` in a Celery task: connections in the shared threads would
    stay open after the loop has ended.
    """
    executor = ThreadPoolExecutor(1, name)
    token = _own_thread.set(executor)
    try:
        yield
    finally:
        await run_in_db_thread(connections.close_all)
        _own_thread.reset(token)
        executor.shutdown(wait=False)


@cache
def _process_executor() -> ThreadPoolExecutor:
    """The database threads of this process, made at first use, because a process may fork before.

    They are not the loop's default threads. Those resolve host names, and speech must go on while the database hangs.
    """
    return ThreadPoolExecutor(MAX_THREADS, "database")
