"""`python -m tests.bench.history`: measures the dashboard, the lists and searches of the admin, and usage over REST.

Creates two years of events, with their conversations and messages, and the audit trail on its own PostgreSQL, and sums
the events with `usage.ledger.rollup.rebuild`. With DATABASE_URL, it uses that database, which must be empty or have the
rows of an earlier run. Those are measured again. The requests go through Django's client, so the figures include
neither a network nor a browser. Ten million events take some minutes and about 15 GB in the temporary folder.
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

from tests.bench import history_rows, report
from tests.services import PostgresProcess

LISTS = {
    "patients": "/admin/patients/patient/",
    "devices": "/admin/patients/device/",
    "voices": "/admin/patients/voice/",
    "clinics": "/admin/patients/clinic/",
    "clones": "/admin/cloning/clonejob/",
    "incidents": "/admin/usage/incident/",
    "audit trail": "/admin/audit/auditentry/",
    "usage": "/admin/usage/usageevent/",
    "daily usage": "/admin/usage/dailyusage/",
    "messages": "/admin/tts/utterance/",
    "conversations": "/admin/tts/conversation/",
}


def measure(rounds: int) -> str:
    """Return a row for each page: its first time, those of the later requests, and the number of queries.

    The processor time is that of this process, without PostgreSQL's. It shows what a busy machine has added.
    """
    from django.contrib.auth.models import User
    from django.test import Client

    from voicecare.accounts import tokens
    from voicecare.patients.models import Patient

    staff, carer = (User.objects.get_or_create(username=name)[0] for name in ("administrator", "clinician"))
    User.objects.filter(pk=staff.pk).update(is_staff=True, is_superuser=True)
    staff.refresh_from_db()
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
    return report.table(("page", "first ms", "median ms", "best ms", "worst ms", "processor ms", "queries"), rows)


def _admin_pages(browser: Any) -> dict[str, Callable[[], Any]]:
    """Pages, lists and searches of the admin. `browser` is a logged-in client. Ids are of the oldest event."""
    from usage.models import UsageEvent
    from voicecare.patients.models import Patient, Voice

    patient, clinic = Patient.objects.values_list("pk", "clinic")[0]
    event = UsageEvent.objects.exclude(request_id="").filter(kind="live").earliest("started_at")

    def list_of(path: str, term: object = "") -> Callable[[], Any]:
        joint = "&" if "?" in path else "?"
        return lambda: browser.get(f"{path}{joint}{urlencode({'q': term})}" if term else path)

    a_month_ago = timezone.localdate() - timedelta(days=31)
    two_years_ago = timezone.localdate() - timedelta(days=730)
    return {
        "dashboard": lambda: browser.get("/admin/"),
        "a patient's page": lambda: browser.get(f"/admin/patients/patient/{patient}/change/"),
        **{f"{name}, list": list_of(path) for name, path in LISTS.items()},
        "statement of last month": lambda: browser.get(f"/admin/statements/{a_month_ago:%Y-%m}/"),
        "phrase coverage": lambda: browser.get("/admin/tts/phrase/coverage/"),
        "dashboard, one clinic": lambda: browser.get(f"/admin/?clinic={clinic}"),
        "patients, name": list_of(LISTS["patients"], "Patient 17"),
        "patients, one clinic": list_of(f"{LISTS['patients']}?clinic={clinic}"),
        "devices, name of a patient": list_of(LISTS["devices"], "Patient 17"),
        "voices, name": list_of(LISTS["voices"], "Patient 16"),
        "clones, name of a patient": list_of(LISTS["clones"], "Patient 16"),
        "audit trail, name of a person": list_of(LISTS["audit trail"], "clinician17"),
        "audit trail, name of a patient": list_of(LISTS["audit trail"], "Patient 17"),
        "audit trail, id of a patient": list_of(LISTS["audit trail"], patient),
        "audit trail, two years": list_of(f"{LISTS['audit trail']}?from={two_years_ago}&to={timezone.localdate()}"),
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

    times, processor = [], []
    for _ in range(rounds + 1):
        began, computed = time.perf_counter(), time.process_time()
        response = page()
        times.append((time.perf_counter() - began) * 1000)
        processor.append((time.process_time() - computed) * 1000)
        if response.status_code != 200:
            raise RuntimeError(f"HTTP {response.status_code}")
    with CaptureQueriesContext(connection) as captured:
        page()
    figures = (times[0], median(times[1:]), min(times[1:]), max(times[1:]), median(processor[1:]))
    return [*(f"{figure:.0f}" for figure in figures), str(len(captured))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--audit-entries", type=int, default=100_000)
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
    from voicecare.patients.models import Patient

    if not Patient.objects.exists():
        began = time.perf_counter()
        history_rows.seed(asked.events, asked.patients, asked.days, asked.audit_entries)
        made = time.perf_counter()
        rollup.rebuild()
        summed = time.perf_counter()
        rows = DailyUsage.objects.count()
        print(f"made in {made - began:.0f} s, summed into {rows:,} rows in {summed - made:.0f} s\n")
    print(measure(asked.rounds))


if __name__ == "__main__":
    main()
