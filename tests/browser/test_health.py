"""The page System health shows what `/readyz` reports, in words."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests.browser.conftest import BrowserSession
from tests.server import ServerProcess
from usage.models import Incident, NotificationChannel

pytestmark = [pytest.mark.django_db(transaction=True)]

FAR = datetime(2099, 1, 1, tzinfo=UTC)  # another process sends, so the server under test does not
NAMES = {
    "broker": "Broker",
    "cache": "Phrase store",
    "provider": "Provider",
    "provider_key": "API key",
    "default_voice": "Default voice",
    "quota": "Credits",
    "offline_voice": "Offline voice",
    "worker": "Worker",
    "beat": "Beat",
    "mail": "Alerts by mail",
    "webhook": "Alerts by webhook",
    "notification_channels": "Alerts by notification channels",
}


def degraded(server: ServerProcess) -> set[str]:
    return set(json.loads(server.get("/readyz")[1])["degraded"])


def status_of(page: Page, part: str) -> str:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=part, exact=True)).inner_text()


def test_the_page_shows_the_problems_that_readyz_reports(server: ServerProcess, log_in: Callable[..., BrowserSession]):
    Incident.objects.create(kind=Incident.Kind.ALERTS, key="webhook", opened_at=timezone.now())
    channel = NotificationChannel.objects.create(name="On call", url="json://127.0.0.1:1", sending_until=FAR)
    Incident.objects.create(kind=Incident.Kind.CHANNEL, key=str(channel.pk), opened_at=timezone.now())
    browser = log_in()
    page = browser.open()
    page.get_by_role("link", name="System health").click()
    expect(page.get_by_role("heading", name="System health")).to_be_visible()
    problems = degraded(server)
    assert {"webhook", "notification_channels", "worker", "beat"} <= problems
    for name, title in NAMES.items():
        expected = "Problem" if name in problems else "Off" if name == "mail" else "OK"  # no address is configured
        assert expected in status_of(page, title), title
    assert "Start a worker" in status_of(page, "Worker")
    assert "1 of 1 fail" in status_of(page, "Alerts by notification channels")
    assert browser.problems == []


def test_a_user_without_the_permission_gets_no_page(log_in: Callable[..., BrowserSession]):
    user = User.objects.create_user("nurse", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_patient"))
    browser = log_in(user)
    assert browser.page.goto(f"{browser.server.url}/admin/health/").status == 403
