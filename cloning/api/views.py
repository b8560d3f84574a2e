"""REST views of voice clones: upload, status, retry and withdrawal, and the synchronisation of stock voices."""

import hashlib
import uuid
from collections.abc import Mapping
from functools import partial
from typing import IO, Any, cast

from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousOperation
from django.core.files import File
from django.db import transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cloning.api.serializers import (
    AcceptedCloneSerializer,
    CloneFilter,
    CloneSerializer,
    UploadSerializer,
    VoiceSyncSerializer,
)
from cloning.consent import withdrawal
from cloning.jobs import runner, submission
from cloning.models import CloneJob
from cloning.samples.acceptance import MAX_BYTES
from cloning.voices import sync
from voicecare.api import idempotency
from voicecare.api.pagination import CursorPagination
from voicecare.api.schema import ErrorSerializer
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.models import Patient, Voice
from voicecare.providers.errors import ProviderError

FORM_OVERHEAD_BYTES = 64 * 1024  # for the other fields and the multipart boundaries

UNREACHABLE = OpenApiResponse(ErrorSerializer, "The list of voices of the speech provider cannot be read now.")
NOT_INSPECTED = OpenApiResponse(
    ErrorSerializer,
    "`inspection_failed`: the recording could not be inspected. `storage_unavailable`: it could not be stored. Send it "
    "again.",
)
ACCEPTED = OpenApiExample(
    "Accepted",
    {"id": "7d1f2c9e-8a0b-4c57-9f6e-0b1a2c3d4e5f", "status": "pending"},
    response_only=True,
    status_codes=["202"],
)
WITHDRAWN = OpenApiExample(
    "Withdrawn",
    {"id": "7d1f2c9e-8a0b-4c57-9f6e-0b1a2c3d4e5f", "status": "withdrawing"},
    response_only=True,
    status_codes=["202"],
)
UPLOAD = OpenApiExample(
    "The voice of a daughter",
    {"name": "Anna, her daughter", "sample": "(binary)", "consent": True, "consent_by": "Anna Ellis"},
    request_only=True,
    media_type="multipart/form-data",
)


class UploadTooLarge(APIException):
    status_code = 413
    default_code = "too_large"
    default_detail = f"The recording is over {MAX_BYTES // 1_000_000} MB. Send it in mono, or as MP3 or M4A."


class RetryConflict(APIException):
    status_code = 409


class VoiceListUnavailable(APIException):
    status_code = 503


class UploadParser(MultiPartParser):
    """Parses the multipart form of an upload.

    A request whose Content-Length is too large is refused before any of its body is parsed. Raises UploadTooLarge
    (413).
    """

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - DRF's own signature
        meta = (parser_context or {})["request"].META
        if int(meta.get("CONTENT_LENGTH") or 0) > MAX_BYTES + FORM_OVERHEAD_BYTES:
            raise UploadTooLarge
        try:
            return super().parse(stream, media_type, parser_context)
        except SuspiciousOperation as error:  # too many fields or files
            raise ParseError("The form has too many fields or files.") from error


@extend_schema_view(
    get=extend_schema(operation_id="list_clones", summary="List the clones of a patient", parameters=[CloneFilter])
)
class CloneList(generics.ListAPIView):
    """Voice clones of this patient, newest first."""

    serializer_class = CloneSerializer
    filter_class = CloneFilter
    pagination_class = CursorPagination
    required_permissions = {"GET": "cloning.view_clonejob", "POST": "cloning.add_clonejob"}
    parser_classes = (UploadParser,)

    def get_queryset(self) -> QuerySet[CloneJob]:
        wanted = CloneFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        clones = visible_clones(self.request).filter(patient=self._patient(), **wanted.validated_data)
        return clones.order_by("-created_at", "pk")

    @extend_schema(
        operation_id="create_clone",
        summary="Clone a voice from a recording",
        parameters=[idempotency.HEADER],
        request={"multipart/form-data": UploadSerializer},
        responses={202: AcceptedCloneSerializer, 409: idempotency.CONFLICT, 503: NOT_INSPECTED},
        examples=[UPLOAD, ACCEPTED],
    )
    def post(self, request: Request, id: uuid.UUID) -> Response:
        """Creates a voice clone from a recording. If the same recording is sent twice, one clone is created.

        A refused recording is not stored. The error has a code (`no_consent`, `too_short`, `too_large`,
        `unsupported_format`, `corrupt_audio`, `other_voice`, `mostly_silence`, `too_noisy`, `distorted`), and its
        detail says in plain words what to do. `problems` lists all reasons for the refusal, each with `code` and
        `detail`, the worst first. `warnings` lists less serious defects of the recording.
        """
        patient = self._patient()
        upload = UploadSerializer(data=request.data)
        upload.is_valid(raise_exception=True)
        fields = {name: value for name, value in upload.validated_data.items() if name != "consent"}
        values = {**fields, "sample": _digest(fields["sample"])}
        if earlier := idempotency.find(request, values):  # before the inspection, which takes seconds
            return _accepted_response(get_object_or_404(visible_clones(request), pk=earlier))
        on_submit = partial(_finish, request, values)
        try:
            job = submission.submit(patient=patient, witness=cast(User, request.user), on_submit=on_submit, **fields)
        except _AlreadyCreated as error:
            job = get_object_or_404(visible_clones(request), pk=error.job_id)
        return _accepted_response(job)

    def _patient(self) -> Patient:
        return get_object_or_404(Patient.objects.visible_to(self.request.user), pk=self.kwargs["id"])


@extend_schema_view(get=extend_schema(operation_id="get_clone", summary="Get a voice clone"))
class CloneDetail(generics.RetrieveAPIView):
    serializer_class = CloneSerializer
    required_permissions = {"GET": "cloning.view_clonejob", "DELETE": "cloning.change_clonejob"}
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[CloneJob]:
        return visible_clones(self.request)

    @extend_schema(
        operation_id="withdraw_clone",
        summary="Withdraw the consent to a voice clone",
        responses={202: AcceptedCloneSerializer},
        examples=[WITHDRAWN],
    )
    @transaction.atomic
    def delete(self, request: Request, id: uuid.UUID) -> Response:
        """Withdraws the consent. The voice is never used again, and all of its data is removed in the background."""
        job = withdrawal.withdraw(self.get_object(), cast(User, request.user))
        record(request, Action.WITHDRAW, job)
        return _accepted_response(job)


class CloneRetry(APIView):
    required_permissions = {"POST": "cloning.change_clonejob"}

    @extend_schema(
        operation_id="retry_clone",
        summary="Retry a failed voice clone",
        request=None,
        examples=[ACCEPTED],
        responses={
            202: AcceptedCloneSerializer,
            409: OpenApiResponse(
                ErrorSerializer, "`not_retryable`: the clone has not failed, or its recording is deleted."
            ),
        },
    )
    @transaction.atomic
    def post(self, request: Request, id: uuid.UUID) -> Response:
        """Retries a failed clone with the stored recording."""
        try:
            job = runner.retry(get_object_or_404(visible_clones(request), pk=id))
        except runner.NotRetryable as error:
            raise RetryConflict(error.message, error.code) from error
        record(request, Action.RETRY, job)
        return _accepted_response(job)


class VoiceSync(APIView):
    required_permissions = {"POST": "patients.change_voice"}

    @extend_schema(
        operation_id="sync_voices",
        summary="Read the provider's list of voices",
        request=None,
        responses={
            200: VoiceSyncSerializer,
            503: UNREACHABLE,
        },
    )
    def post(self, request: Request) -> Response:
        """Reads the provider's list of voices now, and updates the stock voices."""
        try:
            result = sync.sync_stock_voices()
        except ProviderError as error:
            raise VoiceListUnavailable(error.message, error.code) from error
        record(request, Action.SYNC, Voice)
        return Response(VoiceSyncSerializer(result).data)


class _AlreadyCreated(Exception):
    """A concurrent request with the same Idempotency-Key has created a clone job in the meantime."""

    def __init__(self, job_id: uuid.UUID) -> None:
        self.job_id = job_id


@transaction.atomic
def _finish(request: Request, values: Mapping[str, Any], job: CloneJob) -> None:
    """Ends a call that has created `job`, in the transaction that inserts it.

    Raises _AlreadyCreated, which undoes the insertion, if a concurrent call with the same key has another job.
    """
    call = idempotency.begin(request, values)
    if call and call.object_id not in (None, job.pk):
        raise _AlreadyCreated(call.object_id)
    idempotency.finish(call, job.pk)
    record(request, Action.ADD, job)


def _digest(sample: File) -> str:
    digest = hashlib.sha256()
    for chunk in sample.chunks():
        digest.update(chunk)
    return digest.hexdigest()


def visible_clones(request: Request) -> QuerySet[CloneJob]:
    """The clones of the patients that the user may see."""
    visible = Patient.objects.visible_to(request.user)
    return CloneJob.objects.filter(patient__in=visible).select_related("voice")


def _accepted_response(job: CloneJob) -> Response:
    return Response(AcceptedCloneSerializer(job).data, 202)
