"""The admin of conversations and messages (utterances), which cannot be edited."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html

from tts.models import Conversation, Utterance
from tts.states import Source, UtteranceState
from usage.ledger import events
from voicecare.admin.lists import EMPTY, BadgeKind, WordFilter, badge, link_to, milliseconds, timestamp
from voicecare.admin.periods import PeriodAdmin, PeriodFilter
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.care_teams import CareTeamAdmin
from voicecare.patients.clinic_filter import ClinicFilter
from voicecare.patients.models import Patient, Voice


class ConversationStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {"running": ("Running", Q(ended_at=None)), "ended": ("Ended", Q(ended_at__isnull=False))}


_VOICE_SOURCES = {"cloned": "Clone", "selected": "Stock voice", "default": "Default voice"}


class VoiceSourceFilter(WordFilter):
    title = "voice"
    parameter_name = "voice_source"
    conditions = {value: (words, Q(voice_source=value)) for value, words in _VOICE_SOURCES.items()}


@admin.register(Conversation)
class ConversationAdmin(CareTeamAdmin, TitledAdmin, PeriodAdmin, ReadOnlyAdmin):
    period_field = "started_at"
    list_display = ("status", "started", "patient_link", "voice_in_words", "device", "billed")
    list_display_links = ("started",)
    list_filter = (PeriodFilter, ConversationStatusFilter, ClinicFilter, VoiceSourceFilter, "initiated", "format")
    list_select_related = ("patient", "device", "voice")
    search_fields = ("patient__name", "patient__preferred_name", "device__name")
    readonly_fields = ("id", "status", "voice_kind", "billed", "started", "last_contact", "ended", "utterances")
    fieldsets = (
        (None, {"fields": ("status", "patient", "device", "voice", "voice_kind", "billed")}),
        ("Times", {"fields": ("started", "last_contact", "ended")}),
        ("Messages", {"fields": ("utterances",)}),
        ("Internals", {"fields": ("id", "initiated", "format"), "classes": ("collapse",)}),
    )

    def title_of(self, obj: Conversation) -> str:
        return f"{obj.patient}, {timestamp(obj.started_at)}"

    @admin.display(description="Status")
    def status(self, conversation: Conversation) -> str:
        return badge("good", "Running") if conversation.ended_at is None else badge("plain", "Ended")

    @admin.display(description="Patient")
    def patient_link(self, conversation: Conversation) -> str:
        return link_to(conversation.patient)

    @admin.display(description="Voice")
    def voice_in_words(self, conversation: Conversation) -> str:
        """The voice and its kind. Without a voice the provider had none, and the offline voice spoke."""
        voice = conversation.voice or "Offline voice"
        return format_html('{} <span class="quiet">{}</span>', voice, self.voice_kind(conversation))

    @admin.display(description="Kind of voice")
    def voice_kind(self, conversation: Conversation) -> str:
        return _VOICE_SOURCES[conversation.voice_source]

    @admin.display(description="Started")
    def started(self, conversation: Conversation) -> str:
        return timestamp(conversation.started_at)

    @admin.display(description="Billed characters")
    def billed(self, conversation: Conversation) -> str:
        return f"{conversation.tts_characters_used:,}"

    @admin.display(description="Last contact")
    def last_contact(self, conversation: Conversation) -> str:
        return timestamp(conversation.seen_at)

    @admin.display(description="Ended")
    def ended(self, conversation: Conversation) -> str:
        return timestamp(conversation.ended_at)

    @admin.display(description="Messages")
    def utterances(self, conversation: Conversation) -> str:
        url = reverse("admin:tts_utterance_changelist", query={"conversation__id__exact": conversation.pk})
        return format_html('<a href="{}">Messages of this conversation</a>', url)


_STATE_BADGES: dict[str, BadgeKind] = {
    UtteranceState.SPOKEN: "good",
    UtteranceState.HEARD: "good",
    UtteranceState.FAILED: "bad",
    UtteranceState.SPEAKING: "plain",
    UtteranceState.INTERRUPTED: "plain",
}


@admin.register(Utterance)
class UtteranceAdmin(CareTeamAdmin, TitledAdmin, PeriodAdmin, ReadOnlyAdmin):
    """The messages spoken to patients. Shows why a message waited, failed, or was played in another voice.

    The text is health data. Only the page of a single message shows it.
    """

    period_field = "received_at"
    id_fields = ("id", "conversation")
    id_parameters = ("conversation__id__exact",)
    list_display = (
        "status",
        "received",
        "patient_link",
        "origin",
        "heard_voice",
        "code",
        "characters",
        "first_audio",
    )
    list_display_links = ("received",)
    list_filter = (PeriodFilter, ClinicFilter, "state", "queue_reason", "source", "origin")
    list_select_related = ("patient", "conversation__voice")
    search_fields = ("=client_speech_id",)  # and names of patients, see `get_search_results`
    readonly_fields = (
        *("id", "heard_voice", "heard", "received", "started", "first_audio", "acknowledged", "expires"),
        "provider_attempts",
    )

    def title_of(self, obj: Utterance) -> str:
        return f"To {obj.patient}, {timestamp(obj.received_at)}"

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,  # noqa: ANN401 - Django's signature
        **kwargs: Any,  # noqa: ANN401
    ) -> HttpResponse:
        record(request, Action.READ_TEXT, kwargs["obj"])
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="State")
    def status(self, utterance: Utterance) -> str:
        """The state, with what it waits for, or why it had to wait."""
        shown = badge(_STATE_BADGES.get(utterance.state, "warning"), utterance.get_state_display())
        reason = utterance.get_queue_reason_display()
        if not reason or utterance.state == UtteranceState.QUEUED:  # this state says for what
            return shown
        words = reason if utterance.state == UtteranceState.WAITING else f"waited: {reason}"
        return format_html('{} <span class="quiet">{}</span>', shown, words)

    @admin.display(description="Patient")
    def patient_link(self, utterance: Utterance) -> str:
        return link_to(utterance.patient)

    @admin.display(description="Time to first audio")
    def first_audio(self, utterance: Utterance) -> str:
        return milliseconds(utterance.first_chunk_ms)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Utterance], search_term: str
    ) -> tuple[QuerySet[Utterance], bool]:
        """Return the messages that match the search term. The second value is False, because there are no duplicates.

        A message matches by its id, by its speech id, or if its patient has each word of the term
        (`PatientQuerySet.named`). The patients are looked up first. With a condition on the joined table, PostgreSQL
        would join and sort all messages of the period.
        """
        if not search_term.strip() or self.parse_id(search_term) is not None:
            return super().get_search_results(request, queryset, search_term)
        patients = Patient.objects.named(search_term).order_by()
        of_patients = Q(patient__in=list(patients.values_list("pk", flat=True)))
        return queryset.filter(of_patients | Q(client_speech_id__iexact=search_term.strip())), False

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Utterance | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the fields of a message's page.

        Only users who may view the usage ledger see the requests to the provider.
        """
        outcome = ("state", "queue_reason", "source", "heard_voice", "heard", "code", "characters", "bytes_sent")
        times = ("received", "started", "first_audio", "acknowledged", "expires")
        internals = ("id", "attempts", "owner", "lease_until", "played_by", "idempotency_key", "request_digest")
        attempts = [("Requests to the provider", {"fields": ("provider_attempts",)})]
        return [
            (None, {"fields": ("patient", "conversation", "origin", "client_speech_id", "author", "text")}),
            ("Result", {"fields": outcome}),
            ("Times", {"fields": times}),
            *(attempts if request.user.has_perm("usage.view_usageevent") else []),
            ("Internals", {"fields": internals, "classes": ("collapse",)}),
        ]

    @admin.display(description="Voice")
    def heard_voice(self, utterance: Utterance) -> str:
        """The voice in which the message was spoken. After a fallback, also the voice that the conversation has."""
        if not utterance.source or utterance.conversation is None:
            return EMPTY
        voice = utterance.conversation.voice
        if voice is None:  # the provider had no usable voice
            return str(utterance.get_source_display())
        own_voice = voice.name
        if utterance.source in (Source.BACKUP, Source.OFFLINE):
            return f"{utterance.get_source_display()} instead of {own_voice}"
        return own_voice

    @admin.display(description="Received")
    def received(self, utterance: Utterance) -> str:
        return timestamp(utterance.received_at)

    @admin.display(description="First audio sent")
    def started(self, utterance: Utterance) -> str:
        return timestamp(utterance.spoken_at)

    @admin.display(description="Acknowledged by the device")
    def acknowledged(self, utterance: Utterance) -> str:
        """The time, and whether an acknowledgement came before the device can have played the message."""
        shown = timestamp(utterance.heard_at)
        if utterance.doubted_attempt is None:
            return shown
        return format_html('{} <span class="quiet">{}</span>', shown, "doubtful: the first one came too early")

    @admin.display(description="Heard")
    def heard(self, utterance: Utterance) -> str:
        """How much the device has played, by its own reports."""
        return milliseconds(utterance.played_ms)

    @admin.display(description="Expires")
    def expires(self, utterance: Utterance) -> str:
        return timestamp(utterance.expires_at)

    @admin.display(description="Attempts")
    def provider_attempts(self, utterance: Utterance) -> str:
        """A table of all attempts to get audio, in the order of the text.

        The code of a failed attempt is the reason why another voice spoke.
        """
        attempts = events.attempts_of(utterance.pk)
        voices = Voice.objects.in_bulk({attempt.voice_id for attempt in attempts if attempt.voice_id})
        rows = [
            {
                "time": timestamp(attempt.started_at),
                "segment": attempt.segment + 1,
                "kind": events.Kind(attempt.kind).label,
                "outcome": events.Outcome(attempt.outcome).label,
                "code": attempt.code,
                "voice": voices[attempt.voice_id].name if attempt.voice_id in voices else "",
                "first_byte_ms": attempt.first_byte_ms,
                "request_id": attempt.request_id,
                "region": attempt.region,
            }
            for attempt in attempts
        ]
        url = reverse("admin:usage_usageevent_changelist", query={"source__exact": utterance.pk})
        return render_to_string("admin/tts/utterance/attempts.html", {"attempts": rows, "usage_events_url": url})
