"""The conversations of a patient, and what was said in them. Whoever reads texts leaves an entry in the audit trail."""

import uuid
from collections import defaultdict
from collections.abc import Sequence

from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from tts.models import STATE_CHOICES, Conversation, Utterance
from tts.states import Origin
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.console.access import has_permissions, page
from voicecare.console.lines import lines_of
from voicecare.console.pages import numbered_page, render
from voicecare.console.patient_page import conversations_of
from voicecare.patients.models import Patient

LINES_PER_PAGE = 50
VIEW_TEXTS = "tts.view_utterance"


@require_GET
@never_cache
@page("patients.view_patient", "tts.view_conversation")
def conversations(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """The list of a patient's conversations, newest first, with the number of speeches in each state."""
    patient = get_object_or_404(Patient.objects.visible_to(request.user), pk=patient_id)
    rows = numbered_page(request, conversations_of(patient))
    counts = _counts(list(rows.object_list)) if has_permissions(request, VIEW_TEXTS) else None
    context = {
        "title": f"Conversations of {patient}",
        "patient": patient,
        "rows": rows,
        "has_counts": counts is not None,
        "conversations": [(row, (counts or {}).get(row.pk, "")) for row in rows],
    }
    return render(request, "console/conversations.html", context)


def _counts(conversations: Sequence[Conversation]) -> dict[uuid.UUID, str]:
    """For each conversation, for example "12 heard, 1 failed". One query."""
    states: dict[uuid.UUID, dict[str, int]] = defaultdict(dict)
    counted = Utterance.objects.filter(conversation__in=conversations).order_by().values_list("conversation", "state")
    for conversation, state, number in counted.annotate(number=Count("pk")):
        states[conversation][state] = number
    return {
        conversation: ", ".join(f"{found[state]} {words.lower()}" for state, words in STATE_CHOICES if state in found)
        for conversation, found in states.items()
    }


@require_GET
@never_cache
@page("patients.view_patient", "tts.view_conversation")
def conversation(request: HttpRequest, conversation_id: uuid.UUID) -> HttpResponse:
    """A conversation, and for users who may read texts, what was said in it."""
    visible = Conversation.objects.filter(patient__in=Patient.objects.visible_to(request.user))
    found = get_object_or_404(visible.select_related("patient", "device", "voice"), pk=conversation_id)
    context = {"title": f"Conversation of {found.patient}", "patient": found.patient, "conversation": found}
    if has_permissions(request, VIEW_TEXTS):
        rows = numbered_page(request, found.utterances.order_by("received_at", "pk"), LINES_PER_PAGE)
        if rows.object_list:
            record(request, Action.READ_TEXT, found)
        context |= {"rows": rows, "lines": lines_of(rows)}
    return render(request, "console/conversation.html", context)


@require_GET
@never_cache
@page("patients.view_patient", VIEW_TEXTS)
def message(request: HttpRequest, utterance_id: uuid.UUID) -> HttpResponse:
    """A message to a patient with its text."""
    visible = Utterance.objects.filter(patient__in=Patient.objects.visible_to(request.user), origin=Origin.SERVER)
    found = get_object_or_404(visible.select_related("patient", "author", "conversation"), pk=utterance_id)
    record(request, Action.READ_TEXT, found)
    context = {"title": f"Message to {found.patient}", "patient": found.patient, "line": lines_of([found])[0]}
    return render(request, "console/message.html", context)
