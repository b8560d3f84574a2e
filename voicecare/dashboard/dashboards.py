"""The data of the two dashboards: the first page of the admin, and the usage page of a patient."""

from dataclasses import dataclass
from functools import cached_property

from django.conf import settings

from usage.models import ProviderState, Reconciliation, UsageEvent
from usage.reports import queries
from voicecare.dashboard.chart import Chart
from voicecare.dashboard.chart_builders import FIRST_AUDIO_GOAL_MS
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.live import LiveStatus
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient


@dataclass(frozen=True, slots=True)
class Gauge:
    """Used and available amount of something. `percent` is the length of the bar, at most 100."""

    used: int
    limit: int

    @property
    def percent(self) -> int:
        return min(100, self.used * 100 // self.limit) if self.limit else 100

    @property
    def tone(self) -> str:
        return "spent" if self.percent >= 100 else "low" if self.percent >= 75 else "fine"


class Dashboard:
    """The common part of both pages."""

    def __init__(self, permissions: AdminPermissions, patient: Patient | None = None) -> None:
        self._permissions = permissions
        self.patient = patient
        self.live = LiveStatus(permissions, patient)
        self._charts = ChartRegistry(permissions, patient)

    @cached_property
    def charts(self) -> list[Chart]:
        return self._charts.all()

    @property
    def has_no_data(self) -> bool:
        """Whether the user may see charts, and all of them are empty."""
        return bool(self.charts) and all(chart.is_empty for chart in self.charts)

    @property
    def usage_time_zone(self) -> str:
        return settings.USAGE_TIME_ZONE

    @property
    def latency_goal_ms(self) -> int:
        return FIRST_AUDIO_GOAL_MS

    @property
    def today(self) -> queries.PeriodStats | None:
        return self._charts.days[-1] if self.charts else None

    @property
    def this_month(self) -> queries.PeriodStats | None:
        return self._charts.months[-1] if self.charts else None

    @property
    def saved_percent(self) -> int:
        """Share of this month's spoken characters that came from the phrase cache and so cost nothing."""
        month = self.this_month
        spoken = month.saved + month.live + month.backup if month else 0
        return month.saved * 100 // spoken if month and spoken else 0


class AdminDashboard(Dashboard):
    """The first page of the admin."""

    @cached_property
    def quota(self) -> queries.QuotaStatus | None:
        return queries.quota_status() if self._permissions.can_view(ProviderState) else None

    @property
    def gauge(self) -> Gauge | None:
        quota = self.quota
        if quota is None or quota.limit is None or quota.used is None:
            return None
        return Gauge(quota.used, quota.limit)

    @cached_property
    def unconfirmed(self) -> queries.UnconfirmedRequests | None:
        return queries.unconfirmed_requests() if self._permissions.can_view(UsageEvent) else None

    @property
    def unconfirmed_url(self) -> str:
        return self._permissions.changelist_url(UsageEvent, outcome__exact=UsageEvent.Outcome.UNKNOWN)

    @property
    def can_view_reconciliation(self) -> bool:
        return self._permissions.can_view(Reconciliation)

    @cached_property
    def last_reconciliation(self) -> Reconciliation | None:
        """The last day that was compared with the provider's figures."""
        return Reconciliation.objects.exclude(compared_at=None).first() if self.can_view_reconciliation else None


class PatientDashboard(Dashboard):
    """The usage and the live status of one patient."""

    @property
    def budget(self) -> Gauge | None:
        """This month's characters and the monthly budget. None if the patient has no budget."""
        limit = self.patient.monthly_character_budget if self.patient else None
        month = self.this_month
        return None if limit is None or month is None else Gauge(month.live + month.backup, limit)
