"""Heartbeats of a real worker and beat: web processes report them as missing after they are killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.conftest import database_url
from tests.server import ROOT, ServerProcess, environment
from tests.usage.alerts.postbox import Webhook
from tests.waiting import until
from usage.models import Heartbeat, Incident

pytestmark = pytest.mark.django_db(transaction=True)

STARTED_WITHIN_S = 60.0
WORKER = ("worker", "--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "--purge")
BEAT = ("beat",)
Celery = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def web(own_server: Callable[..., ServerProcess]) -> ServerProcess:
    return own_server()


@pytest.fixture
def celery(web: ServerProcess) -> Iterator[Celery]:
    """A function that starts a Celery process on the broker of that server."""
    folder = web.log.parent
    env = {**os.environ, **environment(DATABASE_URL=database_url(), VOICECARE_DATA_DIR=folder)}
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        with (folder / f"{arguments[0]}.log").open("ab") as log:
            command = [sys.executable, "-m", "celery", "-q", "-A", "voicecare", *arguments]
            started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def degraded(web: ServerProcess) -> set[str]:
    status, body = web.get("/readyz")
    assert status == 200
    return {"worker", "beat"} & set(json.loads(body)["degraded"])


def let_a_minute_pass() -> None:
    for row in Heartbeat.objects.all():
        Heartbeat.objects.filter(pk=row.pk).update(at=row.at - timedelta(seconds=61))


def test_killed_processes_are_reported_missing_until_they_return(web: ServerProcess, celery: Celery, webhook: Webhook):
    assert degraded(web) == {"worker", "beat"}
    assert not Incident.objects.exists()  # they were never started here, so they are not missing
    processes = [celery(*WORKER), celery(*BEAT)]
    until(lambda: degraded(web), STARTED_WITHIN_S, wanted=lambda names: not names)
    age = (timezone.now() - Heartbeat.objects.get(name="worker").at).total_seconds()
    assert age < STARTED_WITHIN_S

    for process in processes:
        process.kill()
        process.wait(10)
    let_a_minute_pass()
    assert degraded(web) == {"worker", "beat"}
    opened = until(lambda: Incident.objects.filter(kind="silent").first(), within_s=STARTED_WITHIN_S)
    assert (opened.key, opened.resolved_at) == ("beat", None)

    celery(*WORKER)
    celery(*BEAT)
    until(lambda: Incident.objects.exclude(resolution_sent_at=None).exists(), within_s=STARTED_WITHIN_S)
    assert degraded(web) <= {"worker"}
    assert Incident.objects.filter(kind="silent").count() == 1
    reported = [body["state"] for body in webhook.received if opened.pk.hex in body["url"].replace("-", "")]
    assert reported == ["opened", "resolved"]
