"""Gives the roles Administrator and Auditor the permission to see the audit trail."""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

ROLES = ("Administrator", "Auditor")


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("audit")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    permission = apps.get_model("auth", "Permission").objects.using(alias).get(
        content_type__app_label="audit", codename="view_auditentry"
    )
    for group in apps.get_model("auth", "Group").objects.using(alias).filter(name__in=ROLES):
        group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0002_append_only"),
        ("patients", "0007_roles"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
