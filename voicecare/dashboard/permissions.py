"""The permissions of a user in the admin, and the URLs of the lists that the user may see."""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from django.urls import reverse

from voicecare.patients import care_teams
from voicecare.patients.models import Clinic, Voice


class AdminPermissions:
    """What one user may see in the admin."""

    def __init__(self, user: AbstractBaseUser | AnonymousUser) -> None:
        self.user: Any = user

    def can_view(self, *models: type[Model]) -> bool:
        """Whether the user may view the rows of all these models. The permission to change rows includes this."""
        return all(
            self.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
            or self.user.has_perm(f"{model._meta.app_label}.change_{model._meta.model_name}")
            for model in models
        )

    def visible_voices(self) -> QuerySet[Voice]:
        """The stock voices, and the clones of patients whom the user may see."""
        return care_teams.limit(Voice.objects.all(), self.user, also=care_teams.STOCK_VOICE)

    def visible_clinics(self) -> QuerySet[Clinic]:
        """The clinics that the user may view and choose in filters of figures."""
        return care_teams.visible_clinics(self.user) if self.can_view(Clinic) else Clinic.objects.none()

    def changelist_url(self, model: type[Model], **query: object) -> str:
        """Returns the URL of the admin's list of this model, with these filters.

        Empty if the user may not see the list.
        """
        if not self.can_view(model):
            return ""
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        return reverse(name, query={key: str(value) for key, value in query.items()})
