"""Gives the roles their permissions for the lexicon: Administrators and Clinicians change it, Auditors see it."""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

WRITING = ("add_lexiconentry", "change_lexiconentry", "delete_lexiconentry", "view_lexiconentry")
GRANTED = {"Administrator": WRITING, "Clinician": WRITING, "Auditor": ("view_lexiconentry",)}


def grant(apps, schema_editor):
    alias = schema_editor.connection.alias
    config = installed_apps.get_app_config("tts")
    create_permissions(config, verbosity=0, using=alias, apps=apps)  # else they are created after the last migration
    permissions = apps.get_model("auth", "Permission").objects.using(alias).filter(content_type__app_label="tts")
    for group in apps.get_model("auth", "Group").objects.using(alias).filter(name__in=GRANTED):
        group.permissions.add(*permissions.filter(codename__in=GRANTED[group.name]))


class Migration(migrations.Migration):
    dependencies = [
        ("tts", "0010_lexicon"),
        ("patients", "0012_refused_handshakes"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
