"""The ORM from the event loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from channels.db import DatabaseSyncToAsync

P = ParamSpec("P")
T = TypeVar("T")

# Of their own: while a database hangs, names are still looked up in the loop's other threads, and people spoken to.
db_executor = ContextVar("threads", default=ThreadPoolExecutor(8, "database"))  # noqa: B039 - one for the process


async def run_in_db_thread(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Runs it in one of `threads`, whose connection is closed when it is too old. Raises what it raises."""
    run = DatabaseSyncToAsync(function, thread_sensitive=False, executor=db_executor.get())
    result: T = await run(*arguments, **keywords)
    return result
