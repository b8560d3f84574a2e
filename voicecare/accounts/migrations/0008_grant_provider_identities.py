"""Gives the role Administrator the permissions to see and to remove the accounts at a provider that users log in with."""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("accounts")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    administrators = apps.get_model("auth", "Group").objects.using(alias).filter(name="Administrator").first()
    if administrators is not None:
        wanted = ["view_provideridentity", "delete_provideridentity"]
        permissions = apps.get_model("auth", "Permission").objects.using(alias)
        administrators.permissions.add(
            *permissions.filter(content_type__app_label="accounts", codename__in=wanted)
        )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_provider_identity"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
