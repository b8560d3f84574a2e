"""Gives the role Administrator the permissions of notification channels, and the role Auditor the one to view them.

No page shows the address of a channel, not even to administrators.
"""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

ROLES = {"Administrator": ("view", "add", "change", "delete"), "Auditor": ("view",)}


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("usage")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    for name, actions in ROLES.items():
        group = apps.get_model("auth", "Group").objects.using(alias).filter(name=name).first()
        if group is not None:
            codenames = [f"{action}_notificationchannel" for action in actions]
            group.permissions.add(*permissions.filter(content_type__app_label="usage", codename__in=codenames))


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0013_notification_channels"),
        ("patients", "0007_roles"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
