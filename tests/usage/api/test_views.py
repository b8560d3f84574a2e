"""The usage endpoints: access, ranges, and the figures of the ledger."""

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from pytest_django import Settings

from tests.clinicians import Clinician, clinician
from tests.conftest import Member
from usage.ledger import events
from usage.ledger.events import Attempt
from usage.models import ProviderState
from usage.reports import queries
from voicecare.patients.models import Clinic

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
UNPRICED = {"cost": None, "currency": None, "unpriced_credits": 20}


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    cache.clear()


@pytest.fixture
def carol(alice: Member, bob: Member) -> Clinician:
    """A clinician in Alice's care team, but not in Bob's."""
    return clinician("carol", alice.patient)


@pytest.fixture
def stan(db: None) -> Clinician:
    return clinician("stan", in_role="Administrator", is_staff=True)


def record_usage(
    member: Member | None, kind: str = "live", asked: int = 10, at: datetime = NOON, **fields: object
) -> None:
    made = Attempt(
        source_id=uuid.uuid4(),
        segment=0,
        attempt=1,
        kind=kind,
        requested_characters=asked,
        started_at=at,
        model="flash",
        patient_id=member and member.patient.pk,
        voice_id=member and member.patient.voice_id,
        **fields,
    )
    if kind in ("cache", "offline"):
        made.outcome, made.saved_characters = "completed", asked
    else:
        made.mark_answered("r", asked // 2)
    events.record_attempts([made])


def test_a_day_contains_its_usage(carol: Clinician, alice: Member):
    record_usage(alice, asked=10)
    record_usage(alice, "retry", asked=30)
    record_usage(alice, "cache", asked=7)
    answer = carol.get("usage/daily/?from=2026-03-01&to=2026-03-31")
    assert answer == {
        "count": 1,
        "next": None,
        "previous": None,
        "next_cursor": None,
        "results": [
            {
                "date": "2026-03-10",
                "characters": 40,
                "credits": 20,
                "saved_characters": 7,
                "requests": 2,
                **UNPRICED,
            }
        ],
    }


def test_a_month_is_always_complete(carol: Clinician, alice: Member):
    record_usage(alice)
    record_usage(alice, at=NOON - timedelta(days=9))
    record_usage(alice, at=NOON - timedelta(days=10))
    answer = carol.get("usage/monthly/?from=2026-03-09&to=2026-03-09")
    (row,) = answer["results"]
    assert row == {
        "month": "2026-03",
        "characters": 20,
        "credits": 10,
        "saved_characters": 0,
        "requests": 2,
        **UNPRICED,
        "unpriced_credits": 10,
    }


@pytest.mark.parametrize(("to", "found"), [("2026-03-10", 1), ("2026-03-09", 0)])
def test_both_ends_are_included(carol: Clinician, alice: Member, to: str, found: int):
    record_usage(alice)
    assert carol.get(f"usage/daily/?from=2026-03-01&to={to}")["count"] == found
    assert carol.get(f"usage/daily/?from={to}&to=2026-04-01")["count"] == 1


def test_the_default_ranges_are_thirty_days_and_twelve_months(carol: Clinician, alice: Member):
    now = datetime.now(UTC)
    for days in (0, 29, 30):
        record_usage(alice, at=now - timedelta(days=days))
    assert len(carol.get("usage/daily/")["results"]) == 2
    this_month = now.replace(day=1)
    for start in (this_month.replace(year=now.year - 1) + timedelta(days=32), this_month.replace(year=now.year - 1)):
        record_usage(alice, at=start, asked=1000)
    answer = carol.get("usage/monthly/")["results"]
    assert sum(row["characters"] for row in answer) == 1030


@pytest.mark.parametrize("group", ["patient", "voice", "model", "kind"])
def test_a_group_adds_a_key_of_its_name(stan: Clinician, alice: Member, bob: Member, group: str):
    record_usage(alice)
    record_usage(alice, "backup", 5)
    record_usage(bob)
    record_usage(None, "probe", 3)
    rows = stan.get(f"usage/daily/?from=2026-03-10&to=2026-03-10&group={group}")["results"]
    found = {row[group]: row["characters"] for row in rows}
    assert (
        found
        == {
            "patient": {str(alice.patient.pk): 15, str(bob.patient.pk): 10, None: 3},
            "voice": {str(alice.patient.voice_id): 15, None: 13},
            "model": {"flash": 28},
            "kind": {"live": 20, "backup": 5, "probe": 3},
        }[group]
    )
    assert {frozenset(row) for row in rows} == {
        frozenset({"date", group, "characters", "credits", "saved_characters", "requests", *UNPRICED})
    }


def test_clinicians_see_their_own_patients_and_administrators_see_all(
    carol: Clinician, stan: Clinician, alice: Member, bob: Member
):
    record_usage(alice)
    record_usage(bob, asked=20)
    record_usage(None, "probe", 40)
    for path in ("usage/daily/?from=2026-03-10&to=2026-03-10", "usage/monthly/?from=2026-03-10&to=2026-03-10"):
        assert carol.get(path)["results"][0]["characters"] == 10
        assert carol.get(f"{path}&patient={bob.patient.pk}")["results"] == []
        assert stan.get(path)["results"][0]["characters"] == 70
        assert stan.get(f"{path}&patient={bob.patient.pk}")["results"][0]["characters"] == 20


@pytest.mark.parametrize("path", ["daily", "monthly"])
def test_a_clinic_limits_the_usage_to_its_patients(
    stan: Clinician, member: Callable[..., Member], alice: Member, path: str
):
    ward, other = [Clinic.objects.create(name=name) for name in ("Ward 3", "Ward 4")]
    dora, emil = member("Dora", clinic=ward), member("Emil", clinic=ward)
    for person, asked in ((dora, 30), (emil, 12), (alice, 500), (None, 7)):
        record_usage(person, asked=asked)

    def characters(caller: Clinician, query: str) -> list[int]:
        results = caller.get(f"usage/{path}/?from=2026-03-01&to=2026-03-31&{query}")["results"]
        return [row["characters"] for row in results]

    assert characters(stan, f"clinic={ward.pk}") == [42]
    assert characters(stan, f"clinic={ward.pk}&patient={emil.patient.pk}") == [12]
    assert characters(stan, f"clinic={ward.pk}&patient={alice.patient.pk}") == []
    assert characters(stan, f"clinic={other.pk}") == []
    nurse = clinician("nurse", alice.patient)
    refused = nurse.call("GET", f"usage/{path}/?clinic={ward.pk}")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "clinic")
    ward.members.set([User.objects.get(username="nurse")])
    assert characters(nurse, f"clinic={ward.pk}") == [42]
    assert nurse.call("GET", f"usage/{path}/?clinic={other.pk}").status_code == 400


def test_the_figures_equal_those_of_the_dashboard(stan: Clinician, alice: Member):
    for number in range(40):
        record_usage(alice, ("live", "cache", "backup")[number % 3], number + 1, NOON - timedelta(days=number))
    totals = Counter()
    for row in stan.get("usage/daily/?from=2026-01-01&to=2026-03-31")["results"]:
        totals[row["date"][:7]] += row["characters"]
    shown = queries.monthly_stats(NOON.date() - timedelta(days=39), NOON.date())
    assert totals == {f"{month.start:%Y-%m}": month.characters for month in shown if month.characters}
    monthly = stan.get("usage/monthly/?from=2026-01-01&to=2026-03-31")["results"]
    assert {row["month"]: row["characters"] for row in monthly} == totals


def test_many_rows_are_paginated(stan: Clinician, alice: Member):
    for number in range(130):
        record_usage(alice, at=NOON - timedelta(days=number))
    path = "usage/daily/?from=2025-01-01&to=2026-03-31"
    first, second = stan.get(path), stan.get(f"{path}&page=2")
    assert (first["count"], len(first["results"]), len(second["results"])) == (130, 100, 30)
    dates = [row["date"] for row in [*first["results"], *second["results"]]]
    assert dates == sorted(set(dates))
    assert len(stan.get(f"{path}&page_size=7")["results"]) == 7


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=2026-02-30", "to"),
        ("from=0001-01-01", "from"),
        ("to=9999-12-31", "to"),
        ("patient=7", "patient"),
        ("clinic=7", "clinic"),
        ("clinic=no", "clinic"),
        (f"clinic={uuid.UUID(int=0)}", "clinic"),
        ("group=team", "group"),
        ("from=2026-03-02&to=2026-03-01", "from"),
        ("group=patient,voice", "group"),
        ("from=2026-03-01T00:00:00Z", "from"),
    ],
)
@pytest.mark.parametrize("path", ["daily", "monthly"])
def test_an_invalid_parameter_is_named(carol: Clinician, path: str, query: str, field: str):
    response = carol.call("GET", f"usage/{path}/?{query}")
    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("path", ["daily", "monthly", "quota"])
def test_requests_without_credentials_are_refused(carol: Clinician, path: str):
    assert Clinician(carol.user, "none").call("GET", f"usage/{path}/").status_code == 401


def test_days_are_in_the_usage_time_zone(settings: Settings, carol: Clinician, alice: Member):
    settings.USAGE_TIME_ZONE = "Asia/Tokyo"
    record_usage(alice, at=datetime(2026, 3, 10, 15, tzinfo=UTC))
    assert [row["date"] for row in carol.get("usage/daily/?from=2026-03-01&to=2026-03-31")["results"]] == ["2026-03-11"]


def test_a_quota_that_was_never_read_is_null(carol: Clinician):
    assert carol.get("usage/quota/") == {
        "limit": None,
        "used": None,
        "remaining": None,
        "exhausted": False,
        "resets_at": None,
        "forecast": None,
    }


def test_the_quota_is_returned_as_it_was_read(carol: Clinician):
    ProviderState.objects.create(
        quota="spent", quota_limit=1000, quota_used=1200, quota_resets_at=datetime(2026, 12, 1, tzinfo=UTC)
    )
    answer = carol.get("usage/quota/")
    assert {name: answer[name] for name in ("limit", "used", "remaining", "exhausted", "resets_at")} == {
        "limit": 1000,
        "used": 1200,
        "remaining": 0,
        "exhausted": True,
        "resets_at": "2026-12-01T00:00:00Z",
    }


def test_the_quota_includes_a_forecast(carol: Clinician, alice: Member):
    now = datetime.now(UTC)
    record_usage(alice, asked=2000, at=now - timedelta(days=4))
    ProviderState.objects.create(quota_limit=3000, quota_used=1500, quota_resets_at=now + timedelta(days=20))
    forecast = carol.get("usage/quota/")["forecast"]
    assert 200 < forecast["credits_a_day"] <= 250
    assert forecast["used_at_reset"] > 3000
    assert now.date().isoformat() < forecast["runs_out_on"] < (now + timedelta(days=20)).date().isoformat()


def test_only_the_care_team_sees_a_patients_budget(carol: Clinician, stan: Clinician, alice: Member, bob: Member):
    now = datetime.now(UTC)
    alice.patient.monthly_character_budget = 100
    alice.patient.save()
    for kind, asked in (("live", 60), ("retry", 20), ("backup", 10), ("preview", 5), ("cache", 7)):
        record_usage(alice, kind, asked, at=now)
    record_usage(alice, "live", 40, at=now - timedelta(days=32))
    month = queries.today().strftime("%Y-%m")
    answer = carol.get(f"patients/{alice.patient.pk}/budget/")
    assert answer == {"month": month, "budget": 100, "used": 90, "remaining": 10, **UNPRICED, "unpriced_credits": 45}
    assert carol.call("GET", f"patients/{bob.patient.pk}/budget/").status_code == 404
    record_usage(bob, "live", 30, at=now)
    answer = stan.get(f"patients/{bob.patient.pk}/budget/")
    assert answer == {"month": month, "budget": None, "used": 30, "remaining": None, **UNPRICED, "unpriced_credits": 15}
