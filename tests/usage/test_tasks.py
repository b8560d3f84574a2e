"""What Celery does for the quota, the alerts and its own sign of life."""

import pytest
import responses
from pytest_django import Settings

from tests.usage.postbox import Webhook
from tests.usage.test_lateness import spoken
from usage import tasks
from usage.models import Heartbeat, Incident, ProviderState

pytestmark = pytest.mark.django_db


def test_the_quota_is_read(settings: Settings):
    settings.ELEVENLABS_BASE_URL = "https://provider.test"
    with responses.RequestsMock() as account:
        account.get("https://provider.test/v1/user/subscription", json={"character_count": 100, "character_limit": 100})
        tasks.poll_quota()
    assert ProviderState.objects.get().quota == "spent"


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
    tasks.look_for_lateness()
    assert Incident.objects.get().kind == "slow"
