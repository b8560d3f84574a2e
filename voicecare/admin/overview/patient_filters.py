"""The filters of the list of patients, in plain words."""

from datetime import timedelta

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest

from voicecare.admin.lists import WordFilter
from voicecare.patients.clinic_filter import ClinicFilter
from voicecare.patients.models import Device, Patient, Voice

UNSEEN_AFTER = timedelta(hours=24)
NO_TEAM = "none"

_devices = Device.objects.bedside().filter(patient=OuterRef("pk"), revoked_at=None).order_by()
HAS_DEVICE = Q(Exists(_devices))
IS_ONLINE = Q(Exists(_devices.filter(online_until__gt=Now())))
WAS_SEEN = Q(Exists(_devices.filter(Q(online_until__gt=Now()) | Q(last_seen__gt=Now() - UNSEEN_AFTER))))


class StatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "active": ("Active", Q(archived_at=None, erases_at=None, erased_at=None)),
        "archived": ("Archived", Q(archived_at__isnull=False, erases_at=None, erased_at=None)),
        "erasing": ("To be erased", Q(erases_at__isnull=False, erased_at=None)),
        "erased": ("Erased", Q(erased_at__isnull=False)),
    }


class DeviceFilter(WordFilter):
    title = "device"
    parameter_name = "device"
    conditions = {
        "online": ("Online", IS_ONLINE),
        "offline": ("Offline", HAS_DEVICE & ~IS_ONLINE),
        "unseen": ("Not seen for 24 h", HAS_DEVICE & ~WAS_SEEN),
        "none": ("No device", ~HAS_DEVICE),
    }


class VoiceFilter(WordFilter):
    title = "voice"
    parameter_name = "voice"
    conditions = {
        "default": ("Default voice", Q(voice=None)),
        "stock": ("Stock voice", Q(voice__source=Voice.Source.STOCK)),
        "clone": ("Clone", Q(voice__source=Voice.Source.CLONED)),
    }


class TeamFilter(admin.SimpleListFilter):
    """By a member of the care team."""

    title = "team"
    parameter_name = "team"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        teams = Patient.team.through.objects.order_by().values("user_id")
        members = User.objects.filter(pk__in=teams).order_by("username").values_list("pk", "username")
        return [(NO_TEAM, "Nobody"), *((str(key), name) for key, name in members)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Patient]) -> QuerySet[Patient]:
        chosen = self.value()
        if not chosen:
            return queryset
        if chosen == NO_TEAM:
            return queryset.filter(team=None)
        return queryset.filter(team=int(chosen)) if chosen.isdecimal() else queryset.none()


class PatientClinicFilter(ClinicFilter):
    patient_field = "pk"
