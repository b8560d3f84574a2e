"""Gives the role Administrator the permissions to see and to delete the second factors of users."""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("accounts")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    administrators = apps.get_model("auth", "Group").objects.using(alias).filter(name="Administrator").first()
    if administrators is not None:
        wanted = ["view_secondfactor", "delete_secondfactor"]
        permissions = apps.get_model("auth", "Permission").objects.using(alias)
        administrators.permissions.add(
            *permissions.filter(content_type__app_label="accounts", codename__in=wanted)
        )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_second_factor"),
        ("patients", "0007_roles"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
