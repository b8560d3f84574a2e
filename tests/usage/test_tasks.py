"""The Celery tasks of usage."""

from datetime import timedelta

import pytest
import responses
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import Webhook
from tests.usage.alerts.test_latency import create_speeches
from usage import tasks
from usage.models import Heartbeat, Incident, ProviderState

pytestmark = pytest.mark.django_db


def test_the_subscription_is_read(settings: Settings):
    settings.ELEVENLABS_BASE_URL = "https://provider.test"
    with responses.RequestsMock() as account:
        account.get("https://provider.test/v1/user/subscription", json={"character_count": 100, "character_limit": 100})
        tasks.poll_quota()
    assert ProviderState.objects.get().quota == "spent"


def test_a_stable_provider_resolves_its_incident(settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    ProviderState.objects.create(changed_at=timezone.now() - timedelta(minutes=6))
    Incident.objects.create(kind="provider_down")
    tasks.poll_quota()
    assert Incident.objects.get().resolved_at is not None


def test_pending_alerts_are_sent_once(settings: Settings):
    Incident.objects.create(kind="quota")
    with Webhook() as webhook:
        settings.ALERT_WEBHOOK_URL = webhook.url
        tasks.deliver_alerts()
        tasks.deliver_alerts()
    assert [body["state"] for body in webhook.received] == ["opened"]


def test_the_worker_writes_its_heartbeat():
    tasks.heartbeat()
    assert Heartbeat.objects.get().name == "worker"


def test_high_latency_opens_an_incident():
    create_speeches(20, 900)
    tasks.check_latency()
    assert Incident.objects.get().kind == "slow"
