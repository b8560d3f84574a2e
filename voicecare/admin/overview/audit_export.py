"""The audit trail as a CSV file. It is sent while it is read, so the number of entries does not matter."""

import csv
import io
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from voicecare.audit.models import AuditEntry
from voicecare.core.database import run_in_db_thread
from voicecare.dashboard.chart import csv_cell
from voicecare.patients.models import Patient

BATCH_SIZE = 1000
_HEADINGS = (
    "Time",
    "Person",
    "User id",
    "Action",
    "Object",
    "Object id",
    "Patient id",
    "Patient",
    "Changes",
    "Source",
    "IP address",
)


def csv_response(entries: QuerySet[AuditEntry], patients: QuerySet[Patient]) -> StreamingHttpResponse:
    """Returns all entries, newest first, in UTF-8 with a byte order mark. Times are in UTC.

    `patients` are those whose names the user may see.
    """
    response = StreamingHttpResponse(_chunks(entries, patients), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="voicecare-audit.csv"'
    return response


async def _chunks(entries: QuerySet[AuditEntry], patients: QuerySet[Patient]) -> AsyncIterator[str]:
    yield "\ufeff" + _as_csv([_HEADINGS])
    batch: list[AuditEntry] = []
    while batch := await run_in_db_thread(_next_batch, entries, batch[-1] if batch else None):
        names = await run_in_db_thread(_names_of, patients, {entry.patient_id for entry in batch})
        yield _as_csv([_cells(entry, names) for entry in batch])


def _next_batch(entries: QuerySet[AuditEntry], last: AuditEntry | None) -> list[AuditEntry]:
    """Returns the entries after `last`. Each batch is a query of its own, because no cursor outlives a transaction.

    The keys of entries grow with the time. The times themselves do not compare well: SQLite compares them as texts, and
    those of Now() have three digits after the point where those of Python have six.
    """
    if last is not None:
        entries = entries.filter(pk__lt=last.pk)
    return list(entries.order_by("-pk")[:BATCH_SIZE])


def _names_of(patients: QuerySet[Patient], keys: set[uuid.UUID | None]) -> dict[uuid.UUID, str]:
    return dict(patients.filter(pk__in=[key for key in keys if key]).values_list("pk", "name"))


def _cells(entry: AuditEntry, names: dict[uuid.UUID, str]) -> list[str]:
    return [
        entry.at.astimezone(UTC).isoformat(),
        entry.user_name,
        str(entry.user_id or ""),
        entry.action_in_words,
        entry.object_type,
        entry.object_id,
        str(entry.patient_id or ""),
        names.get(entry.patient_id, "") if entry.patient_id else "",
        json.dumps(entry.changes, cls=DjangoJSONEncoder) if entry.changes else "",
        entry.get_source_display(),
        entry.address or "",
    ]


def _as_csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([csv_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue()
