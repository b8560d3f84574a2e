"""No periodic work reads a whole table that grows with time: neither a task of beat nor the sweep of a web process."""

import asyncio
import math
from collections.abc import Iterator

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from tests.plans.explain import Explained
from tests.sandbox import SandboxProcess
from tests.tts.examples import opened
from tests.usage.alerts.postbox import Webhook
from tts.devices.connection import Connection
from tts.devices.registry import ConnectionRegistry
from tts.devices.transport import DeviceTransport
from tts.models import Clip, Conversation
from tts.resilience.quota_gate import QuotaGate
from usage.models import Incident, UsageEvent
from voicecare.celery import app
from voicecare.core.database import own_db_thread
from voicecare.infrastructure.schedule import SCHEDULE
from voicecare.patients.models import Device, Patient, Voice

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ten_years")]

TASKS = sorted({entry["task"] for entry in SCHEDULE.values()})


@pytest.fixture
def provider(sandbox: SandboxProcess, settings: Settings) -> SandboxProcess:
    settings.ELEVENLABS_BASE_URL = sandbox.url
    return sandbox


@pytest.fixture
def webhook(settings: Settings) -> Iterator[None]:
    with Webhook() as webhook:
        settings.ALERT_WEBHOOK_URL = webhook.url
        yield


@pytest.mark.parametrize("task", TASKS)
def test_a_task_reads_no_whole_table(task: str, provider: SandboxProcess, webhook: None, settings: Settings):
    settings.TEXT_RETENTION_DAYS = 80  # so that some texts are due
    app.loader.import_default_modules()
    with Explained() as explained:
        app.tasks[task]()
    assert explained.problems == []


def test_the_erasure_of_a_patient_reads_no_whole_table():
    patient = Patient.objects.first()
    assert patient is not None
    long_ago = timezone.now() - timezone.timedelta(hours=2)
    Conversation.objects.filter(patient=patient, ended_at=None).update(ended_at=timezone.now())
    Patient.objects.filter(pk=patient.pk).update(erased_at=long_ago)
    with Explained() as explained:
        app.tasks["tts.erase"]()
        app.tasks["cloning.sweep"]()
    assert explained.problems == []
    assert explained.count > 10


def test_the_removal_of_revoked_audio_reads_no_other_audio():
    """The audio grows with the house, but the task runs every minute."""
    voices, patients = list(Voice.objects.all()), list(Patient.objects.all())
    Clip.objects.bulk_create(
        Clip(
            digest=f"digest-{number}",
            voice=voices[number % len(voices)],
            patient=patients[number % len(patients)] if number % 4 else None,
            language="en",
            speed=1.0,
            format="pcm_16000",
            characters=10,
            size=1000,
            expires_at=timezone.now() + timezone.timedelta(days=7),
        )
        for number in range(20_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tts_clip")
    Patient.objects.filter(pk=patients[1].pk).update(erased_at=timezone.now())
    Voice.objects.filter(pk=voices[1].pk).update(state=Voice.State.WITHDRAWN)
    Voice.objects.filter(pk=voices[2].pk).update(source="cloned", patient=patients[1])
    app.loader.import_default_modules()
    with Explained(tables={"tts_clip"}) as explained:
        app.tasks["tts.remove_revoked_audio"]()
    assert explained.problems == []
    revoked = Clip.objects.filter(voice__in=voices[1:3]) | Clip.objects.filter(patient=patients[1])
    assert (revoked.count(), Clip.objects.count() > 18_000) == (0, True)


def test_the_sweep_of_a_web_process_reads_no_whole_table():
    registry = ConnectionRegistry(QuotaGate(lambda work: work.close()))

    async def ignore(message: object) -> None:
        """Stands for the socket of a device."""

    async def sweep(device: Device) -> None:
        async with own_db_thread("sweep"):
            connection = Connection(DeviceTransport(ignore), None, device.pk, device.epoch, device.patient_id)
            await registry.register(connection)
            connection.session.start_conversation(opened())
            await registry.sweep()
            registry._heartbeat_at = -math.inf  # so that the heartbeats of conversations are due, too
            await registry.renew()
            connection._stop_accepting()
            await connection._player.cancel_all()

    device = Device.objects.earliest("created_at")
    with Explained() as explained:
        asyncio.run(sweep(device))
    assert explained.problems == []
    assert explained.count >= 5


def test_a_statement_that_reads_a_whole_table_is_noticed():
    with Explained() as explained:
        assert not UsageEvent.objects.filter(code="no such code").exists()
        assert not UsageEvent.objects.filter(started_at__lt=timezone.now(), code="no such code").exists()
        Incident.objects.filter(detail="no such detail").update(detail="")
    assert explained.count == len(explained.problems) == 3
