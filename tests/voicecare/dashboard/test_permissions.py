"""The models and list pages that a user may see."""

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


def test_permission_to_view_or_change_makes_a_model_visible():
    viewer = AdminPermissions(user("view_patient", "change_incident"))
    assert viewer.can_view(Patient)
    assert viewer.can_view(Patient, Incident)
    assert viewer.changelist_url(Patient) == "/admin/patients/patient/"
    assert viewer.changelist_url(Incident, status="open") == "/admin/usage/incident/?status=open"


def test_permission_to_add_does_not_make_a_model_visible():
    viewer = AdminPermissions(user("view_patient", "add_incident"))
    assert not viewer.can_view(Patient, Incident)
    assert viewer.changelist_url(Incident) == ""


@pytest.mark.parametrize("visitor", [AnonymousUser(), User(username="gone", is_active=False, is_superuser=True)])
def test_anonymous_and_inactive_users_see_no_model(visitor: User | AnonymousUser):
    assert not AdminPermissions(visitor).can_view(Patient)
