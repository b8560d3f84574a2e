"""What the page of a patient shows, each part for the users who may see it over REST."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone

from tts.models import Conversation, Utterance
from tts.outbox import store
from tts.states import Origin
from usage import budgets
from usage.alerts.messages import message_for
from usage.alerts.visibility import KINDS_OF_ONE_PATIENT
from usage.models import Incident
from usage.prices import PriceList
from usage.reports import queries
from voicecare.console.access import CLONE_PERMISSIONS, DEVICE_PERMISSIONS, has_permissions
from voicecare.console.lines import Line, lines_of
from voicecare.core import languages
from voicecare.dashboard.dashboards import Gauge
from voicecare.patients.models import DefaultVoices, Device, Patient, Voice

SHOWN_CONVERSATIONS = 5  # of the page; the list has all
SHOWN_MESSAGES = 10
SHOWN_DEVICES = 20
MESSAGES_SINCE = timedelta(days=7)  # a message expires after at most this time

Kind = Incident.Kind
HEARD_KINDS = frozenset(
    {
        Kind.PROVIDER_DOWN,
        Kind.ACCESS,
        Kind.REQUEST,
        Kind.VOICE,
        Kind.DEFAULT_VOICE,
        Kind.NO_USABLE_VOICE,
        Kind.NO_VOICE,
        Kind.QUOTA,
        Kind.SLOW,
        Kind.BUDGET,
    }
)
"""The kinds of incidents that a patient can hear. The others change nothing for patients as long as they are open."""


@dataclass(frozen=True, slots=True)
class OpenIncident:
    summary: str
    patient_impact: str
    since: datetime


class PatientPage:
    """The parts of the page. A part that the user may not see is None. All are read when they are used."""

    def __init__(self, request: HttpRequest, patient: Patient) -> None:
        self.patient = patient
        self._request = request

    def may(self, *permissions: str) -> bool:
        return has_permissions(self._request, *permissions)

    @property
    def language(self) -> str:
        return languages.LANGUAGES.get(languages.code_of(self.patient.language), self.patient.language)

    # Voices

    @cached_property
    def _defaults(self) -> DefaultVoices:
        return DefaultVoices()

    @cached_property
    def voice(self) -> Voice | None:
        """The voice of the next conversation. None if only the offline voice can speak."""
        voice = self._defaults.for_patient(self.patient)
        return voice if voice is not None and voice.is_usable else None

    @property
    def is_default_voice(self) -> bool:
        return self.patient.voice_id is None

    @property
    def is_replaced(self) -> bool:
        """Whether another voice speaks than the one that was chosen for the patient."""
        return self.patient.voice_id is not None and self.patient.voice != self.voice

    @cached_property
    def backup_voice(self) -> Voice | None:
        return self._defaults.backup_for(self.patient)

    @property
    def may_choose_voices(self) -> bool:
        return self.may("patients.change_patient", "patients.view_voice")

    # Budget and usage

    @cached_property
    def budget(self) -> budgets.BudgetStatus | None:
        return budgets.budget_status(self.patient) if self.may("usage.view_dailyusage") else None

    @property
    def gauge(self) -> Gauge | None:
        """The budget of this month as a bar. None without a budget."""
        if self.budget is None or self.budget.budget is None:
            return None
        return Gauge(self.budget.used, self.budget.budget)

    @cached_property
    def this_month(self) -> queries.PeriodStats | None:
        if not self.may("usage.view_dailyusage"):
            return None
        today = queries.today()
        return queries.monthly_stats(today, today, patient_id=self.patient.pk, prices=self._prices)[0]

    @cached_property
    def _prices(self) -> PriceList:
        return PriceList.read()

    @property
    def currency(self) -> str:
        """The currency of costs. Empty without prices: then no cost is shown."""
        return settings.PRICE_CURRENCY if self._prices else ""

    # What is true now

    @cached_property
    def incidents(self) -> list[OpenIncident]:
        """The open incidents that this patient can hear, the oldest first."""
        found = Incident.objects.filter(resolved_at=None, kind__in=HEARD_KINDS).order_by("opened_at")
        return [_open_incident(incident) for incident in found if self._is_affected(incident)]

    def _is_affected(self, incident: Incident) -> bool:
        if incident.kind == Kind.DEFAULT_VOICE:
            return self.is_default_voice
        if incident.kind not in KINDS_OF_ONE_PATIENT:
            return True
        voices = (self.patient.voice_id, self.backup_voice.pk if self.backup_voice else None)
        keys = {str(key) for key in (self.patient.pk, self.patient.clinic_id, *voices) if key is not None}
        if incident.kind == Kind.VOICE and not _is_id(incident.key):  # it is about several voices
            return self.is_replaced
        return incident.key in keys

    @cached_property
    def devices(self) -> list[Device] | None:
        """The devices of the patient that were not revoked, those that are connected first."""
        if not self.may("patients.view_device"):
            return None
        devices = self.patient.devices.bedside().filter(revoked_at=None).order_by("-last_seen", "name")
        return sorted(devices[:SHOWN_DEVICES], key=lambda device: not _is_online(device))

    @property
    def online_devices(self) -> set[uuid.UUID]:
        return {device.pk for device in self.devices or () if _is_online(device)}

    @cached_property
    def receiver(self) -> Device | None:
        return store.receiver(self.patient.pk)

    @property
    def has_device_console(self) -> bool:
        return self.patient.is_active and self.may(*DEVICE_PERMISSIONS)

    @property
    def can_clone(self) -> bool:
        return self.patient.is_active and self.may(*CLONE_PERMISSIONS)

    @property
    def may_say(self) -> bool:
        return self.patient.is_active and self.may("tts.add_utterance")

    @cached_property
    def messages(self) -> list[Line] | None:
        """The latest messages to the patient that people have sent."""
        if not self.may("tts.view_utterance"):
            return None
        sent = Utterance.objects.filter(
            patient=self.patient, origin=Origin.SERVER, client_speech_id="", received_at__gt=Now() - MESSAGES_SINCE
        )
        return lines_of(sent.select_related("author").defer("text").order_by("-received_at", "pk")[:SHOWN_MESSAGES])

    # Conversations

    @cached_property
    def conversations(self) -> list[Conversation] | None:
        if not self.may("tts.view_conversation"):
            return None
        return list(conversations_of(self.patient)[:SHOWN_CONVERSATIONS])


def conversations_of(patient: Patient) -> QuerySet[Conversation]:
    found = Conversation.objects.filter(patient=patient).select_related("device", "voice")
    return found.order_by("-started_at", "pk")


def _open_incident(incident: Incident) -> OpenIncident:
    message = message_for(incident)
    return OpenIncident(message.summary, message.patient_impact, incident.opened_at)


def _is_online(device: Device) -> bool:
    return device.online_until is not None and device.online_until > timezone.now()


def _is_id(key: str) -> bool:
    try:
        uuid.UUID(key)
    except ValueError:
        return False
    return True
