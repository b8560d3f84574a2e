"""The checklist of a new installation on the first page of the admin. Each item is read from the database."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.urls import reverse

from tts.cache.coverage import languages_without_greeting
from tts.cache.planning import active_patients
from tts.models import Phrase
from usage.alerts import heartbeats
from usage.alerts.notifications import channel_check
from usage.models import NotificationChannel, ProviderState
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Device, Patient, Voice

TALK = 'Connect the device. This command acts as one: python manage.py talk --token TOKEN "Good morning"'


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """One requirement. `advice` says what to do until it is met. `url` is a page that helps, or empty."""

    name: str
    is_done: bool
    advice: str
    url: str = ""


def checklist(permissions: AdminPermissions) -> list[ChecklistItem]:
    """Returns the items whose rows the user may view."""
    return [*_provider(permissions), *_processes(permissions), *_patients(permissions)]


def _provider(permissions: AdminPermissions) -> Iterator[ChecklistItem]:
    if permissions.can_view(ProviderState, Voice):
        state = ProviderState.objects.filter(pk=1).first()
        voices_read = Voice.objects.exclude(read_at=None).exists()
        is_refused = state is not None and state.access != ProviderState.Access.GRANTED
        is_accepted = not is_refused and (voices_read or (state is not None and state.polled_at is not None))
        refused = "The provider refuses the key, the plan or a permission. Check ELEVENLABS_API_KEY or its file."
        unknown = "Not checked yet. The worker checks it every minute."
        name = "The built-in sandbox answers" if settings.USE_SANDBOX else "The provider accepts the API key"
        yield ChecklistItem(name, is_accepted, refused if is_refused else unknown)
        yield ChecklistItem(
            "The account's voices were read",
            voices_read,
            "The worker reads them as soon as the key is accepted.",
            permissions.changelist_url(Voice),
        )
        default = Voice.objects.default()
        yield ChecklistItem(
            f"The default voice is {default}" if default else "There is a default voice",
            default is not None,
            "No voice of the account can be used. Add one to the account at the provider."
            if voices_read
            else "It is chosen when the account's voices were read.",
            permissions.changelist_url(Voice),
        )
    if permissions.can_view(Phrase):
        yield ChecklistItem(
            "All languages of patients have a greeting",
            not languages_without_greeting(active_patients()),
            "Some patients are not greeted. The languages are listed below.",
            permissions.changelist_url(Phrase),
        )


def _processes(permissions: AdminPermissions) -> Iterator[ChecklistItem]:
    if permissions.can_view(ProviderState):
        names = " and ".join(channel_check.channel_names())
        yield ChecklistItem(
            f"Alerts are sent by {names}" if names else "Alerts reach somebody",
            bool(names),
            "Set ADMIN_EMAILS (with EMAIL_URL) or ALERT_WEBHOOK_URL, or add a notification channel.",
            permissions.changelist_url(NotificationChannel),
        )
        missing = heartbeats.missing_processes()
        for process in (heartbeats.WORKER, heartbeats.BEAT):
            name = f"{process.capitalize()} is running"
            yield ChecklistItem(name, process not in missing, f"Start {process} (see Procfile).")


def _patients(permissions: AdminPermissions) -> Iterator[ChecklistItem]:
    if permissions.can_view(Patient, Device):
        can_add = permissions.user.has_perm("patients.add_patient")
        has_patient = active_patients().exists()
        yield ChecklistItem(
            "There is a patient",
            has_patient,
            "Add a patient, with the name of their AI companion.",
            reverse("admin:patients_patient_add") if can_add else "",
        )
        yield ChecklistItem(
            "There is a device",
            Device.objects.bedside().filter(revoked_at=None, patient__in=active_patients()).exists(),
            "Add a device for the patient, and enter its token on the device.",
            reverse("admin:patients_device_add") if can_add else "",
        )
        yield ChecklistItem("A device has connected", Device.objects.bedside().exclude(last_seen=None).exists(), TALK)
