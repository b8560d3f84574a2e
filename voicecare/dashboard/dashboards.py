"""The data of the two dashboards: the first page of the admin, and the usage page of a patient."""

from dataclasses import dataclass
from functools import cached_property

from django.conf import settings

from tts.cache.coverage import LanguageGap, languages_without_greeting
from tts.cache.planning import active_patients
from tts.models import Phrase
from usage import budgets
from usage.models import ProviderState, Reconciliation, UsageEvent
from usage.prices import Cost
from usage.reports import queries
from voicecare.dashboard import ranges
from voicecare.dashboard.chart import Chart
from voicecare.dashboard.chart_builders import FIRST_AUDIO_GOAL_MS
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.checklist import ChecklistItem, checklist
from voicecare.dashboard.live import LiveStatus
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.dashboard.ranges import DayRange
from voicecare.patients.models import Clinic, DefaultVoice, Patient, Voice
from voicecare.patients.models.patient import sees_all_patients


@dataclass(frozen=True, slots=True)
class Gauge:
    """A used amount and its limit, shown as a bar. `percent` is the length of the bar, at most 100."""

    used: int
    limit: int

    @property
    def percent(self) -> int:
        return min(100, self.used * 100 // self.limit) if self.limit else 100

    @property
    def tone(self) -> str:
        return "spent" if self.percent >= 100 else "low" if self.percent >= 75 else "fine"


@dataclass(frozen=True, slots=True)
class DefaultVoiceStatus:
    """The default voice of languages without a choice of their own. `choice` is None if a setting names the voice."""

    voice: Voice | None
    choice: DefaultVoice | None
    url: str


class Dashboard:
    """The data that both dashboards have: charts, the live part, and the figures of today and this month."""

    latency_goal_ms = FIRST_AUDIO_GOAL_MS

    def __init__(
        self,
        permissions: AdminPermissions,
        patient: Patient | None = None,
        days: DayRange | None = None,
        clinic: Clinic | None = None,
    ) -> None:
        """`days` is the range of the charts, the last 30 days by default.

        `clinic` limits the figures to its patients.
        """
        self._permissions = permissions
        self.patient, self.clinic = patient, clinic
        self.live = LiveStatus(permissions, patient, clinic)
        self.range = days or ranges.parse({})
        self._charts = ChartRegistry(permissions, self.range, patient, clinic)

    @cached_property
    def charts(self) -> list[Chart]:
        return self._charts.all()

    @property
    def has_no_data(self) -> bool:
        """Whether all charts that the user may see are empty. False if the user may not see any chart."""
        return bool(self.charts) and all(chart.is_empty for chart in self.charts)

    @property
    def usage_time_zone(self) -> str:
        return settings.USAGE_TIME_ZONE

    @property
    def today(self) -> queries.PeriodStats | None:
        return self._charts.today if self.charts else None

    @property
    def in_range(self) -> queries.PeriodStats | None:
        """The figures of the whole range."""
        return self._charts.total if self.charts else None

    @property
    def second_requests(self) -> queries.SecondRequests | None:
        """The second requests of the whole range. None if there were none, or if the user may not see any figure."""
        found = self._charts.second_requests if self.charts else None
        return found if found and found.requests else None

    @property
    def range_choices(self) -> list[tuple[str, str]]:
        """The names of the usual ranges, as keys and for people."""
        return [(name, label) for name, (label, _) in ranges.RANGES.items()]

    @property
    def this_month(self) -> queries.PeriodStats | None:
        return self._charts.months[-1] if self.charts else None

    @property
    def currency(self) -> str:
        """The currency of the costs. Empty without prices, or if the user may not see any figure."""
        return self._charts.currency if self.charts else ""

    @property
    def saved_percent(self) -> int:
        """The percentage of this month's spoken characters that were free, because they came from the phrase cache."""
        month = self.this_month
        spoken = month.saved + month.live + month.backup if month else 0
        return month.saved * 100 // spoken if month and spoken else 0


class AdminDashboard(Dashboard):
    """The data of the first page of the admin, about all patients or those of a clinic."""

    @property
    def is_beyond_own_patients(self) -> bool:
        """Whether the figures are also about patients whom the user may not see. The page says so."""
        return not sees_all_patients(self._permissions.user)

    @property
    def patients_url(self) -> str:
        return self._permissions.changelist_url(Patient)

    @cached_property
    def clinic_choices(self) -> list[Clinic]:
        """The clinics to which the user can limit the figures. Empty if there is none."""
        return list(self._permissions.visible_clinics())

    @cached_property
    def quota(self) -> queries.QuotaStatus | None:
        return queries.quota_status() if self._permissions.can_view(ProviderState) else None

    @property
    def gauge(self) -> Gauge | None:
        quota = self.quota
        if quota is None or quota.limit is None or quota.used is None:
            return None
        return Gauge(quota.limit if quota.exhausted else quota.used, quota.limit)

    @cached_property
    def unconfirmed(self) -> queries.UnconfirmedRequests | None:
        return queries.unconfirmed_requests() if self._permissions.can_view(UsageEvent) else None

    @property
    def unconfirmed_url(self) -> str:
        return self._permissions.changelist_url(UsageEvent, outcome__exact=UsageEvent.Outcome.UNKNOWN)

    @cached_property
    def languages_without_greeting(self) -> list[LanguageGap]:
        """The languages of patients for which there is no greeting phrase. Empty if the user may not view phrases."""
        return languages_without_greeting(active_patients()) if self._permissions.can_view(Phrase) else []

    @cached_property
    def checklist(self) -> list[ChecklistItem]:
        """What the installation needs, as far as the user may see it."""
        return checklist(self._permissions)

    @property
    def unfinished_items(self) -> list[ChecklistItem]:
        return [item for item in self.checklist if not item.is_done]

    @property
    def can_view_reconciliation(self) -> bool:
        return self._permissions.can_view(Reconciliation)

    @cached_property
    def last_reconciliation(self) -> Reconciliation | None:
        """The reconciliation of the latest day whose usage was compared with the provider's figures.

        None if there is none, or if the user may not see it.
        """
        return Reconciliation.objects.exclude(compared_at=None).first() if self.can_view_reconciliation else None

    @cached_property
    def default_voice(self) -> DefaultVoiceStatus | None:
        if not self._permissions.can_view(DefaultVoice):
            return None
        voice = Voice.objects.default()
        row = voice.default_for.filter(language="").first() if voice else None
        by_setting = voice is not None and voice.provider_id == settings.DEFAULT_VOICE_ID
        return DefaultVoiceStatus(voice, None if by_setting else row, self._permissions.changelist_url(DefaultVoice))


class PatientDashboard(Dashboard):
    """The data of the usage page of one patient."""

    @property
    def budget(self) -> Gauge | None:
        """The characters of this month and the monthly budget. None if the patient has no budget."""
        limit = self.patient.monthly_character_budget if self.patient else None
        month = self.this_month
        return None if limit is None or month is None else Gauge(month.live + month.backup, limit)

    @cached_property
    def budget_cost(self) -> Cost | None:
        """The cost of this month's characters that count for the budget. None without prices."""
        return budgets.budget_status(self.patient).cost if self.patient and self.currency else None
