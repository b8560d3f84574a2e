"""The admin of conversations, messages (utterances), phrases and cached audio. Only phrases can be edited."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from tts.cache import coverage
from tts.cache.planning import create_phrase_cache
from tts.models import Clip, Conversation, Phrase, Utterance
from tts.states import Source
from usage.ledger import events
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Voice


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    list_display = (
        "started_at",
        "patient",
        "tts_characters_used",
        "ended_at",
        "voice",
        "voice_source",
        "device",
        "format",
    )
    list_filter = (("ended_at", admin.EmptyFieldListFilter), "voice_source", "initiated", "format", "started_at")
    list_select_related = ("patient", "device", "voice")
    search_fields = ("=id", "patient__name", "patient__preferred_name", "device__name")
    date_hierarchy = "started_at"
    readonly_fields = ("id", "utterances")

    @admin.display(description="Messages")
    def utterances(self, conversation: Conversation) -> str:
        url = reverse("admin:tts_utterance_changelist", query={"conversation__id__exact": conversation.pk})
        return format_html('<a href="{}">Messages of this conversation</a>', url)


@admin.register(Utterance)
class UtteranceAdmin(ReadOnlyAdmin):
    """Shows why a message waited, failed, or was played in another voice.

    The text is health data. Only the page of the utterance shows it.
    """

    list_display = (
        "received",
        "patient",
        "client_speech_id",
        "origin",
        "state",
        "queue_reason",
        "source",
        "heard_voice",
        "code",
        "characters",
        "first_chunk_ms",
    )
    list_filter = ("state", "queue_reason", "source", "origin", "received_at")
    list_select_related = ("patient", "conversation__voice")
    search_fields = ("=id", "=client_speech_id", "=conversation__id", "patient__name", "patient__preferred_name")
    date_hierarchy = "received_at"
    readonly_fields = ("id", "heard_voice", "received", "started", "acknowledged", "expires", "provider_attempts")

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Utterance | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """The attempts are shown to users who may view the usage ledger."""
        outcome = ("state", "queue_reason", "source", "heard_voice", "code", "characters", "bytes_sent")
        times = ("received", "started", "first_chunk_ms", "acknowledged", "expires")
        internals = ("id", "attempts", "owner", "lease_until", "idempotency_key", "request_digest")
        attempts = [("Requests to the provider", {"fields": ("provider_attempts",)})]
        return [
            (None, {"fields": ("patient", "conversation", "origin", "client_speech_id", "author", "text")}),
            ("Result", {"fields": outcome}),
            ("Times", {"fields": times}),
            *(attempts if request.user.has_perm("usage.view_usageevent") else []),
            ("Internals", {"fields": internals, "classes": ("collapse",)}),
        ]

    @admin.display(description="Voice", empty_value="")
    def heard_voice(self, utterance: Utterance) -> str | None:
        """The voice of the audio. After a fallback it also names the voice of the conversation."""
        if not utterance.source or utterance.conversation is None:
            return None
        own_voice = utterance.conversation.voice.name
        if utterance.source in (Source.BACKUP, Source.OFFLINE):
            return f"{utterance.get_source_display()} instead of {own_voice}"
        return own_voice

    @admin.display(description="Received", ordering="received_at")
    def received(self, utterance: Utterance) -> str:
        return _timestamp(utterance.received_at)

    @admin.display(description="First audio sent")
    def started(self, utterance: Utterance) -> str:
        return _timestamp(utterance.spoken_at)

    @admin.display(description="Acknowledged by the device")
    def acknowledged(self, utterance: Utterance) -> str:
        return _timestamp(utterance.heard_at)

    @admin.display(description="Expires")
    def expires(self, utterance: Utterance) -> str:
        return _timestamp(utterance.expires_at)

    @admin.display(description="Attempts")
    def provider_attempts(self, utterance: Utterance) -> str:
        """All attempts to get audio, in the order of the text. The reason of a fallback is the code of a failed one."""
        attempts = events.attempts_of(utterance.pk)
        voices = Voice.objects.in_bulk({attempt.voice_id for attempt in attempts if attempt.voice_id})
        rows = [
            {
                "time": _timestamp(attempt.started_at),
                "segment": attempt.segment + 1,
                "kind": events.Kind(attempt.kind).label,
                "outcome": events.Outcome(attempt.outcome).label,
                "code": attempt.code,
                "voice": voices[attempt.voice_id].name if attempt.voice_id in voices else "",
                "first_byte_ms": attempt.first_byte_ms,
                "request_id": attempt.request_id,
            }
            for attempt in attempts
        ]
        url = reverse("admin:usage_usageevent_changelist", query={"source__exact": utterance.pk})
        return render_to_string("admin/tts/utterance/attempts.html", {"attempts": rows, "usage_events_url": url})


def _timestamp(time: datetime | None) -> str:
    """With seconds, which Django's own format leaves out, and with the time zone."""
    return f"{timezone.localtime(time):%Y-%m-%d %H:%M:%S %Z}" if time else "-"


_PLACEHOLDERS = {Phrase.Kind.GREETING.value: ("{patient_name}", "{ai_name}"), Phrase.Kind.COMMON.value: ()}


class PhraseForm(forms.ModelForm):
    def clean_language(self) -> str:
        """Phrases are looked up by language without region: "de" serves a patient with "de-AT"."""
        language: str = self.cleaned_data["language"]
        return language.partition("-")[0].lower()

    def clean(self) -> None:
        super().clean()
        text, allowed = self.cleaned_data.get("text", ""), _PLACEHOLDERS.get(self.cleaned_data.get("kind", ""), ())
        for placeholder in allowed:
            text = text.replace(placeholder, "")
        if "{" in text or "}" in text:
            message = "Only a greeting may contain braces."
            if allowed:
                message = f"Braces may only contain the placeholders {' and '.join(allowed)}."
            self.add_error("text", ValidationError(message, code="placeholder"))


@admin.register(Phrase)
class PhraseAdmin(admin.ModelAdmin):
    """Saving a phrase starts a task that generates its audio for all patients of its language."""

    form = PhraseForm
    list_display = ("text", "kind", "language")
    list_filter = ("kind", "language")
    search_fields = ("text",)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.coverage)
        return [path("coverage/", view, name="tts_phrase_coverage"), *super().get_urls()]

    def coverage(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        tables = coverage.coverage_tables(create_phrase_cache())
        context = {**self.admin_site.each_context(request), "title": "Cache coverage", "tables": tables}
        return TemplateResponse(request, "admin/tts/phrase/coverage.html", {**context, "opts": self.opts})

    def save_model(self, request: HttpRequest, obj: Phrase, form: forms.ModelForm, change: bool) -> None:
        super().save_model(request, obj, form, change)
        task_queue.enqueue_on_commit(task_names.WARM_PHRASE, obj.pk)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)  # deletes the clips of the previous text

    def delete_model(self, request: HttpRequest, obj: Phrase) -> None:
        super().delete_model(request, obj)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Phrase]) -> None:
        super().delete_queryset(request, queryset)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)


@admin.register(Clip)
class ClipAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "says",
        "voice",
        "language",
        "speed",
        "format",
        "characters",
        "size",
        "hits",
        "used_at",
        "expires_at",
    )
    list_filter = (
        "language",
        "format",
        ("patient", admin.EmptyFieldListFilter),
        ("voice", admin.RelatedOnlyFieldListFilter),
        "created_at",
        "expires_at",
    )
    list_select_related = ("voice", "phrase", "patient")
    search_fields = ("=digest", "phrase__text", "voice__name", "patient__name", "patient__preferred_name")
    date_hierarchy = "created_at"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Clip]:
        """Leaves out rows of clips that are being generated for the first time. They have no audio yet."""
        return super().get_queryset(request).filter(size__gt=0)

    @admin.display(description="Text")
    def says(self, clip: Clip) -> str:
        return f"Greeting of {clip.patient}" if clip.patient else str(clip.phrase or "a deleted phrase")
