"""The forms of users and groups, which keep an administrator."""

from typing import Any

from django import forms
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, Permission

from voicecare.admin.users.administrators import (
    LAST_ADMINISTRATOR,
    would_be_none_without,
    would_be_none_without_group,
)
from voicecare.patients.access import ADMINISTRATOR

_NEEDED = {"content_type__app_label": "auth", "codename": "change_user"}  # to make somebody an administrator


class UserForm(UserChangeForm):
    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        if not self._stays_administrator(values) and would_be_none_without([self.instance]):
            self.add_error(None, LAST_ADMINISTRATOR)
        return values

    def _stays_administrator(self, values: dict[str, Any]) -> bool:
        """Whether the user is an administrator after the change. Fields that the editor may not edit stay."""
        user = self.instance
        groups = values["groups"] if "groups" in values else user.groups.all()
        return (
            values.get("is_active", user.is_active)
            and values.get("is_staff", user.is_staff)
            and (values.get("is_superuser", user.is_superuser) or any(group.name == ADMINISTRATOR for group in groups))
        )


class GroupForm(forms.ModelForm):
    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        was_role = Group.objects.filter(pk=self.instance.pk, name=ADMINISTRATOR).exists()
        if was_role and not self._stays_role(values) and would_be_none_without_group():
            self.add_error(None, LAST_ADMINISTRATOR)
        return values

    def _stays_role(self, values: dict[str, Any]) -> bool:
        """Whether its members are administrators after the change, who may change users."""
        had = self.instance.permissions.filter(**_NEEDED).exists()
        permissions = values.get("permissions", Permission.objects.none())
        has = permissions.filter(**_NEEDED).exists()
        return values.get("name") == ADMINISTRATOR and (has or not had)
