"""The rows that `tests.bench.history` measures with: PostgreSQL generates the many, the ORM the few."""

import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

EVENTS = """
INSERT INTO usage_usageevent (
    id, source, segment, attempt, conversation, patient, voice, model, kind, outcome, code, asked, characters, credits,
    saved, request_id, first_byte_ms, first_chunk_ms, at
)
SELECT gen_random_uuid(), gen_random_uuid(), 0, 1, gen_random_uuid(), p.id, p.voice_id, 'eleven_flash_v2_5', kind,
    CASE WHEN failed THEN 'failed' ELSE 'completed' END, CASE WHEN failed THEN 'internal_error' ELSE '' END, asked,
    CASE WHEN billed AND NOT failed THEN asked ELSE 0 END, CASE WHEN billed AND NOT failed THEN asked / 2 ELSE 0 END,
    CASE WHEN billed THEN 0 ELSE asked END, CASE WHEN billed THEN 'r' || n ELSE '' END,
    CASE WHEN billed AND NOT failed THEN ms END, CASE WHEN NOT failed AND mod(n, 3) = 0 THEN ms + 3 END, at
FROM (
    SELECT n, 20 + mod(n, 200) AS asked, 60 + 900 * power(random(), 6) AS ms, mod(n, 100) = 7 AS failed,
        now() - random() * %(days)s * interval '1 day' AS at, 1 + (random() * (%(patients)s - 1))::int AS who,
        CASE WHEN mod(n, 100) < 60 THEN 'live' WHEN mod(n, 100) = 60 THEN 'retry' WHEN mod(n, 100) = 61 THEN 'backup'
            WHEN mod(n, 100) < 95 THEN 'cache' WHEN mod(n, 100) < 97 THEN 'offline' ELSE 'warm' END AS kind,
        mod(n, 100) < 62 OR mod(n, 100) >= 97 AS billed
    FROM generate_series(%(first)s, %(last)s) AS n
) AS made JOIN numbered AS p ON p.number = made.who
"""
CONVERSATIONS = """
INSERT INTO conversations (
    id, patient_id, voice_id, voice_source, format, initiated, tts_characters_used, started_at, seen_at, ended_at
)
SELECT conversation, patient, voice, 'selected', 'pcm_16000', 'device', characters, at, at, at
FROM usage_usageevent WHERE kind IN ('live', 'retry', 'backup')
"""
MESSAGES = """
INSERT INTO tts_utterance (
    id, conversation_id, patient_id, client_id, origin, text, state, source, code, characters, bytes_sent, received_at,
    owner, attempts, idempotency_key, request_digest
)
SELECT source, conversation, patient, 'say-' || mod(asked, 50), 'device', '', 'spoken', 'live', code, characters, 1000,
    at, '', 0, '', ''
FROM usage_usageevent WHERE kind IN ('live', 'retry', 'backup')
"""
AUDIT = """
INSERT INTO audit_auditentry (at, user_id, user_name, source, action, object_type, object_id, patient_id, changes)
SELECT now() - random() * %(days)s * interval '1 day', 1000 + mod(n, 50), 'clinician' || mod(n, 50),
    CASE WHEN mod(n, 3) = 0 THEN 'rest' ELSE 'admin' END,
    (array['change', 'read_text', 'play_recording', 'speak', 'log_in'])[1 + mod(n, 5)], 'patients.patient', p.id, p.id,
    '{"language": ["en", "de"]}'
FROM generate_series(1, %(entries)s) AS n JOIN numbered AS p ON p.number = 1 + mod(n * 7919::bigint, %(patients)s)
"""
BATCH = 500_000
STOCK_VOICES = 40
CLINICS = 20
_LETTERS = str.maketrans("0123456789", "abcdefghij")  # digits in a name would be written out in each greeting
RECORDING: dict[str, Any] = {
    "sample_digest": "0" * 64,
    "content_type": "audio/wav",
    "consent_by": "The patient",
    "consent_wording": "2026-01",
}


def seed(events: int, patients: int, days: int, audit_entries: int) -> None:
    """Create all rows. Every fourth patient has a voice clone, and each has a device and belongs to a clinic.

    Of the clips that the patients need, two of three exist.
    """
    from django.db import connection

    _create_patients(patients)
    _create_clips()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE numbered AS SELECT row_number() OVER () AS number, id, voice_id FROM patients_patient"
        )
        for first in range(1, events + 1, BATCH):
            last = min(first + BATCH - 1, events)
            cursor.execute(EVENTS, {"first": first, "last": last, "days": days, "patients": patients})
            print(f"\r{last:,} events", end="", flush=True)
        cursor.execute(AUDIT, {"entries": audit_entries, "days": days, "patients": patients})
        cursor.execute("DROP TABLE numbered")
        cursor.execute(CONVERSATIONS)
        cursor.execute(MESSAGES)
        cursor.execute("VACUUM ANALYZE")
    print()


def _create_patients(number: int) -> None:
    from cloning.models import CloneJob
    from voicecare.patients.models import Clinic, Device, Patient, Voice

    # The first of all by its name is the default voice.
    names = ("Rachel", *(f"Stock {each}" for each in range(1, STOCK_VOICES)))
    stock = Voice.objects.bulk_create(
        Voice(name=name, provider_id=uuid.uuid4().hex, category="premade") for name in names
    )
    clinics = Clinic.objects.bulk_create(Clinic(name=f"Clinic {each}") for each in range(CLINICS))
    patients = Patient.objects.bulk_create(
        Patient(
            name=f"Patient {each}",
            preferred_name=str(each).translate(_LETTERS).capitalize(),
            companion_name="Clara",
            voice=stock[each % STOCK_VOICES] if each % 4 else None,
            clinic=clinics[each % CLINICS],
        )
        for each in range(number)
    )
    with_clone = patients[::4]
    clones = Voice.objects.bulk_create(
        Voice(name=f"{patient.name}, clone", provider_id=uuid.uuid4().hex, source=Voice.Source.CLONED, patient=patient)
        for patient in with_clone
    )
    for patient, voice in zip(with_clone, clones, strict=True):
        patient.voice = voice
    Patient.objects.bulk_update(with_clone, ["voice"], batch_size=1000)
    CloneJob.objects.bulk_create(
        CloneJob(patient=patient, name=voice.name, voice=voice, status=CloneJob.Status.READY, **RECORDING)
        for patient, voice in zip(with_clone, clones, strict=True)
    )
    Device.objects.bulk_create(
        Device(
            patient=patient,
            name="bedside",
            token_prefix=f"{each:08x}",
            token_digest="",
            format="mp3_44100_128",
            last_seen=timezone.now(),
        )
        for each, patient in enumerate(patients)
    )


def _create_clips() -> None:
    from tts.cache.missing import load_needs
    from tts.cache.planning import create_phrase_cache
    from tts.models import Clip

    clips = (
        Clip(
            digest=key,
            voice_id=spec.speech_settings.voice.id,
            phrase_id=None if spec.patient_id else spec.phrase_id,
            patient_id=spec.patient_id,
            language=spec.speech_settings.language,
            speed=spec.speech_settings.speed,
            format=spec.speech_settings.format,
            characters=len(spec.text),
            size=20_000,
            expires_at=timezone.now() + timedelta(days=7),
            hits=each % 50,
        )
        for each, (key, spec) in enumerate(load_needs(create_phrase_cache()).specs.items())
        if each % 3
    )
    Clip.objects.bulk_create(clips, batch_size=1000)
