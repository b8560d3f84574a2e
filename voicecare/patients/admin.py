"""Admin of patients and default voices. Patients are archived, never deleted.

Voices are in `cloning.admin`, because their pages read the provider. Devices are in `voicecare.admin.overview`.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.db.models import Field, ForeignKey, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import ngettext

from voicecare.admin.confirmation import Question, confirm_action
from voicecare.admin.conflicts import ConflictAdmin
from voicecare.admin.lists import badge, time_ago
from voicecare.core import languages, task_names, task_queue
from voicecare.patients.access import CHANGE_CLINIC
from voicecare.patients.api import AUDIBLE_FIELDS
from voicecare.patients.care_teams import clinic_of_new_patient
from voicecare.patients.models import DefaultVoice, DefaultVoices, Device, Patient, Voice
from voicecare.patients.models.patient import OWN_VOICE_NEEDED, PatientQuerySet, sees_all_patients
from voicecare.patients.voice_choice import VoiceSelect

ARCHIVING = Question(
    "Archive the patient?",
    "Speech ends, and the devices are disconnected until the patient is restored. Nothing is deleted.",
    "Yes, archive",
)


class NoDeleteAdmin(admin.ModelAdmin):
    """The base class for models whose rows are never deleted in the admin, because other rows refer to them.

    The erasure of a patient is started through the REST API only (erasure.py).
    """

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Model, form: forms.ModelForm, change: bool) -> None:
        """Saves only the edited fields of an existing row.

        Other fields may have changed since the form was opened, for example if a device has connected.
        """
        if change:
            obj.save(update_fields={field.name for field in obj._meta.concrete_fields} & set(form.changed_data))
        else:
            super().save_model(request, obj, form, change)


class StockVoiceField(forms.ModelChoiceField):
    """A choice of a usable stock voice, with what is known of each. A clone speaks to nobody but its patient."""

    default_error_messages = {
        "invalid_choice": "This voice cannot be a default voice. Choose a stock voice that can be used. The clone of a "
        "patient speaks to nobody else."
    }

    def __init__(self) -> None:
        super().__init__(Voice.objects.default_candidates(), help_text="Listen to the voices under Voices.")

    def label_from_instance(self, obj: Model) -> str:
        voice = cast(Voice, obj)
        end = f"ends on {date_format(timezone.localtime(voice.ends_at))}" if voice.ends_at else ""
        facts = "; ".join(filter(None, (voice.speaker, voice.language_names, end)))
        return f"{voice.name} ({facts})" if facts else voice.name


class DefaultVoiceForm(forms.ModelForm):
    voice = StockVoiceField()
    language = forms.ChoiceField(
        required=False,
        choices=[("", "Every language"), *((tag, f"{name} ({tag})") for tag, name in languages.LANGUAGES.items())],
        help_text="A choice for one language comes before the choice for every language.",
    )

    def clean(self) -> dict[str, Any]:
        language = self.cleaned_data.get("language", "")
        choices = DefaultVoice.objects.filter(language=language, chosen_by=DefaultVoice.ChosenBy.ADMINISTRATOR)
        if choices.exclude(pk=self.instance.pk).exists():
            self.add_error("language", "This language has a default voice already. Change that one.")
        return self.cleaned_data


@admin.register(DefaultVoice)
class DefaultVoiceAdmin(ConflictAdmin):
    """The choices of administrators can be edited. The server's choice is used if they have made none."""

    form = DefaultVoiceForm
    search_fields = ("voice__name", "voice__provider_id")
    list_select_related = ("voice__successor",)
    fields = ("language", "voice")

    def has_change_permission(self, request: HttpRequest, obj: DefaultVoice | None = None) -> bool:
        is_own = obj is None or obj.chosen_by == DefaultVoice.ChosenBy.ADMINISTRATOR
        return is_own and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: DefaultVoice | None = None) -> bool:
        is_own = obj is None or obj.chosen_by == DefaultVoice.ChosenBy.ADMINISTRATOR
        return is_own and super().has_delete_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: DefaultVoice, form: forms.ModelForm, change: bool) -> None:
        obj.chosen_at = timezone.now()
        super().save_model(request, obj, form, change)
        Voice.objects.filter(pk=obj.voice_id).update(refusal="")
        task_queue.enqueue_on_commit(task_names.WARM_VOICE, obj.voice_id)

    def get_list_display(self, request: HttpRequest) -> list[str | Callable[[DefaultVoice], str | bool]]:
        """The first column says whether patients with this language, and no voice of their own, hear this one now."""
        defaults = DefaultVoices()

        @admin.display(description="Language", ordering="language")
        def for_language(choice: DefaultVoice) -> str:
            return choice.language_name[:1].upper() + choice.language_name[1:]

        @admin.display(description="Status")
        def status(choice: DefaultVoice) -> str:
            is_used = defaults.for_language(choice.language) == choice.voice
            return badge("good", "In use") if is_used else badge("plain", "Not used")

        return [status, for_language, "voice", "chosen_by", "chosen_at"]

    def get_list_display_links(self, request: HttpRequest, list_display: Sequence[Any]) -> list[Any]:
        return [list_display[1]]  # the language; the status before it is no name

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        is_overridden = {"is_overridden": bool(settings.DEFAULT_VOICE_ID)}
        return super().changelist_view(request, {**is_overridden, **(extra_context or {})})


class LanguageChoiceField(forms.ChoiceField):
    """A choice of a language by its name.

    `current` is the value in the database. It can be chosen even if it is a language with a region, or an old value
    that is not in the list.
    """

    def __init__(self, current: str, help_text: str) -> None:
        current_name = languages.LANGUAGES.get(languages.code_of(current), "not in the list")
        names = {current: current_name, **languages.LANGUAGES}
        choices = sorted(((tag, f"{name} ({tag})") for tag, name in names.items()), key=lambda choice: choice[1])
        super().__init__(choices=choices, initial=languages.DEFAULT, help_text=help_text)

    def valid_value(self, value: str) -> bool:
        """Whether a posted value is accepted.

        A language with a region, which is not among the choices, is accepted, too.
        """
        return super().valid_value(value) or languages.is_listed(value)


class PatientForm(forms.ModelForm):
    """The form of a patient. The languages of the list, usable stock voices, and clones of this patient can be chosen.

    The current language and voices can always be chosen, even if a voice is gone or the language is not in the list.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Django's signature
        super().__init__(*args, **kwargs)
        if "language" in self.fields:  # a user with view permission only has no form fields
            self.fields["language"] = LanguageChoiceField(
                self.instance.language, str(self.fields["language"].help_text)
            )
        usable = Q(state=Voice.State.USABLE) & (Q(source=Voice.Source.STOCK) | Q(patient=self.instance.pk))
        for name in {"voice", "backup_voice"} & self.fields.keys():
            current = Q(pk=getattr(self.instance, f"{name}_id"))
            self.fields[name].queryset = Voice.objects.filter(usable | current)  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        is_changed = not {"voice", "backup_policy"}.isdisjoint(self.changed_data)
        needs_voice = values.get("backup_policy") == Patient.BackupPolicy.OWN_VOICE_ONLY
        if is_changed and needs_voice and "voice" not in self.errors and values.get("voice") is None:
            self.add_error("backup_policy", OWN_VOICE_NEEDED)
        return values


def device_badge(device: Device) -> str:
    if device.revoked_at is not None:
        return badge("bad", "Revoked")
    is_online = device.online_until is not None and device.online_until > timezone.now()
    return badge("good", "Online") if is_online else badge("plain", "Offline")


class DeviceInline(admin.TabularInline):
    """The devices of a patient. `voicecare.admin.overview.devices` has their own pages."""

    model = Device
    template = "admin/patients/patient/devices.html"
    fields = ("status", "name", "seen", "format", "token_prefix")
    readonly_fields = fields
    extra = 0
    can_delete = False
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        return super().get_queryset(request).filter(console_until=None)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="Status")
    def status(self, device: Device) -> str:
        return device_badge(device)

    @admin.display(description="Last connection")
    def seen(self, device: Device) -> str:
        return time_ago(device.last_seen)


class PatientAdmin(NoDeleteAdmin):
    """The page of a patient. `voicecare.admin.overview` registers a subclass, which knows the other apps."""

    form = PatientForm
    list_select_related = ("voice", "clinic")
    search_fields = ("name", "preferred_name", "=external_id")
    autocomplete_fields = ("team",)
    readonly_fields = ("archived_at", "erases_at", "erased_at", "created_at")
    fieldsets = (
        (None, {"fields": ("name", "preferred_name", "companion_name", "language", "speech_rate")}),
        ("Voices", {"fields": ("voice", "backup_voice", "backup_policy")}),
        ("Care", {"fields": ("external_id", "clinic", "monthly_character_budget", "team")}),
        ("Record", {"fields": ("archived_at", "erases_at", "erased_at", "created_at")}),
    )
    inlines = (DeviceInline,)
    actions = ("archive", "restore")

    def save_model(  # type: ignore[override]  # the admin of Patient only gets patients
        self, request: HttpRequest, obj: Patient, form: forms.ModelForm, change: bool
    ) -> None:
        if not change and obj.clinic is None:
            obj.clinic = clinic_of_new_patient(request.user)
        super().save_model(request, obj, form, change)
        if not change or AUDIBLE_FIELDS & set(form.changed_data):
            task_queue.enqueue_on_commit(task_names.WARM_PATIENT, obj.pk)

    def save_related(self, request: HttpRequest, form: forms.ModelForm, formsets: Any, change: bool) -> None:  # noqa: ANN401
        """Adds the creator of a patient to the care team if they would not see the patient otherwise, as REST does."""
        super().save_related(request, form, formsets, change)
        if not change and not sees_all_patients(request.user):
            form.instance.team.add(request.user)

    def get_readonly_fields(self, request: HttpRequest, obj: Patient | None = None) -> tuple[str, ...]:
        """The clinic decides who sees the patient and which budget counts, so only few users may choose it."""
        fixed = () if request.user.has_perm(CHANGE_CLINIC) else ("clinic",)
        return (*super().get_readonly_fields(request, obj), *fixed)

    def get_queryset(self, request: HttpRequest) -> PatientQuerySet:
        return cast(PatientQuerySet, super().get_queryset(request)).shown_in_admin_to(request.user)

    def formfield_for_foreignkey(
        self,
        db_field: ForeignKey,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> forms.ModelChoiceField | None:
        if db_field.related_model is Voice:
            kwargs["widget"] = VoiceSelect()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(
        self,
        db_field: Field,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> forms.Field | None:
        """Leaves out the buttons that add, change or delete a voice, a clinic or a user: their pages have them."""
        formfield = super().formfield_for_dbfield(db_field, request, **kwargs)
        if formfield is not None and isinstance(formfield.widget, RelatedFieldWidgetWrapper):
            formfield.widget = formfield.widget.widget
        return formfield

    @admin.action(description="Archive …: disconnects their devices", permissions=["change"])
    def archive(self, request: HttpRequest, patients: PatientQuerySet) -> HttpResponse | None:
        if page := confirm_action(self, request, ARCHIVING, patients):
            return page
        self.archive_now(request, patients)
        return None

    def archive_now(self, request: HttpRequest, patients: PatientQuerySet) -> None:
        count = patients.remaining().filter(archived_at=None).update(archived_at=timezone.now())
        self.message_user(request, ngettext("%d patient archived.", "%d patients archived.", count) % count)

    @admin.action(description="Restore: their devices can connect again", permissions=["change"])
    def restore(self, request: HttpRequest, patients: PatientQuerySet) -> None:
        count = patients.remaining().exclude(archived_at=None).update(archived_at=None)
        self.message_user(request, ngettext("%d patient restored.", "%d patients restored.", count) % count)
