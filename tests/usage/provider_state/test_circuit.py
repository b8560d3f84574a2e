"""The circuit's transitions in the one row: each happens once, whoever else tries; all that is known is one look."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from usage.models import Incident, ProviderState
from usage.provider_state import circuit
from usage.provider_state.circuit import ProviderStatus

pytestmark = pytest.mark.django_db


def row() -> ProviderState:
    return ProviderState.objects.get()


def given(**columns: object) -> None:
    ProviderState.objects.update_or_create(pk=1, defaults=columns)


def ago(seconds: float) -> object:
    return timezone.now() - timedelta(seconds=seconds)


def at_once(work: Callable[[], object], times: int = 8) -> list[object]:
    """As many processes do it at the same time, each on a connection of its own."""

    def one(_: int) -> object:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


def test_nothing_is_known_before_anything_has_happened():
    assert circuit.read_status() == ProviderStatus()


def test_a_look_is_one_query():
    given(circuit="open")
    with CaptureQueriesContext(connection) as captured:
        circuit.read_status()
    assert len(captured) == 1


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, ProviderStatus()),
        ({"circuit": "open"}, ProviderStatus(circuit_open=True, probe_due=True)),
        ({"circuit": "open", "next_probe_at": ago(1)}, ProviderStatus(circuit_open=True, probe_due=True)),
        ({"circuit": "open", "next_probe_at": ago(-3600)}, ProviderStatus(circuit_open=True)),
        ({"next_probe_at": ago(1)}, ProviderStatus()),
        ({"next_poll_at": ago(1)}, ProviderStatus()),  # while it is available beat asks
        ({"quota": "spent", "quota_changed_at": ago(61)}, ProviderStatus(quota_exhausted=True, poll_due=True)),
        (
            {"quota": "spent", "quota_changed_at": ago(61), "next_poll_at": ago(-3600)},
            ProviderStatus(quota_exhausted=True),
        ),
        (
            {"quota": "spent", "quota_changed_at": ago(1), "quota_refusals": 1},
            ProviderStatus(quota_exhausted=True, poll_due=True),
        ),
        ({"concurrency_limit": 7}, ProviderStatus(concurrency_limit=7)),
    ],
)
def test_what_the_row_says_is_known(columns: dict, expected: ProviderStatus):
    given(**columns)
    assert circuit.read_status() == expected


@pytest.mark.parametrize(("spent_for", "left"), [(0, 60), (20, 40), (59, 1)])
def test_live_speech_is_held_for_the_first_minute(spent_for: float, left: float):
    given(quota="spent", quota_changed_at=ago(spent_for))
    assert left - 1 < circuit.read_status().hold_s < left + 0.1  # SQLite tells the time in whole milliseconds


def test_the_circuit_opens_once_and_closes_once_and_so_does_its_incident():
    for _ in range(2):
        circuit.open_circuit(timezone.now())
    assert (row().circuit, Incident.objects.filter(kind="provider_down", resolved_at=None).count()) == ("open", 1)
    for _ in range(2):
        circuit.close_circuit()
    assert (row().circuit, row().next_probe_at) == ("closed", None)
    assert Incident.objects.filter(kind="provider_down").exclude(resolved_at=None).count() == 1


def down() -> list[bool]:
    """Each incident so far, in order: whether it is open."""
    incidents = Incident.objects.filter(kind="provider_down").order_by("opened_at")
    return [incident.resolved_at is None for incident in incidents]


def test_a_provider_that_comes_and_goes_is_told_as_back_when_it_has_stayed():
    for _ in range(5):
        circuit.open_circuit(timezone.now())
        circuit.close_circuit()
    assert down() == [False, True]
    circuit.resolve_stable_incident()
    assert down() == [False, True]
    given(changed_at=ago(301))
    circuit.resolve_stable_incident()
    assert down() == [False, False]


def test_an_outage_that_lasts_is_not_told_as_over():
    circuit.open_circuit(timezone.now())
    given(changed_at=ago(301))
    circuit.resolve_stable_incident()
    assert down() == [True]


def test_two_outages_far_apart_are_two_incidents_each_over_at_once():
    for _ in range(2):
        circuit.open_circuit(timezone.now())
        circuit.close_circuit()
        Incident.objects.update(resolved_at=ago(301))
    circuit.open_circuit(timezone.now())
    circuit.close_circuit()
    assert down() == [False, False, False]


def test_the_incident_began_when_the_trouble_did():
    began = ago(7)
    circuit.open_circuit(began)
    assert Incident.objects.get().opened_at == began


def test_an_incident_that_was_resolved_by_hand_is_not_opened_again_by_the_same_outage():
    circuit.open_circuit(timezone.now())
    Incident.objects.update(resolved_at=timezone.now())
    circuit.open_circuit(timezone.now())
    assert Incident.objects.count() == 1


def test_pauses_between_probes_grow_to_fifteen_seconds():
    circuit.open_circuit(timezone.now())
    pauses = []
    for _ in range(6):
        circuit.record_failed_probe()
        pauses.append(round((row().next_probe_at - timezone.now()).total_seconds()))
    assert pauses == [2, 4, 8, 15, 15, 15]


def test_a_probe_that_failed_after_the_circuit_closed_changes_nothing():
    circuit.open_circuit(timezone.now())
    circuit.close_circuit()
    circuit.record_failed_probe()
    assert (row().probes, row().next_probe_at) == (0, None)


def test_a_probe_is_claimed_only_when_it_is_due():
    given(circuit="open", next_probe_at=ago(-5))
    assert not circuit.claim_probe()
    given(next_probe_at=ago(1))
    assert circuit.claim_probe()
    assert not circuit.claim_probe()
    given(circuit="closed", next_probe_at=ago(5))
    assert not circuit.claim_probe()


def test_the_limit_of_streams_is_written_when_it_is_new():
    for limit in (5, 5, 3):
        circuit.set_concurrency_limit(limit)
    assert row().concurrency_limit == 3


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_one_opens_one_probes_and_one_closes():
    began = timezone.now()
    at_once(lambda: circuit.open_circuit(began))
    assert Incident.objects.count() == 1
    given(next_probe_at=ago(1))
    assert sum(at_once(circuit.claim_probe)) == 1
    at_once(circuit.close_circuit)
    assert Incident.objects.get().resolved_at is not None


def test_the_plans_limit_holds_until_the_provider_has_said_its_own():
    circuit.set_plan_limit(10)
    circuit.set_plan_limit(4)
    assert circuit.read_status().concurrency_limit == 10
    circuit.set_concurrency_limit(15)
    circuit.set_plan_limit(10)
    assert circuit.read_status().concurrency_limit == 15
