"""Entries of the audit trail are only added. The retention alone deletes them."""

from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from tests.conftest import Member
from voicecare.audit.models import AppendOnly, AuditEntry
from voicecare.tasks import prune_audit

pytestmark = pytest.mark.django_db


def entry(**fields: Any) -> AuditEntry:
    return AuditEntry.objects.create(**{"action": "change", "source": "admin", **fields})


def test_an_entry_is_neither_changed_nor_deleted():
    saved = entry()
    attempts = [
        saved.save,
        saved.delete,
        AuditEntry.objects.all().delete,
        lambda: AuditEntry.objects.update(action="add"),
        lambda: AuditEntry.objects.bulk_update([saved], ["action"]),
        lambda: AuditEntry.objects.update_or_create({"action": "add"}, pk=saved.pk),
    ]
    for attempt in attempts:
        with pytest.raises(AppendOnly), transaction.atomic():
            attempt()
    assert AuditEntry.objects.get().action == "change"


@pytest.mark.parametrize("statement", ["UPDATE audit_auditentry SET action = 'add'", "DELETE FROM audit_auditentry"])
def test_the_database_refuses_other_statements(statement: str):
    if connection.vendor != "postgresql":
        pytest.skip("the trigger is for PostgreSQL")
    entry()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.get().action == "change"


def test_an_entry_outlives_its_user_and_its_patient(alice: Member):
    user = User.objects.create_user("carol")
    entry(user_id=user.pk, user_name="carol", patient_id=alice.patient.pk)
    user.delete()
    alice.device.delete()
    alice.patient.delete()
    assert AuditEntry.objects.get().user_name == "carol"


# Retention


@pytest.mark.parametrize(("days", "left"), [(30, {"young"}), (0, {"old", "young"})])
def test_old_entries_are_deleted(settings: Settings, days: int, left: set[str]):
    settings.AUDIT_RETENTION_DAYS = days
    entry(action="old", at=timezone.now() - timedelta(days=31))
    entry(action="young", at=timezone.now() - timedelta(days=29))
    prune_audit()
    assert set(AuditEntry.objects.values_list("action", flat=True)) == left
    with pytest.raises(AppendOnly):
        AuditEntry.objects.all().delete()


def test_after_the_retention_the_database_still_refuses(settings: Settings):
    if connection.vendor != "postgresql":
        pytest.skip("the trigger is for PostgreSQL")
    settings.AUDIT_RETENTION_DAYS = 30
    entry(at=timezone.now() - timedelta(days=31))
    kept = entry()
    with connection.cursor() as cursor:
        prune_audit()
        cursor.execute(
            "SELECT set_config('voicecare.audit_retention', '', true)"
        )  # the task's own transaction has ended
        with pytest.raises(IntegrityError), transaction.atomic():
            cursor.execute("DELETE FROM audit_auditentry")
    assert AuditEntry.objects.get() == kept


# Migrations


def test_administrators_and_auditors_may_see_the_trail():
    permission = Permission.objects.get(codename="view_auditentry")
    for name in ("Administrator", "Auditor", "Clinician"):
        Group.objects.get_or_create(name=name)
    Permission.objects.get(codename="view_auditentry").group_set.clear()
    migration: Any = import_module("voicecare.audit.migrations.0003_roles_see_the_audit_trail")
    migration.grant(apps, SimpleNamespace(connection=connection))
    assert set(permission.group_set.values_list("name", flat=True)) == {"Administrator", "Auditor"}


def test_the_log_of_the_admin_becomes_entries_without_names(alice: Member):
    user = User.objects.create_user("carol")
    moment = timezone.now() - timedelta(days=3)
    for model, key, message in [
        (type(alice.patient), alice.patient.pk, '[{"changed": {"fields": ["Name", "Speech rate"]}}]'),
        (User, "a text that may be a digest", "Changed Alice Archer."),
    ]:
        LogEntry.objects.create(
            action_time=moment,
            user=user,
            content_type=ContentType.objects.get_for_model(model),
            object_id=str(key),
            object_repr="Alice Archer",
            action_flag=CHANGE,
            change_message=message,
        )
    migration: Any = import_module("voicecare.audit.migrations.0004_entries_of_the_admin_log")
    migration.move(apps, SimpleNamespace(connection=connection))
    first, second = AuditEntry.objects.order_by("pk")
    assert (first.at, first.user_id, first.user_name, first.action) == (moment, user.pk, "carol", "change")
    assert (first.object_type, first.object_id) == ("patients.patient", str(alice.patient.pk))
    assert first.patient_id == alice.patient.pk
    assert first.changes == {"Name": None, "Speech rate": None}
    assert (second.object_type, second.object_id, second.patient_id, second.changes) == ("auth.user", "", None, {})
    assert not LogEntry.objects.exists()
