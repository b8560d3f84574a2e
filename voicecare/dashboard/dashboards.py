"""The two pages, as data for their templates."""

from dataclasses import dataclass
from functools import cached_property

from django.conf import settings

from usage.models import ProviderState, Reconciliation, UsageEvent
from usage.reports import queries
from voicecare.dashboard.chart import Chart
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.live import LiveStatus
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much of something is used: `percent` for the bar, up to 100."""

    used: int
    limit: int

    @property
    def percent(self) -> int:
        return min(100, self.used * 100 // self.limit) if self.limit else 100

    @property
    def tone(self) -> str:
        return "spent" if self.percent >= 100 else "low" if self.percent >= 75 else "fine"


class Dashboard:
    """What the first page and a patient's have in common."""

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
        """Whether there is nothing to draw yet."""
        return bool(self.charts) and all(chart.is_empty for chart in self.charts)

    @property
    def usage_time_zone(self) -> str:
        return settings.USAGE_TIME_ZONE

    @property
    def today(self) -> queries.PeriodStats | None:
        return self._charts.days[-1] if self.charts else None

    @property
    def this_month(self) -> queries.PeriodStats | None:
        return self._charts.months[-1] if self.charts else None

    @property
    def saved_percent(self) -> int:
        """Of the characters that were heard in this month."""
        month = self.this_month
        heard = month.saved + month.live + month.backup if month else 0
        return month.saved * 100 // heard if month and heard else 0


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
    """What one patient used, and what of theirs goes on."""

    @property
    def budget(self) -> Gauge | None:
        """What was spoken to them in this month, of what they may have; None: there is no limit."""
        limit = self.patient.monthly_character_budget if self.patient else None
        month = self.this_month
        return None if limit is None or month is None else Gauge(month.live + month.backup, limit)
