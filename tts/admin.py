"""Conversations, what was said in them, and the phrase cache, to look at; phrases, to edit."""

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from tts.cache import coverage
from tts.cache.planning import create_phrase_cache
from tts.models import Clip, Conversation, Phrase, Utterance
from voicecare.admin.readonly import HistoryAdmin
from voicecare.core import task_names, task_queue


@admin.register(Conversation)
class ConversationAdmin(HistoryAdmin):
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

    @admin.display(description="Utterances")
    def utterances(self, conversation: Conversation) -> str:
        address = reverse("admin:tts_utterance_changelist", query={"conversation__id__exact": conversation.pk})
        return format_html('<a href="{}">What was said</a>', address)


@admin.register(Utterance)
class UtteranceAdmin(HistoryAdmin):
    """The text is health data: it stands on the utterance's own page and nowhere else."""

    list_display = (
        "received_at",
        "patient",
        "client_speech_id",
        "origin",
        "state",
        "source",
        "code",
        "characters",
        "first_chunk_ms",
    )
    list_filter = ("state", "source", "origin", "received_at")
    list_select_related = ("patient",)
    search_fields = ("=id", "=client_speech_id", "=conversation__id", "patient__name", "patient__preferred_name")
    date_hierarchy = "received_at"
    readonly_fields = ("id",)


_PLACEHOLDERS = {Phrase.Kind.GREETING.value: ("{patient_name}", "{ai_name}"), Phrase.Kind.COMMON.value: ()}


class PhraseForm(forms.ModelForm):
    def clean_language(self) -> str:
        """As it is looked up: a patient's "de-AT" is served by "de"."""
        language: str = self.cleaned_data["language"]
        return language.partition("-")[0].lower()

    def clean(self) -> None:
        super().clean()
        text, kind = self.cleaned_data.get("text", ""), self.cleaned_data.get("kind", "")
        if not _placeholders_known(text, kind):
            self.add_error("text", ValidationError(_only_these(kind), code="placeholder"))


def _placeholders_known(text: str, kind: str) -> bool:
    for placeholder in _PLACEHOLDERS.get(kind, ()):
        text = text.replace(placeholder, "")
    return "{" not in text and "}" not in text


def _only_these(kind: str) -> str:
    known = _PLACEHOLDERS.get(kind, ())
    return f"Braces are for {' and '.join(known)} only." if known else "Only a greeting may hold braces."


@admin.register(Phrase)
class PhraseAdmin(admin.ModelAdmin):
    """A phrase that is saved here is made in all voices of its language soon after."""

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
        context = {**self.admin_site.each_context(request), "title": "Coverage of the phrase cache", "tables": tables}
        return TemplateResponse(request, "admin/tts/phrase/coverage.html", {**context, "opts": self.opts})

    def save_model(self, request: HttpRequest, obj: Phrase, form: forms.ModelForm, change: bool) -> None:
        super().save_model(request, obj, form, change)
        task_queue.enqueue_on_commit(task_names.WARM_PHRASE, obj.pk)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)  # of what it was before

    def delete_model(self, request: HttpRequest, obj: Phrase) -> None:
        super().delete_model(request, obj)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Phrase]) -> None:
        super().delete_queryset(request, queryset)
        task_queue.enqueue_on_commit(task_names.REMOVE_AUDIO)


@admin.register(Clip)
class ClipAdmin(HistoryAdmin):
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
        """Without the rows of what is being made for the first time: they have no sound."""
        return super().get_queryset(request).filter(size__gt=0)

    @admin.display(description="Says")
    def says(self, clip: Clip) -> str:
        return f"Greeting of {clip.patient}" if clip.patient else str(clip.phrase or "a phrase that is no more")
