"""The pages of users and groups. They differ from Django's in what an administrator who is no superuser may give."""

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import ManyToManyField, Q, QuerySet
from django.forms import ModelMultipleChoiceField
from django.http import HttpRequest

from voicecare.accounts import rights
from voicecare.admin.guarded_deletion import GuardedDeletionAdmin
from voicecare.admin.lists import EMPTY, WordFilter, badge, time_ago
from voicecare.admin.users.administrators import (
    LastAdministrator,
    would_be_none_without,
    would_be_none_without_group,
)
from voicecare.admin.users.forms import GroupForm, UserForm
from voicecare.patients.access import ADMINISTRATOR

admin.site.unregister([User, Group])  # Django's own pages

_NOT_GRANTABLE = {"invalid_choice": "You can only give permissions and groups with permissions that you have yourself."}


def _grantable(
    db_field: ManyToManyField, request: HttpRequest
) -> dict[str, QuerySet[Permission] | QuerySet[Group] | dict[str, str]]:
    """The arguments of a form field with what the user may give."""
    giver = cast(User, request.user)
    if db_field.related_model is Permission:
        permissions = rights.grantable_permissions(giver).select_related("content_type")
        return {"queryset": permissions, "error_messages": _NOT_GRANTABLE}
    if db_field.related_model is Group:
        return {"queryset": rights.grantable_groups(giver), "error_messages": _NOT_GRANTABLE}
    return {}


class UserStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {"active": ("Active", Q(is_active=True)), "inactive": ("Not active", Q(is_active=False))}


@admin.register(User)
class GuardedUserAdmin(GuardedDeletionAdmin, UserAdmin):
    """Users with more permissions than one's own can be viewed only."""

    form = UserForm
    list_display = ("status", "username", "full_name", "email", "roles", "pages", "seen")
    list_display_links = ("username",)
    list_filter = (UserStatusFilter, "groups")

    @admin.display(description="Status")
    def status(self, user: User) -> str:
        return badge("good", "Active") if user.is_active else badge("plain", "Not active")

    @admin.display(description="Name", ordering="last_name")
    def full_name(self, user: User) -> str:
        return user.get_full_name() or EMPTY

    @admin.display(description="Roles")
    def roles(self, user: User) -> str:
        names = [group.name for group in user.groups.all()]
        return ", ".join(["Superuser", *names] if user.is_superuser else names) or EMPTY

    @admin.display(description="Opens", ordering="is_staff")
    def pages(self, user: User) -> str:
        return "Admin and REST API" if user.is_staff else "REST API only"

    @admin.display(description="Last login", ordering="last_login")
    def seen(self, user: User) -> str:
        return time_ago(user.last_login) if user.last_login else "never"

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        own = [] if cast(User, request.user).is_superuser else ["is_superuser"]
        return [*own, *super().get_readonly_fields(request, obj)]

    def formfield_for_manytomany(
        self,
        db_field: ManyToManyField,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> ModelMultipleChoiceField | None:
        return super().formfield_for_manytomany(db_field, request, **kwargs, **_grantable(db_field, request))

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return self._may_manage(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return self._may_manage(request, obj) and super().has_delete_permission(request, obj)

    def _may_manage(self, request: HttpRequest, obj: User | None) -> bool:
        return obj is None or rights.may_manage(cast(User, request.user), obj)

    def check_deletion(self, rows: QuerySet[User]) -> None:
        if would_be_none_without(list(rows)):
            raise LastAdministrator


@admin.register(Group)
class GuardedGroupAdmin(GuardedDeletionAdmin, GroupAdmin):
    """Groups with permissions that one lacks can be viewed only."""

    form = GroupForm

    def formfield_for_manytomany(  # type: ignore[override]  # the admin always has a request
        self,
        db_field: ManyToManyField,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> ModelMultipleChoiceField | None:
        return super().formfield_for_manytomany(db_field, request, **kwargs, **_grantable(db_field, request))

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return self._may_manage(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return self._may_manage(request, obj) and super().has_delete_permission(request, obj)

    def _may_manage(self, request: HttpRequest, obj: Group | None) -> bool:
        return obj is None or rights.grantable_groups(cast(User, request.user)).filter(pk=obj.pk).exists()

    def check_deletion(self, rows: QuerySet[Group]) -> None:
        if rows.filter(name=ADMINISTRATOR).exists() and would_be_none_without_group():
            raise LastAdministrator
