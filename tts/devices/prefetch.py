"""The next delivery of one connection, fetched beside whatever the device asks for: its own speech waits for no row."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from tts.conversations.context import OpenConversation
from tts.devices.outbox_client import OutboxClient
from tts.outbox.claim import Claim
from tts.protocol.session import Session
from tts.speech import Speech
from tts.states import Origin
from tts.synthesis.dependencies import SpeechDependencies

LIVE_CLAIM_TIMEOUT_S = 1.0  # what the device has waited for does not wait any longer for rows of former conversations


@dataclass(frozen=True, slots=True)
class Prefetched:
    claim: Claim
    conversation: OpenConversation


class OutboxPrefetcher:
    """Used by the one task that speaks; `asked` and `close` may be called at any time.

    `open_conversation` gives the open one, or opens one for a delivery; None where that is impossible now. `called`:
    the outbox may have something for this patient.
    """

    def __init__(
        self,
        services: SpeechDependencies,
        session: Session,
        deliveries: OutboxClient,
        open_conversation: Callable[[], Awaitable[OpenConversation | None]],
    ) -> None:
        self.pending_hint = False
        self._services = services
        self._session = session
        self._outbox = deliveries
        self._open_conversation = open_conversation
        self._fetch_task: asyncio.Task[Prefetched | None] | None = None
        self._wakeup = asyncio.Event()  # it has been fetched, or the device asks for something
        self._closed = False

    def __bool__(self) -> bool:
        """Whether it is worth asking for the next one."""
        return self.pending_hint or self._fetch_task is not None

    def client_activity(self) -> None:
        """The device asks for something of its own, which comes first."""
        self._wakeup.set()

    def close(self) -> None:
        """Nothing is taken any more."""
        self._closed = True

    async def next_delivery(self, *, live_only: bool = False) -> Speech | None:
        """The next one, which plays now; None if there is none, or none before the device asks for something.

        `live_only`: only what a device has asked for, and only if that is known soon.
        """
        is_fresh = self._fetch_task is None
        fetching = self._fetch_task or self._start_fetch(live_only)
        self._wakeup.clear()
        if not fetching.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(LIVE_CLAIM_TIMEOUT_S if live_only else None):
                    await self._wakeup.wait()
        if not fetching.done():
            return None
        self._fetch_task = None
        return self._take(fetching.result(), is_fresh=is_fresh)

    def requeue(self, claim: Claim, *, queued: bool = False) -> None:
        """It waits again, as soon as the database is there."""
        self._outbox.requeue(claim, queued=queued)
        self._services.spawn(self._outbox.flush())

    def _start_fetch(self, live_only: bool) -> "asyncio.Task[Prefetched | None]":
        self.pending_hint = self.pending_hint and live_only
        self._fetch_task = asyncio.create_task(self._fetch(live_only))
        self._fetch_task.add_done_callback(lambda _: self._wakeup.set())
        return self._fetch_task

    async def _fetch(self, live_only: bool) -> Prefetched | None:
        quota = self._services.quota
        hold_live = quota.hold_remaining_s(time.monotonic()) > 0
        claim = await self._outbox.claim(
            self._conversation_id(), quota_exhausted=quota.is_exhausted, hold_live=hold_live, live_only=live_only
        )
        if claim is None:
            return None
        opened = None if self._closed else await self._open_conversation()
        if opened is None:
            self.requeue(claim)
            return None
        return Prefetched(claim, opened) if await self._outbox.confirm_start(claim) else None

    def _take(self, fetched: Prefetched | None, *, is_fresh: bool) -> Speech | None:
        """Not one that was fetched while the device spoke (it may be heard since) or while a conversation ended."""
        if fetched is None:
            return None
        if self._closed or not is_fresh or not self._is_still_valid(fetched):
            self.pending_hint = True
            self.requeue(fetched.claim)
            return None
        self.pending_hint = True  # there may be more
        return self._session.start_delivery(self._outbox.make_speech(fetched.claim, fetched.conversation.context))

    def _is_still_valid(self, fetched: Prefetched) -> bool:
        here = self._conversation_id()
        is_its_own = fetched.claim.origin == Origin.DEVICE  # it keeps its id only where it was asked for
        return here == fetched.conversation.context.conversation_id and (
            not is_its_own or here == fetched.claim.conversation_id
        )

    def _conversation_id(self) -> uuid.UUID | None:
        opened = self._session.conversation
        return None if opened is None else opened.context.conversation_id
