"""The tokens of the REST API: those of logins, and named ones for services.

The text of a named token is shown once: in the answer to the request that has created it. It is in no message, session
or address.
"""

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import ForeignKey, Prefetch, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import ngettext
from django_otp.plugins.otp_totp.models import TOTPDevice
from knox.models import AuthToken

from voicecare.accounts import rights, tokens, two_factor
from voicecare.accounts.models import ApiToken
from voicecare.admin.confirmation import Question, confirm_action
from voicecare.admin.lists import WordFilter, badge, link_to, time_ago, timestamp

admin.site.unregister(AuthToken)

_IS_EXPIRED = Q(expires_at__lte=Now())


class TokenStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "valid": ("Valid", Q(revoked_at=None) & ~_IS_EXPIRED),
        "expired": ("Expired", Q(revoked_at=None) & _IS_EXPIRED),
        "revoked": ("Revoked", Q(revoked_at__isnull=False)),
    }


class TokenKindFilter(WordFilter):
    title = "kind"
    parameter_name = "kind"
    conditions = {"service": ("Services", ~Q(name="")), "login": ("Logins", Q(name=""))}


class ApiTokenForm(forms.ModelForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        if "name" in self.fields:  # the page of a token has no form fields
            self.fields["name"].required = True
            self.fields["expires_at"].initial = tokens.default_expiry

    def clean(self) -> dict[str, Any]:
        values, owner = self.cleaned_data, self.cleaned_data.get("owner")
        expires_at = values.get("expires_at")
        if expires_at is not None and expires_at <= timezone.now():
            self.add_error("expires_at", "This is in the past.")
        if owner is None:
            return values
        if two_factor.is_required(owner):
            self.add_error(
                "owner",
                "This user must log in with two factors, and a token has only one. Create a user for the service, with "
                "a role and without staff status.",
            )
        if ApiToken.objects.filter(owner=owner, name=values.get("name"), revoked_at=None).exists():
            self.add_error("name", "This user has a token with this name. Revoke it, or take another name.")
        return values


_REVOCATION = Question(
    "Revoke the token?",
    "The token stops working at once, and the service that has it is refused. This cannot be undone.",
    "Yes, revoke",
)


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):
    form = ApiTokenForm
    list_display = ("title", "status", "owner_link", "used", "expires", "created_by", "created")
    list_filter = (TokenStatusFilter, TokenKindFilter)
    list_select_related = ("owner", "created_by")
    search_fields = ("name", "owner__username")
    ordering = ("-created_at", "-pk")
    show_facets = admin.ShowFacets.NEVER
    actions = ("revoke",)

    def get_fieldsets(self, request: HttpRequest, obj: ApiToken | None = None) -> Any:  # noqa: ANN401 - a long type
        if obj is None:
            return ((None, {"fields": ("name", "owner", "expires_at")}),)
        facts = ("title", "status", "owner_link", "used", "expires", "revoked", "created_by", "created")
        return ((None, {"fields": facts}),)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return () if obj is None else ("title", "status", "owner_link", "used", "expires", "revoked", "created")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        authenticators = TOTPDevice.objects.filter(confirmed=True)
        return super().get_queryset(request).prefetch_related(Prefetch("owner__totpdevice_set", authenticators))

    def formfield_for_foreignkey(
        self,
        db_field: ForeignKey,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> forms.ModelChoiceField | None:
        """Offers no users with more permissions than one's own, because a token lets its holder act as the user."""
        if db_field.name == "owner":
            users = rights.manageable_users(cast(User, request.user)).filter(is_active=True)
            kwargs["queryset"] = users.order_by("username")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_apitoken")

    # Creation

    def save_model(self, request: HttpRequest, obj: ApiToken, form: forms.ModelForm, change: bool) -> None:
        obj.created_by = cast(User, request.user)
        obj.text = tokens.issue(obj)  # type: ignore[attr-defined]  # for response_add

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"The API token {obj.name}",
            "opts": self.opts,
            "token": obj,
        }
        return TemplateResponse(request, "admin/accounts/apitoken/created.html", context)

    # Revocation and deletion

    def delete_model(self, request: HttpRequest, obj: ApiToken) -> None:
        tokens.delete(ApiToken.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        tokens.delete(queryset)

    @admin.action(description="Revoke …: ends the token at once", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> HttpResponse | None:
        if page := confirm_action(self, request, _REVOCATION, queryset):
            return page
        count = len(tokens.revoke(queryset))
        self.message_user(request, ngettext("%d token revoked.", "%d tokens revoked.", count) % count)
        return None

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_revoke = {"may_revoke": self.has_revoke_permission(request)}
        return super().change_view(request, object_id, form_url, {**may_revoke, **(extra_context or {})})

    # Columns

    @admin.display(description="Name", ordering="name")
    def title(self, token: ApiToken) -> str:
        return str(token)

    @admin.display(description="Status")
    def status(self, token: ApiToken) -> str:
        authenticators: list[TOTPDevice] = list(token.owner.totpdevice_set.all())  # type: ignore[attr-defined]
        authenticator = authenticators[0] if authenticators else None
        if token.revoked_at is not None:
            return badge("bad", "Revoked")
        if token.expires_at is not None and token.expires_at <= timezone.now():
            return badge("plain", "Expired")
        if not token.owner.is_active:
            return badge("warning", "Owner not active")
        if tokens.is_outdated(token, token.owner, authenticator):
            return badge("plain", "Ended by a new password or second factor")
        return badge("good", "Valid")

    @admin.display(description="Owner", ordering="owner__username")
    def owner_link(self, token: ApiToken) -> str:
        return link_to(token.owner)

    @admin.display(description="Last used", ordering="last_used_at")
    def used(self, token: ApiToken) -> str:
        return time_ago(token.last_used_at) if token.last_used_at else "never"

    @admin.display(description="Expires", ordering="expires_at")
    def expires(self, token: ApiToken) -> str:
        return timestamp(token.expires_at) if token.expires_at else "never"

    @admin.display(description="Revoked")
    def revoked(self, token: ApiToken) -> str:
        return timestamp(token.revoked_at)

    @admin.display(description="Created", ordering="created_at")
    def created(self, token: ApiToken) -> str:
        return timestamp(token.created_at)
