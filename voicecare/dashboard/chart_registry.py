"""The charts of a page, by their names: whose figures they show, who may see them, and where their rows lead."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any

from django.urls import reverse

from usage.ledger.rollup import start_of_day
from usage.models import DailyUsage, UsageEvent
from usage.reports import queries
from voicecare.dashboard import chart_builders
from voicecare.dashboard.chart import Chart, Link
from voicecare.dashboard.permissions import Viewer
from voicecare.patients.models import Patient, Voice

DAYS, MONTHS, TOP = 30, 12, 10


class Charts:
    """The charts of everybody, or of one patient, by their names. A chart is made when it is asked for."""

    def __init__(self, viewer: Viewer, patient: Patient | None = None) -> None:
        self._viewer, self._patient = viewer, patient
        self._last = queries.today()
        self._first = self._last - timedelta(days=DAYS - 1)

    def all(self) -> list[Chart]:
        return [chart for name in self._makers if (chart := self.named(name))]

    def named(self, name: str) -> Chart | None:
        """None: there is none of that name, or not for this viewer."""
        make, *models = self._makers.get(name, (None,))
        if make is None or not self._viewer.sees(DailyUsage, *models):
            return None
        chart: Chart = make()
        return replace(chart, csv_address=self._csv(name))

    @cached_property
    def _makers(self) -> Mapping[str, tuple[Any, ...]]:
        """What makes each, and what one must be allowed to see for it beside the sums."""
        of_anybody: dict[str, tuple[Any, ...]] = {
            "days": (lambda: chart_builders.by_day(self.days, self._sums_of_day),),
            "months": (lambda: chart_builders.by_month(self.months, self._sums_of_month),),
            "first-sound": (lambda: chart_builders.first_sounds(self.days, self._sums_of_day),),
            "troubles": (self._troubles,),
        }
        of_all = {"patients": (self._patients, Patient), "voices": (self._voices, Voice)}
        return of_anybody if self._patient else {**of_anybody, **of_all}

    @cached_property
    def days(self) -> list[queries.PeriodStats]:
        return queries.daily_stats(self._first, self._last, patient_id=self._key)

    @cached_property
    def months(self) -> list[queries.PeriodStats]:
        first = _months_before(self._last, MONTHS - 1)
        return queries.monthly_stats(first, self._last, patient_id=self._key)

    @property
    def _key(self) -> uuid.UUID | None:
        return self._patient.pk if self._patient else None

    @property
    def _own(self) -> dict[str, object]:
        """The part of a change list's address that keeps it to the patient."""
        return {"patient": self._key} if self._patient else {}

    def _troubles(self) -> Chart:
        chart = chart_builders.troubles(self.days, self._failed_on)
        which = {"started_at__gte": start_of_day(self._first).isoformat(), **self._own}
        kinds = (("In the backup voice", "backup"), ("In the offline voice", "offline"))
        links = [Link(label, self._viewer.rows(UsageEvent, kind__exact=kind, **which)) for label, kind in kinds]
        return replace(chart, links=[link for link in links if link.address])

    def _patients(self) -> Chart:
        top = queries.top_patients(self._first, self._last, TOP)
        found = Patient.objects.filter(erased_at=None).in_bulk([share.key for share in top if share.key])
        name = self._namer(found, "An erased patient", "No patient", "admin:patient-usage")
        return chart_builders.shares("patients", "Patients by characters", "Patient", top, name)

    def _voices(self) -> Chart:
        top = queries.top_voices(self._first, self._last, TOP)
        found = Voice.objects.in_bulk([share.key for share in top if share.key])
        name = self._namer(found, "A removed voice", "No voice", "admin:patients_voice_change")
        return chart_builders.shares("voices", "Voices by characters", "Voice", top, name)

    def _namer(
        self, found: Mapping[Any, Patient | Voice], gone: str, nobody: str, page: str
    ) -> Callable[[queries.UsageShare], chart_builders.Named]:
        def named(share: queries.UsageShare) -> chart_builders.Named:
            row = found.get(share.key)
            if row is not None:
                return chart_builders.Named(row.name, reverse(page, args=[row.pk]))
            return chart_builders.Named(gone if share.key else nobody)

        return named

    def _sums_of_day(self, day: date) -> str:
        return self._viewer.rows(DailyUsage, day__gte=day, day__lt=day + timedelta(days=1), **self._own)

    def _sums_of_month(self, month: date) -> str:
        return self._viewer.rows(DailyUsage, day__gte=month, day__lt=_months_before(month, -1), **self._own)

    def _failed_on(self, day: date) -> str:
        since, until = start_of_day(day).isoformat(), start_of_day(day + timedelta(days=1)).isoformat()
        return self._viewer.rows(
            UsageEvent, outcome__exact="failed", started_at__gte=since, started_at__lt=until, **self._own
        )

    def _csv(self, name: str) -> str:
        if self._patient:
            return reverse("admin:patient-usage-csv", args=[self._key, name])
        return reverse("admin:usage-csv", args=[name])


def _months_before(day: date, number: int) -> date:
    """The first day of the month that is so many months before that of the day."""
    year, month = divmod(day.year * 12 + day.month - 1 - number, 12)
    return date(year, month + 1, 1)
