"""What the export of a patient contains: one section for each kind of data.

A row is exported with all of its columns, without those that `Section.without` names. So a new column is exported, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Model, Q, QuerySet

from cloning.models import CloneJob
from tts.models import Clip, Conversation, LexiconEntry, Utterance
from usage.models import BudgetMonth, DailyUsage, HistoryDeletion, Incident, UsageEvent
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Device, Patient, Voice
from voicecare.webhooks.models import WebhookEvent


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one model about a patient. `about` is the line of the README, for people without technical knowledge.

    `extra` adds columns of other tables, by the paths of Django's lookups.
    """

    name: str
    model: type[Model]
    about: str
    rows: Callable[[Patient], QuerySet[Any]]
    without: frozenset[str] = frozenset()
    extra: tuple[tuple[str, str], ...] = ()

    def read(self, patient: Patient) -> QuerySet[Any]:
        """Returns dictionaries, in the order of the keys."""
        columns = [field.attname for field in self.model._meta.concrete_fields if field.attname not in self.without]
        added = {name: F(path) for name, path in self.extra}
        return self.rows(patient).order_by("pk").values(*columns, **added)


def _incidents(patient: Patient) -> QuerySet[Incident]:
    """Those about the budget of the patient, and about their own voices."""
    voices = Voice.objects.filter(patient=patient).values_list("pk", flat=True)
    about_voices = Q(kind=Incident.Kind.VOICE, key__in=[str(pk) for pk in voices])
    return Incident.objects.filter(Q(kind=Incident.Kind.BUDGET, key=str(patient.pk)) | about_voices)


SECTIONS = (
    Section(
        "profile",
        Patient,
        "the patient: names, language, voice and settings",
        lambda patient: Patient.objects.filter(pk=patient.pk),
        extra=(("clinic_name", "clinic__name"),),
    ),
    Section(
        "care_team",
        Patient.team.through,
        "the users of the care team",
        lambda patient: Patient.team.through.objects.filter(patient=patient),
        extra=(("user_name", "user__username"),),
    ),
    Section(
        "devices",
        Device,
        "the patient's devices, without their access tokens",
        lambda patient: Device.objects.filter(patient=patient),
        without=frozenset({"token_prefix", "token_digest"}),
    ),
    Section(
        "pronunciations",
        LexiconEntry,
        "how words and names are said to the patient",
        lambda patient: LexiconEntry.objects.filter(patient=patient),
    ),
    Section(
        "voices",
        Voice,
        "the voices that were made for the patient",
        lambda patient: Voice.objects.filter(patient=patient),
    ),
    Section(
        "voice_clones",
        CloneJob,
        "the recordings for these voices: who consented, when, to which wording, and what became of it",
        lambda patient: CloneJob.objects.filter(patient=patient),
        extra=(("witness_name", "witness__username"), ("withdrawn_by_name", "withdrawn_by__username")),
    ),
    Section(
        "conversations",
        Conversation,
        "the conversations with the companion: when they began and ended, and on which device",
        lambda patient: Conversation.objects.filter(patient=patient),
    ),
    Section(
        "messages",
        Utterance,
        "what the companion has said to the patient, with the text as long as it is kept",
        lambda patient: Utterance.objects.filter(patient=patient),
        without=frozenset({"request_digest"}),
        extra=(("author_name", "author__username"),),
    ),
    Section(
        "phrases",
        Clip,
        "the prepared phrases that were made for this patient only, such as a greeting with the name",
        lambda patient: Clip.objects.filter(patient=patient),
        extra=(("text", "phrase__text"),),
    ),
    Section(
        "usage_by_day",
        DailyUsage,
        "how many characters were spoken on each day",
        lambda patient: DailyUsage.objects.filter(patient=patient.pk),
    ),
    Section(
        "requests",
        UsageEvent,
        "each request to the speech provider, without its text",
        lambda patient: UsageEvent.objects.filter(patient=patient.pk),
        without=frozenset({"text_digest"}),
    ),
    Section(
        "budgets",
        BudgetMonth,
        "the budget of characters, by month",
        lambda patient: BudgetMonth.objects.filter(patient=patient.pk),
    ),
    Section("incidents", Incident, "problems with the patient's budget or voice", _incidents),
    Section(
        "deletions_at_the_provider",
        HistoryDeletion,
        "requests that were deleted from the speech provider's history, after a voice was withdrawn",
        lambda patient: HistoryDeletion.objects.filter(patient=patient.pk),
    ),
    Section(
        "events_for_other_software",
        WebhookEvent,
        "what was reported to other software: ids, states and times, without texts",
        lambda patient: WebhookEvent.objects.filter(patient=patient),
    ),
    Section(
        "audit_trail",
        AuditEntry,
        "who has looked at this data or changed it, and when",
        lambda patient: AuditEntry.objects.filter(patient_id=patient.pk),
    ),
)
