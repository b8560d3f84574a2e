"""The circuit's transitions: each happens once, even if several processes try. The status is one query."""

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


def set_state(**columns: object) -> None:
    ProviderState.objects.update_or_create(pk=1, defaults=columns)


def seconds_ago(seconds: float) -> object:
    return timezone.now() - timedelta(seconds=seconds)


def run_concurrently(work: Callable[[], object], times: int = 8) -> list[object]:
    """Run `work` in several threads at the same time, each with its own database connection."""

    def one(_: int) -> object:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


def test_without_a_row_the_status_has_its_defaults():
    assert circuit.read_status() == ProviderStatus()


def test_reading_the_status_takes_one_query():
    set_state(circuit="open")
    with CaptureQueriesContext(connection) as captured:
        circuit.read_status()
    assert len(captured) == 1


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, ProviderStatus()),
        ({"circuit": "open"}, ProviderStatus(circuit_open=True, probe_due=True)),
        ({"circuit": "open", "next_probe_at": seconds_ago(1)}, ProviderStatus(circuit_open=True, probe_due=True)),
        ({"circuit": "open", "next_probe_at": seconds_ago(-3600)}, ProviderStatus(circuit_open=True)),
        ({"next_probe_at": seconds_ago(1)}, ProviderStatus()),
        ({"next_poll_at": seconds_ago(1)}, ProviderStatus()),  # beat polls an available quota
        ({"quota": "spent", "quota_changed_at": seconds_ago(61)}, ProviderStatus(quota_exhausted=True, poll_due=True)),
        (
            {"quota": "spent", "quota_changed_at": seconds_ago(61), "next_poll_at": seconds_ago(-3600)},
            ProviderStatus(quota_exhausted=True),
        ),
        (
            {"quota": "spent", "quota_changed_at": seconds_ago(1), "quota_refusals": 1},
            ProviderStatus(quota_exhausted=True, poll_due=True),
        ),
        ({"concurrency_limit": 7}, ProviderStatus(concurrency_limit=7)),
    ],
)
def test_the_status_follows_from_the_row(columns: dict, expected: ProviderStatus):
    set_state(**columns)
    assert circuit.read_status() == expected


@pytest.mark.parametrize(("exhausted_for_s", "remaining_s"), [(0, 60), (20, 40), (59, 1)])
def test_live_speech_is_held_for_the_first_minute(exhausted_for_s: float, remaining_s: float):
    set_state(quota="spent", quota_changed_at=seconds_ago(exhausted_for_s))
    assert remaining_s - 10 < circuit.read_status().hold_s < remaining_s + 0.1  # SQLite has whole milliseconds


def test_the_circuit_and_its_incident_open_once_and_close_once():
    for _ in range(2):
        circuit.open_circuit(timezone.now())
    assert (row().circuit, Incident.objects.filter(kind="provider_down", resolved_at=None).count()) == ("open", 1)
    for _ in range(2):
        circuit.close_circuit()
    assert (row().circuit, row().next_probe_at) == ("closed", None)
    assert Incident.objects.filter(kind="provider_down").exclude(resolved_at=None).count() == 1


def open_states() -> list[bool]:
    """Return for each incident, in order, whether it is open."""
    incidents = Incident.objects.filter(kind="provider_down").order_by("opened_at")
    return [incident.resolved_at is None for incident in incidents]


def test_the_incident_of_an_unstable_provider_is_resolved_when_it_is_stable():
    for _ in range(5):
        circuit.open_circuit(timezone.now())
        circuit.close_circuit()
    assert open_states() == [False, True]
    circuit.resolve_stable_incident()
    assert open_states() == [False, True]
    set_state(changed_at=seconds_ago(301))
    circuit.resolve_stable_incident()
    assert open_states() == [False, False]


def test_the_incident_of_a_long_outage_stays_open():
    circuit.open_circuit(timezone.now())
    set_state(changed_at=seconds_ago(301))
    circuit.resolve_stable_incident()
    assert open_states() == [True]


def test_two_distant_outages_are_two_incidents_resolved_immediately():
    for _ in range(2):
        circuit.open_circuit(timezone.now())
        circuit.close_circuit()
        Incident.objects.update(resolved_at=seconds_ago(301))
    circuit.open_circuit(timezone.now())
    circuit.close_circuit()
    assert open_states() == [False, False, False]


def test_the_incident_has_the_start_of_the_outage():
    began = seconds_ago(7)
    circuit.open_circuit(began)
    assert Incident.objects.get().opened_at == began


def test_the_same_outage_does_not_reopen_a_resolved_incident():
    circuit.open_circuit(timezone.now())
    Incident.objects.update(resolved_at=timezone.now())
    circuit.open_circuit(timezone.now())
    assert Incident.objects.count() == 1


def test_delays_between_probes_grow_to_fifteen_seconds():
    circuit.open_circuit(timezone.now())
    pauses = []
    for _ in range(6):
        circuit.record_failed_probe()
        pauses.append(round((row().next_probe_at - timezone.now()).total_seconds()))
    assert pauses == [2, 4, 8, 15, 15, 15]


def test_a_failed_probe_after_the_circuit_closed_changes_nothing():
    circuit.open_circuit(timezone.now())
    circuit.close_circuit()
    circuit.record_failed_probe()
    assert (row().probes, row().next_probe_at) == (0, None)


def test_a_probe_is_claimed_only_when_it_is_due():
    set_state(circuit="open", next_probe_at=seconds_ago(-5))
    assert not circuit.claim_probe()
    set_state(next_probe_at=seconds_ago(1))
    assert circuit.claim_probe()
    assert not circuit.claim_probe()
    set_state(circuit="closed", next_probe_at=seconds_ago(5))
    assert not circuit.claim_probe()


def test_a_new_concurrency_limit_is_saved():
    for limit in (5, 5, 3):
        circuit.set_concurrency_limit(limit)
    assert row().concurrency_limit == 3


@pytest.mark.django_db(transaction=True)
def test_one_of_several_processes_opens_probes_and_closes():
    began = timezone.now()
    run_concurrently(lambda: circuit.open_circuit(began))
    assert Incident.objects.count() == 1
    set_state(next_probe_at=seconds_ago(1))
    assert sum(run_concurrently(circuit.claim_probe)) == 1
    run_concurrently(circuit.close_circuit)
    assert Incident.objects.get().resolved_at is not None


def test_the_plans_limit_applies_until_the_provider_reports_its_own():
    circuit.set_plan_limit(10)
    assert circuit.read_status().concurrency_limit == 10
    circuit.set_concurrency_limit(15)
    circuit.set_plan_limit(10)
    assert circuit.read_status().concurrency_limit == 15


def test_each_change_of_the_plan_changes_the_limit():
    for limit in (6, 30, 4):
        circuit.set_plan_limit(limit)
        assert circuit.read_status().concurrency_limit == limit
    circuit.set_concurrency_limit(15)
    circuit.set_plan_limit(6)
    assert circuit.read_status().concurrency_limit == 6


def test_a_limit_from_before_the_plan_was_known_stays_until_the_plan_changes():
    circuit.set_concurrency_limit(15)
    circuit.set_plan_limit(10)
    assert circuit.read_status().concurrency_limit == 15
    circuit.set_plan_limit(20)
    assert circuit.read_status().concurrency_limit == 20
