"""REST API of patients, devices and voices.

A patient that the user may not see has the same status as an unknown one, 404.
"""

import uuid
from typing import Any, cast

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from voicecare.api import idempotency
from voicecare.api.schema import ErrorSerializer
from voicecare.audit.changes import differences, values_of
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.core import task_names, task_queue
from voicecare.patients import care_teams, erasure
from voicecare.patients.models import Clinic, Device, Patient, Voice
from voicecare.patients.serializers import (
    ERASURE_EXAMPLE,
    ISSUED_DEVICE_EXAMPLE,
    PATIENT_EXAMPLE,
    ClinicSerializer,
    DeviceFilter,
    DeviceSerializer,
    ErasureSerializer,
    IssuedDeviceSerializer,
    PatientFilter,
    PatientSerializer,
    VoiceFilter,
    VoiceSerializer,
)

PATIENT_REQUEST_EXAMPLE = OpenApiExample(
    "A patient",
    {
        "name": "Margaret Ellis",
        "preferred_name": "Maggie",
        "external_id": "MRN-104832",
        "companion_name": "Clara",
        "language": "en",
        "voice": None,
        "backup_voice": None,
        "backup_policy": "switch",
        "speech_rate": 0.9,
        "monthly_character_budget": None,
        "clinic": None,
        "archived": False,
    },
    request_only=True,
)
DEVICE_REQUEST_EXAMPLE = OpenApiExample("A device", {"name": "Bedside tablet"}, request_only=True)
ALREADY_ERASED = OpenApiResponse(
    ErrorSerializer, "Not found, not visible to this user, or the erasure has been started before."
)
NOT_ROTATED = OpenApiResponse(
    ErrorSerializer, f"`revoked`: the device is revoked. {idempotency.CONFLICT_OR_SECRET.description}"
)
ROTATE_HINT = "Its token is not shown again. If it is lost, rotate the token of the device with another key."
# A change of one of these changes the audio that is cached for a patient.
AUDIBLE_FIELDS = {
    "name",
    "preferred_name",
    "companion_name",
    "language",
    "voice",
    "backup_voice",
    "backup_policy",
    "speech_rate",
}


class DeviceRevoked(APIException):
    status_code = 409
    default_code = "revoked"
    default_detail = "This device is revoked. Add a new one instead."


class PatientList(generics.ListCreateAPIView):
    """The patients that the user may see.

    The user who creates a patient becomes a member of the patient's care team. A patient who is created without a
    clinic by a member of exactly one clinic belongs to that clinic.
    """

    serializer_class = PatientSerializer
    filter_class = PatientFilter
    required_permissions = {"GET": "patients.view_patient", "POST": "patients.add_patient"}

    def get_queryset(self) -> QuerySet[Patient]:
        wanted = PatientFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        values = wanted.validated_data
        conditions = {name: values[name] for name in ("external_id", "language", "clinic", "voice") if name in values}
        patients = Patient.objects.visible_to(self.request.user).filter(**conditions)
        if "archived" in values:
            patients = patients.filter(archived_at__isnull=not values["archived"])
        return patients.named(values.get("search", "")).order_by(values.get("ordering", "name"), "pk")

    @extend_schema(operation_id="list_patients", summary="List patients", parameters=[PatientFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="create_patient",
        summary="Create a patient",
        parameters=[idempotency.HEADER],
        responses={201: PatientSerializer, 409: idempotency.CONFLICT},
        examples=[PATIENT_REQUEST_EXAMPLE, PATIENT_EXAMPLE],
    )
    @transaction.atomic
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        call = idempotency.begin(request, request.data)
        if call and call.object_id:
            patient = get_object_or_404(Patient.objects.visible_to(request.user), pk=call.object_id)
            return Response(self.get_serializer(patient).data, 201)
        response = super().post(request, *args, **kwargs)
        idempotency.finish(call, response.data["id"])
        return response

    def perform_create(self, serializer: BaseSerializer) -> None:
        clinic = serializer.validated_data.get("clinic") or care_teams.clinic_of_new_patient(self.request.user)
        patient = serializer.save(clinic=clinic)
        patient.team.add(self.request.user)
        names = {*serializer.validated_data, *(["clinic"] if clinic else [])}
        given = {name: value for name, value in values_of(patient).items() if name in names}
        record(self.request, Action.ADD, patient, differences(Patient, {}, given))
        task_queue.enqueue_on_commit(task_names.WARM_PATIENT, patient.pk)


@extend_schema_view(get=extend_schema(operation_id="get_patient", summary="Get a patient"))
class PatientDetail(generics.RetrieveUpdateAPIView):
    serializer_class = PatientSerializer
    required_permissions = {
        "GET": "patients.view_patient",
        "PATCH": "patients.change_patient",
        "DELETE": "patients.erase_patient",
    }
    http_method_names = ("get", "patch", "delete", "head", "options")
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[Patient]:
        return Patient.objects.visible_to(self.request.user)

    @extend_schema(
        operation_id="update_patient",
        summary="Update a patient",
        examples=[OpenApiExample("Speak more slowly", {"speech_rate": 0.85}, request_only=True), PATIENT_EXAMPLE],
    )
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        return super().patch(request, *args, **kwargs)

    @transaction.atomic
    def perform_update(self, serializer: BaseSerializer) -> None:
        before = values_of(cast(Patient, serializer.instance))
        patient = serializer.save()
        record(self.request, Action.CHANGE, patient, differences(Patient, before, values_of(patient)))
        if AUDIBLE_FIELDS.intersection(serializer.validated_data):
            task_queue.enqueue_on_commit(task_names.WARM_PATIENT, patient.pk)

    @extend_schema(
        operation_id="erase_patient",
        summary="Erase a patient",
        responses={202: ErasureSerializer, 404: ALREADY_ERASED},
        examples=[ERASURE_EXAMPLE],
    )
    @transaction.atomic
    def delete(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Erases the patient. They are hidden, their devices are revoked and speech ends immediately.

        All data is removed after `erases_at`. Until then, an administrator can undo the erasure in the admin. The
        devices stay revoked.
        """
        patient = self.get_object()
        erases_at = erasure.start_erasure(patient.pk)
        if erases_at is None:  # another request was faster
            raise Http404
        record(request, Action.ERASE, patient, {"erases_at": [None, erases_at]})
        return Response(ErasureSerializer({"erases_at": erases_at}).data, 202)


@extend_schema_view(
    get=extend_schema(operation_id="list_devices", summary="List the devices of a patient", parameters=[DeviceFilter])
)
class DeviceList(generics.ListCreateAPIView):
    """The devices of a patient, including revoked ones."""

    serializer_class = DeviceSerializer
    filter_class = DeviceFilter
    required_permissions = {"GET": "patients.view_device", "POST": "patients.add_device"}

    def get_queryset(self) -> QuerySet[Device]:
        wanted = DeviceFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        devices = self._patient().devices.bedside()
        if "revoked" in wanted.validated_data:
            devices = devices.filter(revoked_at__isnull=not wanted.validated_data["revoked"])
        return devices.order_by("name", "pk")

    @extend_schema(
        operation_id="create_device",
        summary="Add a device",
        parameters=[idempotency.HEADER],
        responses={201: IssuedDeviceSerializer, 409: idempotency.CONFLICT_OR_SECRET},
        examples=[DEVICE_REQUEST_EXAMPLE, ISSUED_DEVICE_EXAMPLE],
    )
    @transaction.atomic
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Creates a device and returns its token. No other response contains this token."""
        patient = self._patient()
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        call = idempotency.begin(request, serializer.validated_data)
        if call and call.object_id:
            raise idempotency.SecretAlreadyShown(call.object_id, ROTATE_HINT)
        try:
            device, token = Device.objects.issue(patient, serializer.validated_data["name"])
        except Patient.DoesNotExist:  # the erasure has been started meanwhile
            raise Http404 from None
        idempotency.finish(call, device.pk)
        record(request, Action.ADD, device, {"name": None})
        return Response(_issued(device, token), 201)

    def _patient(self) -> Patient:
        return get_object_or_404(Patient.objects.visible_to(self.request.user), pk=self.kwargs["id"])


class DeviceDetail(APIView):
    required_permissions = {"DELETE": "patients.change_device"}

    @extend_schema(operation_id="revoke_device", summary="Revoke a device", responses={204: None})
    @transaction.atomic
    def delete(self, request: Request, id: uuid.UUID) -> Response:
        """Revokes the device. It is disconnected within seconds and can never connect again."""
        device = _device(request, id)
        Device.objects.filter(pk=device.pk, revoked_at=None).update(revoked_at=timezone.now())
        record(request, Action.REVOKE, device)
        return Response(status=204)


class DeviceRotation(APIView):
    required_permissions = {"POST": "patients.change_device"}

    @extend_schema(
        operation_id="rotate_device_token",
        summary="Replace the token of a device",
        parameters=[idempotency.HEADER],
        request=None,
        responses={200: IssuedDeviceSerializer, 409: NOT_ROTATED},
    )
    @transaction.atomic
    def post(self, request: Request, id: uuid.UUID) -> Response:
        """Replaces the token of the device and returns the new one. No other response contains it.

        The old token stops working, and a connection that was made with it is closed. Status 409 for a revoked device.
        """
        device = _device(request, id)
        call = idempotency.begin(request, None)
        if call and call.object_id:
            raise idempotency.SecretAlreadyShown(call.object_id, ROTATE_HINT)
        token = device.renew_token()
        # The next epoch closes a connection that was made with the old token.
        renewed = {"token_prefix": device.token_prefix, "token_digest": device.token_digest, "epoch": F("epoch") + 1}
        if not Device.objects.filter(pk=device.pk, revoked_at=None).update(**renewed):
            raise DeviceRevoked
        idempotency.finish(call, device.pk)
        record(request, Action.RENEW_TOKEN, device)
        return Response(_issued(device, token))


@extend_schema_view(get=extend_schema(operation_id="list_clinics", summary="List clinics"))
class ClinicList(generics.ListAPIView):
    """The clinics. Users who do not see all patients get those that they are members of."""

    serializer_class = ClinicSerializer
    required_permissions = {"GET": "patients.view_clinic"}

    def get_queryset(self) -> QuerySet[Clinic]:
        return care_teams.visible_clinics(self.request.user).order_by("name", "pk")


@extend_schema_view(get=extend_schema(operation_id="list_voices", summary="List voices", parameters=[VoiceFilter]))
class VoiceList(generics.ListAPIView):
    """Stock voices, and the voice clones of patients that the user may see."""

    serializer_class = VoiceSerializer
    filter_class = VoiceFilter
    required_permissions = {"GET": "patients.view_voice"}

    def get_queryset(self) -> QuerySet[Voice]:
        wanted = VoiceFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        return visible_voices(self.request).filter(**wanted.validated_data).order_by("name", "pk")


def visible_voices(request: Request) -> QuerySet[Voice]:
    """Stock voices, and the voice clones of patients that the user may see."""
    own_clones = Q(patient__in=Patient.objects.visible_to(request.user))
    return Voice.objects.filter(Q(source=Voice.Source.STOCK) | own_clones)


def _device(request: Request, device_id: uuid.UUID) -> Device:
    visible = Patient.objects.visible_to(request.user)
    return get_object_or_404(Device.objects.bedside(), pk=device_id, patient__in=visible)


def _issued(device: Device, token: str) -> dict[str, str]:
    return {"id": str(device.pk), "name": device.name, "token": token}
