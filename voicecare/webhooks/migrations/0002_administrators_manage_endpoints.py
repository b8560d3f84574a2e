"""Gives the role Administrator the permissions of webhook endpoints, and the role Auditor those to view them."""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

ROLES = {
    "Administrator": (
        *("view_webhookendpoint", "add_webhookendpoint", "change_webhookendpoint", "delete_webhookendpoint"),
        "view_webhookdelivery",
    ),
    "Auditor": ("view_webhookendpoint", "view_webhookdelivery"),
}


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("webhooks")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    for name, codenames in ROLES.items():
        group = apps.get_model("auth", "Group").objects.using(alias).filter(name=name).first()
        if group is not None:
            group.permissions.add(*permissions.filter(content_type__app_label="webhooks", codename__in=codenames))


class Migration(migrations.Migration):
    dependencies = [
        ("webhooks", "0001_initial"),
        ("patients", "0007_roles"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
