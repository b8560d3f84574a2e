"""The next delivery of one connection, fetched beside whatever the device asks for: its own speech waits for no row."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from tts.conversations.context import OpenConversation
from tts.devices.outbox_client import Deliveries
from tts.outbox.claim import Claim
from tts.protocol.session import Session
from tts.speech import Speech
from tts.states import Origin
from tts.synthesis.dependencies import Services

LIVE_WITHIN_S = 1.0  # what the device has waited for does not wait any longer for rows of former conversations


@dataclass(frozen=True, slots=True)
class Fetched:
    claim: Claim
    opened: OpenConversation


class Upcoming:
    """Used by the one task that speaks; `asked` and `close` may be called at any time.

    `open_conversation` gives the open one, or opens one for a delivery; None where that is impossible now. `called`:
    the outbox may have something for this patient.
    """

    def __init__(
        self,
        services: Services,
        session: Session,
        deliveries: Deliveries,
        open_conversation: Callable[[], Awaitable[OpenConversation | None]],
    ) -> None:
        self.called = False
        self._services = services
        self._session = session
        self._deliveries = deliveries
        self._open_conversation = open_conversation
        self._fetching: asyncio.Task[Fetched | None] | None = None
        self._news = asyncio.Event()  # it has been fetched, or the device asks for something
        self._closed = False

    def __bool__(self) -> bool:
        """Whether it is worth asking for the next one."""
        return self.called or self._fetching is not None

    def asked(self) -> None:
        """The device asks for something of its own, which comes first."""
        self._news.set()

    def close(self) -> None:
        """Nothing is taken any more."""
        self._closed = True

    async def next(self, *, live_only: bool = False) -> Speech | None:
        """The next one, which plays now; None if there is none, or none before the device asks for something.

        `live_only`: only what a device has asked for, and only if that is known soon.
        """
        is_fresh = self._fetching is None
        fetching = self._fetching or self._start(live_only)
        self._news.clear()
        if not fetching.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(LIVE_WITHIN_S if live_only else None):
                    await self._news.wait()
        if not fetching.done():
            return None
        self._fetching = None
        return self._take(fetching.result(), is_fresh=is_fresh)

    def put_back(self, claim: Claim, *, queued: bool = False) -> None:
        """It waits again, as soon as the database is there."""
        self._deliveries.put_back(claim, queued=queued)
        self._services.own(self._deliveries.write())

    def _start(self, live_only: bool) -> "asyncio.Task[Fetched | None]":
        self.called = self.called and live_only
        self._fetching = asyncio.create_task(self._fetch(live_only))
        self._fetching.add_done_callback(lambda _: self._news.set())
        return self._fetching

    async def _fetch(self, live_only: bool) -> Fetched | None:
        quota = self._services.quota
        holding = quota.holding_s(time.monotonic()) > 0
        claim = await self._deliveries.claim(
            self._conversation(), quota_spent=quota.spent, holding=holding, live_only=live_only
        )
        if claim is None:
            return None
        opened = None if self._closed else await self._open_conversation()
        if opened is None:
            self.put_back(claim)
            return None
        return Fetched(claim, opened) if await self._deliveries.begins(claim) else None

    def _take(self, fetched: Fetched | None, *, is_fresh: bool) -> Speech | None:
        """Not one that was fetched while the device spoke (it may be heard since) or while a conversation ended."""
        if fetched is None:
            return None
        if self._closed or not is_fresh or not self._fits(fetched):
            self.called = True
            self.put_back(fetched.claim)
            return None
        self.called = True  # there may be more
        return self._session.start_delivery(self._deliveries.speech(fetched.claim, fetched.opened.context))

    def _fits(self, fetched: Fetched) -> bool:
        here = self._conversation()
        is_its_own = fetched.claim.origin == Origin.DEVICE  # it keeps its id only where it was asked for
        return here == fetched.opened.context.conversation_id and (
            not is_its_own or here == fetched.claim.conversation_id
        )

    def _conversation(self) -> uuid.UUID | None:
        opened = self._session.conversation
        return None if opened is None else opened.context.conversation_id
