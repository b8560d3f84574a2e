"""Finds the charts of a dashboard by name, checks the permissions that they need, and reads their figures."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Literal

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse

from usage.ledger.rollup import start_of_day
from usage.models import DailyUsage, UsageEvent
from usage.prices import PriceList
from usage.reports import queries
from voicecare.dashboard import chart_builders
from voicecare.dashboard.chart import Chart, Link
from voicecare.dashboard.chart_builders import ShareLabel
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.dashboard.ranges import DayRange
from voicecare.patients import care_teams
from voicecare.patients.models import Clinic, Patient, Voice
from voicecare.patients.models.patient import sees_all_patients

MONTHS, TOP = 12, 10


class ChartRegistry:
    """The charts of all patients, of the patients of a clinic, or of one patient.

    The figures of a chart are read when the chart is requested.
    """

    def __init__(
        self,
        permissions: AdminPermissions,
        days: DayRange,
        patient: Patient | None = None,
        clinic: Clinic | None = None,
    ) -> None:
        self._permissions, self._patient, self._clinic, self._range = permissions, patient, clinic, days
        self._scope: dict[str, Any] = {
            "patient_id": patient.pk if patient else None,
            "clinic_id": clinic.pk if clinic else None,
        }
        # The parameters of a change list's URL.
        self._patient_filter: dict[str, object] = {"patient": patient.pk} if patient else {}
        if clinic:
            self._patient_filter = {"clinic": clinic.pk}
        self._first_day, self._last_day, self._today = days.first, days.last, queries.today()

    def all(self) -> list[Chart]:
        return [chart for name in self._builders if (chart := self.get(name))]

    def get(self, name: str) -> Chart | None:
        """Returns the chart with this name.

        Returns None if there is no such chart, or if the user may not see its figures.
        """
        build, *models = self._builders.get(name, (None,))
        if build is None or not self._permissions.can_view(DailyUsage, *models):
            return None
        chart: Chart = build()
        if self._patient:
            url = reverse("admin:patient-usage-csv", args=[self._patient.pk, name])
        else:
            url = reverse("admin:usage-csv", args=[name])
        return replace(chart, csv_url=url + self._range.query_with(self._clinic))

    @cached_property
    def _builders(self) -> Mapping[str, tuple[Any, ...]]:
        """For each name of a chart: the function that makes it, and the models that the user must be able to view.

        DailyUsage is needed for every chart, so it is not in the values.
        """
        common: dict[str, tuple[Any, ...]] = {
            "days": (lambda: chart_builders.by_day(self.days, self._daily_usage_url, self.currency),),
            "months": (lambda: chart_builders.by_month(self.months, self._monthly_usage_url, self.currency),),
            "first-sound": (lambda: chart_builders.latency(self.days, self._daily_usage_url),),
            "troubles": (self._failures,),
        }
        if self._prices:
            common["cost"] = (lambda: chart_builders.cost_by_day(self.days, self._daily_usage_url, self.currency),)
        if self._patient:
            return common
        patients, patient_page = Patient.objects.visible_to(self._permissions.user), "admin:patient-usage"
        voices, voice_page = self._permissions.visible_voices(), "admin:patients_voice_change"
        clinics = {}
        if self._clinic is None and self._permissions.can_view(Clinic) and Clinic.objects.exists():
            clinics["clinics"] = (self._clinics, Clinic)
        return {
            **common,
            **clinics,
            "patients": (lambda: self._top_shares("patient", patients, "Erased patient", patient_page), Patient),
            "voices": (lambda: self._top_shares("voice", voices, "Removed voice", voice_page), Voice),
        }

    @cached_property
    def _prices(self) -> PriceList:
        return PriceList.read()

    @property
    def currency(self) -> str:
        """The currency of all costs. Empty without prices: then no cost is shown."""
        return settings.PRICE_CURRENCY if self._prices else ""

    @cached_property
    def _range_stats(self) -> queries.RangeStats:
        return queries.range_stats(self._first_day, self._last_day, **self._scope, prices=self._prices)

    @property
    def days(self) -> list[queries.PeriodStats]:
        return self._range_stats.days

    @property
    def total(self) -> queries.PeriodStats:
        """The figures of the whole range."""
        return self._range_stats.total

    @property
    def second_requests(self) -> queries.SecondRequests:
        """The second requests of the whole range."""
        return self._range_stats.second_requests

    @cached_property
    def today(self) -> queries.PeriodStats:
        if self._last_day == self._today:
            return self.days[-1]
        return queries.daily_stats(self._today, self._today, **self._scope, prices=self._prices)[0]

    @cached_property
    def months(self) -> list[queries.PeriodStats]:
        """The figures of the last twelve months, whatever the range is."""
        first_month = _months_before(self._today, MONTHS - 1)
        return queries.monthly_stats(first_month, self._today, **self._scope, prices=self._prices)

    def _failures(self) -> Chart:
        chart = chart_builders.failures(self.days, self._failed_requests_url)
        start, end = start_of_day(self._first_day), start_of_day(self._last_day + timedelta(days=1))
        period = {"started_at__gte": start.isoformat(), "started_at__lt": end.isoformat(), **self._patient_filter}
        kinds = (("Spoken in the backup voice", "backup"), ("Spoken in the offline voice", "offline"))
        links = [
            Link(label, self._permissions.changelist_url(UsageEvent, kind__exact=kind, **period))
            for label, kind in kinds
        ]
        return replace(chart, links=[link for link in links if link.url])

    def _shares(self, subject: Literal["patient", "voice"], limit: int | None) -> list[queries.UsageShare]:
        clinic_id, prices = self._scope["clinic_id"], self._prices
        return queries.top_shares(subject, self._first_day, self._last_day, limit, clinic_id=clinic_id, prices=prices)

    def _clinics(self) -> Chart:
        """Returns the chart of the clinics with the largest usage, of those that the user sees."""
        clinics: Mapping[Any, Clinic] = care_teams.visible_clinics(self._permissions.user).in_bulk()
        clinic_of = dict(Patient.objects.filter(clinic__in=clinics).order_by().values_list("pk", "clinic_id"))
        top = [share for share in queries.by_group(self._shares("patient", None), clinic_of) if share.key in clinics]

        def label_of(share: queries.UsageShare) -> ShareLabel:
            url = reverse("admin:index", query={"clinic": str(share.key)})
            return ShareLabel(clinics[share.key].name, url)

        return chart_builders.top_shares(
            "clinics", "Clinics by characters", "Clinic", top[:TOP], label_of, currency=self.currency
        )

    def _top_shares(
        self, subject: Literal["patient", "voice"], rows: QuerySet[Patient] | QuerySet[Voice], deleted: str, page: str
    ) -> Chart:
        """Returns the chart of the patients or voices with the largest usage.

        The label of a share is the name of its row in `rows`, or `deleted` if the row no longer exists. Usage that
        belongs to no row has the label "No patient" or "No voice". `page` is the name of the URL for a row's page. A
        user who sees the patients of their care teams only gets no share that belongs to none of the `rows`.
        """
        sees_all = sees_all_patients(self._permissions.user)
        limit = TOP if sees_all else None
        top = self._shares(subject, limit)
        found: Mapping[Any, Patient | Voice] = rows.in_bulk([share.key for share in top if share.key])
        if not sees_all:
            top = [share for share in top if share.key in found][:TOP]

        def label_of(share: queries.UsageShare) -> ShareLabel:
            row = found.get(share.key)
            if row is not None:
                return ShareLabel(row.name, reverse(page, args=[row.pk]))
            return ShareLabel(deleted if share.key else f"No {subject}")

        heading = subject.capitalize()
        return chart_builders.top_shares(
            f"{subject}s", f"{heading}s by characters", heading, top, label_of, currency=self.currency
        )

    def _daily_usage_url(self, day: date) -> str:
        return self._usage_url(day, day + timedelta(days=1))

    def _monthly_usage_url(self, month: date) -> str:
        return self._usage_url(month, _months_before(month, -1))

    def _usage_url(self, first: date, end: date) -> str:
        """Returns the URL of the admin's list of daily usage, from the day `first` to the day before `end`."""
        return self._permissions.changelist_url(DailyUsage, day__gte=first, day__lt=end, **self._patient_filter)

    def _failed_requests_url(self, day: date) -> str:
        start, end = start_of_day(day).isoformat(), start_of_day(day + timedelta(days=1)).isoformat()
        return self._permissions.changelist_url(
            UsageEvent, outcome__exact="failed", started_at__gte=start, started_at__lt=end, **self._patient_filter
        )


def _months_before(day: date, months: int) -> date:
    """Returns the first day of the month that is `months` months before the month of `day`.

    A negative number gives a later month.
    """
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, 1)
