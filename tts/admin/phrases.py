"""The admin of phrases, and the page that shows which of them are cached."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from tts.cache import coverage, missing
from tts.cache.planning import active_patients, create_phrase_cache
from tts.models import Phrase
from usage.provider_state import circuit
from voicecare.admin.lists import LanguageFilter, language_name
from voicecare.audit.recording import record
from voicecare.core import languages, task_names, task_queue
from voicecare.patients.admin import LanguageChoiceField
from voicecare.patients.models import DefaultVoices

_PLACEHOLDERS = {Phrase.Kind.GREETING.value: ("{patient_name}", "{ai_name}"), Phrase.Kind.COMMON.value: ()}
_ONCE = (Phrase.Kind.GREETING, Phrase.Kind.HOLD_MESSAGE)  # one for each language


class PhraseForm(forms.ModelForm):
    class Meta:
        widgets = {"text": AdminTextareaWidget(attrs={"rows": 3})}
        help_texts = {
            "kind": "A greeting is spoken at the start of a conversation. A common phrase is an answer such as "
            "“I see.”, spoken from the cache. A hold message is spoken once when speech has to wait for the quota.",
            "language": "Phrases for German are also spoken to patients with German (Austria).",
            "text": "In a greeting, {patient_name} stands for the name of the patient and {ai_name} for the name of "
            "the companion. Other kinds have no placeholders.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        if "language" in self.fields:  # a user with view permission only has no form fields
            self.fields["language"] = LanguageChoiceField(
                self.instance.language, str(self.fields["language"].help_text)
            )

    def clean_language(self) -> str:
        """Return the language without its region, because phrases are looked up by it: "de" also serves "de-AT"."""
        return languages.code_of(self.cleaned_data["language"])

    def clean_text(self) -> str:
        """Return the text in one line."""
        return " ".join(self.cleaned_data["text"].split())

    def clean(self) -> None:
        super().clean()
        kind, language = self.cleaned_data.get("kind", ""), self.cleaned_data.get("language", "")
        others = Phrase.objects.filter(kind=kind, language=language).exclude(pk=self.instance.pk)
        if kind in _ONCE and (other := others.first()):
            named = f"{languages.LANGUAGES.get(language, language)} has a {other.get_kind_display().lower()} already"
            self.add_error("kind", f"{named}: “{other.text}” Change that one, or choose another kind.")
        text, allowed = self.cleaned_data.get("text", ""), _PLACEHOLDERS.get(self.cleaned_data.get("kind", ""), ())
        for placeholder in allowed:
            text = text.replace(placeholder, "")
        if "{" in text or "}" in text:
            message = "Only a greeting may contain braces."
            if allowed:
                message = f"Braces may only contain the placeholders {' and '.join(allowed)}."
            self.add_error("text", ValidationError(message, code="placeholder"))


class PhraseAdmin(admin.ModelAdmin):
    """The phrases of the phrase cache. `voicecare.admin.overview.phrases` registers it, with what they save.

    Saving one starts a task that generates its audio for the patients of its language.
    """

    form = PhraseForm
    list_display = ("text", "kind", "language_in_words")
    list_filter = ("kind", LanguageFilter)
    search_fields = ("text",)

    @admin.display(description="Language", ordering="language")
    def language_in_words(self, phrase: Phrase) -> str:
        return language_name(phrase.language)

    def get_urls(self) -> list[URLPattern]:
        views = {
            "coverage": self.coverage,
            "coverage/progress": self.coverage_progress,
            "coverage/make": require_POST(self.make_missing),
        }
        own = [
            path(f"{name}/", self.admin_site.admin_view(view), name=f"tts_phrase_{name.replace('/', '_')}")
            for name, view in views.items()
        ]
        return [*own, *super().get_urls()]

    def coverage(self, request: HttpRequest) -> HttpResponse:
        self._check_view_permission(request)
        defaults = DefaultVoices()
        patients = active_patients().visible_to(request.user)
        needs = missing.load_needs(create_phrase_cache(), defaults, patients)
        found = coverage.coverage_by_language(needs, defaults)
        context = {**self.admin_site.each_context(request), "title": "Cache coverage", "languages": found}
        context["report"] = missing.report_missing(needs, circuit.read_status())
        context["unspoken"] = [language for language in found if not language.is_spoken]
        context["gaps"] = coverage.languages_without_greeting(patients)
        return TemplateResponse(request, "admin/tts/phrase/coverage.html", {**context, "opts": self.opts})

    def coverage_progress(self, request: HttpRequest) -> HttpResponse:
        """Return the HTML of the part with the total and what is missing. The page requests it every few seconds."""
        self._check_view_permission(request)
        needs = missing.load_needs(create_phrase_cache(), patients=active_patients().visible_to(request.user))
        report = missing.report_missing(needs, circuit.read_status())
        return TemplateResponse(request, "admin/tts/phrase/missing.html", {"report": report})

    def make_missing(self, request: HttpRequest) -> HttpResponse:
        """Have the worker generate what is missing now, as it would within a quarter of an hour."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        record(request, "make_missing", Phrase)
        task_queue.enqueue_on_commit(task_names.WARM_MISSING)
        self.message_user(request, "The worker generates what is missing. This page shows the progress.")
        return HttpResponseRedirect(reverse("admin:tts_phrase_coverage"))

    def _check_view_permission(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

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
