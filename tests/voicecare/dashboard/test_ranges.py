"""The ranges of days of a dashboard, and the pages and CSV files that follow them."""

from datetime import date, timedelta

import pytest
from django.core.cache import cache
from django.test import Client

from tests.voicecare.dashboard import history
from usage.models import DailyUsage, Price
from usage.reports import queries
from voicecare.dashboard import ranges
from voicecare.dashboard.ranges import DayRange
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def clear_cache() -> None:
    cache.clear()


@pytest.fixture
def patients(db: None) -> list[Patient]:
    return history.create_usage(days=120, patient_count=2)


def test_the_usual_ranges_end_today_or_are_whole_months():
    today = queries.today()
    month = today.replace(day=1)
    last_month = (month - DAY).replace(day=1)
    found = {name: ranges.parse({"range": name}) for name in ranges.RANGES}
    assert {name: (days.first, days.last) for name, days in found.items()} == {
        "7-days": (today - 6 * DAY, today),
        "30-days": (today - 29 * DAY, today),
        "90-days": (today - 89 * DAY, today),
        "this-month": (month, today),
        "last-month": (last_month, month - DAY),
    }
    assert all(ranges.parse({"range": days.name}) == days for days in found.values())
    assert ranges.parse({}) == found["30-days"]
    assert found["30-days"].query == ""
    assert found["90-days"].query == "?range=90-days"


def test_two_dates_are_a_range_that_ends_today_at_the_latest():
    today = queries.today()
    assert ranges.parse({"from": "2026-03-01", "to": "2026-03-05"}) == DayRange(date(2026, 3, 1), date(2026, 3, 5))
    assert ranges.parse({"from": "2026-03-01", "to": "2026-03-05"}).query == "?from=2026-03-01&to=2026-03-05"
    assert ranges.parse({"from": str(today), "to": "9999-12-31"}) == DayRange(today, today)
    assert ranges.parse({"from": str(today - DAY)}) == DayRange(today - DAY, today)
    assert ranges.parse({"to": "2026-03-30"}) == DayRange(date(2026, 3, 1), date(2026, 3, 30))
    assert ranges.parse({"from": str(today - 365 * DAY)}).error == ""


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"from": "2016-01-01", "to": "2025-12-31"}, "at most 366 days"),
        ({"from": "2026-03-05", "to": "2026-03-04"}, "ends before it begins"),
        ({"from": "2999-03-05"}, "in the future"),
        ({"from": "yesterday"}, "like 2026-11-30"),
        ({"from": "2026-02-30"}, "like 2026-11-30"),
        ({"to": "0001-01-01"}, "before the year 2000"),
        ({"range": "century"}, "no such range"),
        ({"from": "<script>"}, "like 2026-11-30"),
    ],
)
def test_a_wrong_range_shows_the_last_thirty_days_and_says_why(
    patients, admin_client: Client, parameters: dict[str, str], error: str
):
    days = ranges.parse(parameters)
    assert error in days.error
    assert (days.first, days.last) == (queries.today() - 29 * DAY, queries.today())
    for url in ("/admin/", f"/admin/patients/patient/{patients[0].pk}/usage/"):
        page = admin_client.get(url, parameters).content.decode()
        assert page.count('role="alert"') == 1
        assert error in page
        assert "<script>" not in page
    assert admin_client.get("/admin/figures/days.csv", parameters).status_code == 400


def test_the_charts_and_the_csv_files_follow_the_range(patients, admin_client: Client):
    last = queries.today() - 40 * DAY
    parameters = {"from": str(last - 4 * DAY), "to": str(last)}
    page = admin_client.get("/admin/", parameters).content.decode()
    total = sum(DailyUsage.objects.filter(day__range=(last - 4 * DAY, last)).values_list("characters", flat=True))
    assert f'data-range="characters">{total:,} characters' in page
    query = f"?from={parameters['from']}&amp;to={parameters['to']}"
    for name in ("days", "first-sound", "troubles", "patients", "voices"):
        assert f"/admin/figures/{name}.csv{query}" in page
    days = admin_client.get("/admin/figures/days.csv", parameters).content.decode().splitlines()
    assert [line[:10] for line in days[1:]] == [str(last - number * DAY) for number in range(4, -1, -1)]
    assert sum(int(line.split(",")[5]) for line in days[1:]) == total
    shares = admin_client.get("/admin/figures/patients.csv", parameters).content.decode().splitlines()
    assert sum(int(line.split(",")[1]) for line in shares[1:]) == total
    own = f"/admin/patients/patient/{patients[0].pk}/usage/"
    assert f"{own}days.csv{query}" in admin_client.get(own, parameters).content.decode()
    assert admin_client.get(f"{own}days.csv", parameters).content.decode().count("\r\n") == 6


def test_the_tiles_of_today_stay_those_of_today(patients, admin_client: Client):
    boards = [admin_client.get("/admin/", {"range": name}).context["dashboard"] for name in ("30-days", "last-month")]
    assert boards[0].today == boards[1].today == queries.daily_stats(queries.today(), queries.today())[0]
    assert boards[0].this_month == boards[1].this_month


def test_the_sums_of_a_range_have_its_second_requests(patients, admin_client: Client):
    last = queries.today() - 40 * DAY
    url = f"/admin/?from={last - 4 * DAY}&to={last}"
    assert "Second requests" not in admin_client.get(url).content.decode()
    cache.clear()
    row = {"kind": "hedge", "patient": patients[0].pk, "model": "m", "characters": 1200, "credits": 600}
    DailyUsage.objects.create(day=last, events=30, chunk_300=5, chunk_400=5, **row)
    Price.objects.create(model="", valid_from=last, per_1000_credits=3)
    page = admin_client.get(url).content.decode()
    line = "30 for late replies, 1,200 characters billed, 1.80 USD; 10 came first, after 300 ms (median)"
    assert f'data-range="second-requests">{line}</dd>' in page
    of_patients = [
        admin_client.get(f"/admin/patients/patient/{one.pk}/usage/{url[7:]}").content.decode() for one in patients
    ]
    assert [line in one for one in of_patients] == [True] + [False] * (len(patients) - 1)


def test_cached_days_are_right_in_every_range(patients):
    """Ranges share the cached figures of past days. Gaps between cached days are read."""
    today = queries.today()
    spans = [(50, 44), (40, 38), (90, 0), (6, 0), (60, 30)]
    found = [queries.range_stats(today - first * DAY, today - last * DAY) for first, last in spans]
    for (first, last), stats in zip(spans, found, strict=True):
        cache.clear()
        assert stats == queries.range_stats(today - first * DAY, today - last * DAY)
        assert len(stats.days) == first - last + 1
        assert stats.total.characters == sum(day.characters for day in stats.days)
        assert stats.total.speeches == sum(day.speeches for day in stats.days)
