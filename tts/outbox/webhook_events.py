"""Events for integrators about utterances that were heard, have expired or have failed (docs/webhooks.md)."""

import uuid
from collections.abc import Collection, Iterator, Mapping

from tts.models import Utterance
from tts.states import UtteranceState
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType

_TYPES: Mapping[str, EventType] = {
    UtteranceState.HEARD: EventType.UTTERANCE_HEARD,
    UtteranceState.EXPIRED: EventType.UTTERANCE_EXPIRED,
    UtteranceState.FAILED: EventType.UTTERANCE_FAILED,
}


def emit(utterances: Collection[uuid.UUID], state: str) -> None:
    """Emit an event for each of these utterances that has this state. Nothing for the other states.

    Call it in the transaction that has written the state. Repeated calls emit nothing new. One query if no endpoint
    wants these events.
    """
    if utterances and state in _TYPES:
        events.emit(_TYPES[state], _subjects(utterances, state), once=True)


def _subjects(utterances: Collection[uuid.UUID], state: str) -> Iterator[Subject]:
    for row in Utterance.objects.filter(pk__in=utterances, state=state).order_by("pk"):
        data = {
            "id": row.pk,
            "conversation": row.conversation_id,
            "origin": row.origin,
            "status": row.state,
            "code": row.code,
            "created_at": row.received_at,
            "expires_at": row.expires_at,
            "spoken_at": row.spoken_at,
            "heard_at": row.heard_at,
        }
        yield Subject(row.pk, row.patient_id, data)
