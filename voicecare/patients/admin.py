"""Patients, their devices and their voices. Nothing is deleted here: patients are archived, devices revoked."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import F, Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from voicecare.core import task_names, task_queue
from voicecare.patients.api import AUDIBLE_FIELDS
from voicecare.patients.models import Device, Patient, Voice


class NoDeleteAdmin(admin.ModelAdmin):
    """Rows that other rows stand on. Erasing a patient is a flow of its own, not a click here."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Model, form: forms.ModelForm, change: bool) -> None:
        """Of a change only what was edited is written: a device that connects meanwhile writes to the same row."""
        if change:
            obj.save(update_fields={field.name for field in obj._meta.concrete_fields} & set(form.changed_data))
        else:
            super().save_model(request, obj, form, change)


@admin.register(Voice)
class VoiceAdmin(NoDeleteAdmin):
    """A stock voice may be added by its id; whose voice it is and what state it is in, the provider decides."""

    list_display = ("name", "source", "state", "patient", "provider_id", "revision", "created_at")
    list_filter = ("source", "state")
    list_select_related = ("patient",)
    search_fields = ("name", "provider_id", "patient__name", "patient__preferred_name")
    readonly_fields = ("source", "patient", "state", "revision", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Voice | None = None) -> tuple[str, ...]:
        return self.readonly_fields if obj is None else ("provider_id", *self.readonly_fields)


class PatientForm(forms.ModelForm):
    """The voice is a usable stock voice or the patient's own; a chosen one that is gone stays until it is changed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's own signature
        super().__init__(*args, **kwargs)
        if "voice" in self.fields:  # absent for a user who may only look
            usable = Q(state=Voice.State.USABLE) & (Q(source=Voice.Source.STOCK) | Q(patient=self.instance.pk))
            choices = Voice.objects.filter(usable | Q(pk=self.instance.voice_id))
            self.fields["voice"].queryset = choices  # type: ignore[attr-defined]


class DeviceInline(admin.TabularInline):
    model = Device
    fields = ("name", "token_prefix", "format", "last_seen", "revoked_at")
    readonly_fields = fields
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Patient)
class PatientAdmin(NoDeleteAdmin):
    form = PatientForm
    list_display = ("name", "preferred_name", "companion_name", "language", "voice", "archived_at", "created_at")
    list_filter = (("archived_at", admin.EmptyFieldListFilter), "language", "voice__source")
    list_select_related = ("voice",)
    search_fields = ("name", "preferred_name")
    autocomplete_fields = ("team",)
    readonly_fields = ("archived_at", "erased_at", "created_at", "new_device")
    inlines = (DeviceInline,)
    actions = ("archive", "unarchive")

    def save_model(  # type: ignore[override]  # this admin is only ever given its own model
        self, request: HttpRequest, obj: Patient, form: forms.ModelForm, change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        if not change or AUDIBLE_FIELDS & set(form.changed_data):
            task_queue.enqueue_on_commit(task_names.WARM_PATIENT, obj.pk)

    @admin.display(description="New device")
    def new_device(self, patient: Patient) -> str:
        if patient._state.adding:
            return "Save the patient first."
        address = reverse("admin:patients_device_add", query={"patient": patient.pk})
        return format_html('<a href="{}">Add a device for this patient</a>', address)

    @admin.action(description="Archive: their devices are disconnected and refused", permissions=["change"])
    def archive(self, request: HttpRequest, patients: QuerySet[Patient]) -> None:
        archived = patients.filter(archived_at=None).update(archived_at=timezone.now())
        self.message_user(request, f"Archived: {archived}.")

    @admin.action(description="Unarchive: their devices may connect again", permissions=["change"])
    def unarchive(self, request: HttpRequest, patients: QuerySet[Patient]) -> None:
        unarchived = patients.exclude(archived_at=None).update(archived_at=None)
        self.message_user(request, f"Unarchived: {unarchived}.")


@admin.register(Device)
class DeviceAdmin(NoDeleteAdmin):
    list_display = ("name", "patient", "token_prefix", "format", "last_seen", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "format", "last_seen")
    list_select_related = ("patient",)
    search_fields = ("name", "token_prefix", "patient__name", "patient__preferred_name")
    autocomplete_fields = ("patient",)
    readonly_fields = ("token_prefix", "revoked_at", "format", "last_seen", "created_at")
    actions = ("revoke", "renew_tokens")

    def get_readonly_fields(self, request: HttpRequest, obj: Device | None = None) -> tuple[str, ...]:
        """A device stays with its patient: whoever stands beside another bed gets a device of their own."""
        return self.readonly_fields if obj is None else ("patient", *self.readonly_fields)

    def save_model(  # type: ignore[override]  # this admin is only ever given its own model
        self, request: HttpRequest, obj: Device, form: forms.ModelForm, change: bool
    ) -> None:
        token = None if change else obj.renew_token()
        super().save_model(request, obj, form, change)
        if token is not None:
            self._show_token_once(request, obj, token)

    @admin.action(description="Revoke: disconnected within seconds, and for good", permissions=["change"])
    def revoke(self, request: HttpRequest, devices: QuerySet[Device]) -> None:
        revoked = devices.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, f"Revoked: {revoked}.")

    @admin.action(description="New token: the former one is refused from now on", permissions=["change"])
    def renew_tokens(self, request: HttpRequest, devices: QuerySet[Device]) -> None:
        for device in devices:
            if device.revoked_at is None:
                self._renew_token(request, device)
            else:
                self.message_user(request, f"{device.name} is revoked: add a new device instead.", messages.WARNING)

    def _renew_token(self, request: HttpRequest, device: Device) -> None:
        token = device.renew_token()
        # The next epoch closes a socket that was opened with the former token.
        changed = {"token_prefix": device.token_prefix, "token_digest": device.token_digest, "epoch": F("epoch") + 1}
        Device.objects.filter(pk=device.pk).update(**changed)
        self._show_token_once(request, device, token)

    def _show_token_once(self, request: HttpRequest, device: Device, token: str) -> None:
        self.message_user(
            request, f"The token of {device.name} is {token} - copy it now, it is not shown again.", messages.WARNING
        )
