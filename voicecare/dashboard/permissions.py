"""What somebody may look at in the admin, and where it stands."""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model
from django.urls import reverse


class AdminPermissions:
    def __init__(self, user: AbstractBaseUser | AnonymousUser) -> None:
        self.user: Any = user

    def can_view(self, *models: type[Model]) -> bool:
        """All of these; who may change something may look at it."""
        return all(self._has_permission("view", model) or self._has_permission("change", model) for model in models)

    def _has_permission(self, act: str, model: type[Model]) -> bool:
        return bool(self.user.has_perm(f"{model._meta.app_label}.{act}_{model._meta.model_name}"))

    def changelist_url(self, model: type[Model], **query: object) -> str:
        """The address of the filtered change list; empty for who may not see it."""
        if not self.can_view(model):
            return ""
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
        return reverse(name, query={key: str(value) for key, value in query.items()})
