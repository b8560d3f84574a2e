"""Read the database from tests that run in an event loop."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from channels.db import database_sync_to_async
from django.db import connections
from django.db.models import Sum

from tests.waiting import eventually
from tts.models import Conversation, Utterance
from usage.models import UsageEvent

T = TypeVar("T")


async def in_database(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Run the function in a thread. No connection stays open, because the test database could not be dropped then."""

    def run() -> T:
        try:
            return function(*arguments, **keywords)
        finally:
            connections.close_all()

    return await database_sync_to_async(run, thread_sensitive=False)()


@dataclass
class Accounts:
    """The accounts of a conversation: its own counter, its events and their sum, its utterances."""

    conversation: Conversation
    events: list[UsageEvent]
    utterances: list[Utterance]

    @property
    def counter(self) -> int:
        return self.conversation.tts_characters_used

    @property
    def ledger(self) -> int:
        return sum(event.characters for event in self.events)

    def utterance(self, client_id: str) -> Utterance:
        return next(utterance for utterance in self.utterances if utterance.client_speech_id == client_id)

    def outcomes(self, client_id: str) -> list[tuple[str, str]]:
        """Return kind and outcome of every attempt for this speech, in order."""
        key = self.utterance(client_id).id
        return [(event.kind, event.outcome) for event in self.events if event.source == key]


async def accounts_of(conversation: str) -> Accounts:
    return await in_database(_books, uuid.UUID(conversation))


def _books(key: uuid.UUID) -> Accounts:
    return Accounts(
        Conversation.objects.get(pk=key),
        list(UsageEvent.objects.filter(conversation=key).order_by("started_at", "segment", "attempt")),
        list(Utterance.objects.filter(conversation=key)),
    )


async def state_of(conversation: str, client_id: str) -> str | None:
    """Return the state of this utterance, or None if it is not written yet."""
    rows = Utterance.objects.filter(conversation=conversation, client_speech_id=client_id)
    return await in_database(rows.values_list("state", flat=True).first)


async def wait_for_state(conversation: str, client_id: str, state: str, seconds: float = 20.0) -> None:
    await eventually(lambda: state_of(conversation, client_id), seconds, wanted=lambda found: found == state)


async def total_characters() -> int:
    """Return the sum of the characters of all events."""
    answer = await in_database(UsageEvent.objects.aggregate, total=Sum("characters"))
    return answer["total"] or 0
