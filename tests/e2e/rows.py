"""What the database says, for tests that run in an event loop."""

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
    """Runs it in a thread and leaves no connection open: the test database could not be dropped."""

    def run() -> T:
        try:
            return function(*arguments, **keywords)
        finally:
            connections.close_all()

    return await database_sync_to_async(run, thread_sensitive=False)()


@dataclass
class Accounts:
    """A conversation's accounts as they stand: its own counter, the sum of its events, the events, its utterances."""

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
        return next(utterance for utterance in self.utterances if utterance.client_id == client_id)

    def outcomes(self, client_id: str) -> list[tuple[str, str]]:
        """Kind and outcome of every attempt for this speech, in order."""
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
    """The state of this utterance; None while it is not written."""
    rows = Utterance.objects.filter(conversation=conversation, client_id=client_id)
    return await in_database(rows.values_list("state", flat=True).first)


async def wait_for_state(conversation: str, client_id: str, state: str, seconds: float = 20.0) -> None:
    await eventually(lambda: state_of(conversation, client_id), seconds, wanted=lambda found: found == state)


async def total_characters() -> int:
    """Of all events, whatever they were for."""
    answer = await in_database(UsageEvent.objects.aggregate, total=Sum("characters"))
    return answer["total"] or 0
