"""Admin of users' second factors. To delete one is to reset it: the user logs in with the password alone and sets up a
new one. Neither the key nor the recovery codes are shown.
"""

from typing import cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from voicecare.accounts import rights, two_factor
from voicecare.accounts.models import SecondFactor

admin.site.unregister([TOTPDevice, StaticDevice])  # django-otp's own pages show the keys


@admin.register(SecondFactor)
class SecondFactorAdmin(admin.ModelAdmin):
    list_display = ("user", "created_at", "last_used_at")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    fields = ("user", "created_at", "last_used_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SecondFactor | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SecondFactor | None = None) -> bool:
        is_allowed = obj is None or rights.may_manage(cast(User, request.user), cast(User, obj.user))
        return is_allowed and super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: SecondFactor) -> None:
        two_factor.turn_off(obj.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[SecondFactor]) -> None:
        for factor in queryset.select_related("user"):
            two_factor.turn_off(factor.user)
