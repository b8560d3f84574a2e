"""`python -m tests.bench.history`: measures the dashboard, the lists and searches of the admin, and usage over REST.

Creates two years of events, with their conversations and messages, on its own PostgreSQL (or on DATABASE_URL, which
must be empty) and sums them with `usage.ledger.rollup.rebuild`. The requests go through Django's client, so the figures
include neither a network nor a browser. Ten million events take some minutes and about 15 GB in the temporary folder.
"""

import argparse
import os
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from statistics import median
from typing import Any
from urllib.parse import urlencode

import django
from django.core.management import call_command
from django.utils import timezone

from tests.bench import report
from tests.services import PostgresProcess

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
BATCH = 500_000


LISTS = {
    "usage": "/admin/usage/usageevent/",
    "daily usage": "/admin/usage/dailyusage/",
    "messages": "/admin/tts/utterance/",
    "conversations": "/admin/tts/conversation/",
}


def seed(events: int, patients: int, days: int) -> None:
    from django.db import connection

    from voicecare.patients.models import Patient, Voice

    default = Voice.objects.create(provider_id="21m00Tcm4TlvDq8ikWAM", name="Rachel")  # the first of all by its name
    own = [Voice(name=f"Voice {number}", provider_id=uuid.uuid4().hex) for number in range(patients // 4)]
    Voice.objects.bulk_create(own)
    voices = [default, *own]
    Patient.objects.bulk_create(
        Patient(name=f"Patient {number}", companion_name="Clara", voice=voices[number % len(voices)])
        for number in range(patients)
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE numbered AS SELECT row_number() OVER () AS number, id, voice_id FROM patients_patient"
        )
        for first in range(1, events + 1, BATCH):
            last = min(first + BATCH - 1, events)
            cursor.execute(EVENTS, {"first": first, "last": last, "days": days, "patients": patients})
            print(f"\r{last:,} events", end="", flush=True)
        cursor.execute("DROP TABLE numbered")
        cursor.execute(CONVERSATIONS)
        cursor.execute(MESSAGES)
        cursor.execute("VACUUM ANALYZE")
    print()


def measure(rounds: int) -> str:
    """Return a row for each page: the first time, the median and worst of the later ones, and the number of queries."""
    from django.contrib.auth.models import User
    from django.test import Client

    from voicecare.accounts import tokens
    from voicecare.patients.models import Patient

    staff = User.objects.create_superuser("administrator")
    carer = User.objects.create_user("clinician")
    carer.patients.set(Patient.objects.all()[:10])  # type: ignore[attr-defined]
    browser = Client()
    browser.force_login(staff)

    def rest(user: User, path: str) -> Callable[[], Any]:
        headers = {"Authorization": f"Bearer {tokens.issue_for_log_in(user, None)[1]}"}
        return lambda: Client().get(f"/api/v1/usage/{path}", headers=headers)

    pages: dict[str, Callable[[], Any]] = {
        **_admin_pages(browser),
        "usage/daily/, staff": rest(staff, "daily/"),
        "usage/daily/?group=patient, staff": rest(staff, "daily/?group=patient"),
        "usage/monthly/, staff": rest(staff, "monthly/"),
        "usage/daily/, ten patients": rest(carer, "daily/"),
        "usage/monthly/, ten patients": rest(carer, "monthly/"),
    }
    rows = [[name, *_timed(page, rounds)] for name, page in pages.items()]
    return report.table(("page", "first ms", "median ms", "worst ms", "queries"), rows)


def _admin_pages(browser: Any) -> dict[str, Callable[[], Any]]:
    """Pages, lists and searches of the admin. `browser` is a logged-in client. Ids are of the oldest event."""
    from usage.models import UsageEvent
    from voicecare.patients.models import Patient, Voice

    patient = Patient.objects.all()[0].pk
    event = UsageEvent.objects.exclude(request_id="").filter(kind="live").earliest("started_at")

    def list_of(path: str, term: object = "") -> Callable[[], Any]:
        joint = "&" if "?" in path else "?"
        return lambda: browser.get(f"{path}{joint}{urlencode({'q': term})}" if term else path)

    a_month_ago = timezone.localdate() - timedelta(days=31)
    return {
        "dashboard": lambda: browser.get("/admin/"),
        "a patient's page": lambda: browser.get(f"/admin/patients/patient/{patient}/change/"),
        **{f"{name}, list": list_of(path) for name, path in LISTS.items()},
        "usage, failed ones": list_of(f"{LISTS['usage']}?outcome__exact=failed"),
        "usage, request id of two years ago": list_of(LISTS["usage"], event.request_id),
        "usage, unknown request id": list_of(LISTS["usage"], "no-such-request"),
        "usage, id of a message": list_of(LISTS["usage"], event.source),
        "usage, id of a patient": list_of(LISTS["usage"], patient),
        "usage, id of the default voice": list_of(LISTS["usage"], Voice.objects.default().pk),
        "usage, unknown id": list_of(LISTS["usage"], uuid.uuid4()),
        "messages, id": list_of(LISTS["messages"], event.source),
        "messages, unknown id": list_of(LISTS["messages"], uuid.uuid4()),
        "messages, name of a patient": list_of(LISTS["messages"], "Patient 17"),
        "messages, unknown name": list_of(LISTS["messages"], "Nobody"),
        "messages, name, one month": list_of(f"{LISTS['messages']}?period={a_month_ago:%Y-%m}", "Patient 17"),
        "conversations, id": list_of(LISTS["conversations"], event.conversation),
        "conversations, name of a patient": list_of(LISTS["conversations"], "Patient 17"),
    }


def _timed(page: Callable[[], Any], rounds: int) -> list[str]:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        response = page()
        times.append((time.perf_counter() - began) * 1000)
        if response.status_code != 200:
            raise RuntimeError(f"HTTP {response.status_code}")
    with CaptureQueriesContext(connection) as captured:
        page()
    return [f"{times[0]:.0f}", f"{median(times[1:]):.0f}", f"{max(times[1:]):.0f}", str(len(captured))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    with ExitStack() as stack:
        if "DATABASE_URL" not in os.environ:
            os.environ["DATABASE_URL"] = stack.enter_context(PostgresProcess()).url
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
        os.environ["ALLOWED_HOSTS"] = "testserver"
        django.setup()
        call_command("migrate", verbosity=0)
        _run(asked)


def _run(asked: argparse.Namespace) -> None:
    from usage.ledger import rollup
    from usage.models import DailyUsage

    began = time.perf_counter()
    seed(asked.events, asked.patients, asked.days)
    made = time.perf_counter()
    rollup.rebuild()
    summed = time.perf_counter()
    print(f"made in {made - began:.0f} s, summed into {DailyUsage.objects.count():,} rows in {summed - made:.0f} s\n")
    print(measure(asked.rounds))


if __name__ == "__main__":
    main()
