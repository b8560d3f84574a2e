"""REST: `GET /api/v1/patients/{id}/export/`."""

import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import IO, cast

from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.views import APIView

from voicecare.audit.models import Action, AuditEntry
from voicecare.audit.recording import record
from voicecare.core.database import own_db_thread, run_in_db_thread
from voicecare.patient_export.archive import recordings_of, write_archive
from voicecare.patient_export.sections import SECTIONS, Section
from voicecare.patients.access import may
from voicecare.patients.models import Patient

MAX_MEMORY_BYTES = 8 * 1024 * 1024  # a larger file is written to the disk, where it has no name
CHUNK_BYTES = 64 * 1024
# Those of the calls that show the same data one by one.
PERMISSIONS = (
    "patients.view_patient",
    "patients.view_device",
    "tts.view_conversation",
    "tts.view_utterance",
    "cloning.view_clonejob",
    "usage.view_dailyusage",
)
AUDIT_PERMISSION = "audit.view_auditentry"


class PatientExport(APIView):
    required_permissions = {"GET": "patients.view_patient"}

    @extend_schema(
        operation_id="export_patient",
        summary="Export all data of a patient",
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, id: uuid.UUID) -> HttpResponseBase:
        """Returns everything that is stored about the patient, as a ZIP file.

        It has a JSON file for each kind of data, the recordings of voice clones, and a README. The audit trail has the
        export, and that texts and recordings were read. Needs the permissions of all calls that show this data. The
        audit trail is only in the file with `audit.view_auditentry`.
        """
        patient, user = get_object_or_404(Patient.objects.visible_to(request.user), pk=id), cast(User, request.user)
        missing = [permission for permission in PERMISSIONS if not may(user, permission)]
        if missing:
            raise PermissionDenied(f"You need the permission {missing[0]}.")
        record_export(request, patient)
        sees_audit = may(user, AUDIT_PERMISSION)
        sections = [section for section in SECTIONS if sees_audit or section.model is not AuditEntry]
        response = StreamingHttpResponse(_chunks(patient, sections), content_type="application/zip")
        response["Content-Disposition"] = f'attachment; filename="patient-{patient.pk}.zip"'
        return response


def record_export(request: Request | None, patient: Patient) -> None:
    """Adds the export to the audit trail, and what it shows. The request is None for a command."""
    record(request, Action.EXPORT, patient)
    record(request, Action.READ_TEXT, patient)
    for job in recordings_of(patient):
        record(request, Action.PLAY_RECORDING, job)


async def _chunks(patient: Patient, sections: Sequence[Section]) -> AsyncIterator[bytes]:
    """Writes the file in a thread of its own, so that it delays no other request, and yields it."""
    with tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES) as file:
        async with own_db_thread("export"):
            await run_in_db_thread(write_archive, patient, file, sections)
            file.seek(0)
            while chunk := await run_in_db_thread(_read, file):
                yield chunk


def _read(file: IO[bytes]) -> bytes:
    return file.read(CHUNK_BYTES)
