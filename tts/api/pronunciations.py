"""REST endpoints of pronunciations, the entries of the lexicon.

Entries of patients are shown to and changed by those who see the patient. An entry of another patient has the same
status as an unknown one, 404. Others are shown to everybody, and changed by those who may change clinics.
"""

import uuid
from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from tts.api.pronunciation_serializers import (
    CLINIC_PERMISSION_NEEDED,
    PRONUNCIATION_EXAMPLE,
    PronunciationFilter,
    PronunciationSerializer,
)
from tts.conversations.lexicon_rules import renew_audio
from tts.models import LexiconEntry
from voicecare.api import idempotency
from voicecare.audit.changes import differences, values_of
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.access import CHANGE_CLINIC, may
from voicecare.patients.models import Patient

_REQUEST_EXAMPLE = OpenApiExample(
    "A name",
    {"written": "Siobhan", "spoken": "Shivawn", "patient": "0b7c0a51-5c1e-4f7e-8a53-2f6f3c1f9d10"},
    request_only=True,
)
_CHANGE_EXAMPLE = OpenApiExample("Another spoken form", {"spoken": "Shuvawn"}, request_only=True)


class PronunciationList(generics.ListCreateAPIView):
    """The pronunciations, in the order of their written forms."""

    serializer_class = PronunciationSerializer
    filter_class = PronunciationFilter
    required_permissions = {"GET": "tts.view_lexiconentry", "POST": "tts.add_lexiconentry"}

    def get_queryset(self) -> QuerySet[LexiconEntry]:
        wanted = PronunciationFilter(data=self.request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        values = wanted.validated_data
        conditions = {name: values[name] for name in ("patient", "clinic", "language") if name in values}
        entries = _visible_entries(self.request).filter(**conditions)
        if "scope" in values:
            entries = entries.filter(PronunciationFilter.SCOPES[values["scope"]])
        for word in values.get("search", "").split():
            entries = entries.filter(Q(written__icontains=word) | Q(spoken__icontains=word) | Q(note__icontains=word))
        return entries.order_by("written", "pk")

    @extend_schema(operation_id="list_pronunciations", summary="List pronunciations", parameters=[PronunciationFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="create_pronunciation",
        summary="Add a pronunciation",
        parameters=[idempotency.HEADER],
        responses={201: PronunciationSerializer, 409: idempotency.CONFLICT},
        examples=[_REQUEST_EXAMPLE, PRONUNCIATION_EXAMPLE],
    )
    @transaction.atomic
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Adds a pronunciation. It is heard from the next conversation of each patient that it is for."""
        call = idempotency.begin(request, request.data)
        if call and call.object_id:
            entry = get_object_or_404(_visible_entries(request), pk=call.object_id.int)
            return Response(self.get_serializer(entry).data, 201)
        response = super().post(request, *args, **kwargs)
        idempotency.finish(call, uuid.UUID(int=response.data["id"]))  # the ids of these rows are numbers
        return response

    def perform_create(self, serializer: BaseSerializer) -> None:
        entry = serializer.save()
        given = {name: value for name, value in values_of(entry).items() if name in serializer.validated_data}
        record(self.request, Action.ADD, entry, differences(LexiconEntry, {}, given))
        renew_audio()


@extend_schema_view(get=extend_schema(operation_id="get_pronunciation", summary="Get a pronunciation"))
class PronunciationDetail(generics.RetrieveUpdateDestroyAPIView):
    """A pronunciation."""

    serializer_class = PronunciationSerializer
    required_permissions = {
        "GET": "tts.view_lexiconentry",
        "PATCH": "tts.change_lexiconentry",
        "DELETE": "tts.delete_lexiconentry",
    }
    http_method_names = ("get", "patch", "delete", "head", "options")
    lookup_field = "id"

    def get_queryset(self) -> QuerySet[LexiconEntry]:
        """Return the visible entries. A change locks its entry: two changes that are valid alone can collide."""
        entries = _visible_entries(self.request)
        return entries if self.request.method in ("GET", "HEAD") else entries.select_for_update()

    def get_object(self) -> LexiconEntry:
        entry = cast(LexiconEntry, super().get_object())
        writes = self.request.method in ("PATCH", "DELETE")
        if writes and entry.patient_id is None and not may(cast(User, self.request.user), CHANGE_CLINIC):
            raise PermissionDenied(CLINIC_PERMISSION_NEEDED)
        return entry

    @extend_schema(
        operation_id="update_pronunciation",
        summary="Update a pronunciation",
        examples=[_CHANGE_EXAMPLE, PRONUNCIATION_EXAMPLE],
    )
    @transaction.atomic
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Changes the pronunciation. A running conversation does not change."""
        return super().patch(request, *args, **kwargs)

    def perform_update(self, serializer: BaseSerializer) -> None:
        before = values_of(cast(LexiconEntry, serializer.instance))
        entry = serializer.save()
        changes = differences(LexiconEntry, before, values_of(entry))
        changes.pop("changed_at", None)
        record(self.request, Action.CHANGE, entry, changes)
        renew_audio()

    @extend_schema(operation_id="delete_pronunciation", summary="Delete a pronunciation")
    @transaction.atomic
    def delete(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """Deletes the pronunciation. A running conversation does not change."""
        return super().delete(request, *args, **kwargs)

    def perform_destroy(self, entry: LexiconEntry) -> None:
        record(self.request, Action.DELETE, entry, differences(LexiconEntry, values_of(entry), {}))
        entry.delete()
        renew_audio()


def _visible_entries(request: Request) -> QuerySet[LexiconEntry]:
    visible = Patient.objects.visible_to(request.user)
    return LexiconEntry.objects.filter(Q(patient=None) | Q(patient__in=visible.order_by().values("pk")))
