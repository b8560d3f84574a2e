"""Names in the admin of ledger rows, which have only the ids of a patient and a voice, because they outlive both."""

import uuid
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from usage.models import NO_ID
from voicecare.admin.lists import EMPTY, link_to
from voicecare.patients import care_teams
from voicecare.patients.models import Patient, Voice
from voicecare.patients.models.patient import PatientQuerySet

Names = dict[uuid.UUID, Patient | Voice]


class NamedChangeList(ChangeList):
    """Reads the names of all rows of the page with at most two queries."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = list(self.result_list)
        names = _read_names(rows, request)
        for row in rows:
            row.names = names
        self.result_list = rows


class NamedRowsAdmin(admin.ModelAdmin):
    """The columns `patient_name` and `voice_name`. Only users who may view patients see the names of patients.

    Users see the rows of their patients. An erased patient stays an id, as does a voice that was deleted.
    """

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return care_teams.limit_records(super().get_queryset(request), request.user)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ANN401 - Django's signature
        return NamedChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:  # noqa: ANN401
        row: Any = super().get_object(request, object_id, from_field)
        if row is not None:
            row.names = _read_names([row], request)
        return row

    @admin.display(description="Patient")
    def patient_name(self, row: Any) -> str:  # noqa: ANN401 - a row with names
        return _name(row.patient, row.names)

    @admin.display(description="Voice")
    def voice_name(self, row: Any) -> str:  # noqa: ANN401
        return _name(row.voice, row.names)


def rows_of(names: str, user: AbstractBaseUser | AnonymousUser) -> Q:
    """The condition for the rows of patients with these words (`PatientQuerySet.named`), or of voices with this name.

    Only names that the user may see. Their ids are read first, so that the database does not have to join a large
    table.
    """
    patients, voices = _visible_patients(user), _visible_voices(user).filter(name__icontains=names)
    return Q(patient__in=_ids(patients.named(names))) | Q(voice__in=_ids(voices))


def _ids(rows: QuerySet[Any]) -> list[uuid.UUID]:
    return list(rows.order_by().values_list("pk", flat=True))


def _visible_patients(user: AbstractBaseUser | AnonymousUser) -> PatientQuerySet:
    return Patient.objects.shown_in_admin_to(user).filter(erased_at=None)


def _visible_voices(user: AbstractBaseUser | AnonymousUser) -> QuerySet[Voice]:
    return care_teams.limit(Voice.objects.all(), user, also=care_teams.STOCK_VOICE)


def _read_names(rows: Iterable[Any], request: HttpRequest) -> Names:
    def ids(field: str) -> set[uuid.UUID]:
        return {getattr(row, field) for row in rows} - {None, NO_ID}

    names: Names = dict(_visible_voices(request.user).in_bulk(ids("voice")))
    if request.user.has_perm("patients.view_patient") or request.user.has_perm("patients.change_patient"):
        names |= _visible_patients(request.user).in_bulk(ids("patient"))
    return names


def _name(key: uuid.UUID | None, names: Names) -> str:
    if key is None or key == NO_ID:
        return EMPTY
    return link_to(names[key]) if key in names else str(key)
