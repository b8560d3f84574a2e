"""The incident about the region: opened by a request that was handled elsewhere, and resolved when none is."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.usage.test_models import create_event
from usage.alerts import region
from usage.alerts.impact import impact_of
from usage.models import Incident, UsageEvent

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def promised(settings) -> None:
    settings.ELEVENLABS_REGIONS = ["europe-west4", "europe-west1"]


def states() -> list[bool]:
    """Return for each region incident whether it is open."""
    return [row.resolved_at is None for row in Incident.objects.filter(kind="region").order_by("opened_at")]


def request_in(where: str, minutes_ago: float = 1, **fields: object) -> None:
    create_event(region=where, started_at=timezone.now() - timedelta(minutes=minutes_ago), **fields)


def test_requests_in_the_promised_regions_open_nothing():
    request_in("europe-west4")
    request_in("europe-west1")
    request_in("")  # from the cache, or without the header
    region.check()
    assert states() == []


def test_one_incident_for_all_requests_elsewhere():
    for where in ("us-central1", "us-central1", "asia-south1", "europe-west4"):
        request_in(where)
    region.check()
    region.check()
    assert states() == [True]
    assert Incident.objects.get().detail == (
        "Promised: europe-west4 or europe-west1. Requests of 10 minutes that were handled elsewhere: "
        "1 in asia-south1, 2 in us-central1."
    )


def test_it_is_resolved_by_later_requests_in_the_promised_region_and_not_by_silence():
    request_in("us-central1", minutes_ago=9)
    region.check()
    UsageEvent.objects.update(started_at=timezone.now() - timedelta(minutes=20))
    region.check()
    assert states() == [True]
    request_in("europe-west1")
    region.check()
    assert states() == [False]


def test_it_is_resolved_when_nothing_is_promised_any_longer(settings):
    request_in("us-central1")
    region.check()
    settings.ELEVENLABS_REGIONS = []
    region.check()
    assert states() == [False]
    region.check()
    assert states() == [False]


def test_it_names_the_patients_whose_requests_were_handled_elsewhere(alice, bob):
    request_in("us-central1", patient=alice.patient.pk)
    request_in("europe-west4", patient=bob.patient.pk)
    region.check()
    impact = impact_of(Incident.objects.get())
    assert impact is not None
    assert [(one.patient_id, one.description) for one in impact] == [
        (alice.patient.pk, "1 requests outside of the promised region")
    ]
