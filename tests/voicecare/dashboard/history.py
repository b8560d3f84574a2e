"""A history of usage that could be true, the same in every run: daily sums, and what goes on at this moment."""

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


def write(days: int = 400, patients: int = len(NAMES)) -> list[Patient]:
    """So many days of these patients, up to today. Their ids are the same in every test: servers remember figures."""
    stock = ((settings.DEFAULT_VOICE_ID, "Rachel"), ("v1", "Sarah"), ("v2", "Anna, her daughter"), ("v3", "George"))
    voices = [_voice(*one) for one in stock]
    before = Patient.objects.count()
    cast = [_patient(before + number, voices[number % len(voices)]) for number in range(patients)]
    DailyUsage.objects.bulk_create(_sums(cast, days), batch_size=500)
    return cast


def at_this_moment(cast: list[Patient]) -> None:
    """Credits that will not last, two incidents, three devices, a voice being made, something unknown."""
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
    for number, patient in enumerate(cast[:3]):
        connect(patient, minutes=5 * number + 2)
    CloneJob.objects.create(
        patient=cast[4],
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


def connect(patient: Patient, minutes: int = 0) -> Device:
    device, _ = Device.objects.issue(patient, "Bedside tablet")
    now = timezone.now()
    device.last_seen, device.online_until = now - timedelta(minutes=minutes), now + timedelta(hours=1)
    device.save()
    return device


def _voice(provider_id: str, name: str) -> Voice:
    key = uuid.uuid5(uuid.NAMESPACE_OID, name)
    return Voice.objects.get_or_create(provider_id=provider_id, defaults={"pk": key, "name": name})[0]


def _patient(number: int, voice: Voice) -> Patient:
    key, name = uuid.uuid5(uuid.NAMESPACE_OID, str(number)), NAMES[number % len(NAMES)]
    return Patient.objects.create(pk=key, name=name, companion_name="Clara", voice=voice)


def _sums(cast: list[Patient], days: int) -> Iterator[DailyUsage]:
    dice = random.Random(1)
    for number in range(days):
        day = today() - timedelta(days=number)
        trouble = dice.random() < 0.08
        for place, patient in enumerate(cast):
            yield from _day_of(dice, day, patient, talks=1.4 - place * 0.12, trouble=trouble)
        yield _sum(day, "warm", characters=dice.randint(0, 900), voice=cast[0].voice_id)


def _day_of(dice: random.Random, day: date, patient: Patient, talks: float, trouble: bool) -> Iterator[DailyUsage]:
    characters = round(dice.uniform(1500, 4000) * talks * (0.7 if day.weekday() > 4 else 1))
    speeches = characters // 60
    lost = speeches // 6 if trouble else dice.randint(0, 1)
    common = {"patient": patient.pk, "voice": patient.voice_id}
    within = {"chunk_150": speeches // 4, "chunk_200": speeches // 3, "chunk_300": speeches // 4}
    slow = {"chunk_500": speeches // 12, "chunk_750": speeches // (8 if trouble else 40)}
    yield _sum(day, "live", characters=characters, events=speeches, failed=lost, **within, **slow, **common)
    yield _sum(
        day, "cache", saved_characters=round(characters * dice.uniform(0.2, 0.5)), events=speeches // 3, **common
    )
    if lost:
        yield _sum(day, "retry", characters=lost * 60, events=lost, failed=lost // 3, **common)
        yield _sum(day, "backup", characters=lost * 40, events=max(lost // 3, 1), **common)
        yield _sum(day, "offline", saved_characters=lost * 15, events=lost // 4, **common)


def _sum(day: date, kind: str, **columns: object) -> DailyUsage:
    characters = columns.get("characters", 0)
    assert isinstance(characters, int)
    given = {"patient": NO_ID, "credits": -(-characters // 2), "model": MODEL, **columns}
    return DailyUsage(day=day, kind=kind, **given)
