"""The page of a patient: voices, budget, usage, devices, incidents, messages, and "say this now"."""

import uuid
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from tts.api.messages import cancel as cancel_message
from tts.models import Utterance
from tts.states import Origin
from usage.prices import PriceList
from usage.reports import queries
from voicecare.admin.lists import timestamp
from voicecare.admin.overview.say_form import SayForm
from voicecare.audit.changes import differences, values_of
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.console.access import call, page
from voicecare.console.pages import render
from voicecare.console.patient_page import PatientPage
from voicecare.core import task_names, task_queue
from voicecare.dashboard import ranges
from voicecare.dashboard.chart_builders import FIRST_AUDIO_GOAL_MS
from voicecare.patients.admin import PatientForm
from voicecare.patients.models import Patient, Voice
from voicecare.patients.voice_choice import VoiceSelect

PLAYS_NOW = "The text is spoken now, or after what the device is playing."
WAITS = "No device is connected. The text is spoken as soon as one connects, until {}."
TOO_LATE = "This message does not wait any longer, so it cannot be cancelled."


class VoicesForm(PatientForm):
    """The choice of the voices, with the rules of the admin and of REST.

    The fields have hidden initial values, so that only those are saved that were changed in this form. The others may
    have changed since it was opened, for example when a clone became ready.
    """

    class Meta:
        model = Patient
        fields = ("voice", "backup_voice", "backup_policy")
        widgets = {"voice": VoiceSelect("console:preview"), "backup_voice": VoiceSelect("console:preview")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.show_hidden_initial = True
            field.help_text = "Speaks when the voice cannot." if name == "backup_voice" else ""
            if isinstance(field, forms.ModelChoiceField):
                field.empty_label = "The default voice"
                cast(Any, field).label_from_instance = _label
        self.fields["backup_policy"].label = "If the voice cannot speak"


def _label(voice: Voice) -> str:
    facts = ["clone of this patient" if voice.patient_id else "", voice.speaker, voice.language_names]
    facts.append("" if voice.is_usable else "cannot be used")
    words = "; ".join(filter(None, facts))
    return f"{voice.name} ({words})" if words else voice.name


def _find(request: HttpRequest, patient_id: uuid.UUID, **conditions: object) -> Patient:
    related = ("voice__successor", "backup_voice__successor", "clinic")
    visible = Patient.objects.visible_to(request.user).select_related(*related)
    return get_object_or_404(visible, pk=patient_id, **conditions)


@require_GET
@never_cache
@page("patients.view_patient")
def patient(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    return _page(request, _find(request, patient_id))


def _page(
    request: HttpRequest, patient: Patient, say_form: SayForm | None = None, voices_form: VoicesForm | None = None
) -> HttpResponse:
    """The page of the patient, with the forms that have errors, if there are any."""
    shown = PatientPage(request, patient)
    context: dict[str, Any] = {"title": str(patient), "patient": patient, "page": shown}
    if shown.may_say:
        context["say_form"] = say_form or SayForm()
    if shown.may_choose_voices:
        context["voices_form"] = voices_form or VoicesForm(instance=_find(request, patient.pk))
    return render(request, "console/patient.html", context)


@require_GET
@never_cache
@call("patients.view_patient")
def live(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """The part of the page that is true now: incidents, devices, and the states of messages."""
    shown = PatientPage(request, _find(request, patient_id))
    return TemplateResponse(request, "console/patient_live.html", {"page": shown, "patient": shown.patient})


@require_POST
@never_cache
@page("patients.view_patient", "patients.change_patient", "patients.view_voice")
@transaction.atomic
def voices(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """Saves the choice of the voices. It holds from the next conversation."""
    patient = _find(request, patient_id)
    before = values_of(patient)
    form = VoicesForm(request.POST, instance=patient)
    if not form.is_valid():
        return _page(request, _find(request, patient_id), voices_form=form)
    if form.changed_data:
        patient.save(update_fields=form.changed_data)
        after = {**before, **{name: values_of(patient)[name] for name in form.changed_data}}
        record(request, Action.CHANGE, patient, differences(Patient, before, after))
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, patient.pk)
        messages.success(request, "The voices are saved. They speak from the next conversation.")
    return HttpResponseRedirect(reverse("console:patient", args=[patient.pk]))


@require_POST
@never_cache
@page("patients.view_patient", "tts.add_utterance")
def say(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """Queues a text, as a call of the REST API does. The page shows what becomes of it."""
    patient = _find(request, patient_id, archived_at=None)
    form = SayForm(request.POST)
    if not form.is_valid():
        return _page(request, patient, say_form=form)
    message = form.send(request, patient)
    if message is None:
        return _page(request, patient, say_form=SayForm.sent_before(request.POST))
    messages.success(request, WAITS.format(timestamp(message.expires_at)) if message.queue_reason else PLAYS_NOW)
    return HttpResponseRedirect(reverse("console:patient", args=[patient.pk]))


@require_POST
@never_cache
@page("patients.view_patient", "tts.add_utterance")
def cancel(request: HttpRequest, utterance_id: uuid.UUID) -> HttpResponse:
    """Cancels a message that waits."""
    visible = Utterance.objects.filter(patient__in=Patient.objects.visible_to(request.user), origin=Origin.SERVER)
    message = get_object_or_404(visible, pk=utterance_id)
    if cancel_message(request, message):
        messages.success(request, "The message is cancelled.")
    else:
        messages.warning(request, TOO_LATE)
    return HttpResponseRedirect(reverse("console:patient", args=[message.patient_id]))


@require_GET
@never_cache
@page("patients.view_patient", "usage.view_dailyusage")
def usage(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """The usage of this month, and of a range by day, with the figures of the admin."""
    patient = _find(request, patient_id)
    shown, days, prices = PatientPage(request, patient), ranges.parse(request.GET), PriceList.read()
    found = queries.range_stats(days.first, days.last, patient_id=patient.pk, prices=prices)
    today = queries.today()
    month = shown.this_month
    spoken = month.saved + month.live + month.backup if month else 0
    context = {
        "title": f"Usage of {patient}",
        "patient": patient,
        "range": days,
        "total": found.total,
        "days": [day for day in reversed(found.days) if day.characters or day.saved or day.requests],
        "dashboard": {  # as for the templates of the admin's dashboard
            "patient": patient,
            "range_choices": [(name, label) for name, (label, _) in ranges.RANGES.items()],
            "currency": shown.currency,
            "this_month": month,
            "today": queries.daily_stats(today, today, patient_id=patient.pk, prices=prices)[0],
            "saved_percent": month.saved * 100 // spoken if month and spoken else 0,
            "latency_goal_ms": FIRST_AUDIO_GOAL_MS,
        },
    }
    return render(request, "console/usage.html", context)
