"""Notification channels: their list, the form of a channel, and a page that sends a test alert through all of them.

The address of a channel is a secret. It is entered here, and no page shows more of it than the name of the service.
"""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html

from usage.alerts.notifications import channel_check
from usage.alerts.notifications.sender import ChannelFailed, Sender
from usage.alerts.severity import Severity
from usage.models import Incident, NotificationChannel
from voicecare.admin.conflicts import ConflictAdmin
from voicecare.admin.lists import badge, time_ago
from voicecare.audit.recording import record

_SETTINGS_CHANNELS = ("mail", "webhook")  # their alerts are in the timeline under these names


class ChannelForm(forms.ModelForm):
    url = forms.CharField(
        label="Address",
        max_length=2000,
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"}),
    )
    kinds = forms.MultipleChoiceField(
        choices=[(kind.value, kind.label.capitalize()) for kind in Incident.Kind],
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "checkbox-list"}),
        help_text="None chosen: all kinds.",
    )
    severities = forms.MultipleChoiceField(
        choices=Severity.choices,
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "checkbox-list"}),
        help_text="None chosen: all severities.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        self.initial["url"] = ""
        if "url" in self.fields:
            kept = f"Leave it empty to keep {masked(self.instance)} as it is. " if self.instance.pk else ""
            self.fields["url"].help_text = (
                f"{kept}The address of the service as Apprise writes it, such as slack://…, tgram://…, ntfys://… or "
                "mailtos://…. It is a secret and is not shown again. docs/operation.md has examples."
            )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name.lower() in _SETTINGS_CHANNELS:
            raise forms.ValidationError("This is the name of a channel of the settings. Choose another one.")
        return name

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        if not url:
            if self.instance.pk:
                kept: str = self.instance.url
                return kept
            raise forms.ValidationError("Enter the address of the service.")
        try:
            with Sender(url) as sender:
                sender.check()
        except ChannelFailed as failure:
            raise forms.ValidationError(str(failure)) from failure
        return url

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        begin, end = cleaned.get("quiet_from"), cleaned.get("quiet_to")
        if begin is not None and begin == end:
            self.add_error("quiet_to", "Quiet hours cannot end when they begin. Leave both empty for none.")
        return cleaned


def masked(channel: NotificationChannel) -> str:
    """Returns the address without anything that can be a secret: hosts, topics and numbers can be."""
    return f"{channel.url.partition('://')[0]}://…"


@admin.register(NotificationChannel)
class NotificationChannelAdmin(ConflictAdmin):
    form = ChannelForm
    list_display = ("status", "name", "service", "informs", "when", "last_sent", "error")
    list_display_links = ("name",)
    list_select_related = ("clinic",)
    readonly_fields = ("address", "status", "last_sent", "error")
    change_list_template = "admin/usage/notificationchannel/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        test = path("test/", self.admin_site.admin_view(self.test), name="usage_notificationchannel_test")
        return [test, *super().get_urls()]

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: NotificationChannel | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the fields. Users who may only view see the name of the service instead of the address."""
        may_change = obj is None or self.has_change_permission(request, obj)
        quiet = (
            "Hold incidents that are only about money (budgets, credits running low, forecast, differences) until the "
            f"end, in the time zone {settings.USAGE_TIME_ZONE}. What has ended by then is not reported."
        )
        fieldsets: list[tuple[str | None, dict[str, Any]]] = [
            (None, {"fields": ("name", "url" if may_change else "address", "enabled")}),
            ("Which incidents", {"fields": ("clinic", "severities", "kinds")}),
            ("Escalation", {"fields": ("escalate_after_minutes",)}),
            ("Quiet hours", {"fields": ("quiet_from", "quiet_to"), "description": quiet}),
        ]
        if obj is not None:
            fieldsets.append(("Last messages", {"fields": ("status", "last_sent", "error")}))
        return fieldsets

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Nobody may search for parts of the address in the query of the list."""
        return lookup.partition("__")[0] != "url" and super().lookup_allowed(lookup, value, request)

    def save_model(self, request: HttpRequest, obj: NotificationChannel, form: ChannelForm, change: bool) -> None:
        """Save only what was edited, because messages are sent meanwhile. With a new address, try again at once."""
        edited = set(form.changed_data)
        if change and "url" in edited:
            obj.failures, obj.last_error, obj.sending_until = 0, "", None
            edited |= {"failures", "last_error", "sending_until"}
        obj.save(update_fields=edited if change else None)

    @admin.display(description="Status")
    def status(self, channel: NotificationChannel) -> str:
        if not channel.enabled:
            return badge("plain", "Disabled")
        return badge("bad", "Failing") if channel.failures else badge("good", "Enabled")

    @admin.display(description="Service")
    def service(self, channel: NotificationChannel) -> str:
        return masked(channel)

    @admin.display(description="Address")
    def address(self, channel: NotificationChannel) -> str:
        return masked(channel)

    @admin.display(description="Informs about")
    def informs(self, channel: NotificationChannel) -> str:
        severities = " and ".join(channel.severities) if channel.severities else ""
        kinds = f"{len(channel.kinds)} kinds" if len(channel.kinds) > 1 else _kind_in_words(channel.kinds)
        clinic = channel.clinic.name if channel.clinic else ""
        return ", ".join(filter(None, (clinic, kinds, severities)))

    @admin.display(description="When")
    def when(self, channel: NotificationChannel) -> str:
        minutes = channel.escalate_after_minutes
        return "At once" if minutes is None else f"After {minutes} min without acknowledgement"

    @admin.display(description="Last sent")
    def last_sent(self, channel: NotificationChannel) -> str:
        return time_ago(channel.last_sent_at) if channel.last_sent_at else "never"

    @admin.display(description="Last error")
    def error(self, channel: NotificationChannel) -> str:
        if not channel.last_error:
            return "none"
        return format_html("{} {}", channel.last_error, time_ago(channel.last_failed_at))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"may_test": self.has_change_permission(request)}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def test(self, request: HttpRequest) -> HttpResponse:
        """Return the page with all channels. A POST sends a test alert through each, and the page has the results."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        results: Iterable[channel_check.Result] = ()
        if request.method == "POST":
            record(request, "send_test_alert", NotificationChannel)
            results = channel_check.send_test_alerts()
        context = {
            "title": "Send a test alert",
            "opts": self.opts,
            "names": channel_check.channel_names(),
            "results": results,
        }
        template = "admin/usage/notificationchannel/test.html"
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **context})


def _kind_in_words(kinds: list[str]) -> str:
    return Incident.Kind(kinds[0]).label.capitalize() if kinds else "All kinds"
