"""The data of the demo that `make run` starts: users, patients, devices, voices and phrases.

Rows that already exist are not changed, so that changes by the user are kept.
"""

import os
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import transaction

from tts.models import Phrase
from voicecare.core import task_names, task_queue
from voicecare.patients import access
from voicecare.patients.models import DefaultVoice, Device, Patient, Voice

PASSWORD_FILE = "demo-password"  # noqa: S105 - a file in the data directory
DEMO_TOKEN_FILE = "demo-device-token"  # noqa: S105 - likewise
STARTUP_DELAY_S = 60  # if nothing reports readiness (seed_demo --when-ready), the worker and the sandbox run by then
ADMIN, CLINICIAN = "admin", "clinician"

_PATIENTS: Sequence[dict[str, str]] = (
    {"name": "Margaret Ellis", "preferred_name": "Maggie", "companion_name": "Clara", "language": "en"},
    {"name": "Thomas Reed", "preferred_name": "Tom", "companion_name": "Samuel", "language": "en"},
    {"name": "Ingrid Vogel", "preferred_name": "Frau Vogel", "companion_name": "Johanna", "language": "de"},
)
_PATIENT_WITH_OWN_VOICE = 1  # index of the patient that has the second stock voice
_MORE_PHRASES = {  # in addition to those that `migrate` adds
    "en": (
        "How are you feeling today?",
        "I am here with you.",
        "Take your time.",
        "That sounds difficult.",
        "Thank you for telling me.",
        "Shall we go on?",
        "Sleep well.",
    ),
    "de": (
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
    """The credentials of the demo.

    `password` is the password of both users. `device` is the device of the first patient, and `token` is its token.
    """

    password: str
    device: Device
    token: str


@transaction.atomic
def seed() -> Demo:
    """Creates the rows that are missing, and returns the credentials.

    Passwords and tokens cannot be read from the database, so each is also in a file in the data directory. If a file is
    missing, a new password or token replaces the old one.
    """
    voices = _voices()
    password, clinician = _users()
    patients, new_languages = [], set()
    for number, fields in enumerate(_PATIENTS):
        voice = voices[1] if number == _PATIENT_WITH_OWN_VOICE and len(voices) > 1 else None
        patient_id = uuid.uuid5(uuid.NAMESPACE_OID, f"voicecare demo patient {number}")
        patient, created = Patient.objects.get_or_create(pk=patient_id, defaults={**fields, "voice": voice})
        if created:
            patient.team.add(clinician)
            new_languages.add(patient.language)
        patients.append(patient)
    if new_languages:
        phrases = [
            Phrase(language=language, text=text) for language in new_languages for text in _MORE_PHRASES[language]
        ]
        Phrase.objects.bulk_create(phrases, ignore_conflicts=True)
        task_queue.enqueue_on_commit(task_names.WARM_DUE, delay_s=STARTUP_DELAY_S)
    devices = [
        patient.devices.bedside().filter(revoked_at=None).order_by("created_at").first()
        or Device.objects.issue(patient, "Bedside tablet")[0]
        for patient in patients
    ]
    return Demo(password, devices[0], _token(devices[0]))


def _voices() -> list[Voice]:
    """Returns the default voice, followed by the other stock voices if the sandbox provider is used.

    The stock voices of a real account are not known yet, because they are read later. The first stock voice of the
    sandbox becomes the default voice, because the documentation names it.
    """
    stock = []
    if settings.USE_SANDBOX:
        # Imported here: an installation with a real provider does not need the sandbox.
        from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices as sandbox_stock

        stock = [
            Voice.objects.get_or_create(provider_id=voice.voice_id, defaults={"name": voice.name})[0]
            for voice in sandbox_stock()
        ]
        DefaultVoice.objects.get_or_create(
            language="", chosen_by=DefaultVoice.ChosenBy.SERVER, defaults={"voice": stock[0]}
        )
    default = Voice.objects.default()
    return [default, *(voice for voice in stock if voice != default)] if default else []


def _users() -> tuple[str, User]:
    """Creates the two users where they are missing. Returns their password, and the user who is a clinician."""
    path = settings.DATA_DIR / PASSWORD_FILE
    password = _read_secret(path)
    is_new = password is None
    if password is None:
        password = "-".join(secrets.token_hex(2) for _ in range(5))
        _write_secret(path, password)
    _user(ADMIN, password, is_new, is_staff=True, is_superuser=True)
    return password, _user(CLINICIAN, password, is_new, role=access.CLINICIAN)


def _user(name: str, password: str, set_password: bool, role: str = "", **rights: bool) -> User:
    user, created = User.objects.get_or_create(username=name, defaults=rights)
    if created:
        user.groups.set(Group.objects.filter(name=role))  # an administrator may have deleted the group
    if created or set_password:
        user.set_password(password)
        user.save(update_fields=["password"])
    return user


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
    """Writes the secret to a new file that only its owner can read.

    An existing file is deleted first and not overwritten, because another process may have it open.
    """
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(secret + "\n")
