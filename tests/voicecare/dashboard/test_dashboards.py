"""The data of both dashboards: gauges, today, this month, and the empty state."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from tests.conftest import Member
from tests.voicecare.dashboard import history
from tts.models import Phrase
from usage.models import ProviderState, Reconciliation
from usage.reports import queries
from voicecare.dashboard.dashboards import AdminDashboard, Gauge, PatientDashboard
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import DefaultVoice, Patient, Voice

pytestmark = pytest.mark.django_db
BOSS = User(username="boss", is_superuser=True)


@pytest.fixture(autouse=True)
def clear_cache() -> None:
    cache.clear()


@pytest.fixture
def patients(db: None) -> list[Patient]:
    created = history.create_usage(days=40)
    history.create_current_state(created)
    return created


@pytest.mark.parametrize(
    ("used", "limit", "percent", "tone"),
    [
        (0, 100, 0, "fine"),
        (74, 100, 74, "fine"),
        (75, 100, 75, "low"),
        (99_999, 100_000, 99, "low"),
        (100, 100, 100, "spent"),
        (130, 100, 100, "spent"),
        (0, 0, 100, "spent"),
    ],
)
def test_a_gauge_shows_100_percent_only_when_the_limit_is_reached(used: int, limit: int, percent: int, tone: str):
    gauge = Gauge(used, limit)
    assert (gauge.percent, gauge.tone) == (percent, tone)


def test_the_dashboard_says_which_voice_is_the_default_voice_and_who_chose_it(settings):
    def status() -> tuple[str | None, str | None]:
        found = AdminDashboard(AdminPermissions(BOSS)).default_voice
        assert found is not None
        return found.voice and found.voice.name, found.choice and found.choice.chosen_by

    assert status() == ("Default", None)  # DEFAULT_VOICE_ID
    settings.DEFAULT_VOICE_ID = ""
    assert status() == ("Default", "server")
    sarah = Voice.objects.create(provider_id="sarah", name="Sarah")
    DefaultVoice.objects.create(voice=sarah)
    assert status() == ("Sarah", "administrator")
    Voice.objects.update(state="gone")
    assert status() == (None, None)
    assert AdminDashboard(AdminPermissions(AnonymousUser())).default_voice is None


def test_the_dashboard_has_quota_unconfirmed_requests_and_reconciliation(patients):
    board = AdminDashboard(AdminPermissions(BOSS))
    assert board.gauge == Gauge(781_204, 1_000_000)
    assert board.unconfirmed == queries.UnconfirmedRequests(3, 183)
    assert board.last_reconciliation == Reconciliation.objects.get(day=queries.today() - timedelta(days=1))
    assert not board.has_no_data


def test_a_refusal_counts_more_than_an_earlier_reading(admin_client: Client):
    read, refused = timezone.now() - timedelta(minutes=1), timezone.now()
    state = ProviderState.objects.create(quota_used=0, quota_limit=100_000, polled_at=read)
    assert "left of 100,000" in admin_client.get("/admin/").content.decode()
    ProviderState.objects.filter(pk=state.pk).update(quota="spent", quota_changed_at=refused)
    board = AdminDashboard(AdminPermissions(BOSS))
    assert board.gauge == Gauge(100_000, 100_000)
    assert board.quota is not None
    assert board.quota.exhausted_at == refused
    page = admin_client.get("/admin/").content.decode()
    assert "left of 100,000" not in page
    assert "Exhausted <span" in page
    assert ", 100,000 left</dd>" in page  # when it was last checked


def test_without_a_quota_limit_there_is_no_gauge():
    ProviderState.objects.create(quota_used=7)
    assert AdminDashboard(AdminPermissions(BOSS)).gauge is None


def test_the_saved_percentage_relates_to_the_spoken_characters(patients):
    board = AdminDashboard(AdminPermissions(BOSS))
    month = queries.monthly_stats(queries.today(), queries.today())[0]
    assert board.this_month == month
    assert board.today == queries.daily_stats(queries.today(), queries.today())[0]
    assert board.saved_percent == month.saved * 100 // (month.saved + month.live + month.backup)


def test_without_usage_the_dashboard_has_no_data():
    board = AdminDashboard(AdminPermissions(BOSS))
    assert board.has_no_data
    assert board.saved_percent == 0


def test_languages_without_a_greeting_are_shown_to_those_who_may_view_phrases(alice: Member):
    (gap,) = AdminDashboard(AdminPermissions(BOSS)).languages_without_greeting
    assert (gap.name, gap.patients, gap.missing) == ("English (en)", 1, "no phrases")
    assert AdminDashboard(AdminPermissions(AnonymousUser())).languages_without_greeting == []
    Phrase.objects.create(kind="greeting", text="Hello.")
    assert AdminDashboard(AdminPermissions(BOSS)).languages_without_greeting == []


def test_the_budget_gauge_shows_the_characters_spoken_this_month(patients):
    patients[0].monthly_character_budget = 5000
    month = queries.monthly_stats(queries.today(), queries.today(), patient_id=patients[0].pk)[0]
    assert PatientDashboard(AdminPermissions(BOSS), patients[0]).budget == Gauge(month.live + month.backup, 5000)
    assert PatientDashboard(AdminPermissions(BOSS), patients[1]).budget is None


def test_an_anonymous_user_sees_no_figures(patients):
    board = AdminDashboard(AdminPermissions(AnonymousUser()))
    assert (board.charts, board.has_no_data, board.quota, board.gauge) == ([], False, None, None)
    assert (board.unconfirmed, board.last_reconciliation, board.today, board.this_month) == (None, None, None, None)
