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
from voicecare.dashboard.chart_builders import ShareLabel
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient, Voice

DAYS, MONTHS, TOP = 30, 12, 10


class ChartRegistry:
    """The charts of everybody, or of one patient, by their names. A chart is made when it is asked for."""

    def __init__(self, permissions: AdminPermissions, patient: Patient | None = None) -> None:
        self._permissions, self._patient = permissions, patient
        self._last_day = queries.today()
        self._first_day = self._last_day - timedelta(days=DAYS - 1)

    def all(self) -> list[Chart]:
        return [chart for name in self._builders if (chart := self.get(name))]

    def get(self, name: str) -> Chart | None:
        """None: there is none of that name, or not for this permissions."""
        build, *models = self._builders.get(name, (None,))
        if build is None or not self._permissions.can_view(DailyUsage, *models):
            return None
        chart: Chart = build()
        return replace(chart, csv_url=self._csv_url(name))

    @cached_property
    def _builders(self) -> Mapping[str, tuple[Any, ...]]:
        """What makes each, and what one must be allowed to see for it beside the sums."""
        common: dict[str, tuple[Any, ...]] = {
            "days": (lambda: chart_builders.by_day(self.days, self._daily_usage_url),),
            "months": (lambda: chart_builders.by_month(self.months, self._monthly_usage_url),),
            "first-sound": (lambda: chart_builders.latency(self.days, self._daily_usage_url),),
            "troubles": (self._failures,),
        }
        of_all_patients = {"patients": (self._top_patients, Patient), "voices": (self._top_voices, Voice)}
        return common if self._patient else {**common, **of_all_patients}

    @cached_property
    def days(self) -> list[queries.PeriodStats]:
        return queries.daily_stats(self._first_day, self._last_day, patient_id=self._patient_id)

    @cached_property
    def months(self) -> list[queries.PeriodStats]:
        first = _months_before(self._last_day, MONTHS - 1)
        return queries.monthly_stats(first, self._last_day, patient_id=self._patient_id)

    @property
    def _patient_id(self) -> uuid.UUID | None:
        return self._patient.pk if self._patient else None

    @property
    def _patient_filter(self) -> dict[str, object]:
        """The part of a change list's address that keeps it to the patient."""
        return {"patient": self._patient_id} if self._patient else {}

    def _failures(self) -> Chart:
        chart = chart_builders.failures(self.days, self._failed_requests_url)
        which = {"started_at__gte": start_of_day(self._first_day).isoformat(), **self._patient_filter}
        kinds = (("In the backup voice", "backup"), ("In the offline voice", "offline"))
        links = [
            Link(label, self._permissions.changelist_url(UsageEvent, kind__exact=kind, **which))
            for label, kind in kinds
        ]
        return replace(chart, links=[link for link in links if link.url])

    def _top_patients(self) -> Chart:
        top = queries.top_patients(self._first_day, self._last_day, TOP)
        found = Patient.objects.filter(erased_at=None).in_bulk([share.key for share in top if share.key])
        name = self._labels(found, "An erased patient", "No patient", "admin:patient-usage")
        return chart_builders.top_shares("patients", "Patients by characters", "Patient", top, name)

    def _top_voices(self) -> Chart:
        top = queries.top_voices(self._first_day, self._last_day, TOP)
        found = Voice.objects.in_bulk([share.key for share in top if share.key])
        name = self._labels(found, "A removed voice", "No voice", "admin:patients_voice_change")
        return chart_builders.top_shares("voices", "Voices by characters", "Voice", top, name)

    def _labels(
        self, found: Mapping[Any, Patient | Voice], deleted: str, none: str, page: str
    ) -> Callable[[queries.UsageShare], ShareLabel]:
        def label(share: queries.UsageShare) -> ShareLabel:
            row = found.get(share.key)
            if row is not None:
                return ShareLabel(row.name, reverse(page, args=[row.pk]))
            return ShareLabel(deleted if share.key else none)

        return label

    def _daily_usage_url(self, day: date) -> str:
        return self._permissions.changelist_url(
            DailyUsage, day__gte=day, day__lt=day + timedelta(days=1), **self._patient_filter
        )

    def _monthly_usage_url(self, month: date) -> str:
        return self._permissions.changelist_url(
            DailyUsage, day__gte=month, day__lt=_months_before(month, -1), **self._patient_filter
        )

    def _failed_requests_url(self, day: date) -> str:
        since, until = start_of_day(day).isoformat(), start_of_day(day + timedelta(days=1)).isoformat()
        return self._permissions.changelist_url(
            UsageEvent, outcome__exact="failed", started_at__gte=since, started_at__lt=until, **self._patient_filter
        )

    def _csv_url(self, name: str) -> str:
        if self._patient:
            return reverse("admin:patient-usage-csv", args=[self._patient_id, name])
        return reverse("admin:usage-csv", args=[name])


def _months_before(day: date, number: int) -> date:
    """The first day of the month that is so many months before that of the day."""
    year, month = divmod(day.year * 12 + day.month - 1 - number, 12)
    return date(year, month + 1, 1)
