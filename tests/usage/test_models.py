"""Constraints of the tables of usage and incidents."""

import uuid

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from usage.models import Incident, ProviderState, UsageEvent

pytestmark = pytest.mark.django_db


def create_event(**fields: object) -> UsageEvent:
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


def expect_refusal(make: object, **fields: object) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make(**fields)


@pytest.mark.parametrize("kind", UsageEvent.Kind.values)
@pytest.mark.parametrize("outcome", UsageEvent.Outcome.values)
def test_every_known_kind_and_outcome_is_accepted(kind: str, outcome: str):
    assert create_event(kind=kind, outcome=outcome, characters=0).pk


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
def test_an_invalid_event_is_refused(fields: dict):
    expect_refusal(create_event, **fields)


def test_there_is_one_event_per_attempt():
    first = create_event()
    expect_refusal(create_event, source=first.source)
    create_event(source=first.source, segment=1)
    create_event(source=first.source, attempt=2)


def test_an_event_does_not_need_its_patient_conversation_or_voice():
    assert create_event(patient=None, conversation=None, voice=None).pk
    assert create_event(patient=uuid.uuid4(), conversation=uuid.uuid4(), voice=uuid.uuid4()).pk


def test_an_event_is_displayed_without_names():
    assert str(create_event(kind="retry")).startswith("retry 20")


def test_the_providers_state_has_one_row():
    ProviderState.objects.create()
    expect_refusal(ProviderState.objects.create, pk=2)
    expect_refusal(ProviderState.objects.create)


def test_the_circuit_is_open_or_closed():
    expect_refusal(ProviderState.objects.create, circuit="half")


def test_there_is_one_open_incident_per_cause():
    Incident.objects.create(kind="voice", key="a")
    expect_refusal(Incident.objects.create, kind="voice", key="a")
    Incident.objects.create(kind="voice", key="b")
    Incident.objects.create(kind="access", key="a")


def test_an_incident_can_be_opened_again_after_its_resolution():
    for _ in range(2):
        Incident.objects.create(kind="voice", key="a", resolved_at=timezone.now())
    assert Incident.objects.create(kind="voice", key="a").pk


def test_an_unknown_kind_of_incident_is_refused():
    expect_refusal(Incident.objects.create, kind="weather")
