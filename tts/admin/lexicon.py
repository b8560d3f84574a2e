"""The admin of the lexicon: how words and names are said."""

from base64 import b64encode
from typing import Any, cast

from csp.decorators import csp_update
from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST
from rest_framework.exceptions import APIException

from tts.api.streaming import StreamingSpeech, context_for_entry
from tts.api.views import run_speech
from tts.conversations.lexicon_rules import ONE_SCOPE, TAKEN, clean_spoken, clean_written, renew_audio
from tts.models import LexiconEntry
from tts.runtime import runtime
from tts.text.lexicon import Replacement
from voicecare.admin.lists import LanguageFilter, WordFilter, language_name
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.core import languages
from voicecare.patients.access import CHANGE_CLINIC
from voicecare.patients.models import Patient

_ALL_LANGUAGES = ("", "All languages")


class LexiconEntryForm(forms.ModelForm):
    language = forms.ChoiceField(
        required=False,
        choices=[_ALL_LANGUAGES, *sorted(languages.LANGUAGES.items(), key=lambda choice: choice[1])],
        help_text="The language of the texts in which it is said so.",
    )

    def clean_written(self) -> str:
        return clean_written(self.cleaned_data["written"])

    def clean_spoken(self) -> str:
        return clean_spoken(self.cleaned_data["spoken"])

    def clean(self) -> None:
        super().clean()
        names = ("written", "language", "match_case", "clinic", "patient")
        values = {name: self.cleaned_data[name] for name in names if name in self.cleaned_data}
        entry = LexiconEntry(pk=self.instance.pk, **values)
        if entry.clinic and entry.patient:
            self.add_error("patient", ValidationError(ONE_SCOPE, "clinic_or_patient"))
        if LexiconEntry.objects.duplicates_of(entry).exists():
            self.add_error("written", ValidationError(TAKEN, "unique"))


class ScopeFilter(WordFilter):
    title = "for"
    parameter_name = "for"
    conditions = {
        "everybody": ("Everybody", Q(clinic=None, patient=None)),
        "clinic": ("A clinic", Q(clinic__isnull=False)),
        "patient": ("A patient", Q(patient__isnull=False)),
    }


class TextLanguageFilter(LanguageFilter):
    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(code, name) for code, name in super().lookups(request, model_admin) if code]


@admin.register(LexiconEntry)
class LexiconEntryAdmin(admin.ModelAdmin):
    """The pronunciations. Saving one starts tasks that generate the audio of the phrases that contain it again.

    Entries of patients are shown and changed by those who see the patient. Others may be changed by those who may
    change clinics.
    """

    form = LexiconEntryForm
    list_display = ("written", "spoken", "whom", "language_in_words", "note")
    list_filter = (ScopeFilter, TextLanguageFilter, "clinic")
    list_select_related = ("clinic", "patient")
    search_fields = ("written", "spoken", "note")
    autocomplete_fields = ("patient",)
    fields = ("written", "spoken", "match_case", "language", "patient", "clinic", "note")
    change_form_template = "admin/tts/lexiconentry/change_form.html"

    @admin.display(description="For")
    def whom(self, entry: LexiconEntry) -> str:
        return str(entry.patient or entry.clinic or "Everybody")

    @admin.display(description="Language", ordering="language")
    def language_in_words(self, entry: LexiconEntry) -> str:
        return language_name(entry.language) if entry.language else _ALL_LANGUAGES[1]

    def get_queryset(self, request: HttpRequest) -> QuerySet[LexiconEntry]:
        patients = Patient.objects.visible_to(cast(User, request.user)).order_by()
        return super().get_queryset(request).filter(Q(patient=None) | Q(patient__in=patients.values("pk")))

    def has_change_permission(self, request: HttpRequest, obj: LexiconEntry | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_write(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: LexiconEntry | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._may_write(request, obj)

    def _may_write(self, request: HttpRequest, entry: LexiconEntry | None) -> bool:
        return entry is None or entry.patient_id is not None or request.user.has_perm(CHANGE_CLINIC)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Django's signature
        """Return a form that offers visible patients, and requires one of those who may not change clinics."""
        form = super().get_form(request, *args, **kwargs)
        if "patient" in form.base_fields:
            patient = cast(forms.ModelChoiceField, form.base_fields["patient"])
            patient.queryset = Patient.objects.visible_to(cast(User, request.user)).filter(erased_at=None)
            if not request.user.has_perm(CHANGE_CLINIC):
                patient.required = True
                form.base_fields.pop("clinic", None)
        return form

    def get_fields(self, request: HttpRequest, obj: LexiconEntry | None = None) -> list[Any]:
        fields = list(super().get_fields(request, obj))
        return fields if request.user.has_perm(CHANGE_CLINIC) else [name for name in fields if name != "clinic"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(csp_update({"media-src": ["data:"]})(require_POST(self.listen)))
        return [path("listen/", view, name="tts_lexiconentry_listen"), *super().get_urls()]

    def listen(self, request: HttpRequest) -> HttpResponse:
        """Return a page that plays the written form, as the form on the page would have it said. Saves no entry.

        The page contains the audio: a browser would request audio alone again, with GET.
        """
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        number = request.GET.get("entry", "")
        saved = self.get_object(request, number) if number else None
        form = self.get_form(request)(request.POST, instance=saved)
        if not form.is_valid():
            return self._listen_page(request, 400, errors=form.errors)
        entry: LexiconEntry = form.instance
        draft = Replacement(entry.written, entry.spoken, entry.match_case)
        context = context_for_entry(draft, entry.patient, entry.language or languages.DEFAULT)
        try:
            speech = StreamingSpeech(entry.written, context, runtime.dependencies)
            audio = run_speech(speech.collect, request)
        except APIException as error:
            return self._listen_page(request, error.status_code, problem=str(error.detail))
        record(request, Action.SPEAK, entry.patient or LexiconEntry)
        sound = f"data:{FORMATS[DEVICE_FORMATS[0]].mime};base64,{b64encode(audio).decode()}"
        return self._listen_page(request, 200, written=entry.written, sound=sound)

    def _listen_page(self, request: HttpRequest, status: int, **shown: object) -> HttpResponse:
        """The page in the new tab. It has the sound, or a problem, or the errors of the form by field."""
        page = {**self.admin_site.each_context(request), "title": "Listen", **shown}
        return TemplateResponse(request, "admin/tts/lexiconentry/listen.html", page, status=status)

    def save_model(self, request: HttpRequest, obj: LexiconEntry, form: forms.ModelForm, change: bool) -> None:
        super().save_model(request, obj, form, change)
        renew_audio()

    def delete_model(self, request: HttpRequest, obj: LexiconEntry) -> None:
        super().delete_model(request, obj)
        renew_audio()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[LexiconEntry]) -> None:
        if not request.user.has_perm(CHANGE_CLINIC):
            queryset = queryset.filter(patient__isnull=False)
        super().delete_queryset(request, queryset)
        renew_audio()
