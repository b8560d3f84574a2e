"""Creates the groups Administrator, Clinician and Auditor, and gives existing users a role that fits them.

It runs once, so what administrators change in the groups afterwards is kept. A group that has one of these names
already is left as it is.
"""

from django.apps import apps as installed_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.models import Q

OUR_APPS = ("patients", "usage", "tts", "cloning")
CLINICIAN_PERMISSIONS = (
    "patients.view_patient",
    "patients.add_patient",
    "patients.change_patient",
    "patients.view_device",
    "patients.add_device",
    "patients.change_device",
    "patients.view_voice",
    "tts.view_conversation",
    "tts.view_utterance",
    "tts.add_utterance",
    "cloning.view_clonejob",
    "cloning.add_clonejob",
    "cloning.change_clonejob",
    "usage.view_dailyusage",
)


def create_roles(apps, schema_editor):
    """Creates the missing groups, and adds users to the new ones only: an older group may allow more."""
    alias = schema_editor.connection.alias
    for label in (*OUR_APPS, "auth", "knox", "admin"):  # else they are created after the last migration
        create_permissions(installed_apps.get_app_config(label), verbosity=0, using=alias, apps=apps)
    Group, Permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    new_groups = {}
    for name, granted in permissions_of_roles().items():
        if not Group.objects.using(alias).filter(name=name).exists():
            new_groups[name] = Group.objects.using(alias).create(name=name)
            new_groups[name].permissions.set(Permission.objects.using(alias).filter(granted))
    add_users(apps.get_model("auth", "User").objects.using(alias), Permission.objects.using(alias), new_groups)


def permissions_of_roles():
    of_ours = Q(content_type__app_label__in=OUR_APPS)
    of_accounts = Q(content_type__app_label="auth", content_type__model__in=["user", "group"])
    of_log = Q(content_type__app_label="admin", codename="view_logentry")
    reading = Q(codename__startswith="view_")
    clinician = Q(pk__in=[])
    for label, codename in (name.split(".") for name in CLINICIAN_PERMISSIONS):
        clinician |= Q(content_type__app_label=label, codename=codename)
    return {
        "Administrator": of_ours | of_accounts | of_log | Q(content_type__app_label="knox"),
        "Clinician": clinician,
        "Auditor": (of_ours & reading) | (of_accounts & reading) | of_log,
    }


def add_users(users, permissions, groups):
    """Before, staff could do everything over REST with every patient, and others what a clinician does.

    Nobody gets a right that they did not have. Staff without any permission lose what they had beyond their care teams,
    because staff status is only the right to log in to the admin.
    """
    joining = {name: [] for name in ("Administrator", "Clinician", "Auditor")}
    joining["Clinician"] += users.filter(is_staff=False, is_superuser=False)
    sees_all = permissions.get(content_type__app_label="patients", codename="view_all_patients")
    for user in users.filter(is_staff=True, is_superuser=False):
        held = permissions.filter(Q(user=user) | Q(group__user=user))
        if not held.exists():
            continue
        user.user_permissions.add(sees_all)
        if held.filter(content_type__app_label="auth", codename="change_user").exists():
            joining["Administrator"].append(user)  # could already make themselves a superuser
        elif held.filter(content_type__app_label__in=OUR_APPS).exclude(codename__startswith="view_").exists():
            joining["Clinician"].append(user)
    for name, group in groups.items():
        group.user_set.add(*joining[name])


class Migration(migrations.Migration):
    dependencies = [
        ("patients", "0006_erasure_grace_period"),
        ("usage", "0009_price"),
        ("tts", "0007_conversation_without_voice"),
        ("cloning", "0003_indexes_for_growing_tables"),
        ("knox", "0009_extend_authtoken_field"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(create_roles, migrations.RunPython.noop),
    ]
