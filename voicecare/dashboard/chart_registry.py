"""The charts of a dashboard by name: their figures, the permissions they need, and the links of their rows."""

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
    """The charts of all patients, or of one patient. Figures are read when a chart is requested."""

    def __init__(self, permissions: AdminPermissions, patient: Patient | None = None) -> None:
        self._permissions, self._patient = permissions, patient
        self._patient_id = patient.pk if patient else None
        self._patient_filter: dict[str, object] = {"patient": patient.pk} if patient else {}  # of a change list's URL
        self._last_day = queries.today()
        self._first_day = self._last_day - timedelta(days=DAYS - 1)

    def all(self) -> list[Chart]:
        return [chart for name in self._builders if (chart := self.get(name))]

    def get(self, name: str) -> Chart | None:
        """None if the chart does not exist, or if the user may not see its figures."""
        build, *models = self._builders.get(name, (None,))
        if build is None or not self._permissions.can_view(DailyUsage, *models):
            return None
        chart: Chart = build()
        if self._patient:
            return replace(chart, csv_url=reverse("admin:patient-usage-csv", args=[self._patient_id, name]))
        return replace(chart, csv_url=reverse("admin:usage-csv", args=[name]))

    @cached_property
    def _builders(self) -> Mapping[str, tuple[Any, ...]]:
        """For each chart, its builder and the models that it needs view permission for, besides DailyUsage."""
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
        first_month = _months_before(self._last_day, MONTHS - 1)
        return queries.monthly_stats(first_month, self._last_day, patient_id=self._patient_id)

    def _failures(self) -> Chart:
        chart = chart_builders.failures(self.days, self._failed_requests_url)
        period = {"started_at__gte": start_of_day(self._first_day).isoformat(), **self._patient_filter}
        kinds = (("Spoken in the backup voice", "backup"), ("Spoken in the offline voice", "offline"))
        links = [
            Link(label, self._permissions.changelist_url(UsageEvent, kind__exact=kind, **period))
            for label, kind in kinds
        ]
        return replace(chart, links=[link for link in links if link.url])

    def _top_patients(self) -> Chart:
        top = queries.top_patients(self._first_day, self._last_day, TOP)
        found = Patient.objects.filter(erased_at=None).in_bulk([share.key for share in top if share.key])
        label_of = self._labels(found, "Erased patient", "No patient", "admin:patient-usage")
        return chart_builders.top_shares("patients", "Patients by characters", "Patient", top, label_of)

    def _top_voices(self) -> Chart:
        top = queries.top_voices(self._first_day, self._last_day, TOP)
        found = Voice.objects.in_bulk([share.key for share in top if share.key])
        label_of = self._labels(found, "Removed voice", "No voice", "admin:patients_voice_change")
        return chart_builders.top_shares("voices", "Voices by characters", "Voice", top, label_of)

    def _labels(
        self, found: Mapping[Any, Patient | Voice], deleted: str, none: str, page: str
    ) -> Callable[[queries.UsageShare], ShareLabel]:
        """A function that labels a share by its row's name, by `deleted` if not `found`, or by `none` without a row."""

        def label_of(share: queries.UsageShare) -> ShareLabel:
            row = found.get(share.key)
            if row is not None:
                return ShareLabel(row.name, reverse(page, args=[row.pk]))
            return ShareLabel(deleted if share.key else none)

        return label_of

    def _daily_usage_url(self, day: date) -> str:
        return self._usage_url(day, day + timedelta(days=1))

    def _monthly_usage_url(self, month: date) -> str:
        return self._usage_url(month, _months_before(month, -1))

    def _usage_url(self, first: date, end: date) -> str:
        """The change list of daily usage from `first` until the day before `end`."""
        return self._permissions.changelist_url(DailyUsage, day__gte=first, day__lt=end, **self._patient_filter)

    def _failed_requests_url(self, day: date) -> str:
        start, end = start_of_day(day).isoformat(), start_of_day(day + timedelta(days=1)).isoformat()
        return self._permissions.changelist_url(
            UsageEvent, outcome__exact="failed", started_at__gte=start, started_at__lt=end, **self._patient_filter
        )


def _months_before(day: date, months: int) -> date:
    """The first day of the month that is `months` before the month of `day`. Negative values go forward."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, 1)
