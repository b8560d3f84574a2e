"""Gives the roles their permissions for clinics: Administrators manage them, Clinicians and Auditors see them."""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

GRANTED = {
    "Administrator": ("add_clinic", "change_clinic", "delete_clinic", "view_clinic"),
    "Clinician": ("view_clinic",),
    "Auditor": ("view_clinic",),
}


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("patients")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    permissions = apps.get_model("auth", "Permission").objects.using(alias).filter(content_type__app_label="patients")
    for group in apps.get_model("auth", "Group").objects.using(alias).filter(name__in=GRANTED):
        group.permissions.add(*permissions.filter(codename__in=GRANTED[group.name]))


class Migration(migrations.Migration):
    dependencies = [
        ("patients", "0008_clinics"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
