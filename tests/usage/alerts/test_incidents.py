"""Incidents: one row for each cause while it lasts, however many see it."""

import pytest

from tests.usage.provider_state.test_circuit import at_once
from usage.alerts import incidents
from usage.alerts.incidents import Kind
from usage.models import Incident

pytestmark = pytest.mark.django_db


def test_what_is_open_is_not_opened_again():
    for detail in ("first", "second"):
        incidents.open_incident(Kind.ACCESS, detail=detail)
    assert Incident.objects.get().detail == "first"


def test_each_kind_and_key_is_an_incident_of_its_own():
    for kind, key in [(Kind.VOICE, "a"), (Kind.VOICE, "b"), (Kind.ACCESS, "")]:
        incidents.open_incident(kind, key)
    assert Incident.objects.count() == 3


def test_after_it_was_resolved_it_is_a_new_one():
    incidents.open_incident(Kind.QUOTA)
    assert incidents.resolve_incident(Kind.QUOTA)
    assert not incidents.resolve_incident(Kind.QUOTA)
    incidents.open_incident(Kind.QUOTA)
    assert Incident.objects.filter(resolved_at=None).count() == 1
    assert Incident.objects.count() == 2


def test_resolving_one_leaves_the_others_open():
    for key in ("a", "b"):
        incidents.open_incident(Kind.VOICE, key)
    incidents.resolve_incident(Kind.VOICE, "a")
    assert Incident.objects.get(resolved_at=None).key == "b"


def test_a_long_detail_is_cut_rather_than_lost():
    incidents.open_incident(Kind.ACCESS, detail="x" * 1000)
    assert len(Incident.objects.get().detail) == 300


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_one_opens_it_and_one_resolves_it():
    at_once(lambda: incidents.open_incident(Kind.QUOTA))
    assert Incident.objects.count() == 1
    assert sum(at_once(lambda: incidents.resolve_incident(Kind.QUOTA))) == 1
