"""Database access from the event loop. The ORM blocks, so it runs in threads."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, ParamSpec, TypeVar

from channels.db import DatabaseSyncToAsync
from django.conf import settings
from django.db import connections, reset_queries

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 8

_own_thread: ContextVar[ThreadPoolExecutor | None] = ContextVar("own_thread", default=None)


class DatabaseCall(DatabaseSyncToAsync):
    """Makes a function that uses the ORM awaitable. It runs in a thread.

    With DEBUG on, Django keeps the last 9,000 statements of each connection, with their values. It forgets them when an
    HTTP request begins, but only in the thread of the request. So each call forgets those of its own thread.
    """

    def thread_handler(self, loop: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        if settings.DEBUG:
            reset_queries()
        return super().thread_handler(loop, *arguments, **keywords)


async def run_in_db_thread(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Runs the function in a database thread and returns its result. Raises the exceptions of the function.

    The database connection of the thread is closed first if it is older than CONN_MAX_AGE.
    """
    executor = _own_thread.get() or _process_executor()
    run = DatabaseCall(function, thread_sensitive=False, executor=executor)
    result: T = await run(*arguments, **keywords)
    return result


@asynccontextmanager
async def own_db_thread(name: str) -> AsyncIterator[None]:
    """Inside the block, `run_in_db_thread` uses a separate thread, whose database connections are closed at the end.

    For event loops that exist only for a short time, such as `asyncio.run` in a Celery task: connections in the shared
    threads would stay open after the loop has ended. `name` is the name of the thread.
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
    """Returns the executor with the database threads of this process.

    It is created when it is first used, because threads created before a fork do not exist in the child process. The
    default threads of the event loop are not used, because they resolve host names, and speech must continue while a
    database query hangs.
    """
    return ThreadPoolExecutor(MAX_THREADS, "database")
