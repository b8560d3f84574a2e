"""The speeches that run for HTTP responses: a maximum number for each user, and the end of all at shutdown."""

import asyncio
import contextvars
from collections import Counter
from collections.abc import Coroutine, Hashable
from typing import Any

MAX_SPEECHES_PER_USER = 8
"""Enough for software that fetches the sentences of a dialogue together. One speech holds up to half a minute of audio
in memory, and all wait in the same line, so one user must not fill it."""


class TooManySpeeches(Exception):
    """The user already has MAX_SPEECHES_PER_USER running speeches."""


class ResponseSpeeches:
    """The running speeches for HTTP responses in this process. Used on one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._counts: Counter[Hashable] = Counter()

    def start(self, work: Coroutine[Any, Any, None], user: Hashable) -> asyncio.Task[None]:
        """Run the speech `work` in a new task, which counts for `user` until it ends. Raises TooManySpeeches.

        The task has an empty contextvars context, because it may start the recorder, which serves the whole process. In
        the request's context, the recorder would be bound to the request's database thread, which ends with the
        request.
        """
        if self._counts[user] >= MAX_SPEECHES_PER_USER:
            work.close()
            raise TooManySpeeches

        def forget(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._counts[user] -= 1
            if not self._counts[user]:
                del self._counts[user]

        task = asyncio.create_task(work, context=contextvars.Context())
        self._running.add(task)
        self._counts[user] += 1
        task.add_done_callback(forget)
        return task

    async def cancel(self) -> None:
        """Cancel all speeches and wait until they have ended and are recorded."""
        running = set(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
