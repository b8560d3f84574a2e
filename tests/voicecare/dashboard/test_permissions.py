"""What somebody may look at."""

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User

from usage.models import Incident
from voicecare.dashboard.permissions import Viewer
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db


def user(*permissions: str, **fields: bool) -> User:
    user = User.objects.create_user("somebody", is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def test_who_may_view_or_change_sees():
    viewer = Viewer(user("view_patient", "change_incident"))
    assert viewer.sees(Patient)
    assert viewer.sees(Patient, Incident)
    assert viewer.rows(Patient) == "/admin/patients/patient/"
    assert viewer.rows(Incident, resolved_at__isempty=1) == "/admin/usage/incident/?resolved_at__isempty=1"


def test_others_do_not():
    viewer = Viewer(user("view_patient", "add_incident"))
    assert not viewer.sees(Patient, Incident)
    assert viewer.rows(Incident) == ""


@pytest.mark.parametrize("nobody", [AnonymousUser(), User(username="gone", is_active=False, is_superuser=True)])
def test_nobody_sees_nothing(nobody: User | AnonymousUser):
    assert not Viewer(nobody).sees(Patient)
