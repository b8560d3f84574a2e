"""Admin of patients, devices and voices. Rows are never deleted here: patients are archived, devices are revoked."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import F, Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import ngettext

from voicecare.core import task_names, task_queue
from voicecare.patients.api import AUDIBLE_FIELDS
from voicecare.patients.models import Device, Patient, Voice


class NoDeleteAdmin(admin.ModelAdmin):
    """For rows that other rows refer to. A patient is erased through the REST API only (erasure.py)."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Model, form: forms.ModelForm, change: bool) -> None:
        """Write only the edited fields. A device that connects at the same time writes to the same row."""
        if change:
            obj.save(update_fields={field.name for field in obj._meta.concrete_fields} & set(form.changed_data))
        else:
            super().save_model(request, obj, form, change)


@admin.register(Voice)
class VoiceAdmin(NoDeleteAdmin):
    """Stock voices can be added by provider id. Source, patient and state are set by the provider and by clones."""

    list_display = ("name", "source", "state", "patient", "provider_id", "revision", "created_at")
    list_filter = ("source", "state")
    list_select_related = ("patient",)
    search_fields = ("name", "provider_id", "patient__name", "patient__preferred_name")
    readonly_fields = ("source", "patient", "state", "revision", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Voice | None = None) -> tuple[str, ...]:
        return self.readonly_fields if obj is None else ("provider_id", *self.readonly_fields)


class PatientForm(forms.ModelForm):
    """Offers usable stock voices and clones of this patient. The current voice stays a choice even if it is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        if "voice" in self.fields:  # a user with view permission only has no form fields
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

    def save_model(  # type: ignore[override]  # the admin of Patient only gets patients
        self, request: HttpRequest, obj: Patient, form: forms.ModelForm, change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        if not change or AUDIBLE_FIELDS & set(form.changed_data):
            task_queue.enqueue_on_commit(task_names.WARM_PATIENT, obj.pk)

    @admin.display(description="New device")
    def new_device(self, patient: Patient) -> str:
        if patient._state.adding:
            return "Save the patient before you add a device."
        url = reverse("admin:patients_device_add", query={"patient": patient.pk})
        return format_html('<a href="{}">Add a device for this patient</a>', url)

    @admin.action(description="Archive: disconnects their devices", permissions=["change"])
    def archive(self, request: HttpRequest, patients: QuerySet[Patient]) -> None:
        count = patients.filter(archived_at=None).update(archived_at=timezone.now())
        self.message_user(request, ngettext("%d patient archived.", "%d patients archived.", count) % count)

    @admin.action(description="Unarchive: their devices can connect again", permissions=["change"])
    def unarchive(self, request: HttpRequest, patients: QuerySet[Patient]) -> None:
        count = patients.exclude(archived_at=None).update(archived_at=None)
        self.message_user(request, ngettext("%d patient unarchived.", "%d patients unarchived.", count) % count)


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
        """The patient of a device cannot change. Another patient needs another device."""
        return self.readonly_fields if obj is None else ("patient", *self.readonly_fields)

    def save_model(  # type: ignore[override]  # the admin of Patient only gets patients
        self, request: HttpRequest, obj: Device, form: forms.ModelForm, change: bool
    ) -> None:
        token = None if change else obj.renew_token()
        super().save_model(request, obj, form, change)
        if token is not None:
            self._show_token_once(request, obj, token)

    @admin.action(description="Revoke: disconnects the device for good", permissions=["change"])
    def revoke(self, request: HttpRequest, devices: QuerySet[Device]) -> None:
        count = devices.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, ngettext("%d device revoked.", "%d devices revoked.", count) % count)

    @admin.action(description="Renew token: the old one stops working", permissions=["change"])
    def renew_tokens(self, request: HttpRequest, devices: QuerySet[Device]) -> None:
        for device in devices:
            if device.revoked_at is not None:
                self.message_user(request, f"{device.name} is revoked. Add a new device instead.", messages.WARNING)
                continue
            token = device.renew_token()
            # The next epoch closes a connection that was made with the old token.
            digest = {"token_prefix": device.token_prefix, "token_digest": device.token_digest}
            Device.objects.filter(pk=device.pk).update(**digest, epoch=F("epoch") + 1)
            self._show_token_once(request, device, token)

    def _show_token_once(self, request: HttpRequest, device: Device, token: str) -> None:
        self.message_user(
            request, f"The token of {device.name} is {token} - copy it now, it is not shown again.", messages.WARNING
        )
