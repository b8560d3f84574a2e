"""The page that makes a voice clone, and the calls of its scripts.

The calls are those of the REST API, with the session of the page in place of a token. So uploads, refusals and
permissions are the same.
"""

import uuid
from typing import cast
from urllib.parse import urlencode

from csp.decorators import csp_update
from django.core.files import File
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cloning.api.views import UploadParser, visible_clones
from cloning.consent.wording import WORDING
from cloning.jobs import activation, submission
from cloning.models import CloneJob
from cloning.samples.formats import MAX_BYTES, MIN_SECONDS
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.console.access import (
    CLONE_PERMISSIONS,
    DEVICE_PERMISSIONS,
    View,
    call,
    find_patient,
    has_permissions,
    page,
)
from voicecare.console.pages import render
from voicecare.console.passages import passage_for
from voicecare.console.views import found_patients
from voicecare.core import languages
from voicecare.patients.models import DefaultVoices, Patient
from voicecare.patients.voice_choice import preview_query

clone_page = page(*CLONE_PERMISSIONS)


def session_call(view: type[APIView]) -> View:
    """The call for the scripts of the page: with the session and its CSRF token, and not in the schema of REST."""
    called = view.as_view(authentication_classes=(SessionAuthentication,), schema=None)
    return never_cache(call(*CLONE_PERMISSIONS)(called))


@require_GET
@never_cache
@clone_page
def patients(request: HttpRequest) -> HttpResponse:
    """The patients of the user, to choose one."""
    return render(request, "console/clone/patients.html", {"title": "Clone a voice", **found_patients(request)})


# The recording is played from memory, and its address is a blob. Everything else is of this host.
@require_GET
@never_cache
@csp_update({"media-src": ["'self'", "blob:"]})
@clone_page
def clone(request: HttpRequest, patient_id: uuid.UUID) -> HttpResponse:
    """The page that makes a voice clone for this patient. It goes on with the clone that was not finished."""
    patient = find_patient(request, patient_id)
    language, passage = passage_for(patient.language)
    voice = DefaultVoices().for_patient(patient)
    context = {
        "title": f"Clone a voice for {patient}",
        "patient": patient,
        "passage": passage,
        "passage_language": language,
        "passage_language_name": languages.LANGUAGES[language],
        "is_other_language": language != languages.code_of(patient.language),
        "wording": WORDING,
        "max_bytes": MAX_BYTES,
        "max_megabytes": MAX_BYTES // 1_000_000,
        "min_seconds": MIN_SECONDS,
        "job": _open_job(patient),
        "can_talk": has_permissions(request, *DEVICE_PERMISSIONS),
        "voice": voice if voice is not None and voice.is_usable else None,
        "preview_query": urlencode(preview_query(patient)),
    }
    return render(request, "console/clone/clone.html", context)


def _open_job(patient: Patient) -> CloneJob | None:
    """The newest clone that is not finished, or of which nobody has decided yet whether the patient hears it."""
    unfinished = CloneJob.objects.unfinished() | CloneJob.objects.undecided()
    return unfinished.filter(patient=patient).order_by("-created_at").first()


class RecordingForm(serializers.Serializer):
    sample = serializers.FileField(allow_empty_file=True, max_length=1000)


class RecordingCheck(APIView):
    """Inspects a recording before it is sent. Nothing is stored."""

    required_permissions = {"POST": "cloning.add_clonejob"}
    parser_classes = (UploadParser,)

    def post(self, request: Request, patient_id: uuid.UUID) -> Response:
        find_patient(request._request, patient_id)
        form = RecordingForm(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(submission.check(cast(File, form.validated_data["sample"])).as_json())


class UseVoice(APIView):
    """Makes a ready clone the voice of its patient, from the next conversation on. Status 409 if it is not ready."""

    required_permissions = {"POST": "cloning.change_clonejob"}

    @transaction.atomic
    def post(self, request: Request, job_id: uuid.UUID) -> Response:
        job = get_object_or_404(visible_clones(request), pk=job_id)
        activation.use(job)
        record(request, Action.USE_CLONE, job)
        return Response(status=204)


class RevertVoice(APIView):
    """Gives the patient the voice back that this clone has replaced. Status 409 if the clone is not used."""

    required_permissions = {"POST": "cloning.change_clonejob"}

    @transaction.atomic
    def post(self, request: Request, job_id: uuid.UUID) -> Response:
        job = get_object_or_404(visible_clones(request), pk=job_id)
        if not activation.revert_to_previous_voice(job):
            return Response({"code": "not_used", "detail": "The patient has another voice already."}, status=409)
        record(request, "revert", job)
        return Response(status=204)
