"""What goes on at this moment: open incidents, connected devices, voices being made."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from cloning.models import CloneJob
from usage.models import Incident
from voicecare.dashboard.permissions import Viewer
from voicecare.patients.models import Device, Patient

SHOWN = 8


@dataclass(frozen=True, slots=True)
class Listed:
    """The first of some rows, and how many there are."""

    rows: Sequence[Any]
    total: int
    address: str

    @property
    def more(self) -> int:
        return self.total - len(self.rows)


class Live:
    """What goes on at this moment; it is read again every few seconds."""

    def __init__(self, viewer: Viewer, patient: Patient | None = None) -> None:
        self._viewer, self._patient = viewer, patient
        self.names = viewer.sees(Patient)
        self.of_one = patient is not None

    @property
    def anything(self) -> bool:
        return any(self._viewer.sees(model) for model in (Incident, Device, CloneJob))

    @cached_property
    def incidents(self) -> Listed | None:
        which = {"key": str(self._patient.pk)} if self._patient else {}
        return self._listed(Incident.objects.filter(resolved_at=None, **which), resolved_at__isempty=1, **which)

    @cached_property
    def devices(self) -> Listed | None:
        now = timezone.now()
        connected = Device.objects.filter(online_until__gt=now).select_related("patient").order_by("-last_seen")
        return self._listed(self._of_patient(connected), online_until__gt=now.isoformat())

    @cached_property
    def clones(self) -> Listed | None:
        at_work = CloneJob.objects.unfinished() | CloneJob.objects.filter(status=CloneJob.Status.WITHDRAWING)
        statuses = ",".join([CloneJob.Status.PENDING, CloneJob.Status.UPLOADING, CloneJob.Status.WITHDRAWING])
        return self._listed(self._of_patient(at_work.select_related("patient")), status__in=statuses)

    def _of_patient(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows if self._patient is None else rows.filter(patient=self._patient)

    def _listed(self, rows: QuerySet[Any], **query: object) -> Listed | None:
        if not self._viewer.sees(rows.model):
            return None
        if self._patient is not None and rows.model is not Incident:
            query["patient__id__exact"] = self._patient.pk
        return Listed(list(rows[:SHOWN]), rows.count(), self._viewer.rows(rows.model, **query))
