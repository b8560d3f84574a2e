"""Tables with ten years of history, once for all tests of this folder. Only PostgreSQL: the tests read its plans."""

from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from tests.plans.explain import GROWING_TABLES
from voicecare.patients.models import Device, Patient, Voice

PATIENTS, VOICES = 200, 40
ROWS = 60_000  # of the largest tables; with fewer, PostgreSQL would rightly read a whole table for a join

AT = "now() - random() * interval '3650 days'"
HISTORY = f"""
CREATE TEMPORARY TABLE people AS SELECT row_number() OVER (ORDER BY id) AS number, id, voice_id FROM patients_patient;
CREATE TEMPORARY TABLE tablets AS SELECT row_number() OVER (ORDER BY id) AS number, id FROM patients_device;

INSERT INTO conversations (
    id, patient_id, device_id, voice_id, voice_source, format, initiated, tts_characters_used, started_at, seen_at,
    ended_at
)
SELECT gen_random_uuid(), p.id, d.id, p.voice_id, 'selected', 'pcm_16000', 'device', 100, at, at,
    CASE WHEN n > 20 THEN at END
FROM (SELECT n, CASE WHEN n > 10 THEN {AT} ELSE now() END AS at FROM generate_series(1, {ROWS}) AS n) AS made
JOIN people AS p ON p.number = 1 + mod(n, {PATIENTS}) JOIN tablets AS d ON d.number = 1 + mod(n, {PATIENTS});

CREATE TEMPORARY TABLE talks AS SELECT row_number() OVER (ORDER BY started_at) AS number, * FROM conversations;

INSERT INTO tts_utterance (
    id, conversation_id, patient_id, client_id, origin, text, state, source, code, queue_reason, characters, bytes_sent,
    received_at, expires_at, owner, lease_until, attempts, idempotency_key, request_digest
)
SELECT gen_random_uuid(), c.id, c.patient_id, 'say-' || n, CASE WHEN mod(n, 10) = 0 THEN 'server' ELSE 'device' END,
    CASE WHEN c.started_at > now() - interval '91 days' THEN 'Good morning' ELSE '' END,
    CASE WHEN n <= 200 AND mod(n, 10) = 0 THEN 'waiting' WHEN mod(n, 10) = 0 THEN 'heard'
        WHEN mod(n, 500) = 1 THEN 'failed' ELSE 'spoken' END,
    'live', '', '', 12, 1000, c.started_at, now() + interval '1 hour', '', NULL, 1, '', ''
FROM generate_series(1, {ROWS}) AS n JOIN talks AS c ON c.number = n;

INSERT INTO usage_usageevent (
    id, source, segment, attempt, conversation, patient, voice, model, kind, outcome, code, asked, characters, credits,
    saved, request_id, first_byte_ms, first_chunk_ms, at
)
SELECT gen_random_uuid(), u.id, 0, 1, u.conversation_id, u.patient_id, c.voice_id, 'eleven_flash_v2_5',
    CASE WHEN mod(u.n, 100) = 3 THEN 'backup' ELSE 'live' END,
    CASE WHEN mod(u.n, 2000) = 7 THEN 'unknown' WHEN mod(u.n, 100) = 8 THEN 'failed' ELSE 'completed' END, '', 12,
    CASE WHEN mod(u.n, 2000) = 7 THEN 0 ELSE 12 END, 6, 0,
    CASE WHEN mod(u.n, 2000) = 7 THEN '' ELSE 'request-' || u.n END, 120, 140, u.received_at
FROM (SELECT row_number() OVER () AS n, * FROM tts_utterance) AS u JOIN conversations AS c ON c.id = u.conversation_id;

INSERT INTO usage_dailyusage (
    day, patient, voice, model, kind, characters, credits, saved, events, failed, chunk_50, chunk_100, chunk_150,
    chunk_200, chunk_300, chunk_400, chunk_500, chunk_750, chunk_1000, chunk_1500, chunk_2000, chunk_3000, chunk_over
)
SELECT current_date - n, p.id, p.voice_id, 'eleven_flash_v2_5', 'live', 100, 50, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0
FROM generate_series(0, 3650) AS n JOIN people AS p ON mod(p.number + n, {PATIENTS * 3650 // ROWS}) = 0;

INSERT INTO usage_budgetmonth (patient, month, reserved, used, touched_at, checked)
SELECT p.id, month, CASE WHEN p.number = 1 THEN 10 ELSE 0 END, 100, now() - interval '1 hour',
    month < date_trunc('month', now())
FROM (
    SELECT date_trunc('month', now())::date - n * interval '1 month' AS month FROM generate_series(0, 119) AS n
) AS months, people AS p;

INSERT INTO usage_incident (id, kind, key, detail, opened_at, resolved_at, opening_sent_at, resolution_sent_at,
    sending_told, sending_failures)
SELECT gen_random_uuid(), CASE WHEN mod(n, 5) = 0 THEN 'slow' ELSE 'budget' END,
    CASE WHEN mod(n, 5) = 0 THEN '' ELSE p.id::text END, 'A detail.', at, at + interval '1 hour', at, at, '', 0
FROM (SELECT n, {AT} AS at FROM generate_series(1, {ROWS // 4}) AS n) AS made
JOIN people AS p ON p.number = 1 + mod(n, {PATIENTS});
INSERT INTO usage_incident (id, kind, key, detail, opened_at, sending_told, sending_failures)
SELECT gen_random_uuid(), 'budget', p.id::text, '', now() - interval '2 hours', '', 0
FROM people AS p WHERE p.number <= 5;

INSERT INTO cloning_clonejob (
    id, patient_id, name, sample, sample_digest, content_type, report, remove_background_noise, consent_by,
    consented_at, consent_wording, status, attempts, last_attempt, error_code, error_message, requires_verification,
    created_at, ended_at, replaced
)
SELECT gen_random_uuid(), p.id, 'Anna', CASE WHEN n <= 20 THEN 'sample-' || n ELSE '' END, 'digest-' || n, 'audio/mpeg',
    '{{}}', false, 'Anna', at, '2026-11', CASE WHEN n <= 5 THEN 'pending' ELSE 'failed' END, 0, 4,
    CASE WHEN n <= 5 THEN '' ELSE 'rejected' END, '', false, at, CASE WHEN n > 5 THEN at END, false
FROM (SELECT n, {AT} AS at FROM generate_series(1, {ROWS // 4}) AS n) AS made
JOIN people AS p ON p.number = 1 + mod(n, {PATIENTS});

INSERT INTO audit_auditentry (at, user_id, user_name, source, action, object_type, object_id, patient_id, changes)
SELECT {AT}, 1 + mod(n, 50), 'user-' || 1 + mod(n, 50), 'admin',
    CASE WHEN mod(n, 3) = 0 THEN 'read_text' ELSE 'change' END, 'patients.patient', p.id, p.id, '{{}}'
FROM generate_series(1, {ROWS}) AS n JOIN people AS p ON p.number = 1 + mod(n, {PATIENTS});

DROP TABLE people, tablets, talks;
ANALYZE;
"""


@pytest.fixture(scope="package")
def ten_years(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    if connection.vendor != "postgresql":
        pytest.skip("reads the plans of PostgreSQL")
    with django_db_blocker.unblock():
        voices = [Voice(name=f"Voice {number}", provider_id=f"voice-{number}") for number in range(VOICES)]
        Voice.objects.bulk_create([*voices, Voice(name="Default", provider_id="21m00Tcm4TlvDq8ikWAM")])
        Patient.objects.bulk_create(
            Patient(name=f"Patient {number}", companion_name="Clara", voice=voices[number % VOICES])
            for number in range(PATIENTS)
        )
        for patient in Patient.objects.all():
            Device.objects.issue(patient, "bedside")
        with connection.cursor() as cursor:
            cursor.execute(HISTORY)
        yield
        tables = ", ".join([*GROWING_TABLES, "patients_patient", "patients_device", "patients_voice"])
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {tables} CASCADE")
