"""The pages of devices in the admin. A token is shown once: in the answer to the request that has created it.

The token is never stored, so it is in no message, session or address.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import segno
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F, ForeignKey, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import ngettext

from voicecare.admin.confirmation import Question, confirm_action, confirmation_page
from voicecare.admin.lists import EMPTY, WordFilter, link_to, time_ago, timestamp
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.admin import NoDeleteAdmin, device_badge
from voicecare.patients.care_teams import CareTeamAdmin
from voicecare.patients.clinic_filter import ClinicFilter
from voicecare.patients.models import Device, Patient

NO_DEVICE = "No device can be added: the patient is to be erased, or does not exist."
_RENEWAL = Question(
    "Renew the token?",
    "The device is disconnected, and its present token stops working. It is silent until the new token is entered. The "
    "new token is shown on the next page.",
    "Yes, renew the token",
)
_REVOCATION = Question(
    "Revoke the device?",
    "The device is disconnected for good. This cannot be undone. To connect it again, add it as a new device.",
    "Yes, revoke the device",
)

_IS_ONLINE = Q(revoked_at=None, online_until__gt=Now())


class DeviceStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "online": ("Online", _IS_ONLINE),
        "offline": ("Offline", Q(revoked_at=None) & (Q(online_until=None) | Q(online_until__lte=Now()))),
        "unseen": (
            "Not seen for 24 h",
            Q(revoked_at=None)
            & (Q(online_until=None) | Q(online_until__lte=Now()))
            & (Q(last_seen=None) | Q(last_seen__lte=Now() - timedelta(hours=24))),
        ),
        "revoked": ("Revoked", Q(revoked_at__isnull=False)),
    }


class DeviceForm(forms.ModelForm):
    def clean_patient(self) -> Patient:
        """Locks the patient until the device is saved, as `DeviceQuerySet.issue` does."""
        patient: Patient = self.cleaned_data["patient"]
        if not Patient.objects.remaining().select_for_update(no_key=True).filter(pk=patient.pk).first():
            raise forms.ValidationError(NO_DEVICE)
        return patient


@admin.register(Device)
class DeviceAdmin(CareTeamAdmin, NoDeleteAdmin):
    form = DeviceForm
    list_display = ("status", "name", "patient_link", "seen", "format", "token_prefix")
    list_display_links = ("name",)
    list_filter = (DeviceStatusFilter, ClinicFilter, "format")
    show_facets = admin.ShowFacets.NEVER
    list_select_related = ("patient",)
    search_fields = ("name", "token_prefix", "patient__name", "patient__preferred_name")
    autocomplete_fields = ("patient",)
    readonly_fields = ("status", "token_prefix", "format", "connected", "refused", "revoked", "created")
    fieldsets = (
        (None, {"fields": ("status", "patient", "name")}),
        ("Connection", {"fields": ("connected", "format", "refused")}),
        ("Token", {"fields": ("token_prefix", "created", "revoked")}),
    )
    actions = ("revoke", "renew_token")

    @admin.display(description="Status")
    def status(self, device: Device) -> str:
        return device_badge(device)

    @admin.display(description="Patient", ordering="patient__name")
    def patient_link(self, device: Device) -> str:
        return link_to(device.patient)

    @admin.display(description="Last connection", ordering="last_seen")
    def seen(self, device: Device) -> str:
        return time_ago(device.last_seen)

    @admin.display(description="Last connection")
    def connected(self, device: Device) -> str:
        return timestamp(device.last_seen)

    @admin.display(description="Last refusal")
    def refused(self, device: Device) -> str:
        return f"{timestamp(device.refused_at)}: {device.get_refusal_display()}" if device.refused_at else EMPTY

    @admin.display(description="Revoked")
    def revoked(self, device: Device) -> str:
        return timestamp(device.revoked_at)

    @admin.display(description="Created")
    def created(self, device: Device) -> str:
        return timestamp(device.created_at)

    def get_urls(self) -> list[URLPattern]:
        renew, revoke = self.admin_site.admin_view(self.renew_view), self.admin_site.admin_view(self.revoke_view)
        return [
            path("<uuid:device_id>/renew-token/", renew, name="device-renew-token"),
            path("<uuid:device_id>/revoke/", revoke, name="device-revoke"),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        return super().get_queryset(request).filter(console_until=None)

    def get_fieldsets(  # type: ignore[override]  # the stubs' own type for it is private
        self, request: HttpRequest, obj: Device | None = None
    ) -> Sequence[tuple[str | None, Any]]:
        return self.fieldsets if obj else [(None, {"fields": ("patient", "name")})]

    def get_readonly_fields(self, request: HttpRequest, obj: Device | None = None) -> tuple[str, ...]:
        """Makes the patient of an existing device read-only, because a device never changes to another patient."""
        return self.readonly_fields if obj is None else ("patient", *self.readonly_fields)

    def formfield_for_foreignkey(
        self,
        db_field: ForeignKey,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> forms.ModelChoiceField | None:
        if db_field.name == "patient":
            kwargs["queryset"] = Patient.objects.visible_to(request.user)
            kwargs["error_messages"] = {"invalid_choice": NO_DEVICE}
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    # Tokens

    def save_model(  # type: ignore[override]  # the admin of Device only gets devices
        self, request: HttpRequest, obj: Device, form: forms.ModelForm, change: bool
    ) -> None:
        if not change:
            obj.new_token = obj.renew_token()  # type: ignore[attr-defined]  # for `response_add`, in the same request
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Device, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_tokens(request, [(obj, obj.new_token)])  # type: ignore[attr-defined]

    def renew_view(self, request: HttpRequest, device_id: uuid.UUID) -> HttpResponse:
        """Asks whether to renew the token. A POST renews it and shows the new one."""
        device = self._device(request, device_id)
        if device.revoked_at is None and request.method != "POST":
            return self._ask(request, device, _RENEWAL)
        tokens = self._renew(request, [device])
        if tokens:
            return self._show_tokens(request, tokens)
        return HttpResponseRedirect(reverse("admin:patients_device_change", args=[device.pk]))

    def revoke_view(self, request: HttpRequest, device_id: uuid.UUID) -> HttpResponse:
        """Asks whether to revoke the device. A POST revokes it."""
        device = self._device(request, device_id)
        if device.revoked_at is None and request.method != "POST":
            return self._ask(request, device, _REVOCATION)
        revoked_at = timezone.now()
        with transaction.atomic():
            if Device.objects.filter(pk=device.pk, revoked_at=None).update(revoked_at=revoked_at):
                record(request, Action.REVOKE, device, {"revoked_at": [None, revoked_at]})
        self.message_user(request, "The device is revoked.")
        return HttpResponseRedirect(reverse("admin:patients_device_change", args=[device.pk]))

    @admin.action(description="Revoke …: disconnects the device for good", permissions=["change"])
    def revoke(self, request: HttpRequest, devices: QuerySet[Device]) -> HttpResponse | None:
        if page := confirm_action(self, request, _REVOCATION, devices, _name):
            return page
        count = devices.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, ngettext("%d device revoked.", "%d devices revoked.", count) % count)
        return None

    @admin.action(description="Renew token …: the old one stops working", permissions=["change"])
    def renew_token(self, request: HttpRequest, devices: QuerySet[Device]) -> HttpResponse | None:
        if page := confirm_action(self, request, _RENEWAL, devices, _name):
            return page
        tokens = self._renew(request, devices)
        return self._show_tokens(request, tokens) if tokens else None

    def _device(self, request: HttpRequest, device_id: uuid.UUID) -> Device:
        """The device that the user may change. Raises Http404 or PermissionDenied (403)."""
        device: Device = get_object_or_404(self.get_queryset(request).select_related("patient"), pk=device_id)
        if not self.has_change_permission(request, device):
            raise PermissionDenied
        return device

    @transaction.atomic
    def _renew(self, request: HttpRequest, devices: Sequence[Device] | QuerySet[Device]) -> list[tuple[Device, str]]:
        """Gives each device a new token, except the revoked ones. Returns the devices with their tokens."""
        tokens = []
        for device in devices:
            token = device.renew_token()
            # The next epoch closes a connection that was made with the old token.
            new = {"token_prefix": device.token_prefix, "token_digest": device.token_digest, "epoch": F("epoch") + 1}
            if Device.objects.filter(pk=device.pk, revoked_at=None).update(**new):
                record(request, Action.RENEW_TOKEN, device)
                tokens.append((device, token))
            else:
                message = f"{device.name} is revoked. Add a new device instead."
                self.message_user(request, message, messages.WARNING)
        return tokens

    def _ask(self, request: HttpRequest, device: Device, question: Question) -> HttpResponse:
        back = reverse("admin:patients_device_change", args=[device.pk])
        context = {"original": device, "names": [_name(device)], "back": back}
        return confirmation_page(self, request, question, **context)

    def _show_tokens(self, request: HttpRequest, tokens: Sequence[tuple[Device, str]]) -> HttpResponse:
        address = settings.PUBLIC_URL.replace("http", "ws", 1).rstrip("/") + "/ws/device/"
        shown = [
            {
                "device": device,
                "token": token,
                "command": f'python manage.py talk --url {address} --token {token} "Good morning"',
                "qr_code": segno.make(token, micro=False).svg_data_uri(scale=5, light="white"),
            }
            for device, token in tokens
        ]
        title = ngettext("Token of the device", "Tokens of the devices", len(shown))
        context = {"title": title, "tokens": shown, "address": address, "opts": self.opts}
        template = "admin/patients/device/tokens.html"
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **context})


def _name(device: Device) -> str:
    return f"{device}, of {device.patient}"
