"""Writes entries of the audit trail. Call these functions in the transaction of the change, so that a change that is
rolled back leaves no entry.
"""

import ipaddress
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model
from django.db.models.functions import Now
from django.http import HttpRequest
from rest_framework.request import Request

from voicecare.audit.changes import Changes
from voicecare.audit.models import Action, AuditEntry, Source

BATCH_SIZE = 500
REFUSAL_INTERVAL = timedelta(minutes=1)
_SOURCES = (("/api/", Source.REST), ("/console/", Source.CONSOLE))  # other paths are of the admin


def record(
    request: HttpRequest | Request | None,
    action: str,
    row: Model | type[Model] | None = None,
    changes: Changes | None = None,
    *,
    user: Any = None,  # noqa: ANN401 - Django's user types
) -> None:
    """Adds one entry: the user of the request did `action` to `row`. A model stands for all its rows.

    The request is None for a command at the command line. `user` is for a login, whose request has no user yet.
    """
    _entry(request, action, row, changes or {}, user).save()


def record_each(request: HttpRequest, action: str, rows: Iterable[tuple[Model, Changes]]) -> None:
    """Adds one entry for each row."""
    entries = (_entry(request, action, row, changes, None) for row, changes in rows)
    AuditEntry.objects.bulk_create(entries, BATCH_SIZE)


def record_failed_log_in(request: HttpRequest | Request | None, user_name: str) -> None:
    """Adds an entry with the user who has this name. Another name is not stored, because it can be a password."""
    user = User.objects.filter(username=user_name).first()
    record(request, Action.LOG_IN_FAILED, user=user or AnonymousUser())


def record_refused_log_in(
    request: HttpRequest | Request | None, user_name: str, action: Action = Action.LOG_IN_FAILED
) -> None:
    """Like `record_failed_log_in`, but one entry a minute for each user and address.

    For refusals that no limit of failed logins bounds: anybody could fill the table with them.
    """
    entry = _entry(request, action, None, {}, User.objects.filter(username=user_name).first() or AnonymousUser())
    recent = AuditEntry.objects.filter(action=action, at__gt=Now() - REFUSAL_INTERVAL)
    if not recent.filter(user_id=entry.user_id, address=entry.address).exists():
        entry.save()


def _entry(
    request: HttpRequest | Request | None,
    action: str,
    row: Model | type[Model] | None,
    changes: Changes,
    user: Any,  # noqa: ANN401
) -> AuditEntry:
    entry = AuditEntry(action=action, changes=changes, source=Source.COMMAND)
    if request is not None:
        of_path = (source for prefix, source in _SOURCES if request.path_info.startswith(prefix))
        entry.source = next(of_path, Source.ADMIN)
        entry.address = _address(request)
        user = user or request.user
        if user.is_authenticated:
            entry.user_id, entry.user_name = user.pk, user.get_username()
    if row is not None:
        entry.object_type = row._meta.label_lower
    if isinstance(row, Model):
        # A key that is a text can be the digest of a token.
        entry.object_id = "" if isinstance(row.pk, str) else str(row.pk)
        entry.patient_id = _patient_id(row)
    return entry


def _patient_id(row: Model) -> uuid.UUID | None:
    """Returns the id of the patient whom the row is or belongs to."""
    if row._meta.label_lower == "patients.patient":
        return row.pk  # type: ignore[no-any-return]
    return getattr(row, "patient_id", None)


def _address(request: HttpRequest | Request) -> str | None:
    try:
        return str(ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")))
    except ValueError:  # a socket of this machine has no address
        return None
