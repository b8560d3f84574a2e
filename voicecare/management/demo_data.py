"""The demo of `make run`: users, patients, devices, voices and phrases. Existing rows are not changed."""

import os
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from tts.devices.client import DEMO_TOKEN_FILE
from tts.models import Phrase
from voicecare.core import task_names, task_queue
from voicecare.patients.models import Device, Patient, Voice

PASSWORD_FILE = "demo-password"  # noqa: S105 - a file in the data directory
STARTUP_DELAY_S = 60  # if nothing reports readiness (seed_demo --when-ready), the worker and the sandbox run by then
ADMIN, CLINICIAN = "admin", "clinician"

_PATIENTS: Sequence[dict[str, str]] = (
    {"name": "Margaret Ellis", "preferred_name": "Maggie", "companion_name": "Clara", "language": "en"},
    {"name": "Thomas Reed", "preferred_name": "Tom", "companion_name": "Samuel", "language": "en"},
    {"name": "Ingrid Vogel", "preferred_name": "Frau Vogel", "companion_name": "Johanna", "language": "de"},
)
_PATIENT_WITH_OWN_VOICE = 1  # index of the patient that has the second stock voice
_GREETINGS = {
    "en": "Hello {patient_name}, this is {ai_name}. It is good to hear you.",
    "de": "Guten Tag, {patient_name}, hier ist {ai_name}. Schön, dass Sie da sind.",
}
_HOLD_MESSAGES = {
    "en": "One moment, please. I will be with you in a minute.",
    "de": "Einen Moment bitte. Ich bin gleich für Sie da.",
}
_COMMON = {
    "en": (
        "That's wonderful!",
        "I see.",
        "Tell me more.",
        "How are you feeling today?",
        "I am here with you.",
        "Take your time.",
        "That sounds difficult.",
        "Thank you for telling me.",
        "Shall we go on?",
        "Sleep well.",
    ),
    "de": (
        "Das ist ja wunderbar!",
        "Ich verstehe.",
        "Erzählen Sie mir mehr.",
        "Wie geht es Ihnen heute?",
        "Ich bin bei Ihnen.",
        "Lassen Sie sich Zeit.",
        "Das klingt schwer.",
        "Danke, dass Sie mir das erzählen.",
        "Wollen wir weitermachen?",
        "Schlafen Sie gut.",
    ),
}


@dataclass(frozen=True)
class Demo:
    """Credentials of the demo: the password of both users, and the device of the first patient with its token."""

    password: str
    device: Device
    token: str


@transaction.atomic
def seed() -> Demo:
    """Create missing rows. A password or token is replaced if its file in the data directory is missing."""
    voices = _voices()
    password, clinician = _users()
    patients = []
    for number, fields in enumerate(_PATIENTS):
        voice = voices[1] if number == _PATIENT_WITH_OWN_VOICE and len(voices) > 1 else None
        patient_id = uuid.uuid5(uuid.NAMESPACE_OID, f"voicecare demo patient {number}")
        patient, created = Patient.objects.get_or_create(pk=patient_id, defaults={**fields, "voice": voice})
        if created:
            patient.team.add(clinician)
        patients.append(patient)
    _phrases()
    devices = [
        patient.devices.filter(revoked_at=None).order_by("created_at").first()
        or Device.objects.issue(patient, "Bedside tablet")[0]
        for patient in patients
    ]
    return Demo(password, devices[0], _token(devices[0]))


def _voices() -> list[Voice]:
    """The default voice first. With the sandbox its stock voices follow. A real account's voices are read later."""
    stock = []
    if settings.USE_SANDBOX:
        # Imported here: an installation with a real provider does not need the sandbox.
        from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices as sandbox_stock

        stock = [
            Voice.objects.get_or_create(provider_id=voice.voice_id, defaults={"name": voice.name})[0]
            for voice in sandbox_stock()
        ]
    default = Voice.objects.default()
    return [default, *(voice for voice in stock if voice != default)]


def _users() -> tuple[str, User]:
    """The password of both users, and the clinician."""
    path = settings.DATA_DIR / PASSWORD_FILE
    password = _read_secret(path)
    is_new = password is None
    if password is None:
        password = "-".join(secrets.token_hex(2) for _ in range(5))
        _write_secret(path, password)
    _user(ADMIN, password, is_new, is_staff=True, is_superuser=True)
    return password, _user(CLINICIAN, password, is_new)


def _user(name: str, password: str, set_password: bool, **rights: bool) -> User:
    user, created = User.objects.get_or_create(username=name, defaults=rights)
    if created or set_password:
        user.set_password(password)
        user.save(update_fields=["password"])
    return user


def _phrases() -> None:
    """Add phrases for languages that have none, and enqueue the generation of their audio."""
    new = [language for language in _GREETINGS if not Phrase.objects.for_language(language).exists()]
    for language in new:
        Phrase.objects.create(kind=Phrase.Kind.GREETING, language=language, text=_GREETINGS[language])
        Phrase.objects.create(kind=Phrase.Kind.HOLD_MESSAGE, language=language, text=_HOLD_MESSAGES[language])
        Phrase.objects.bulk_create(Phrase(language=language, text=text) for text in _COMMON[language])
    if new:
        task_queue.enqueue_on_commit(task_names.WARM_DUE, delay_s=STARTUP_DELAY_S)


def _token(device: Device) -> str:
    path = settings.DATA_DIR / DEMO_TOKEN_FILE
    token = _read_secret(path)
    if token is None or not device.token_matches(token):
        token = device.renew_token()
        device.save(update_fields=["token_prefix", "token_digest"])
        _write_secret(path, token)
    return token


def _read_secret(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


def _write_secret(path: Path, secret: str) -> None:
    """Create the file with permissions for its owner only. An existing file is replaced, as others may have it open."""
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(secret + "\n")
