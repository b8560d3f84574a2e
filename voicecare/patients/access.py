"""Who may do what: the permissions of the roles, and the permission class of all REST calls.

A role is a group: Administrator, Clinician or Auditor. A migration creates the groups, and administrators may change
their permissions. A user without any role or permission is a clinician of their care teams and clinics.
"""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

ADMINISTRATOR, CLINICIAN, AUDITOR = "Administrator", "Clinician", "Auditor"

CHANGE_CLINIC = "patients.change_clinic"  # also chooses the clinic of a patient

CLINICIAN_PERMISSIONS = frozenset(
    {
        "patients.view_patient",
        "patients.add_patient",
        "patients.change_patient",
        "patients.view_device",
        "patients.add_device",
        "patients.change_device",
        "patients.view_voice",
        "patients.view_clinic",
        "tts.view_conversation",
        "tts.view_utterance",
        "tts.add_utterance",
        "tts.view_lexiconentry",
        "tts.add_lexiconentry",
        "tts.change_lexiconentry",
        "tts.delete_lexiconentry",
        "cloning.view_clonejob",
        "cloning.add_clonejob",
        "cloning.change_clonejob",
        "usage.view_dailyusage",
    }
)


def may(user: User, permission: str) -> bool:
    """Whether the user has this permission, for REST calls. `visible_to` decides for which patients.

    A user without any group or permission has those of a clinician. For a staff user that is so only if they are in a
    care team or a member of a clinic, because staff status alone is the right to log in to the admin, and no more.
    """
    if user.has_perm(permission):
        return True
    return permission in CLINICIAN_PERMISSIONS and user.is_active and _has_no_role(user)


def _has_no_role(user: User) -> bool:
    """The result is kept with the user, as Django keeps the permissions of a user."""
    if not hasattr(user, "_has_no_role"):
        is_clinician = not user.is_staff or user.patients.exists() or user.clinics.exists()
        has_no_role = is_clinician and not user.get_all_permissions() and not user.groups.exists()
        user._has_no_role = has_no_role  # type: ignore[attr-defined]
    return user._has_no_role  # type: ignore[attr-defined, no-any-return]


class CallPermission(BasePermission):
    """Allows a call to users who have the permission that the view names for the method.

    The view has `required_permissions`, which maps methods to permissions. HEAD needs that of GET, and OPTIONS none. A
    view without it allows nothing.
    """

    def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ANN401 - a view
        if not request.user.is_authenticated or not hasattr(view, "required_permissions"):
            return False
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method == "OPTIONS":
            return True
        required: Mapping[str, str] = view.required_permissions
        if method not in required:
            raise MethodNotAllowed(method)
        self.message = f"You need the permission {required[method]}."
        return may(request.user, required[method])
