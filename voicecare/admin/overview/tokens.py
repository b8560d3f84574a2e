"""The tokens of the REST API. The library's own page shows their digests and calls them by its name."""

from django.contrib import admin
from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from knox.admin import AuthTokenAdmin
from knox.models import AuthToken

from voicecare.admin.lists import WordFilter, badge, timestamp

admin.site.unregister(AuthToken)


class TokenStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "valid": ("Valid", Q(expiry=None) | Q(expiry__gt=Now())),
        "expired": ("Expired", Q(expiry__lte=Now())),
    }


@admin.register(AuthToken)
class ApiTokenAdmin(AuthTokenAdmin):
    """Rows have no page of their own, because its address would be the digest of the token."""

    list_display = ("status", "user", "issued", "expires")
    list_display_links = None
    list_filter = (TokenStatusFilter,)
    list_select_related = ("user",)
    search_fields = ("user__username",)
    ordering = ("-created",)
    show_facets = admin.ShowFacets.NEVER

    def has_change_permission(self, request: HttpRequest, obj: AuthToken | None = None) -> bool:
        return False

    @admin.display(description="Status")
    def status(self, token: AuthToken) -> str:
        is_valid = token.expiry is None or token.expiry > timezone.now()
        return badge("good", "Valid") if is_valid else badge("plain", "Expired")

    @admin.display(description="Created", ordering="created")
    def issued(self, token: AuthToken) -> str:
        return timestamp(token.created)

    @admin.display(description="Expires", ordering="expiry")
    def expires(self, token: AuthToken) -> str:
        return timestamp(token.expiry) if token.expiry else "never"
