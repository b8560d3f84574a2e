"""Where the alerts of these tests arrive."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tests.usage.alerts.postbox import MailServer, Webhook


@pytest.fixture
def webhook(settings: Settings) -> Iterator[Webhook]:
    with Webhook() as server:
        settings.ALERT_WEBHOOK_URL = server.url
        yield server


@pytest.fixture
def mail(settings: Settings) -> Iterator[MailServer]:
    with MailServer() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.ADMIN_EMAILS = ["ann@example.org", "ben@example.org"]
        yield server
