"""Test alerts through all channels at the same time."""

import time
from contextlib import ExitStack

import pytest

from tests.usage.alerts.postbox import Webhook
from usage.alerts.notifications import channel_check
from usage.models import NotificationChannel

pytestmark = pytest.mark.django_db


def test_channels_are_tested_at_the_same_time():
    with ExitStack() as stack:
        for number in range(4):
            slow = stack.enter_context(Webhook())
            slow.hang_s = 3.0
            host = slow.url.removeprefix("http://").partition("/")[0]
            NotificationChannel.objects.create(name=f"Slow {number}", url=f"json://{host}")
        began = time.monotonic()
        results = channel_check.send_test_alerts()
        took_ms = (time.monotonic() - began) * 1000
    assert [result.error for result in results] == [""] * 4
    assert min(result.milliseconds for result in results) >= 3000
    assert took_ms < sum(result.milliseconds for result in results) / 2


def test_the_names_are_those_of_the_settings_and_of_the_enabled_channels(webhook: Webhook):
    NotificationChannel.objects.create(name="On call", url="json://127.0.0.1")
    NotificationChannel.objects.create(name="Unused", url="json://127.0.0.1", enabled=False)
    assert channel_check.channel_names() == ["webhook", "On call"]
