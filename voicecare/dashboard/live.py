"""The live part of a dashboard: open incidents, connected devices, clones in progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from cloning.models import CloneJob
from usage.alerts.visibility import visible_incidents, without_other_clinics
from usage.models import Incident
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients import care_teams
from voicecare.patients.models import Clinic, Device, Patient

MAX_ROWS = 5


@dataclass(frozen=True, slots=True)
class RowSummary:
    """The first rows of a query, and the total number of rows. `url` is the admin's list of all of them."""

    rows: Sequence[Any]
    total: int
    url: str

    @property
    def more(self) -> int:
        return self.total - len(self.rows)


class LiveStatus:
    """The live status of all patients, of those of a clinic, or of one patient. The page requests it every ten seconds.

    Each part is None if the user may not see its rows. The incidents of a clinic include those about the whole service.
    """

    def __init__(
        self, permissions: AdminPermissions, patient: Patient | None = None, clinic: Clinic | None = None
    ) -> None:
        self._permissions, self._patient, self.clinic = permissions, patient, clinic
        self.can_view_names = permissions.can_view(Patient)
        self.is_single_patient = patient is not None

    @property
    def is_visible(self) -> bool:
        return any(self._permissions.can_view(model) for model in (Incident, Device, CloneJob))

    @cached_property
    def incidents(self) -> RowSummary | None:
        filters = {"key": str(self._patient.pk)} if self._patient else {}
        incidents = visible_incidents(Incident.objects.filter(resolved_at=None, **filters), self._permissions.user)
        if self.clinic is not None:
            incidents = without_other_clinics(incidents, self.clinic)
        return self._summary(incidents, status="open", **filters)

    @cached_property
    def devices(self) -> RowSummary | None:
        now = timezone.now()
        connected = (
            self._of_own_patients(Device.objects.bedside().filter(online_until__gt=now))
            .select_related("patient")
            .order_by("-last_seen")
        )
        return self._summary(connected, online_until__gt=now.isoformat())

    @cached_property
    def clones(self) -> RowSummary | None:
        in_progress = CloneJob.objects.unfinished() | CloneJob.objects.filter(status=CloneJob.Status.WITHDRAWING)
        statuses = ",".join([CloneJob.Status.PENDING, CloneJob.Status.UPLOADING, CloneJob.Status.WITHDRAWING])
        return self._summary(self._of_own_patients(in_progress).select_related("patient"), status__in=statuses)

    def _of_own_patients(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return care_teams.limit(rows, self._permissions.user)

    def _summary(self, rows: QuerySet[Any], **query: object) -> RowSummary | None:
        if not self._permissions.can_view(rows.model):
            return None
        if self._patient is not None and rows.model is not Incident:
            rows = rows.filter(patient=self._patient)
            query["patient__id__exact"] = self._patient.pk
        if self.clinic is not None and rows.model is not Incident:
            rows = rows.filter(patient__clinic=self.clinic)
            query["clinic"] = self.clinic.pk
        return RowSummary(list(rows[:MAX_ROWS]), rows.count(), self._permissions.changelist_url(rows.model, **query))
