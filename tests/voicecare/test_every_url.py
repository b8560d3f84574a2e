"""Every URL as every role. Who may not see a patient gets no name, no text and no recording, also by a guessed id."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import Model
from django.test import Client
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice
from knox.models import AuthToken

from cloning.models import CloneJob, sample_storage
from tests.conftest import Member
from tests.roles import role
from tests.voicecare.every_url import Address, body_of, every_address
from tts.models import Clip, Conversation, LexiconEntry, Phrase, Utterance
from usage.models import (
    DailyUsage,
    HistoryDeletion,
    Incident,
    NotificationChannel,
    Price,
    ProviderState,
    Reconciliation,
    UsageEvent,
)
from voicecare.patients.models import Clinic, DefaultVoice, Device, Patient, Voice
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType, WebhookDelivery, WebhookEndpoint

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(600)]

SECRETS = (
    "Geheimrat",
    "Wilhelmine",
    "Clarissima",
    "Hushtablet",
    "Tell nobody",
    "Annasvoice",
    "Sisteranna",
    "ID3SECRET",
    "Unsaidword",
)
ADDRESS = "Channeltoken"  # of a notification channel; no page shows it to anybody
WEBHOOK_SECRET = f"whsec_{ADDRESS}"
SPEECH = re.compile("preview|speech")  # has the provider speak; tests of these calls have a provider
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Rows:
    patient: Patient
    of_patient: list[Model]
    others: list[Model]

    @property
    def all(self) -> list[Model]:
        return [self.patient, *self.of_patient, *self.others]


@pytest.fixture
def rows(member: Callable[..., Member], tmp_path: Any) -> Rows:
    """A patient with a row of everything. All texts about the patient contain one of the SECRETS."""
    now = timezone.now()
    secret = member(SECRETS[0], preferred_name=SECRETS[1])
    patient, device = secret.patient, secret.device
    clone = Voice.objects.create(name=SECRETS[5], provider_id="clone", source="cloned", patient=patient)
    clinic = Clinic.objects.create(name="Ward 3")
    Patient.objects.filter(pk=patient.pk).update(voice=clone, companion_name=SECRETS[2], clinic=clinic)
    Device.objects.filter(pk=device.pk).update(name=SECRETS[3], last_seen=now, online_until=now.replace(year=2099))
    conversation = Conversation.objects.create(
        patient=patient, device=device, voice=clone, voice_source="cloned", format="mp3_44100_128"
    )
    utterance = Utterance.objects.create(
        patient=patient,
        conversation=conversation,
        client_speech_id="s1",
        origin="server",
        text=SECRETS[4],
        state="heard",
    )
    ids: dict[str, Any] = {"patient": patient.pk, "voice": clone.pk, "model": "eleven_flash_v2_5", "kind": "live"}
    event = UsageEvent.objects.create(
        source=utterance.pk,
        segment=0,
        attempt=1,
        conversation=conversation.pk,
        outcome="completed",
        requested_characters=9,
        characters=9,
        **ids,
    )
    usage = DailyUsage.objects.create(day=now.date(), characters=9, credits=9, events=1, **ids)
    budget = Incident.objects.create(kind="budget", key=str(patient.pk))
    lost = Incident.objects.create(kind="voice", key=str(clone.pk))
    down = Incident.objects.create(kind="no_voice")
    sample = sample_storage().save("sample", ContentFile(SECRETS[7].encode()))
    job = CloneJob.objects.create(
        patient=patient, name=SECRETS[6], sample=sample, sample_digest="d", content_type="audio/mpeg", voice=clone,
        consent_by=SECRETS[6], consented_at=now, status="ready",
    )  # fmt: skip
    pending = CloneJob.objects.create(
        patient=patient, name=SECRETS[6], sample_digest="e", consent_by=SECRETS[6], consented_at=now
    )
    greeting = Phrase.objects.create(kind="greeting", text="Good morning {patient_name}.")
    clip = {"voice": clone, "language": "en", "speed": 1, "format": "mp3_44100_128", "characters": 9, "size": 9}
    clips = [
        Clip.objects.create(digest="a", patient=patient, expires_at=now.replace(year=2099), **clip),
        Clip.objects.create(digest="b", phrase=greeting, expires_at=now.replace(year=2099), **clip),
    ]
    user = User.objects.create_user("account")
    stock = Voice.objects.get(source="stock")
    others = [
        down, user, greeting, stock, AuthToken.objects.create(user)[0], Group.objects.create(name="Ward"),
        clinic, TOTPDevice.objects.create(user=user, name="app"), ProviderState.objects.get_or_create()[0],
        Price.objects.create(model="", valid_from=now.date(), per_1000_credits=1),
        NotificationChannel.objects.create(name="On call", url=f"json://{ADDRESS}:{ADDRESS}@127.0.0.1/{ADDRESS}"),
        WebhookEndpoint.objects.create(url="https://records.example.org/", secret=WEBHOOK_SECRET),
        Reconciliation.objects.create(day=now.date()), *DefaultVoice.objects.all(),
    ]  # fmt: skip
    entry = LexiconEntry.objects.create(written=SECRETS[8], spoken=SECRETS[8], patient=patient)
    deletion = HistoryDeletion.objects.create(patient=patient.pk, covers_until=now)
    events.emit(EventType.UTTERANCE_HEARD, [Subject(utterance.pk, patient.pk, {"id": utterance.pk})])
    delivery = WebhookDelivery.objects.get()
    of_patient = [
        *(device, clone, conversation, utterance, event, usage, budget, lost, job, pending, deletion, delivery, entry),
        *clips,
    ]
    patient.refresh_from_db()
    return Rows(patient, of_patient, others)


class Visitor:
    """A user in a browser, whose requests also have an API token. Nobody if the user is None."""

    def __init__(self, user: User | None) -> None:
        self.user = user
        token = AuthToken.objects.create(user)[1] if user else ""
        self._client = Client(headers={"Authorization": f"Bearer {token}"} if user else {})
        if user:
            self._client.force_login(user)

    def request(self, method: str, path: str) -> tuple[int, str]:
        """Return the status and the body. An exception of the server is raised."""
        response = self._client.generic(method, path)
        return response.status_code, body_of(response).decode(errors="replace")


def user(name: str, *, in_role: str = "", **rights: bool) -> User:
    made = User.objects.create_user(name, **rights)
    if in_role:
        made.groups.add(role(in_role))
    return made


def outsider(kind: str, rows: Rows) -> Visitor:
    if kind == "nobody":
        return Visitor(None)
    if kind == "staff without permission":
        return Visitor(user("staff", is_staff=True))
    if kind == "auditor during the erasure":
        Patient.objects.filter(pk=rows.patient.pk).update(erases_at=timezone.now() + timedelta(days=7))
        return Visitor(user("auditor", in_role="Auditor", is_staff=True))
    other = user("other", in_role="Clinician", is_staff=True)
    if kind == "reader of another team":  # may see every page, but only of the own patients
        other.user_permissions.set(role("Auditor").permissions.exclude(codename="view_all_patients"))
        other.user_permissions.add(*role("Administrator").permissions.filter(codename="erase_patient"))
    own = Patient.objects.create(name="Own Patient", companion_name="Clara")
    if kind == "member of another clinic":
        own.clinic = Clinic.objects.create(name="Ward 4")
        own.clinic.members.add(other)
        own.save()
    else:
        own.team.add(other)
    return Visitor(other)


OUTSIDERS = (
    "nobody",
    "staff without permission",
    "clinician of another team",
    "reader of another team",
    "auditor during the erasure",
    "member of another clinic",
)
# An auditor also sees those of erased patients, without a name.
RECORDS = (UsageEvent, DailyUsage, Incident, HistoryDeletion)


def addresses(rows: Rows) -> Iterator[Address]:
    """All addresses, with searches for the patient and the choices that forms offer."""
    for address in every_address(rows.all):
        if SPEECH.search(address.name) and address.name != "speech":
            continue
        yield address
        if address.name.endswith("_changelist"):
            for query in (f"q={SECRETS[0][1:]}", f"q={rows.patient.pk}", f"patient={rows.patient.pk}", "all="):
                yield Address(f"{address.path}?{query}", address.name, False)
        if address.name.endswith("_add"):
            yield Address(f"{address.path}?patient={rows.patient.pk}", address.name, False)
        if address.name == "admin:autocomplete":
            for model in ("patients/device", "cloning/clonejob", "tts/conversation"):
                app, name = model.split("/")
                choice = f"app_label={app}&model_name={name}&field_name=patient"
                yield Address(f"{address.path}?{choice}&term=", address.name, False)


def leaks(body: str) -> list[str]:
    return [secret for secret in SECRETS if secret in body]


def has_address(body: str) -> bool:
    return ADDRESS.lower() in body.lower()


@pytest.mark.parametrize("kind", OUTSIDERS)
def test_who_may_not_see_a_patient_gets_nothing(kind: str, rows: Rows):
    visitor, found = outsider(kind, rows), []
    kept = RECORDS if kind == "auditor during the erasure" else ()
    of_patient = {str(row.pk) for row in [rows.patient, *rows.of_patient] if not isinstance(row, kept)}
    for address in addresses(rows):
        status, body = visitor.request("GET", address.path)
        leaked = leaks(body)
        if status >= 500 or leaked or has_address(body):
            found.append((address.path, status, leaked))
        elif address.names_row and any(key in address.path for key in of_patient if len(key) > 8) and status == 200:
            found.append((address.path, status, "a page"))
    assert found == []


@pytest.mark.parametrize("kind", OUTSIDERS[:3])
def test_who_may_not_see_a_patient_changes_nothing(kind: str, rows: Rows):
    visitor = outsider(kind, rows)
    of_patient = [rows.patient, *rows.of_patient]
    before = [type(row).objects.filter(pk=row.pk).values().get() for row in of_patient]  # type: ignore[attr-defined]
    log = LogEntry.objects.count()
    found = []
    for address in every_address(of_patient):
        if not address.names_row or SPEECH.search(address.name):
            continue
        for method in UNSAFE:
            status, body = visitor.request(method, address.path)
            if status not in (302, 401, 403, 404, 405) or leaks(body):
                found.append((method, address.path, status))
    assert found == []
    assert [type(row).objects.filter(pk=row.pk).values().get() for row in of_patient] == before  # type: ignore[attr-defined]
    assert LogEntry.objects.count() == log


@pytest.mark.parametrize("name", ["Administrator", "Clinician", "Auditor"])
def test_each_role_gets_its_pages_and_no_server_error(name: str, rows: Rows):
    member = user("member", in_role=name, is_staff=True)
    if name == "Clinician":  # sees the patient by the clinic alone
        rows.patient.clinic.members.add(member)
    visitor, found, seen = Visitor(member), [], set()
    for address in addresses(rows):
        with suppress(_Rollback), transaction.atomic():
            status, body = visitor.request("GET", address.path)
            seen |= {*leaks(body)} if status == 200 else set()
            if status >= 500 or has_address(body):
                found.append((address.path, status))
            raise _Rollback
    assert found == []
    assert seen == set(SECRETS)


class _Rollback(Exception):
    """Undoes a request, such as one that logs out."""
