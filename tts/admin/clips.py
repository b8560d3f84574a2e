"""The admin of cached audio."""

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format

from tts.models import Clip
from voicecare.admin.lists import LanguageFilter, WordFilter, badge, language_name, time_ago, timestamp
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
    list_display = ("status", "says", "voice", "language_in_words", "format", "hits", "last_played", "expires")
    list_display_links = ("says",)
    list_filter = (
        ClipStatusFilter,
        ClipKindFilter,
        LanguageFilter,
        "format",
        ("voice", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("voice", "phrase", "patient")
    search_fields = ("=digest", "phrase__text", "voice__name", "patient__name", "patient__preferred_name")
    date_hierarchy = "created_at"
    readonly_fields = ("status", "says", "language_in_words", "created", "expires_exactly", "played")
    fieldsets = (
        (None, {"fields": ("status", "says", "voice", "patient", "language_in_words", "characters")}),
        ("Use", {"fields": ("hits", "played", "created", "expires_exactly")}),
        ("Internals", {"classes": ("collapse",), "fields": ("digest", "phrase", "format", "speed", "size")}),
    )
    also_visible = Q(patient=None)

    def title_of(self, obj: Clip) -> str:
        return f"“{self.says(obj)}” in the voice {obj.voice}"

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
        return f"Greeting of {clip.patient}" if clip.patient else str(clip.phrase or "A text that is not a phrase")

    @admin.display(description="Language", ordering="language")
    def language_in_words(self, clip: Clip) -> str:
        return language_name(clip.language)

    @admin.display(description="Last played")
    def played(self, clip: Clip) -> str:
        return timestamp(clip.used_at)

    @admin.display(description="Created")
    def created(self, clip: Clip) -> str:
        return timestamp(clip.created_at)

    @admin.display(description="Expires")
    def expires_exactly(self, clip: Clip) -> str:
        return timestamp(clip.expires_at)
