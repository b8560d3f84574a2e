"""The pages of incidents, with the patients whose speech waits because of an incident."""

import uuid
from collections.abc import Iterable

from django.contrib import admin
from django.db.models import Count, Q, QuerySet

from tts.models import Utterance
from tts.queue_reason import QueueReason
from tts.states import Origin, UtteranceState
from usage.admin.incidents import IncidentAdmin
from usage.alerts.impact import RECORDED_BEFORE, Impact
from usage.models import Incident

_QUEUED = Q(origin=Origin.SERVER, state__in=[UtteranceState.WAITING, UtteranceState.QUEUED]) | Q(
    origin=Origin.DEVICE, state=UtteranceState.QUEUED
)  # as in the index `utterance_outbox`


@admin.register(Incident)
class IncidentOverviewAdmin(IncidentAdmin):
    def impact_of(self, incident: Incident) -> list[Impact] | None:
        rows = super().impact_of(incident)
        if rows is None or incident.kind != Incident.Kind.QUOTA:  # only missing credits let speech wait
            return rows
        return [*_waiting(incident), *rows, *_expired(incident)]


def _waiting(incident: Incident) -> list[Impact]:
    """The patients whose speech waits for credits now."""
    if incident.resolved_at is not None:
        return []
    return _count(Utterance.objects.filter(_QUEUED, queue_reason=QueueReason.QUOTA), "waiting to be spoken")


def _expired(incident: Incident) -> list[Impact]:
    """The patients whose speech was not spoken, because there were no credits until it expired."""
    received = Q(received_at__gte=incident.opened_at - RECORDED_BEFORE)
    if incident.resolved_at is not None:
        received &= Q(received_at__lte=incident.resolved_at)
    expired = Utterance.objects.filter(received, state=UtteranceState.EXPIRED, queue_reason=QueueReason.QUOTA)
    return _count(expired, "expired before there were credits")


def _count(utterances: QuerySet[Utterance], what: str) -> list[Impact]:
    rows: Iterable[tuple[uuid.UUID, int]] = (
        utterances.order_by("patient").values_list("patient").annotate(count=Count("id"))
    )
    return [Impact(patient, f"{count} {'message' if count == 1 else 'messages'} {what}") for patient, count in rows]
