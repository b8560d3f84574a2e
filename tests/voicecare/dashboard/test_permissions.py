"""What somebody may look at."""

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User

from usage.models import Incident
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Patient

pytestmark = pytest.mark.django_db


def user(*permissions: str, **fields: bool) -> User:
    user = User.objects.create_user("somebody", is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def test_who_may_view_or_change_sees():
    viewer = AdminPermissions(user("view_patient", "change_incident"))
    assert viewer.can_view(Patient)
    assert viewer.can_view(Patient, Incident)
    assert viewer.changelist_url(Patient) == "/admin/patients/patient/"
    assert viewer.changelist_url(Incident, resolved_at__isempty=1) == "/admin/usage/incident/?resolved_at__isempty=1"


def test_others_do_not():
    viewer = AdminPermissions(user("view_patient", "add_incident"))
    assert not viewer.can_view(Patient, Incident)
    assert viewer.changelist_url(Incident) == ""


@pytest.mark.parametrize("nobody", [AnonymousUser(), User(username="gone", is_active=False, is_superuser=True)])
def test_nobody_sees_nothing(nobody: User | AnonymousUser):
    assert not AdminPermissions(nobody).can_view(Patient)
