"""What Celery does for the quota, the alerts and its own sign of life."""

from datetime import timedelta

import pytest
import responses
from django.utils import timezone
from pytest_django import Settings

from tests.usage.alerts.postbox import Webhook
from tests.usage.alerts.test_latency import spoken
from usage import tasks
from usage.models import Heartbeat, Incident, ProviderState

pytestmark = pytest.mark.django_db


def test_the_quota_is_read(settings: Settings):
    settings.ELEVENLABS_BASE_URL = "https://provider.test"
    with responses.RequestsMock() as account:
        account.get("https://provider.test/v1/user/subscription", json={"character_count": 100, "character_limit": 100})
        tasks.poll_quota()
    assert ProviderState.objects.get().quota == "spent"


def test_a_provider_that_has_stayed_back_is_told_as_back(settings: Settings):
    settings.ELEVENLABS_BASE_URL = "http://127.0.0.1:1"
    ProviderState.objects.create(changed_at=timezone.now() - timedelta(minutes=6))
    Incident.objects.create(kind="provider_down")
    tasks.poll_quota()
    assert Incident.objects.get().resolved_at is not None


def test_alerts_that_have_not_gone_out_are_sent(settings: Settings):
    Incident.objects.create(kind="quota")
    with Webhook() as webhook:
        settings.ALERT_WEBHOOK_URL = webhook.url
        tasks.deliver_alerts()
        tasks.deliver_alerts()
    assert [body["state"] for body in webhook.received] == ["opened"]


def test_the_worker_gives_a_sign_of_life():
    tasks.heartbeat()
    assert Heartbeat.objects.get().name == "worker"


def test_speech_that_begins_late_is_noticed():
    spoken(20, 900)
    tasks.check_latency()
    assert Incident.objects.get().kind == "slow"
