"""Every chart: its numbers, compared with sums from the database, its permissions, and its links."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.cache import cache
from django.db.models import Sum
from django.test import Client

from tests.voicecare.dashboard import history
from usage.models import DailyUsage
from usage.reports.queries import today
from voicecare.dashboard import ranges
from voicecare.dashboard.chart import Chart
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db


@pytest.fixture
def patients(db: None) -> list[Patient]:
    cache.clear()
    return history.create_usage(days=70)


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_superuser("boss")


@pytest.fixture
def user(db: None) -> Callable[..., User]:
    def make(*permissions: str) -> User:
        user = User.objects.create_user("-".join(["user", *permissions]), is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return user

    return make


def charts(user: User | AnonymousUser, patient: Patient | None = None) -> dict[str, Chart]:
    return {chart.name: chart for chart in ChartRegistry(AdminPermissions(user), ranges.parse({}), patient).all()}


def column(chart: Chart, label: str) -> list[object]:
    index = [column.label for column in chart.columns].index(label)
    return [row.values[index] for row in chart.rows]


def test_the_days_and_months_charts_show_the_sums_of_the_daily_rows(patients, boss):
    by_name = charts(boss)
    month = DailyUsage.objects.filter(day__gte=today().replace(day=1))
    for label, name in (("Saved", "saved_characters"), ("Billed characters", "characters"), ("Credits", "credits")):
        by_day = column(by_name["days"], label)
        days = [today() - timedelta(days=29 - number) for number in range(30)]
        sums = [DailyUsage.objects.filter(day=day).aggregate(sum=Sum(name))["sum"] or 0 for day in days]
        assert by_day == sums
        assert column(by_name["months"], label)[-1] == month.aggregate(sum=Sum(name))["sum"]
    assert len(by_name["months"].rows) == 12
    assert column(by_name["months"], "Credits")[0] == 0


def test_the_shares_add_up_to_the_total(patients, boss):
    recent = DailyUsage.objects.filter(day__gte=today() - timedelta(days=29))
    total = recent.aggregate(characters=Sum("characters"), saved=Sum("saved_characters"))
    for name in ("patients", "voices"):
        chart = charts(boss)[name]
        assert sum(column(chart, "Billed")) == total["characters"]
        assert sum(column(chart, "Saved")) == total["saved"]


def test_the_charts_of_a_patient_show_only_their_usage(patients, boss):
    by_name = charts(boss, patients[2])
    assert list(by_name) == ["days", "months", "first-sound", "troubles"]
    own = DailyUsage.objects.filter(patient=patients[2].pk, day__gte=today() - timedelta(days=29))
    assert sum(column(by_name["days"], "Billed characters")) == own.aggregate(sum=Sum("characters"))["sum"]
    assert all(str(patients[2].pk) in row.url for row in by_name["days"].rows)
    assert str(patients[2].pk) in by_name["days"].csv_url


def test_the_name_of_an_erased_patient_is_not_shown(patients, boss):
    Patient.objects.filter(pk=patients[0].pk).update(erased_at="2026-01-01T00:00Z")
    labels = [row.label for row in charts(boss)["patients"].rows]
    assert "Margaret Ellis" not in labels
    assert {"Erased patient", "No patient"} < set(labels)


@pytest.mark.parametrize(
    ("permissions", "names"),
    [
        ((), []),
        (("view_patient", "view_usageevent"), []),
        (("view_dailyusage",), ["days", "months", "first-sound", "troubles"]),
        (("view_dailyusage", "view_voice"), ["days", "months", "first-sound", "troubles", "voices"]),
        (("view_dailyusage", "change_patient"), ["days", "months", "first-sound", "troubles", "patients"]),
    ],
)
def test_a_user_sees_only_the_permitted_charts(patients, user, permissions: tuple[str, ...], names: list[str]):
    viewer = user(*permissions)
    assert list(charts(viewer)) == names
    assert [ChartRegistry(AdminPermissions(viewer), ranges.parse({})).get("patients") is not None] == [
        "patients" in names
    ]


def test_a_user_without_permission_for_events_gets_no_links_to_them(patients, user):
    troubles = charts(user("view_dailyusage"))["troubles"]
    assert troubles.links == []
    assert {row.url for row in troubles.rows} == {""}


def test_the_links_of_a_chart_open_the_rows_behind_its_numbers(patients, boss):
    client = Client()
    client.force_login(boss)
    for patient in (None, patients[0]):
        for chart in charts(boss, patient).values():
            urls = [row.url for row in chart.rows if row.url] + [link.url for link in chart.links]
            for url in (urls[0], urls[-1]):
                assert client.get(url).status_code == 200, url  # an unknown filter would redirect (302)
    day = charts(boss)["days"].rows[-1]
    rows = client.get(day.url).context["cl"].queryset
    assert set(rows) == set(DailyUsage.objects.filter(day=today()))


def test_an_unknown_chart_name_returns_none(boss):
    assert ChartRegistry(AdminPermissions(boss), ranges.parse({})).get("weeks") is None
    assert ChartRegistry(AdminPermissions(AnonymousUser()), ranges.parse({})).get("days") is None
