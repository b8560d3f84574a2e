"""Rows of every model, with names and values as long as real ones."""

import uuid
from datetime import timedelta
from decimal import Decimal

from django.contrib.auth.models import User
from django.utils import timezone

from cloning.models import CloneJob
from tts.models import Clip, Conversation, Phrase, Utterance
from usage import budgets
from usage.ledger import rollup
from usage.models import (
    BudgetMonth,
    DailyUsage,
    Incident,
    NotificationChannel,
    ProviderState,
    Reconciliation,
    UsageEvent,
)
from voicecare.accounts import tokens
from voicecare.audit.models import AuditEntry
from voicecare.core import languages
from voicecare.patients.models import Clinic, DefaultVoice, Device, Patient, Voice
from voicecare.webhooks.events import emit_test
from voicecare.webhooks.models import WebhookAttempt, WebhookEndpoint

NAMES = ("Margarethe Hohenstein-Kellermann", "Thomas Reed", "Bjørn Østergaard", "María del Carmen Fernández")
CODES = ("", "", "too_many_concurrent_requests", "quota_exceeded")


def create_rows(patients: int) -> None:
    """Create this number of patients, with a device and a row of every list for each of them."""
    ProviderState.objects.get_or_create()
    team = [User.objects.create_user(f"clinician-{number}@example.org") for number in range(4)]
    voice = Voice.objects.create(provider_id="stock", name="Rachel - Warm, Calm and Clear", languages="en de fr")
    DefaultVoice.objects.create(voice=voice, language="de")
    phrase = Phrase.objects.create(
        kind="greeting", text="Good morning {patient_name}, this is {ai_name}. Nice to see you."
    )
    NotificationChannel.objects.create(
        name="Second on call, ward 4 and night shift",
        url="workflows://127.0.0.1:443/workflow/signature",
        kinds=["voice_ending", "no_usable_voice"],
        severities=["critical", "warning"],
        escalate_after_minutes=120,
        failures=3,
        last_sent_at=timezone.now() - timedelta(days=20),
        last_failed_at=timezone.now(),
        last_error="The service refused the message (HTTP 403).",
    )
    endpoint = WebhookEndpoint.objects.create(
        url="https://patient-records.hospital.example.org/integrations/voicecare/webhooks/",
        description="Patient records, building 4",
        secret=WebhookEndpoint().new_secret(),
        events=["utterance.heard", "utterance.expired", "utterance.failed"],
        failures=3,
        failing_since=timezone.now() - timedelta(hours=2),
    )
    delivery = emit_test(endpoint)
    for number, (status, problem) in enumerate([(None, "timeout"), (503, "refused"), (204, "")], 1):
        WebhookAttempt.objects.create(
            delivery=delivery,
            number=number,
            duration_ms=1_234,
            status_code=status,
            problem=problem,
            excerpt="The service is unavailable for maintenance." if problem == "refused" else "",
        )
    clinics = [
        Clinic.objects.create(
            name=name,
            monthly_character_budget=2_000_000,
            daily_character_budget=60_000,
            alert_emails="night.shift.ward.4@hospital.example.org\nhead.of.nursing@hospital.example.org",
        )
        for name in ("Geriatric Rehabilitation, Building 4", "Ward 3")
    ]
    for number in range(patients):
        _create_patient(number, team, voice, phrase)
    for number, patient in enumerate(Patient.objects.all()):
        erases_at = timezone.now() + timedelta(days=6) if number % 10 == 8 else None
        Patient.objects.filter(pk=patient.pk).update(clinic=[None, *clinics][number % 3], erases_at=erases_at)
    for user in team:
        tokens.issue_for_log_in(user, None)


def _create_patient(number: int, team: list[User], stock: Voice, phrase: Phrase) -> None:
    now, tags = timezone.now(), list(languages.LANGUAGES)
    patient = Patient.objects.create(
        name=f"{NAMES[number % 4]} {number}",
        preferred_name=NAMES[number % 4].split()[0],
        companion_name="Clara",
        language=tags[number % len(tags)],
        speech_rate=Decimal("0.90"),
        voice=stock if number % 2 else None,
        monthly_character_budget=2_000_000 - 50_000 * number if number % 3 else None,
        archived_at=now if number % 10 == 9 else None,
    )
    patient.team.set(team[: number % 4])
    device, _ = Device.objects.issue(patient, f"Bedside tablet, ward 4, room {number}")
    device.format, device.last_seen = "mp3_44100_128", now - timedelta(hours=number)
    device.online_until = now + timedelta(minutes=10) if number % 3 == 0 else None
    device.revoked_at = now if number % 7 == 6 else None
    device.save()
    if number % 2 == 0:
        clone = Voice.objects.create(name="Anna, daughter", provider_id=f"c{number}", source="cloned", patient=patient)
        patient.voice = clone
        patient.save()
    _create_speech(number, patient, device, patient.voice or stock, phrase)


def _create_speech(number: int, patient: Patient, device: Device, voice: Voice, phrase: Phrase) -> None:
    now, code = timezone.now(), CODES[number % 4]
    source = "cloned" if voice.patient_id else "selected"
    conversation = Conversation.objects.create(
        patient=patient,
        device=device,
        voice=voice,
        voice_source=source,
        format=device.format,
        tts_characters_used=12_345,
        ended_at=now + timedelta(minutes=4) if number % 2 else None,
    )
    utterance = Utterance.objects.create(
        conversation=conversation,
        patient=patient,
        client_speech_id=str(uuid.uuid4()),
        origin="server" if number % 2 else "device",
        text="Good morning.",
        state="queued" if number % 4 == 3 else "spoken",
        queue_reason="quota" if number % 4 == 3 else "",
        source="" if number % 4 == 3 else "offline" if number % 4 == 2 else "live",
        code=code,
        characters=1_025,
        first_chunk_ms=1_234.5,
    )
    ids = {"patient": patient.pk, "voice": voice.pk, "model": "eleven_multilingual_v2"}
    figures = {"characters": 1_234_567, "credits": 617_284, "saved_characters": 23_456}
    UsageEvent.objects.create(
        source=utterance.pk,
        segment=0,
        attempt=1,
        conversation=conversation.pk,
        kind="live",
        outcome="failed" if code else "completed",
        code=code,
        requested_characters=1_025,
        request_id=f"request-{number}-0123456789abcdef",
        first_byte_ms=1_234.5,
        **ids,
        **figures,
    )
    day = rollup.day_of(now)
    DailyUsage.objects.create(day=day, kind="backup", events=12_345, failed=12, **ids, **figures)
    BudgetMonth.objects.create(patient=patient.pk, month=budgets.current_month(), used=19_876)
    Reconciliation.objects.create(day=day - timedelta(days=number), compared_at=now, characters=1_234_567)
    Incident.objects.create(kind="budget", key=str(patient.pk), detail=f"The budget of {NAMES[number % 4]} is used up.")
    CloneJob.objects.create(
        patient=patient,
        name="Anna, her daughter from Bremerhaven",
        sample_digest=f"{number}",
        consent_by="Anna Hohenstein",
        consented_at=now,
        status="failed" if code else "ready" if voice.patient_id else "pending",
        error_code="rejected" if code else "",
        error_message="The recording has music in the background. Record again in a quiet room." if code else "",
        voice=voice if voice.patient_id else None,
    )
    Clip.objects.create(
        digest=f"{number:064x}",
        voice=voice,
        phrase=None if number % 2 else phrase,
        patient=patient if number % 2 else None,
        language="en",
        speed=0.9,
        format="mp3_44100_128",
        characters=58,
        size=123_456,
        hits=1_234,
        used_at=now,
        expires_at=now + timedelta(days=7),
    )
    AuditEntry.objects.create(
        user_id=number,
        user_name=f"katharina.von-und-zu-{number}",
        source="admin",
        address=f"2001:db8:85a3::8a2e:370:{number}",
        action="renew_recovery_codes",
        object_type="patients.defaultvoice",
        object_id=str(patient.pk),
        patient_id=patient.pk,
        changes={"monthly_character_budget": [None, 20_000], "backup_policy": ["switch", "own_voice_only"]},
    )
