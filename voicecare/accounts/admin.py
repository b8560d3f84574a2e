"""Admin of users' second factors and of their accounts at an OpenID Connect provider.

To delete a second factor is to reset it: the user logs in with the password alone and sets up a new one. Neither the
key nor the recovery codes are shown. To delete an account at a provider is to remove the link to it.
"""

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from voicecare.accounts import rights, two_factor
from voicecare.accounts.models import ProviderIdentity, SecondFactor

admin.site.unregister([TOTPDevice, StaticDevice])  # django-otp's own pages show the keys


class _LogInAdmin(admin.ModelAdmin):
    """Rows that only the log-ins of users create. They are deleted by those who may manage the user."""

    list_select_related = ("user",)
    search_fields = ("user__username",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ANN401 - a row with a user
        is_allowed = obj is None or rights.may_manage(cast(User, request.user), cast(User, obj.user))
        return is_allowed and super().has_delete_permission(request, obj)


@admin.register(ProviderIdentity)
class ProviderIdentityAdmin(_LogInAdmin):
    list_display = ("user", "issuer", "subject", "created_at")
    fields = ("user", "issuer", "subject", "created_at")


@admin.register(SecondFactor)
class SecondFactorAdmin(_LogInAdmin):
    list_display = ("user", "created_at", "last_used_at")
    fields = ("user", "created_at", "last_used_at")

    def delete_model(self, request: HttpRequest, obj: SecondFactor) -> None:
        two_factor.turn_off(obj.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[SecondFactor]) -> None:
        for factor in queryset.select_related("user"):
            two_factor.turn_off(factor.user)
