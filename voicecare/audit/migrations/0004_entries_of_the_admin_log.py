"""Moves Django's log of the admin into the audit trail, without the names of rows, which can be names of patients."""

import json
import uuid

from django.db import migrations

ACTIONS = {1: "add", 2: "change", 3: "delete"}
BATCH_SIZE = 500


def move(apps, schema_editor):
    alias = schema_editor.connection.alias
    LogEntry, AuditEntry = apps.get_model("admin", "LogEntry"), apps.get_model("audit", "AuditEntry")
    logged = LogEntry.objects.using(alias).select_related("user", "content_type").order_by("pk")
    batch = []
    for entry in logged.iterator(BATCH_SIZE):
        batch.append(converted(entry, AuditEntry))
        if len(batch) == BATCH_SIZE:
            AuditEntry.objects.using(alias).bulk_create(batch)
            batch = []
    AuditEntry.objects.using(alias).bulk_create(batch)
    LogEntry.objects.using(alias).all().delete()


def converted(entry, AuditEntry):
    found = AuditEntry(
        at=entry.action_time,
        user_id=entry.user_id,
        user_name=entry.user.username,
        source="admin",
        action=ACTIONS[entry.action_flag],
        changes={name: None for name in field_names(entry.change_message)},
    )
    if entry.content_type is not None:
        found.object_type = f"{entry.content_type.app_label}.{entry.content_type.model}"
    key = entry.object_id or ""
    found.object_id = key if key.isdecimal() or as_uuid(key) else ""  # a key that is a text can be a token's digest
    if found.object_type == "patients.patient":
        found.patient_id = as_uuid(key)
    return found


def field_names(message):
    """The labels of the changed fields in Django's message, which is JSON, or a text of an older version."""
    try:
        parts = json.loads(message)
        return [name for part in parts for name in part.get("changed", {}).get("fields", ())]
    except (ValueError, TypeError, AttributeError):
        return []


def as_uuid(key):
    try:
        return uuid.UUID(key)
    except ValueError:
        return None


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_roles_see_the_audit_trail"),
        ("admin", "0003_logentry_add_action_flag_choices"),
    ]

    operations = [
        migrations.RunPython(move, migrations.RunPython.noop),
    ]
