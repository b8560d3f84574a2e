"""The permissions of a user in the admin, and the URLs of the change lists that they may see."""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model
from django.urls import reverse


class AdminPermissions:
    def __init__(self, user: AbstractBaseUser | AnonymousUser) -> None:
        self.user: Any = user

    def can_view(self, *models: type[Model]) -> bool:
        """Whether the user may view all of these models. The permission to change includes it."""
        return all(self._has_permission("view", model) or self._has_permission("change", model) for model in models)

    def _has_permission(self, action: str, model: type[Model]) -> bool:
        return bool(self.user.has_perm(f"{model._meta.app_label}.{action}_{model._meta.model_name}"))

    def changelist_url(self, model: type[Model], **query: object) -> str:
        """The URL of the change list with these filters. Empty if the user may not see it."""
        if not self.can_view(model):
            return ""
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        return reverse(name, query={key: str(value) for key, value in query.items()})
