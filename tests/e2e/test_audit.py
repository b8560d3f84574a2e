"""Every REST call that writes leaves exactly one entry in the audit trail. A new call needs an example here."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.urls import URLPattern, URLResolver
from django.utils import timezone

from cloning.models import CloneJob
from tests.clinicians import Clinician, clinician
from tests.cloning.samples import recordings
from tests.conftest import Member
from tests.server import ServerProcess
from tts.models import LexiconEntry
from voicecare.audit.models import AuditEntry
from voicecare.urls import api
from voicecare.webhooks.models import WebhookEndpoint

PASSWORD = "correct horse battery"
WRITING = ("POST", "PUT", "PATCH", "DELETE")

Example = Callable[[Member, Clinician], tuple[dict[str, object], dict[str, Any], str]]
"""Prepares a call. Returns its address's parameters, the arguments of the request, and the action that is recorded."""


def writing_calls(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the route and the method of every call that writes."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from writing_calls(pattern.url_patterns, route)
            continue
        view: Any = pattern.callback.cls  # type: ignore[union-attr]
        for method in WRITING:
            if hasattr(view, method.lower()) and method.lower() in view.http_method_names:
                yield route, method


CALLS = sorted(writing_calls(api))


@cache
def recording() -> bytes:
    return recordings.encoded(recordings.speech(62), "libmp3lame")


def failed_clone(member: Member) -> CloneJob:
    return CloneJob.objects.create(
        patient=member.patient,
        name="Anna",
        sample="x",
        sample_digest="x",
        content_type="audio/mpeg",
        consent_by="Anna Archer",
        consent_wording="2026-11",
        status=CloneJob.Status.FAILED,
        error_code="rejected",
        ended_at=timezone.now(),
    )


def endpoint() -> dict[str, object]:
    created = WebhookEndpoint(url="https://records.example.org/hooks")
    created.new_secret()
    created.save()
    return {"id": created.pk}


def log_in(member: Member, boss: Clinician) -> tuple[dict[str, object], dict[str, Any], str]:
    user = User.objects.create_user("carol", password=PASSWORD)
    return {}, {"json": {"username": user.username, "password": PASSWORD}}, "log_in"


def pronunciation(member: Member) -> dict[str, object]:
    return {"id": LexiconEntry.objects.create(written="Zoe", spoken="Zoey", patient=member.patient).pk}


UPLOAD = {"name": "Anna", "consent": "true", "consent_by": "Anna Archer"}
EXAMPLES: dict[tuple[str, str], Example] = {
    ("auth/token/", "POST"): log_in,
    ("auth/logout/", "POST"): lambda member, boss: ({}, {}, "log_out"),
    ("patients/", "POST"): lambda member, boss: ({}, {"json": {"name": "N", "companion_name": "C"}}, "add"),
    ("patients/<uuid:id>/", "PATCH"): lambda member, boss: (
        {"id": member.patient.pk},
        {"json": {"speech_rate": 0.9}},
        "change",
    ),
    ("patients/<uuid:id>/", "DELETE"): lambda member, boss: ({"id": member.patient.pk}, {}, "erase"),
    ("patients/<uuid:id>/devices/", "POST"): lambda member, boss: (
        {"id": member.patient.pk},
        {"json": {"name": "Tablet"}},
        "add",
    ),
    ("devices/<uuid:id>/", "DELETE"): lambda member, boss: ({"id": member.device.pk}, {}, "revoke"),
    ("devices/<uuid:id>/rotate/", "POST"): lambda member, boss: ({"id": member.device.pk}, {}, "renew_token"),
    ("voices/sync/", "POST"): lambda member, boss: ({}, {}, "sync"),
    ("patients/<uuid:id>/speak/", "POST"): lambda member, boss: (
        {"id": member.patient.pk},
        {"json": {"text": "Hello."}},
        "speak",
    ),
    # A text without a letter makes no sound, so nothing is written after the response.
    ("speech/", "POST"): lambda member, boss: (
        {},
        {"json": {"text": "?!", "voice": str(member.patient.voice_id)}},
        "speak",
    ),
    ("patients/<uuid:id>/clones/", "POST"): lambda member, boss: (
        {"id": member.patient.pk},
        {"data": UPLOAD, "files": {"sample": recording()}},
        "add",
    ),
    ("clones/<uuid:id>/", "DELETE"): lambda member, boss: ({"id": failed_clone(member).pk}, {}, "withdraw"),
    ("clones/<uuid:id>/retry/", "POST"): lambda member, boss: (
        {"id": failed_clone(member).pk},
        {},
        "retry",
    ),
    ("pronunciations/", "POST"): lambda member, boss: ({}, {"json": {"written": "Zoe", "spoken": "Zoey"}}, "add"),
    ("pronunciations/<int:id>/", "PATCH"): lambda member, boss: (
        pronunciation(member),
        {"json": {"spoken": "Zoh"}},
        "change",
    ),
    ("pronunciations/<int:id>/", "DELETE"): lambda member, boss: (pronunciation(member), {}, "delete"),
    ("webhooks/", "POST"): lambda member, boss: ({}, {"json": {"url": "https://records.example.org/hooks"}}, "add"),
    ("webhooks/<uuid:id>/", "PATCH"): lambda member, boss: (endpoint(), {"json": {"enabled": False}}, "change"),
    ("webhooks/<uuid:id>/", "DELETE"): lambda member, boss: (endpoint(), {}, "delete"),
    ("webhooks/<uuid:id>/rotate/", "POST"): lambda member, boss: (endpoint(), {}, "renew_secret"),
}


@pytest.mark.parametrize(("route", "method"), CALLS, ids=lambda part: part)
def test_a_call_that_writes_leaves_one_entry(route: str, method: str, server: ServerProcess, alice: Member) -> None:
    boss = clinician("boss", alice.patient, in_role="Administrator")
    ids, arguments, action = EXAMPLES[route, method](alice, boss)
    path = re.sub("<(uuid|int):id>", str(ids.get("id")), route)
    response = requests.request(
        method,
        f"{server.url}/api/v1/{path}",
        headers={} if action == "log_in" else {"Authorization": f"Bearer {boss.token}"},
        timeout=60,
        **arguments,
    )
    assert response.ok, response.text
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.source, entry.address) == (action, "rest", "127.0.0.1")
    assert entry.user_name == ("carol" if action == "log_in" else "boss")
    if ids:
        assert entry.patient_id == (None if route.startswith("webhooks/") else alice.patient.pk)
        assert entry.object_id


def test_the_same_recording_sent_again_leaves_one_entry_too(server: ServerProcess, alice: Member) -> None:
    boss = clinician("boss", alice.patient, in_role="Administrator")
    for _ in range(2):
        response = requests.post(
            f"{server.url}/api/v1/patients/{alice.patient.pk}/clones/",
            headers={"Authorization": f"Bearer {boss.token}"},
            data=UPLOAD,
            files={"sample": recording()},
            timeout=60,
        )
        assert response.status_code == 202, response.text
    assert CloneJob.objects.count() == 1
    assert AuditEntry.objects.filter(action="add", object_id=str(CloneJob.objects.get().pk)).count() == 2
