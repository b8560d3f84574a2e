"""Incidents: there is one open row for each cause, even if several processes detect it."""

import pytest

from tests.usage.provider_state.test_circuit import run_concurrently
from usage.alerts import incidents
from usage.alerts.incidents import Kind
from usage.models import Incident

pytestmark = pytest.mark.django_db


def test_an_open_incident_is_not_opened_again():
    for detail in ("first", "second"):
        incidents.open_incident(Kind.ACCESS, detail=detail)
    assert Incident.objects.get().detail == "first"


def test_each_kind_and_key_has_its_own_incident():
    for kind, key in [(Kind.VOICE, "a"), (Kind.VOICE, "b"), (Kind.ACCESS, "")]:
        incidents.open_incident(kind, key)
    assert Incident.objects.count() == 3


def test_after_a_resolution_a_new_incident_is_opened():
    incidents.open_incident(Kind.QUOTA)
    assert incidents.resolve_incident(Kind.QUOTA)
    assert not incidents.resolve_incident(Kind.QUOTA)
    incidents.open_incident(Kind.QUOTA)
    assert Incident.objects.filter(resolved_at=None).count() == 1
    assert Incident.objects.count() == 2


def test_resolving_one_incident_leaves_others_open():
    for key in ("a", "b"):
        incidents.open_incident(Kind.VOICE, key)
    incidents.resolve_incident(Kind.VOICE, "a")
    assert Incident.objects.get(resolved_at=None).key == "b"


def test_a_long_detail_is_truncated():
    incidents.open_incident(Kind.ACCESS, detail="x" * 1000)
    assert len(Incident.objects.get().detail) == 300


@pytest.mark.django_db(transaction=True)
def test_one_of_several_processes_opens_and_one_resolves_an_incident():
    run_concurrently(lambda: incidents.open_incident(Kind.QUOTA))
    assert Incident.objects.count() == 1
    assert sum(run_concurrently(lambda: incidents.resolve_incident(Kind.QUOTA))) == 1
