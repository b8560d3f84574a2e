"""Prefetches the next delivery of a connection, so that the device's own speech never waits for the database."""

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

LIVE_CLAIM_TIMEOUT_S = 1.0  # the device's own deferred speech waits no longer for that of earlier conversations


@dataclass(frozen=True, slots=True)
class Prefetched:
    """A claimed delivery and the conversation in which it may be played."""

    claim: Claim
    conversation: OpenConversation


class OutboxPrefetcher:
    """Claims the next delivery in the background. The player's task uses it.

    Other tasks may call `client_activity` and `close` at any time. `open_conversation` returns the open conversation,
    or starts one for a delivery. It returns None if that fails. `pending_hint` means that the outbox may have a
    delivery for this patient.
    """

    def __init__(
        self,
        dependencies: SpeechDependencies,
        session: Session,
        outbox: OutboxClient,
        open_conversation: Callable[[], Awaitable[OpenConversation | None]],
    ) -> None:
        self.pending_hint = False
        self._dependencies = dependencies
        self._session = session
        self._outbox = outbox
        self._open_conversation = open_conversation
        self._fetch_task: asyncio.Task[Prefetched | None] | None = None
        self._wakeup = asyncio.Event()  # set when the fetch is done, or when the device sends a speech
        self._closed = False

    def __bool__(self) -> bool:
        """Whether `next_delivery` may return a delivery."""
        return not self._closed and (self.pending_hint or self._fetch_task is not None)

    def client_activity(self) -> None:
        """Make `next_delivery` return early, because the device has sent a speech of its own, which comes first."""
        self._wakeup.set()

    def close(self) -> None:
        """Return no further delivery from `next_delivery`."""
        self._closed = True

    async def next_delivery(self, *, live_only: bool = False) -> Speech | None:
        """Return the next delivery and mark it as playing.

        Return None if there is none, or if the device sends a speech of its own first. With `live_only`, only speech
        that a device requested is claimed, and the wait is limited to LIVE_CLAIM_TIMEOUT_S.
        """
        if self._closed:
            return None
        fetching = self._fetch_task
        is_fresh = fetching is None
        if fetching is None:
            self.pending_hint = self.pending_hint and live_only
            fetching = self._fetch_task = asyncio.create_task(self._fetch(live_only))
            fetching.add_done_callback(lambda _: self._wakeup.set())
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
        """Let the delivery wait again, in the background. `queued` means that it waits for the quota."""
        self._outbox.requeue(claim, queued=queued)
        self._dependencies.spawn(self._outbox.flush())

    async def _fetch(self, live_only: bool) -> Prefetched | None:
        quota = self._dependencies.quota
        hold_live = quota.hold_remaining_s(time.monotonic()) > 0
        claim = await self._outbox.claim(
            self._conversation_id(),
            quota_exhausted=quota.is_exhausted,
            hold_live=hold_live,
            live_only=live_only,
            exclude=self._session.queue.pending_ids(),
        )
        if claim is None:
            return None
        opened = None if self._closed else await self._open_conversation()
        if opened is None:
            self.requeue(claim)
            return None
        return Prefetched(claim, opened) if await self._outbox.confirm_start(claim) else None

    def _take(self, fetched: Prefetched | None, *, is_fresh: bool) -> Speech | None:
        """Start the claimed delivery, or put it back if it may be outdated.

        If the device has spoken since the claim began (`is_fresh` is false), the device may have acknowledged the
        delivery in the meantime. If the conversation has changed, the delivery does not belong to the open one.
        """
        if fetched is None:
            return None
        claim, here = fetched.claim, self._conversation_id()
        has_moved = here != fetched.conversation.context.conversation_id
        # The device's own speech keeps its id only in the conversation of its request.
        loses_id = claim.origin == Origin.DEVICE and here != claim.conversation_id
        self.pending_hint = True  # there may be another delivery
        if self._closed or not is_fresh or has_moved or loses_id:
            self.requeue(claim)
            return None
        return self._session.start_delivery(self._outbox.make_speech(claim, fetched.conversation.context))

    def _conversation_id(self) -> uuid.UUID | None:
        opened = self._session.conversation
        return None if opened is None else opened.context.conversation_id
