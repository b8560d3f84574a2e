"""The ORM from the event loop."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from channels.db import DatabaseSyncToAsync

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Runs it in a thread of its own, whose connection is closed when it is too old. Raises what it raises."""
    result: T = await DatabaseSyncToAsync(function, thread_sensitive=False)(*arguments, **keywords)
    return result
