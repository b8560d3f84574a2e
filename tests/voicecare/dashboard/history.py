"""Realistic usage data, identical in every run: daily totals, and a current state with incidents and devices."""

import random
import uuid
from collections.abc import Iterator
from datetime import date, timedelta

from django.conf import settings
from django.utils import timezone

from cloning.models import CloneJob
from usage.models import NO_ID, DailyUsage, Incident, ProviderState, Reconciliation, UsageEvent
from usage.reports.queries import today
from voicecare.patients.models import Device, Patient, Voice

NAMES = (
    "Margaret Ellis",
    "Thomas Reed",
    "Ingrid Vogel",
    "Harold Finch",
    "Rosa Marquez",
    "Edith Sommer",
    "George Okafor",
    "Annette Leclerc",
)
MODEL = "eleven_flash_v2_5"


def create_usage(days: int = 400, patient_count: int = len(NAMES)) -> list[Patient]:
    """Create usage for the last `days` days, up to today, and return the new patients.

    The ids of the patients are the same in every test, because servers cache figures between tests.
    """
    stock = ((settings.DEFAULT_VOICE_ID, "Rachel"), ("v1", "Sarah"), ("v2", "Anna, her daughter"), ("v3", "George"))
    voices = [_get_or_create_voice(*one) for one in stock]
    existing = Patient.objects.count()
    patients = [_create_patient(existing + number, voices[number % len(voices)]) for number in range(patient_count)]
    DailyUsage.objects.bulk_create(_daily_rows(patients, days), batch_size=500)
    return patients


def create_current_state(patients: list[Patient]) -> None:
    """Create a low quota, two open incidents, three online devices, a clone job, and unconfirmed requests."""
    now = timezone.now()
    ProviderState.objects.update_or_create(
        pk=1,
        defaults={
            "quota_limit": 1_000_000,
            "quota_used": 781_204,
            "quota_resets_at": now + timedelta(days=9, hours=5),
            "polled_at": now - timedelta(seconds=40),
        },
    )
    Incident.objects.create(
        kind="quota_low", detail="78 % of the credits are used.", opened_at=now - timedelta(hours=7)
    )
    Incident.objects.create(kind="slow", opened_at=now - timedelta(minutes=12), acknowledged_at=now)
    for number, patient in enumerate(patients[:3]):
        connect_device(patient, minutes=5 * number + 2)
    CloneJob.objects.create(
        patient=patients[4],
        name="Lucia, her granddaughter",
        sample_digest="0" * 64,
        content_type="audio/mpeg",
        consent_by="Lucia Marquez",
        consent_wording="1",
        created_at=now - timedelta(minutes=1),
    )
    for segment in range(3):
        UsageEvent.objects.create(
            source=uuid.UUID(int=7), segment=segment, attempt=1, kind="live", outcome="unknown", requested_characters=61
        )
    Reconciliation.objects.create(
        day=today() - timedelta(days=1),
        characters=28_511,
        credits=14_256,
        provider_characters=28_511,
        provider_credits=14_256,
        unexplained_characters=0,
        billed_attempts=2,
        compared_at=now - timedelta(hours=3),
    )
    Reconciliation.objects.create(day=today(), unknown_attempts=3, unknown_characters=183, checked_at=now)


def connect_device(patient: Patient, minutes: int = 0) -> Device:
    device, _ = Device.objects.issue(patient, "Bedside tablet")
    now = timezone.now()
    device.last_seen, device.online_until = now - timedelta(minutes=minutes), now + timedelta(hours=1)
    device.save()
    return device


def _get_or_create_voice(provider_id: str, name: str) -> Voice:
    key = uuid.uuid5(uuid.NAMESPACE_OID, name)
    return Voice.objects.get_or_create(provider_id=provider_id, defaults={"pk": key, "name": name})[0]


def _create_patient(number: int, voice: Voice) -> Patient:
    key, name = uuid.uuid5(uuid.NAMESPACE_OID, str(number)), NAMES[number % len(NAMES)]
    return Patient.objects.create(pk=key, name=name, companion_name="Clara", voice=voice)


def _daily_rows(patients: list[Patient], days: int) -> Iterator[DailyUsage]:
    rng = random.Random(1)
    for number in range(days):
        day = today() - timedelta(days=number)
        has_outage = rng.random() < 0.08
        for index, patient in enumerate(patients):
            yield from _patient_rows(rng, day, patient, activity=1.4 - index * 0.12, has_outage=has_outage)
        yield _daily_row(day, "warm", characters=rng.randint(0, 900), voice=patients[0].voice_id)


def _patient_rows(
    rng: random.Random, day: date, patient: Patient, activity: float, has_outage: bool
) -> Iterator[DailyUsage]:
    characters = round(rng.uniform(1500, 4000) * activity * (0.7 if day.weekday() > 4 else 1))
    speeches = characters // 60
    failures = speeches // 6 if has_outage else rng.randint(0, 1)
    common = {"patient": patient.pk, "voice": patient.voice_id}
    fast = {"chunk_150": speeches // 4, "chunk_200": speeches // 3, "chunk_300": speeches // 4}
    slow = {"chunk_500": speeches // 12, "chunk_750": speeches // (8 if has_outage else 40)}
    yield _daily_row(day, "live", characters=characters, events=speeches, failed=failures, **fast, **slow, **common)
    yield _daily_row(
        day, "cache", saved_characters=round(characters * rng.uniform(0.2, 0.5)), events=speeches // 3, **common
    )
    if failures:
        yield _daily_row(day, "retry", characters=failures * 60, events=failures, failed=failures // 3, **common)
        yield _daily_row(day, "backup", characters=failures * 40, events=max(failures // 3, 1), **common)
        yield _daily_row(day, "offline", saved_characters=failures * 15, events=failures // 4, **common)


def _daily_row(day: date, kind: str, **columns: object) -> DailyUsage:
    characters = columns.get("characters", 0)
    assert isinstance(characters, int)
    values = {"patient": NO_ID, "credits": -(-characters // 2), "model": MODEL, **columns}
    return DailyUsage(day=day, kind=kind, **values)
