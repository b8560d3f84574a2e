"""Admin of webhook endpoints, which shows a secret once, and the log of their deliveries."""

import uuid
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, ForeignKey, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import ngettext

from voicecare.admin.confirmation import Question, confirmation_page
from voicecare.admin.lists import EMPTY, BadgeKind, WordFilter, badge, link_to, milliseconds, timestamp
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients import care_teams
from voicecare.patients.models.patient import sees_all_patients
from voicecare.webhooks import delivery as sending
from voicecare.webhooks import events
from voicecare.webhooks.models import (
    SUBSCRIBABLE,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)

Status = WebhookDelivery.Status

_RENEWAL = Question(
    "Renew the secret?",
    "For a day, messages are signed with the new and the previous secret. After that the previous one is not used.",
    "Yes, renew",
)


class EndpointForm(forms.ModelForm):
    events = forms.MultipleChoiceField(
        choices=[(kind.value, f"{kind.label} ({kind.value})") for kind in SUBSCRIBABLE],
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "checkbox-list"}),
        help_text="None chosen: all types.",
    )

    class Meta:
        widgets = {"url": forms.TextInput(attrs={"class": "vTextField", "spellcheck": "false"})}


class EndpointStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "enabled": ("Enabled", Q(enabled=True)),
        "failing": ("Failing", Q(enabled=True, failures__gt=0)),
        "disabled": ("Disabled", Q(enabled=False)),
    }


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(admin.ModelAdmin):
    form = EndpointForm
    list_display = ("status", "name", "url", "clinic", "types", "pending")
    list_display_links = ("name",)
    list_filter = (EndpointStatusFilter,)
    list_select_related = ("clinic",)
    readonly_fields = ("status", "failing", "previous", "created")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookEndpoint]:
        endpoints = WebhookEndpoint.objects.visible_to(request.user)
        return endpoints.annotate(waiting=Count("deliveries", filter=Q(deliveries__status=Status.PENDING)))

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: WebhookEndpoint | None = None
    ) -> list[tuple[str | None, dict[str, Any]]]:
        fieldsets: list[tuple[str | None, dict[str, Any]]] = [
            (None, {"fields": ("url", "description", "enabled")}),
            ("Which events", {"fields": ("clinic", "events")}),
        ]
        if obj is not None:
            fieldsets.append(("State", {"fields": ("status", "failing", "previous", "created")}))
        return fieldsets

    def formfield_for_foreignkey(
        self,
        db_field: ForeignKey,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> forms.ModelChoiceField | None:
        """Lets users who do not see all patients choose one of their clinics only."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "clinic" and field is not None:
            field.queryset = care_teams.visible_clinics(request.user)
            field.required = not sees_all_patients(request.user)
        return field

    def save_model(self, request: HttpRequest, obj: WebhookEndpoint, form: forms.ModelForm, change: bool) -> None:
        """Save only what was edited, because messages are sent meanwhile. A new endpoint gets a secret."""
        if not change:
            obj.new_secret()
        obj.save(update_fields=set(form.changed_data) if change else None)

    def response_add(
        self, request: HttpRequest, obj: WebhookEndpoint, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._show_secret(request, obj)

    def get_deleted_objects(
        self,
        objs: Any,  # noqa: ANN401
        request: HttpRequest,
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Lists the endpoints only. They may have many thousand deliveries, which nobody may delete alone."""
        names = [str(obj) for obj in objs]
        return names, {str(self.opts.verbose_name_plural): len(names)}, set(), []

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<uuid:endpoint_id>/renew-secret/", view(self.renew_view), name="webhook-renew-secret"),
            path("<uuid:endpoint_id>/test/", view(self.test_view), name="webhook-test"),
            *super().get_urls(),
        ]

    def renew_view(self, request: HttpRequest, endpoint_id: uuid.UUID) -> HttpResponse:
        """Asks whether to renew the secret. A POST renews it and shows the new one."""
        endpoint = self._endpoint(request, endpoint_id)
        if request.method != "POST":
            back = reverse("admin:webhooks_webhookendpoint_change", args=[endpoint.pk])
            return confirmation_page(self, request, _RENEWAL, original=endpoint, names=[str(endpoint)], back=back)
        endpoint.renew_secret()
        record(request, Action.RENEW_SECRET, endpoint)
        return self._show_secret(request, endpoint)

    def test_view(self, request: HttpRequest, endpoint_id: uuid.UUID) -> HttpResponse:
        """Sends a test event, and shows the page of its delivery."""
        endpoint = self._endpoint(request, endpoint_id)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        delivery = events.emit_test(endpoint)
        record(request, "send_test_event", endpoint)
        words = "is being sent, once." if endpoint.enabled else "will be sent once, when the endpoint is enabled."
        self.message_user(request, f"The test event {words} Reload this page to see the result.")
        return HttpResponseRedirect(reverse("admin:webhooks_webhookdelivery_change", args=[delivery.pk]))

    def _endpoint(self, request: HttpRequest, endpoint_id: uuid.UUID) -> WebhookEndpoint:
        """The endpoint that the user may change. Raises Http404 or PermissionDenied (403)."""
        endpoint: WebhookEndpoint = get_object_or_404(self.get_queryset(request), pk=endpoint_id)
        if not self.has_change_permission(request, endpoint):
            raise PermissionDenied
        return endpoint

    def _show_secret(self, request: HttpRequest, endpoint: WebhookEndpoint) -> HttpResponse:
        context = {"title": f"The secret of {endpoint}", "opts": self.opts, "endpoint": endpoint}
        template = "admin/webhooks/webhookendpoint/secret.html"
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **context})

    @admin.display(description="Status")
    def status(self, endpoint: WebhookEndpoint) -> str:
        if not endpoint.enabled:
            return badge("bad", "Disabled by the server") if endpoint.disabled_at else badge("plain", "Disabled")
        return badge("warning", "Failing") if endpoint.failures else badge("good", "Enabled")

    @admin.display(description="Name")
    def name(self, endpoint: WebhookEndpoint) -> str:
        return str(endpoint)

    @admin.display(description="Events")
    def types(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.events) or "All types"

    @admin.display(description="Pending")
    def pending(self, endpoint: WebhookEndpoint) -> str:
        count: int = endpoint.waiting  # type: ignore[attr-defined]  # of get_queryset
        return f"{count:,}"

    @admin.display(description="Failing since")
    def failing(self, endpoint: WebhookEndpoint) -> str:
        if endpoint.disabled_at and not endpoint.enabled:
            return f"Disabled {timestamp(endpoint.disabled_at)}, because all attempts had failed for a day."
        if not endpoint.failures:
            return EMPTY
        words = ngettext("%d failed attempt", "%d failed attempts", endpoint.failures) % endpoint.failures
        return f"{timestamp(endpoint.failing_since)}, {words}"

    @admin.display(description="Previous secret")
    def previous(self, endpoint: WebhookEndpoint) -> str:
        is_used = len(endpoint.valid_secrets) > 1
        return f"Used until {timestamp(endpoint.previous_secret_until)}" if is_used else EMPTY

    @admin.display(description="Created")
    def created(self, endpoint: WebhookEndpoint) -> str:
        return timestamp(endpoint.created_at)


class AttemptInline(admin.StackedInline):
    model = WebhookAttempt
    fields = ("number", "started", "duration", "status_code", "problem", "excerpt")
    readonly_fields = fields
    extra = 0
    can_delete = False
    verbose_name_plural = "attempts"

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return True  # of a delivery that the user may view

    @admin.display(description="Started")
    def started(self, attempt: WebhookAttempt) -> str:
        return timestamp(attempt.started_at)

    @admin.display(description="Duration")
    def duration(self, attempt: WebhookAttempt) -> str:
        return milliseconds(attempt.duration_ms)


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("state", "event_type", "endpoint", "attempts", "created", "next_attempt")
    list_display_links = ("event_type",)
    list_filter = ("status", "event__type", ("endpoint", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("event", "endpoint")
    fields = ("state", "event_type", "event_id", "object_id", "patient", "to", "created", "ended", "next_attempt")
    readonly_fields = fields
    inlines = (AttemptInline,)
    actions = ("send_again",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookDelivery]:
        user = request.user
        deliveries = WebhookDelivery.objects.filter(endpoint__in=WebhookEndpoint.objects.visible_to(user))
        visible = care_teams.limit(deliveries, user, "event__patient", Q(event__patient=None))
        return visible.select_related("event__patient").order_by("-created_at", "-pk")

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.change_webhookendpoint")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may = {"may_resend": self.has_resend_permission(request)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may})

    @admin.action(description="Send again, with the same event id", permissions=["resend"])
    def send_again(self, request: HttpRequest, deliveries: QuerySet[WebhookDelivery]) -> None:
        for delivery in deliveries:
            sending.send_again(delivery)
        count = len(deliveries)
        self.message_user(request, ngettext("%d event is sent again.", "%d events are sent again.", count) % count)

    @admin.display(description="Status")
    def state(self, delivery: WebhookDelivery) -> str:
        kinds: dict[str, BadgeKind] = {Status.DELIVERED: "good", Status.FAILED: "bad"}
        kind = "warning" if delivery.status == Status.PENDING and delivery.attempts else "plain"
        return badge(kinds.get(delivery.status, kind), delivery.get_status_display())  # type: ignore[arg-type]

    @admin.display(description="Event", ordering="event__type")
    def event_type(self, delivery: WebhookDelivery) -> str:
        return delivery.event.type

    @admin.display(description="Event id")
    def event_id(self, delivery: WebhookDelivery) -> str:
        return str(delivery.event_id)

    @admin.display(description="Patient")
    def patient(self, delivery: WebhookDelivery) -> str:
        return link_to(delivery.event.patient)

    @admin.display(description="Endpoint")
    def to(self, delivery: WebhookDelivery) -> str:
        url = reverse("admin:webhooks_webhookendpoint_change", args=[delivery.endpoint_id])
        return format_html('<a href="{}">{}</a>', url, delivery.endpoint)

    @admin.display(description="Created", ordering="created_at")
    def created(self, delivery: WebhookDelivery) -> str:
        return timestamp(delivery.created_at)

    @admin.display(description="Ended")
    def ended(self, delivery: WebhookDelivery) -> str:
        return timestamp(delivery.ended_at)

    @admin.display(description="Next attempt")
    def next_attempt(self, delivery: WebhookDelivery) -> str:
        return timestamp(delivery.next_attempt_at) if delivery.status == Status.PENDING else EMPTY
