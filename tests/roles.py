"""The groups that a migration creates. Tests that flush the database lose them, so tests ask for them here."""

from importlib import import_module
from typing import Any

from django.contrib.auth.models import Group, Permission, User

_migration: Any = import_module("voicecare.patients.migrations.0007_roles")
_audit_migration: Any = import_module("voicecare.audit.migrations.0003_roles_see_the_audit_trail")
_clinic_migration: Any = import_module("voicecare.patients.migrations.0009_roles_see_clinics")
_lexicon_migration: Any = import_module("tts.migrations.0011_roles_use_the_lexicon")
_webhook_migration: Any = import_module("voicecare.webhooks.migrations.0002_administrators_manage_endpoints")


def role(name: str) -> Group:
    """Return the group Administrator, Clinician or Auditor with the permissions that the migrations give it."""
    group, created = Group.objects.get_or_create(name=name)
    if created:
        group.permissions.set(Permission.objects.filter(_migration.permissions_of_roles()[name]))
        if name == "Administrator":
            group.permissions.add(*Permission.objects.filter(content_type__app_label="accounts"))
        group.permissions.add(*Permission.objects.filter(codename__in=_clinic_migration.GRANTED[name]))
        group.permissions.add(*Permission.objects.filter(codename__in=_lexicon_migration.GRANTED[name]))
        webhook_permissions = _webhook_migration.ROLES.get(name, ())
        group.permissions.add(*Permission.objects.filter(codename__in=webhook_permissions))
        if name in _audit_migration.ROLES:
            group.permissions.add(Permission.objects.get(codename="view_auditentry"))
    return group


def give_permissions(user: User, *names: str) -> User:
    """Give the user these permissions, such as "patients.view_patient". Return the user without cached permissions."""
    for name in names:
        label, codename = name.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=label, codename=codename))
    return User.objects.get(pk=user.pk)
