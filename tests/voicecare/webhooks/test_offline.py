"""One event for each outage of a device, and none for an outage of the server."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from tests.tts.outbox.connections import connect, console
from voicecare.patients.models import Device, Patient
from voicecare.webhooks.models import WebhookEndpoint, WebhookEvent
from voicecare.webhooks.offline import INTERVAL_S, OfflineMonitor, report_outages

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def endpoint(db: None) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(url="https://records.example.org/")


def offline_for(minutes: float, **conditions: object) -> None:
    Device.objects.filter(**conditions).update(online_until=timezone.now() - timedelta(minutes=minutes))


def reported() -> list[object]:
    return list(WebhookEvent.objects.values_list("object_id", flat=True))


def test_an_outage_is_reported_once_and_the_next_one_again(alice: Member):
    socket = connect(alice)
    assert report_outages() == 0
    socket.disconnect()
    assert report_outages() == 0  # a few seconds
    offline_for(4.9)
    assert report_outages() == 0
    offline_for(5.1)
    assert [report_outages(), report_outages()] == [1, 0]
    event = WebhookEvent.objects.get()
    assert (event.type, event.object_id) == ("device.offline", alice.device.pk)
    assert set(event.data) == {"id", "patient", "external_id", "offline_since"}
    connect(alice).disconnect()
    offline_for(6)
    assert [report_outages(), report_outages()] == [1, 0]


def test_a_device_whose_server_was_killed_is_reported_as_well(alice: Member):
    connect(alice).lapse()
    offline_for(6)
    assert report_outages() == 1


@pytest.mark.parametrize("change", ["revoked", "archived", "erased", "console", "never connected", "long ago"])
def test_devices_that_are_not_reported(alice: Member, change: str):
    device = alice.device
    if change == "console":
        device = console(alice)
    if change != "never connected":
        connect(alice, device).disconnect()
        offline_for(25 * 60 if change == "long ago" else 10, pk=device.pk)
    now = timezone.now()
    if change == "revoked":
        Device.objects.update(revoked_at=now)
    if change in ("archived", "erased"):
        Patient.objects.update(**{"archived": {"archived_at": now}, "erased": {"erases_at": now}}[change])
    assert (report_outages(), reported()) == (0, [])


def test_an_outage_counts_only_while_the_server_runs(alice: Member, settings: Settings):
    """After an upgrade that took an hour, the devices have time to connect again."""
    connect(alice).disconnect()
    offline_for(60)
    monitor, now = OfflineMonitor(0.0), 0.0
    while now < settings.DEVICE_OFFLINE_AFTER_S - INTERVAL_S:
        now += INTERVAL_S
        assert monitor.check(now) == 0
    now += 600  # the process was suspended, or it did not reach the database
    assert monitor.check(now) == 0
    for _ in range(int(settings.DEVICE_OFFLINE_AFTER_S / INTERVAL_S)):
        now += INTERVAL_S
        found = monitor.check(now)
    assert (found, reported()) == (1, [alice.device.pk])
