"""Keeps the tokens that were created in the admin, and the permissions to see and to create tokens.

Tokens of log-ins are valid for twelve hours. They get no row, so their users log in again.
"""

from collections import Counter
from datetime import timedelta

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

LOG_IN_VALIDITY = timedelta(hours=12, minutes=1)
SUCCESSORS = {
    "view_authtoken": ("view_apitoken",),
    "add_authtoken": ("add_apitoken",),
    "delete_authtoken": ("change_apitoken", "delete_apitoken"),  # revoking needs the first
}


def name_tokens(apps, schema_editor):
    alias = schema_editor.connection.alias
    ApiToken, numbers = apps.get_model("accounts", "ApiToken"), Counter()
    for knox_token in apps.get_model("knox", "AuthToken").objects.using(alias).order_by("created", "digest"):
        expiry = knox_token.expiry
        if expiry is not None and expiry - knox_token.created <= LOG_IN_VALIDITY:
            continue
        numbers[knox_token.user_id] += 1
        row = ApiToken.objects.using(alias).create(
            name=f"Token {numbers[knox_token.user_id]}",
            owner_id=knox_token.user_id,
            expires_at=expiry,
            knox_token=knox_token,
        )
        ApiToken.objects.using(alias).filter(pk=row.pk).update(created_at=knox_token.created)


def keep_permissions(apps, schema_editor):
    alias = schema_editor.connection.alias
    create_permissions(installed_apps.get_app_config("accounts"), verbosity=0, using=alias, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    for old in permissions.filter(content_type__app_label="knox"):
        for codename in SUCCESSORS.get(old.codename, ()):
            new = permissions.get(content_type__app_label="accounts", codename=codename)
            new.group_set.add(*old.group_set.all())
            new.user_set.add(*old.user_set.all())
        old.delete()


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_api_tokens"),
        ("patients", "0007_roles"),
    ]

    operations = [
        migrations.RunPython(name_tokens, migrations.RunPython.noop),
        migrations.RunPython(keep_permissions, migrations.RunPython.noop),
    ]
