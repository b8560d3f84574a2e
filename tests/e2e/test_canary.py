"""Nothing personal leaves web, worker and beat: not in their output, not in error reports, not in traces.

A patient's name, the texts and the tokens are looked for in every byte, while a speech succeeds, fails and is queued, a
clone is refused, and exceptions are raised.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from django.test import Client
from django.utils import timezone

from tests.clinicians import Clinician, clinician
from tests.collector import Collector, attributes
from tests.conftest import OTHER_VOICE, Member, database_url
from tests.e2e.database import missing_table
from tests.e2e.device import Device
from tests.e2e.rows import in_database
from tests.sandbox import SandboxProcess
from tests.server import ROOT, ServerProcess, environment
from tests.waiting import eventually
from voicecare_client import HandshakeRefused

NAME, COMPANION = "Zebulon Quagmire", "Companionella"
CANARY = "xylophone-canary"
FAILED = {"tts.warm_patient", "/admin/tts/phrase/"}
"""What raises an exception that nothing catches."""

WORKER = ("worker", "--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "--purge")


@pytest.fixture
def zebulon(transactional_db: None, member: Callable[..., Member]) -> Member:
    patient = member(NAME, voice=OTHER_VOICE, preferred_name="Zebbie")
    patient.patient.companion_name = COMPANION
    patient.patient.save()
    return patient


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@contextmanager
def celery(log: Path, env: dict[str, str], *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-q", "-A", "voicecare", *arguments, "--loglevel", "DEBUG"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


async def speeches(server: ServerProcess, sandbox: SandboxProcess, zebulon: Member) -> None:
    """One speech succeeds, one fails at the provider and is spoken by the backup voice, one cannot be spoken at all."""
    with pytest.raises(HandshakeRefused):
        async with Device(f"{server.ws}?token={zebulon.token}", f"{zebulon.token}x"):
            pass
    async with Device(server.ws, zebulon.token) as device:
        await device.start(greeting=False)
        assert (await device.speak(f"{NAME}, the {CANARY} is playing.")).terminal["source"] == "live"
        sandbox.fault(kind="error", preset="internal_error", first=2)
        assert (await device.speak(f"Now the {CANARY} fails.", id=CANARY)).terminal["source"] == "backup"
        sandbox.clear_faults()
        sandbox.fault(kind="error", preset="invalid_text", message=f"The text '{CANARY}' cannot be spoken.", first=1)
        assert (await device.speak(f"The {CANARY} is refused.")).terminal["type"] == "speech.failed"
        sandbox.clear_faults()
        await device.error_for(f'{{"type": "{CANARY}"}}')
    # A text for a patient is queued only when the server knows that the device is gone.
    await eventually(lambda: in_database(zebulon.device.refresh_from_db), wanted=lambda _: is_offline(zebulon))


def is_offline(member: Member) -> bool:
    return member.device.online_until <= timezone.now()


async def rest_calls(server: ServerProcess, zebulon: Member, carol: Clinician) -> None:
    """A speech is queued, a clone is refused, a call and a page fail."""
    cookies = await in_database(_log_in, carol)
    patient = f"{server.url}/api/v1/patients/{zebulon.patient.pk}"
    headers = {"Authorization": f"Bearer {carol.token}", "User-Agent": CANARY}
    async with aiohttp.ClientSession(headers=headers, cookies=cookies) as http:

        async def call(method: str, url: str, *statuses: int, **request: object) -> None:
            async with http.request(method, url, **request) as reply:  # type: ignore[arg-type]
                assert reply.status in statuses, await reply.text()

        say = {"json": {"text": f"{NAME}, the {CANARY} waits."}}
        await call("POST", f"{patient}/speak/", 202, **say)
        form = aiohttp.FormData({"name": NAME, "consent": "true", "consent_by": f"Anna {NAME}"})
        form.add_field("sample", CANARY.encode() * 100, filename=f"{CANARY}.mp3", content_type="audio/mpeg")
        await call("POST", f"{patient}/clones/", 400, data=form)
        await call("GET", f"{server.url}/{CANARY}?token={carol.token}", 404)
        async with missing_table("tts_utterance"):
            await call("POST", f"{patient}/speak/?q={CANARY}", 500, 503, **say)  # the database decides
        async with missing_table("tts_phrase"):
            await call("GET", f"{server.url}/admin/tts/phrase/?q={CANARY}", 500)


def _log_in(carol: Clinician) -> dict[str, str]:
    client = Client()
    client.force_login(carol.user)
    return {name: morsel.value for name, morsel in client.cookies.items()}


@pytest.mark.timeout(300)
async def test_nothing_personal_leaves_the_processes(
    own_server: Callable[..., ServerProcess], sandbox: SandboxProcess, zebulon: Member, collector: Collector
):
    variables = {**collector.environment, "LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
    server = await asyncio.to_thread(
        own_server, "-v", "0", DEBUG=0, ALLOWED_HOSTS="127.0.0.1", PUBLIC_URL="http://127.0.0.1", **variables
    )
    carol = await in_database(clinician, "carol", zebulon.patient, is_staff=True, is_superuser=True)
    env = environment(DATABASE_URL=database_url(), ELEVENLABS_BASE_URL=sandbox.url, VOICECARE_DATA_DIR=server.data_dir)
    logs = [server.data_dir / name for name in ("worker.log", "beat.log")]
    with ExitStack() as processes:
        processes.enter_context(celery(logs[0], {**env, **variables}, *WORKER))
        processes.enter_context(celery(logs[1], {**env, **variables}, "beat"))
        await eventually(lambda: " ready." in logs[0].read_text(), 90)
        await speeches(server, sandbox, zebulon)
        await rest_calls(server, zebulon, carol)
        send = f"from celery import current_app; current_app.send_task('tts.warm_patient', args=['{CANARY}'])"
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", send]
        await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env={**os.environ, **env}, check=True)
        await eventually(
            lambda: {report.get("transaction") for report in collector.reports()}, 60, wanted=FAILED.issubset
        )
        await eventually(lambda: "run/tts.warm_patient" in {span.name for span in collector.spans()}, 60)
        await eventually(lambda: "Sending due task" in logs[1].read_text(), 60)
    server.stop()

    output = [path.read_text(errors="replace") for path in (server.log, *logs)]
    events = [json.loads(line) for text in output for line in text.splitlines() if line.startswith("{")]
    reports, spans = collector.reports(), collector.spans()
    check_what_is_there(events, reports, [(span.name, attributes(span)) for span in spans])

    everything = "\n".join([*output, collector.everything()])
    secrets = [part for token in (zebulon.token, carol.token) for part in token.split(".")]
    for canary in (NAME, "Zebulon", "Quagmire", "Zebbie", COMPANION, CANARY, "canary", "is playing", *secrets):
        assert canary not in everything, next(line for line in everything.splitlines() if canary in line)[:2000]


def check_what_is_there(
    events: list[dict[str, Any]], reports: list[dict[str, Any]], spans: list[tuple[str, dict[str, Any]]]
) -> None:
    """Check that what was done has left its traces. Otherwise nothing would prove that they have nothing personal."""
    ends = [event for event in events if event["event"] == "speech.finished" and event["origin"] == "device"]
    assert [(end["outcome"], end["source"], end["fallback"]) for end in ends] == [
        ("spoken", "live", ""),
        ("spoken", "backup", "internal_error"),
        ("failed", "", ""),
    ]
    assert {"speech.queued", "speech.request_failed", "rest.failed", "Listening on TCP address 127.0.0.1:"} <= {
        event["event"].rstrip("0123456789") for event in events
    }
    assert {"celery.beat", "celery.app.trace", "daphne.server", "django.request"} <= {e.get("logger") for e in events}
    assert {"rest.failed"} <= {report.get("logentry", {}).get("message") for report in reports}
    failed = [report for report in reports if report.get("transaction") in FAILED]
    assert all(report["exception"]["values"][-1]["stacktrace"]["frames"] for report in failed)
    speeches = [attributes for name, attributes in spans if name == "speech"]
    assert {"live", "backup"} <= {attributes["voicecare.source"] for attributes in speeches}
    assert {"POST", "run/tts.warm_patient"} <= {name for name, _ in spans}
    assert any(attributes.get("http.status_code") == 500 for _, attributes in spans)
