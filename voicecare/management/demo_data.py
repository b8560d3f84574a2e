"""What `make run` shows itself with: people, devices, voices and phrases, made once and then left alone."""

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
STARTUP_DELAY_S = 10  # by then the worker and the sandbox are there
ADMIN, CLINICIAN = "admin", "clinician"

_PATIENTS: Sequence[dict[str, str]] = (
    {"name": "Margaret Ellis", "preferred_name": "Maggie", "companion_name": "Clara", "language": "en"},
    {"name": "Thomas Reed", "preferred_name": "Tom", "companion_name": "Samuel", "language": "en"},
    {"name": "Ingrid Vogel", "preferred_name": "Frau Vogel", "companion_name": "Johanna", "language": "de"},
)
_PATIENT_WITH_OWN_VOICE = 1  # who of them has chosen a voice, the second of the stock
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
    """How to get in: two users with the same pass phrase, and the first patient's device."""

    password: str
    device: Device
    token: str


@transaction.atomic
def seed() -> Demo:
    """Makes what is missing and changes nothing that is there, save a secret whose file is lost: that is renewed."""
    voices = _voices()
    password, clinician = _users()
    patients = [_patient(number, voices, clinician) for number in range(len(_PATIENTS))]
    _phrases()
    devices = [_device(patient) for patient in patients]
    return Demo(password, devices[0], _token(devices[0]))


def _voices() -> list[Voice]:
    """The sandbox's stock; of a real account the default voice alone, until its list is read."""
    stock = []
    if settings.USE_SANDBOX:
        # Imported late: with a real provider the sandbox need not even be installed.
        from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices as sandbox_stock

        stock = [_voice(voice.voice_id, voice.name) for voice in sandbox_stock()]
    default = Voice.objects.default()
    return [default, *(voice for voice in stock if voice != default)]


def _voice(provider_id: str, name: str) -> Voice:
    return Voice.objects.get_or_create(provider_id=provider_id, defaults={"name": name})[0]


def _users() -> tuple[str, User]:
    path = settings.DATA_DIR / PASSWORD_FILE
    password = _read_secret(path)
    renewed = password is None
    if password is None:
        password = "-".join(secrets.token_hex(2) for _ in range(5))
        _write_secret(path, password)
    _user(ADMIN, password, renewed, is_staff=True, is_superuser=True)
    return password, _user(CLINICIAN, password, renewed)


def _user(name: str, password: str, renewed: bool, **rights: bool) -> User:
    user, created = User.objects.get_or_create(username=name, defaults=rights)
    if created or renewed:
        user.set_password(password)
        user.save(update_fields=["password"])
    return user


def _patient(number: int, voices: Sequence[Voice], clinician: User) -> Patient:
    voice = voices[1] if number == _PATIENT_WITH_OWN_VOICE and len(voices) > 1 else None
    key = uuid.uuid5(uuid.NAMESPACE_OID, f"voicecare demo patient {number}")
    patient, created = Patient.objects.get_or_create(pk=key, defaults={**_PATIENTS[number], "voice": voice})
    if created:
        patient.team.add(clinician)
    return patient


def _phrases() -> None:
    """A language that has phrases is left as somebody made it. New ones are had made soon, not at the next round."""
    new = [language for language in _GREETINGS if not Phrase.objects.for_language(language).exists()]
    for language in new:
        Phrase.objects.create(kind=Phrase.Kind.GREETING, language=language, text=_GREETINGS[language])
        Phrase.objects.create(kind=Phrase.Kind.HOLD_MESSAGE, language=language, text=_HOLD_MESSAGES[language])
        Phrase.objects.bulk_create(Phrase(language=language, text=text) for text in _COMMON[language])
    if new:
        task_queue.enqueue_on_commit(task_names.WARM_DUE, delay_s=STARTUP_DELAY_S)


def _device(patient: Patient) -> Device:
    device = patient.devices.filter(revoked_at=None).order_by("created_at").first()
    return device or Device.objects.issue(patient, "Bedside tablet")[0]


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
    """Readable by its owner alone from the first moment; a file that is there may have been opened to others."""
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(secret + "\n")
