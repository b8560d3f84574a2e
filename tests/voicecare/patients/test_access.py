"""The roles: what each may do over REST, and how the migration gives them to existing users."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import connection

from tests.clinicians import clinician
from tests.conftest import Member
from tests.roles import give_permissions, role
from voicecare.patients import access
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db

migration: Any = import_module("voicecare.patients.migrations.0007_roles")
clinic_migration: Any = import_module("voicecare.patients.migrations.0009_roles_see_clinics")
lexicon_migration: Any = import_module("tts.migrations.0011_roles_use_the_lexicon")
ROLES = ("Administrator", "Clinician", "Auditor")


def migrate() -> None:
    migration.create_roles(apps, SimpleNamespace(connection=connection))  # the real editor needs no test transaction


def migrate_later_models() -> None:
    for later in (clinic_migration, lexicon_migration):
        later.grant(apps, SimpleNamespace(connection=connection))


def permissions_in(group: Group) -> set[str]:
    return {f"{p.content_type.app_label}.{p.codename}" for p in group.permissions.select_related("content_type")}


def groups_of(user: User) -> set[str]:
    return set(user.groups.values_list("name", flat=True))


@pytest.fixture
def before_roles(db: None) -> None:
    Group.objects.all().delete()


# The groups


def test_the_roles_have_the_permissions_that_they_need(before_roles: None):
    migrate()
    migrate_later_models()
    administrator, clinician_, auditor = (permissions_in(Group.objects.get(name=name)) for name in ROLES)
    assert clinician_ == access.CLINICIAN_PERMISSIONS
    assert {"patients.erase_patient", "patients.view_all_patients", "auth.change_user"} <= administrator
    assert administrator > clinician_ | auditor
    assert {name.partition(".")[2].partition("_")[0] for name in auditor} == {"view"}
    assert {"patients.view_all_patients", "tts.view_utterance"} <= auditor


def test_the_permissions_are_created_if_they_do_not_exist_yet(before_roles: None):
    Permission.objects.all().delete()
    migrate()
    migrate_later_models()
    assert permissions_in(Group.objects.get(name="Clinician")) == access.CLINICIAN_PERMISSIONS


def test_a_group_that_exists_is_left_as_it_is(before_roles: None):
    group = Group.objects.create(name="Clinician")
    user = User.objects.create_user("carol")
    migrate()
    assert (permissions_in(group), groups_of(user)) == (set(), set())


# Existing users


@pytest.mark.parametrize(
    ("staff", "permissions", "groups", "sees_all"),
    [
        (False, (), {"Clinician"}, False),
        (True, (), set(), False),
        (True, ("patients.view_patient",), set(), True),
        (True, ("patients.view_patient", "patients.change_patient"), {"Clinician"}, True),
        (True, ("auth.change_user",), {"Administrator"}, True),
    ],
    ids=["a clinician", "staff", "a reader", "an editor", "an administrator"],
)
def test_existing_users_get_a_role_that_allows_no_more_than_before(
    before_roles: None, staff: bool, permissions: tuple[str, ...], groups: set[str], sees_all: bool
):
    user = give_permissions(User.objects.create_user("u", is_staff=staff), *permissions)
    migrate()
    assert groups_of(user) == groups
    assert user.has_perm("patients.view_all_patients") == sees_all


# REST


def test_staff_status_alone_shows_no_patient(alice: Member):
    boss = clinician("boss", is_staff=True)
    assert boss.call("GET", "patients/").status_code == 403
    for path in (f"patients/{alice.patient.pk}/", f"patients/{alice.patient.pk}/devices/", "usage/daily/"):
        assert boss.call("GET", path).status_code == 403
    assert boss.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "Hello"}).status_code == 403
    assert boss.call("DELETE", f"patients/{alice.patient.pk}/").status_code == 403


def test_the_care_team_is_the_role_of_users_without_one(alice: Member, bob: Member):
    for user in (clinician("carol", alice.patient), clinician("boss", alice.patient, is_staff=True)):
        assert [row["name"] for row in user.get("patients/")["results"]] == ["Alice Archer"]
        assert user.call("PATCH", f"patients/{alice.patient.pk}/", {"speech_rate": 0.9}).status_code == 200
        assert user.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "Hello"}).status_code == 202
        assert user.call("PATCH", f"patients/{bob.patient.pk}/", {"speech_rate": 0.9}).status_code == 404


def test_an_auditor_reads_everything_and_changes_nothing(alice: Member, bob: Member):
    auditor = clinician("ann", alice.patient, in_role="Auditor")
    assert len(auditor.get("patients/")["results"]) == 2
    assert auditor.get(f"patients/{bob.patient.pk}/")["name"] == "Bob Baker"
    answers = [
        auditor.call("POST", "patients/", {"name": "N", "companion_name": "C"}),
        auditor.call("PATCH", f"patients/{alice.patient.pk}/", {"name": "N"}),
        auditor.call("DELETE", f"patients/{alice.patient.pk}/"),
        auditor.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "Hello"}),
        auditor.call("POST", "speech/", {"text": "Hello"}),
        auditor.call("POST", f"patients/{alice.patient.pk}/devices/", {"name": "D"}),
        auditor.call("DELETE", f"devices/{alice.device.pk}/"),
        auditor.call("POST", f"devices/{alice.device.pk}/rotate/"),
        auditor.call("POST", "voices/sync/"),
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "permission_denied")}
    assert Patient.objects.get(pk=alice.patient.pk).name == "Alice Archer"


def test_a_group_without_permissions_is_a_role_that_allows_nothing(alice: Member):
    nobody = clinician("nobody", alice.patient)
    nobody.user.groups.add(Group.objects.create(name="Nobody"))
    assert nobody.call("GET", "patients/").status_code == 403


def test_what_an_administrator_takes_from_a_role_is_taken(alice: Member):
    carol = clinician("carol", alice.patient, in_role="Clinician")
    role("Clinician").permissions.remove(Permission.objects.get(codename="add_utterance"))
    assert carol.call("POST", f"patients/{alice.patient.pk}/speak/", {"text": "Hello"}).status_code == 403
    assert carol.call("GET", f"patients/{alice.patient.pk}/").status_code == 200
