"""Conversations and what was said in them, to look at; phrases, to edit."""

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils.html import format_html

from tts.models import Conversation, Phrase, Utterance
from voicecare.history import HistoryAdmin


@admin.register(Conversation)
class ConversationAdmin(HistoryAdmin):
    list_display = (
        "started_at", "patient", "tts_characters_used", "ended_at", "voice", "voice_source", "device", "format",
    )  # fmt: skip
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
        "received_at", "patient", "client_id", "origin", "state", "source", "code", "characters", "first_chunk_ms",
    )  # fmt: skip
    list_filter = ("state", "source", "origin", "received_at")
    list_select_related = ("patient",)
    search_fields = ("=id", "=client_id", "=conversation__id", "patient__name", "patient__preferred_name")
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
    form = PhraseForm
    list_display = ("text", "kind", "language")
    list_filter = ("kind", "language")
    search_fields = ("text",)
