"""Every chart: its numbers, derived a second way, who may see it, and where it leads."""

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
from voicecare.dashboard.chart import Chart
from voicecare.dashboard.chart_registry import ChartRegistry
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast(db: None) -> list[Patient]:
    cache.clear()
    return history.write(days=70)


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
    return {chart.name: chart for chart in ChartRegistry(AdminPermissions(user), patient).all()}


def column(chart: Chart, label: str) -> list[object]:
    place = [column.label for column in chart.columns].index(label)
    return [row.values[place] for row in chart.rows]


def test_thirty_days_and_twelve_months_are_the_sums_of_their_rows(cast, boss):
    found = charts(boss)
    month = DailyUsage.objects.filter(day__gte=today().replace(day=1))
    for label, name in (("Saved", "saved_characters"), ("Billed characters", "characters"), ("Credits", "credits")):
        by_day = column(found["days"], label)
        days = [today() - timedelta(days=29 - number) for number in range(30)]
        sums = [DailyUsage.objects.filter(day=day).aggregate(sum=Sum(name))["sum"] or 0 for day in days]
        assert by_day == sums
        assert column(found["months"], label)[-1] == month.aggregate(sum=Sum(name))["sum"]
    assert len(found["months"].rows) == 12
    assert column(found["months"], "Credits")[0] == 0


def test_the_shares_of_all_patients_are_the_whole(cast, boss):
    since = DailyUsage.objects.filter(day__gte=today() - timedelta(days=29))
    whole = since.aggregate(characters=Sum("characters"), saved=Sum("saved_characters"))
    for name in ("patients", "voices"):
        chart = charts(boss)[name]
        assert sum(column(chart, "Billed")) == whole["characters"]
        assert sum(column(chart, "Saved")) == whole["saved"]


def test_one_patient_has_what_is_theirs(cast, boss):
    found = charts(boss, cast[2])
    assert list(found) == ["days", "months", "first-sound", "troubles"]
    own = DailyUsage.objects.filter(patient=cast[2].pk, day__gte=today() - timedelta(days=29))
    assert sum(column(found["days"], "Billed characters")) == own.aggregate(sum=Sum("characters"))["sum"]
    assert all(str(cast[2].pk) in row.url for row in found["days"].rows)
    assert str(cast[2].pk) in found["days"].csv_url


def test_an_erased_patient_has_no_name(cast, boss):
    Patient.objects.filter(pk=cast[0].pk).update(erased_at="2026-01-01T00:00Z")
    labels = [row.label for row in charts(boss)["patients"].rows]
    assert "Margaret Ellis" not in labels
    assert {"An erased patient", "No patient"} < set(labels)


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
def test_nobody_sees_more_than_the_lists_would_show(cast, user, permissions: tuple[str, ...], names: list[str]):
    given = user(*permissions)
    assert list(charts(given)) == names
    assert [ChartRegistry(AdminPermissions(given)).get("patients") is not None] == ["patients" in names]


def test_who_may_not_see_events_is_not_led_to_them(cast, user):
    troubles = charts(user("view_dailyusage"))["troubles"]
    assert troubles.links == []
    assert {row.url for row in troubles.rows} == {""}


def test_addresses_lead_to_the_rows_behind_a_number(cast, boss):
    client = Client()
    client.force_login(boss)
    for patient in (None, cast[0]):
        for chart in charts(boss, patient).values():
            addresses = [row.url for row in chart.rows if row.url] + [link.url for link in chart.links]
            for address in (addresses[0], addresses[-1]):
                assert client.get(address).status_code == 200, address  # a filter it does not know would be a 302
    day = charts(boss)["days"].rows[-1]
    rows = client.get(day.url).context["cl"].queryset
    assert set(rows) == set(DailyUsage.objects.filter(day=today()))


def test_there_is_no_chart_of_another_name(boss):
    assert ChartRegistry(AdminPermissions(boss)).get("weeks") is None
    assert ChartRegistry(AdminPermissions(AnonymousUser())).get("days") is None
