"""What the database itself refuses in the tables of money and trouble."""

import uuid

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from usage.models import Incident, ProviderState, UsageEvent

pytestmark = pytest.mark.django_db


def event(**fields: object) -> UsageEvent:
    legal = {
        "source": uuid.uuid4(),
        "segment": 0,
        "attempt": 1,
        "kind": "live",
        "outcome": "completed",
        "requested_characters": 10,
        "characters": 10,
    }
    return UsageEvent.objects.create(**{**legal, **fields})


def refused(make: object, **fields: object) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make(**fields)


@pytest.mark.parametrize("kind", UsageEvent.Kind.values)
@pytest.mark.parametrize("outcome", UsageEvent.Outcome.values)
def test_every_kind_and_outcome_that_has_a_name_is_accepted(kind: str, outcome: str):
    assert event(kind=kind, outcome=outcome, characters=0).pk


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "free"},
        {"kind": ""},
        {"outcome": "fine"},
        {"outcome": ""},
        {"outcome": "unknown", "characters": 1},
        {"characters": -1},
        {"credits": -1},
        {"saved_characters": -1},
        {"requested_characters": -1},
        {"segment": -1},
        {"attempt": -1},
        {"source": None},
        {"started_at": None},
    ],
)
def test_an_event_that_cannot_be_is_refused(fields: dict):
    refused(event, **fields)


def test_an_attempt_is_one_event():
    first = event()
    refused(event, source=first.source)
    event(source=first.source, segment=1)
    event(source=first.source, attempt=2)


def test_an_event_outlives_whom_it_speaks_of():
    assert event(patient=None, conversation=None, voice=None).pk
    assert event(patient=uuid.uuid4(), conversation=uuid.uuid4(), voice=uuid.uuid4()).pk


def test_an_event_is_shown_without_any_name():
    assert str(event(kind="retry")).startswith("retry 20")


def test_the_providers_state_is_one_row():
    ProviderState.objects.create()
    refused(ProviderState.objects.create, pk=2)
    refused(ProviderState.objects.create)


def test_the_circuit_is_open_or_closed():
    refused(ProviderState.objects.create, circuit="half")


def test_an_incident_of_one_cause_is_open_once():
    Incident.objects.create(kind="voice", key="a")
    refused(Incident.objects.create, kind="voice", key="a")
    Incident.objects.create(kind="voice", key="b")
    Incident.objects.create(kind="access", key="a")


def test_an_incident_may_open_again_after_it_was_resolved():
    for _ in range(2):
        Incident.objects.create(kind="voice", key="a", resolved_at=timezone.now())
    assert Incident.objects.create(kind="voice", key="a").pk


def test_an_incident_has_a_kind_that_is_known():
    refused(Incident.objects.create, kind="weather")
