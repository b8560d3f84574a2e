"""The page of a patient: what is true now, and the actions Say, Listen, Archive and Restore."""

import uuid
from collections.abc import Sequence
from typing import Any, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from tts.models import Utterance
from tts.outbox import store
from usage.models import DailyUsage, Incident
from voicecare.admin.confirmation import confirmation_page
from voicecare.admin.lists import timestamp
from voicecare.admin.overview.patient_erasure import PatientErasureAdmin
from voicecare.admin.overview.patient_facts import incident_keys, read_facts
from voicecare.admin.overview.say_form import SayForm
from voicecare.audit.recording import record
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.admin import ARCHIVING
from voicecare.patients.models import DefaultVoices, Patient
from voicecare.patients.voice_choice import preview_query

_PLAYER = '<audio class="voice-player" controls preload="none" src="{}" aria-label="A preview of the voice"></audio>'


class PatientPageAdmin(PatientErasureAdmin):
    """Adds the facts and the actions. The list, a subclass, has the methods that show the facts."""

    def get_urls(self) -> list[URLPattern]:
        views = {
            "say": self.say,
            "archive": self.archive_view,
            "restore": require_POST(self.restore_view),
        }
        own = [
            path(f"<uuid:patient_id>/{name}/", self.admin_site.admin_view(view), name=f"patient-{name}")
            for name, view in views.items()
        ]
        return [*own, *super().get_urls()]

    # What is true now

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Patient | None:
        patient = super().get_object(request, object_id, from_field)
        if patient is not None:
            cast(Any, patient).facts = read_facts([patient], AdminPermissions(request.user))[patient]
        return patient

    def get_fieldsets(self, request: HttpRequest, obj: Patient | None = None) -> list[tuple[Any, Any]]:
        fieldsets = super().get_fieldsets(request, obj)
        if not self.has_change_permission(request, obj):  # a form has a choice of names instead
            fieldsets = _with_language_name(fieldsets)
        if obj is None:
            return [fieldset for fieldset in fieldsets if fieldset[0] != "Record"]
        facts = ["status", "last_seen"]
        if obj.erased_at is None and request.user.has_perm("patients.view_voice"):
            facts.append("listen")
        if AdminPermissions(request.user).can_view(DailyUsage):
            facts += ["characters_this_month", "budget_used"]
        return [("Now", {"fields": facts}), *fieldsets]

    def get_readonly_fields(self, request: HttpRequest, obj: Patient | None = None) -> tuple[str, ...]:
        facts = ("status", "last_seen", "listen", "characters_this_month", "budget_used", "language_name")
        return (*super().get_readonly_fields(request, obj), *facts)

    @admin.display(description="Listen")
    def listen(self, patient: Patient) -> str:
        """A player of the voice of the patient's next conversation."""
        voice = DefaultVoices().for_patient(patient)
        if voice is None or not voice.is_usable:
            return "Only the offline voice can speak now."
        name = voice.name if voice == patient.voice else f"{voice.name}, the default voice"
        if patient.voice_id and voice != patient.voice:
            name = f"{voice.name}, instead of {patient.voice}"
        player = format_html(_PLAYER, reverse("admin-voice-preview", args=[voice.pk], query=preview_query(patient)))
        return format_html("<div>{}{}</div>", player, name)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        *args: Any,  # noqa: ANN401 - Django's signature
        **kwargs: Any,  # noqa: ANN401
    ) -> HttpResponse:
        patient: Patient | None = kwargs.get("obj")
        if patient is not None:
            keys = {"key__in": ",".join(incident_keys(patient))}
            incidents = AdminPermissions(request.user).changelist_url(Incident, **keys)
            context = {**context, "incidents_url": incidents}
        return super().render_change_form(request, context, *args, **kwargs)

    # Actions

    def say(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        """The form that speaks a text to the patient. A POST queues the text, as a call of the REST API does."""
        if not request.user.has_perm("tts.add_utterance"):
            raise PermissionDenied
        patient = self._visible(request, patient_id, archived_at=None)
        form = SayForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            message = form.send(request, patient)
            if message is not None:
                return self._after_saying(request, patient, message)
            form = SayForm.sent_before(request.POST)
        form.fields["text"].widget.attrs["autofocus"] = True
        receiver = store.receiver(patient.pk)
        context = {"title": f"Say something to {patient}", "patient": patient, "form": form, "receiver": receiver}
        template = "admin/patients/patient/say.html"
        base = {**self.admin_site.each_context(request), "opts": self.opts, "original": patient}
        return TemplateResponse(request, template, {**base, **context})

    def _after_saying(self, request: HttpRequest, patient: Patient, message: Utterance) -> HttpResponse:
        if message.queue_reason:
            until = timestamp(message.expires_at)
            self.message_user(
                request, f"No device is connected. The text is spoken as soon as one connects, until {until}."
            )
        else:
            self.message_user(request, "The text is spoken now, or after what the device is playing.")
        if AdminPermissions(request.user).can_view(Utterance):
            return HttpResponseRedirect(reverse("admin:tts_utterance_change", args=[message.pk]))
        return HttpResponseRedirect(reverse("admin:patients_patient_change", args=[patient.pk]))

    def archive_view(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        """Asks whether to archive the patient. A POST does it."""
        if request.method == "POST":
            return self._act(request, patient_id, "archive")
        patient = self._visible(request, patient_id, archived_at=None)
        if not self.has_change_permission(request, patient):
            raise PermissionDenied
        back = reverse("admin:patients_patient_change", args=[patient.pk])
        context = {"original": patient, "names": [str(patient)], "back": back}
        return confirmation_page(self, request, ARCHIVING, **context)

    def restore_view(self, request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
        return self._act(request, patient_id, "restore")

    @transaction.atomic
    def _act(self, request: HttpRequest, patient_id: uuid.UUID, action: str) -> HttpResponse:
        """Runs an action of the list for this patient, and records it if it has changed something."""
        patient = self._visible(request, patient_id)
        if not self.has_change_permission(request, patient):
            raise PermissionDenied
        before = patient.archived_at
        act = self.archive_now if action == "archive" else self.restore
        act(request, Patient.objects.filter(pk=patient.pk))
        patient.refresh_from_db(fields=["archived_at"])
        if patient.archived_at != before:
            record(request, action, patient, {"archived_at": [before, patient.archived_at]})
        return HttpResponseRedirect(reverse("admin:patients_patient_change", args=[patient.pk]))

    def _visible(self, request: HttpRequest, patient_id: uuid.UUID, **conditions: object) -> Patient:
        """The patient, if the user may see them and they are not erased. Raises Http404 or PermissionDenied (403)."""
        remaining = self.get_queryset(request).filter(erases_at=None, erased_at=None, **conditions)
        patient: Patient = get_object_or_404(remaining, pk=patient_id)
        if not self.has_view_permission(request, patient):
            raise PermissionDenied
        return patient


def _with_language_name(fieldsets: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The fieldsets with the name of the language in place of its code."""
    return [
        (title, {**options, "fields": ["language_name" if name == "language" else name for name in options["fields"]]})
        for title, options in fieldsets
    ]
