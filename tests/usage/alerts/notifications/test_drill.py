"""The alert drill with real processes: twenty workers run the tasks of the schedule on one PostgreSQL database.

`test_dispatch.py` has the same drill with threads, on every database.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from tests.server import ROOT
from tests.usage.alerts.notifications.test_dispatch import channel
from tests.usage.alerts.postbox import MailServer, Webhook
from tests.waiting import until
from usage.models import Incident, IncidentEvent

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite is not for twenty processes"),
]

WORKERS = 20
ESCALATES_AFTER = timedelta(minutes=1)  # the shortest time that a channel can have
OPENED_BEFORE = timedelta(seconds=40)  # so that the test waits for the rest of the minute only
# Each worker is a fork, as those of Celery are. It runs both tasks twice a second until it is killed.
CODE = """
import os, signal, sys, time
import django
django.setup()
from usage.tasks import deliver_alerts, notify_channels
workers = []
for _ in range(int(sys.argv[1])):
    worker = os.fork()
    if not worker:
        while True:
            deliver_alerts.apply(throw=True)
            notify_channels.apply(throw=True)
            time.sleep(0.5)
    workers.append(worker)
print("started", flush=True)
sys.stdin.read()
for worker in workers:
    os.kill(worker, signal.SIGKILL)
sys.exit(any(os.waitpid(worker, 0)[1] != signal.SIGKILL for worker in workers))
"""


@contextmanager
def workers(webhook: Webhook, mail: MailServer) -> Iterator[None]:
    """Twenty processes that work on the test database. At the end, none of them may have failed."""
    login = connection.settings_dict
    settings = {
        "DJANGO_SETTINGS_MODULE": "voicecare.settings",
        "DATABASE_URL": f"postgres://{login['USER']}:{login['PASSWORD']}@{login['HOST']}:{login['PORT']}/{login['NAME']}",
        "ADMIN_EMAILS": "ann@example.org",
        "EMAIL_URL": f"smtp://127.0.0.1:{mail.port}",
        "ALERT_WEBHOOK_URL": webhook.url,
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", CODE, str(WORKERS)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "started\n"
        yield
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.fixture
def chat() -> Iterator[Webhook]:
    with Webhook() as server:
        yield server


@pytest.fixture
def second() -> Iterator[Webhook]:
    with Webhook() as server:
        yield server


def test_each_channel_is_notified_once_by_twenty_processes(
    chat: Webhook, second: Webhook, webhook: Webhook, mail: MailServer
):
    channel(chat, "Chat")
    channel(second, "Second", escalate_after_minutes=ESCALATES_AFTER.seconds // 60)
    received = [chat.received, webhook.received, mail.mails, second.received]
    with workers(webhook, mail):
        incident = Incident.objects.create(kind="no_voice", opened_at=timezone.now() - OPENED_BEFORE)
        until(lambda: all(received[:3]), within_s=60)
        until(lambda: second.received, within_s=90)
        escalated = IncidentEvent.objects.filter(channel="Second")
        until(escalated.exists)
        assert escalated.get().at >= incident.opened_at + ESCALATES_AFTER
        Incident.objects.update(resolved_at=timezone.now())
        until(lambda: all(len(messages) > 1 for messages in received), within_s=60)
        until(lambda: IncidentEvent.objects.filter(kind="alert").count() == 2 * len(received))
    assert [len(messages) for messages in received] == [2, 2, 2, 2]
