"""The admin of cached audio."""

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format

from tts.models import Clip
from voicecare.admin.lists import WordFilter, badge, time_ago
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin
from voicecare.patients import care_teams
from voicecare.patients.care_teams import CareTeamAdmin
from voicecare.patients.models import Voice


class ClipStatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "cached": ("Cached", Q(expires_at__gt=Now())),
        "expired": ("Expired", Q(expires_at__lte=Now())),
    }


class ClipKindFilter(WordFilter):
    title = "kind"
    parameter_name = "kind"
    conditions = {
        "greeting": ("Greeting of a patient", Q(patient__isnull=False)),
        "phrase": ("Phrase for everybody", Q(patient=None)),
    }


@admin.register(Clip)
class ClipAdmin(CareTeamAdmin, TitledAdmin, ReadOnlyAdmin):
    list_display = ("status", "says", "voice", "language", "format", "hits", "last_played", "expires")
    list_display_links = ("says",)
    list_filter = (ClipStatusFilter, ClipKindFilter, "language", "format", ("voice", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("voice", "phrase", "patient")
    search_fields = ("=digest", "phrase__text", "voice__name", "patient__name", "patient__preferred_name")
    date_hierarchy = "created_at"
    also_visible = Q(patient=None)

    def title_of(self, obj: Clip) -> str:
        return f"{self.says(obj)}, in the voice {obj.voice}"

    @admin.display(description="Status")
    def status(self, clip: Clip) -> str:
        return badge("good", "Cached") if clip.expires_at > timezone.now() else badge("warning", "Expired")

    @admin.display(description="Last played", ordering="used_at")
    def last_played(self, clip: Clip) -> str:
        return time_ago(clip.used_at)

    @admin.display(description="Expires", ordering="expires_at")
    def expires(self, clip: Clip) -> str:
        return date_format(timezone.localtime(clip.expires_at))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Clip]:
        """Return the clips that have audio.

        A clip that is being generated for the first time has a row without audio. Clips in the voice of another team's
        patient are not shown.
        """
        clips = super().get_queryset(request).filter(size__gt=0)
        return care_teams.limit(clips, request.user, "voice__patient", Q(voice__source=Voice.Source.STOCK))

    @admin.display(description="Text")
    def says(self, clip: Clip) -> str:
        return f"Greeting of {clip.patient}" if clip.patient else str(clip.phrase or "a deleted phrase")
