"""The attempts in the ledger, and their daily totals."""

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.html import format_html

from usage.models import DailyUsage, UsageEvent
from usage.named_rows import NamedRowsAdmin, rows_of
from voicecare.admin.lists import BadgeKind, badge, milliseconds, timestamp
from voicecare.admin.periods import PeriodAdmin, PeriodFilter
from voicecare.admin.readonly import ReadOnlyAdmin
from voicecare.admin.titles import TitledAdmin
from voicecare.patients.clinic_filter import ClinicFilter


@admin.register(UsageEvent)
class UsageEventAdmin(TitledAdmin, NamedRowsAdmin, PeriodAdmin, ReadOnlyAdmin):
    """The attempts in the ledger. A search for an id or for a request of the provider finds rows of any date."""

    period_field = "started_at"
    id_fields = ("id", "source", "conversation", "patient", "voice")
    id_parameters = ("source__exact",)
    search_help_text = (
        "The name of a patient or voice, in the chosen period. A request id of the provider, or the id of a message, "
        "conversation, patient or voice, on any date."
    )
    list_display = (
        "result",
        "started",
        "patient_name",
        "voice_name",
        "kind",
        "billed_characters",
        "credits",
        "first_byte",
    )
    list_filter = (PeriodFilter, ClinicFilter, "kind", "outcome")
    search_fields = ("request_id",)
    readonly_fields = ("started", "patient_name", "voice_name", "first_byte", "first_audio")
    fieldsets = (
        (None, {"fields": ("started", "patient_name", "voice_name", "kind", "outcome", "code")}),
        (
            "Usage",
            {"fields": ("model", "requested_characters", "characters", "credits", "saved_characters")},
        ),
        ("Latency", {"fields": ("first_byte", "first_audio")}),
        (
            "Internals",
            {
                "classes": ("collapse",),
                "fields": (
                    "id",
                    "source",
                    "conversation",
                    "patient",
                    "voice",
                    "segment",
                    "attempt",
                    "request_id",
                    "region",
                ),
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: UsageEvent | None = None) -> tuple[str, ...]:
        return ("id", *self.readonly_fields)

    def title_of(self, obj: UsageEvent) -> str:
        return f"{obj.get_kind_display()}, {timestamp(obj.started_at)}"

    @admin.display(description="Outcome")
    def result(self, event: UsageEvent) -> str:
        kinds: dict[str, BadgeKind] = {UsageEvent.Outcome.COMPLETED: "good", UsageEvent.Outcome.FAILED: "bad"}
        shown = badge(kinds.get(event.outcome, "warning"), event.get_outcome_display())
        return format_html('{} <span class="quiet">{}</span>', shown, event.code)

    @admin.display(description="Started")
    def started(self, event: UsageEvent) -> str:
        return timestamp(event.started_at)

    @admin.display(description="Characters")
    def billed_characters(self, event: UsageEvent) -> str:
        """The billed characters, or those that the cache or the offline voice has saved."""
        if event.saved_characters and not event.characters:
            return f"{event.saved_characters:,} saved"
        return f"{event.characters:,}"

    @admin.display(description="First byte")
    def first_byte(self, event: UsageEvent) -> str:
        return milliseconds(event.first_byte_ms)

    @admin.display(description="Time to first audio")
    def first_audio(self, event: UsageEvent) -> str:
        return milliseconds(event.first_chunk_ms)

    def needs_no_period(self, request: HttpRequest) -> bool:
        """Whether the list may show attempts of all times, because an index finds them.

        That is the case for an id, a request of the provider, and the attempts whose outcome is unknown.
        """
        if request.GET.get("outcome__exact") == UsageEvent.Outcome.UNKNOWN:
            return True
        return super().needs_no_period(request) or self._is_request(request.GET.get(SEARCH_VAR, ""))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageEvent], search_term: str
    ) -> tuple[QuerySet[UsageEvent], bool]:
        term = search_term.strip()
        if self._is_request(term):
            return queryset.filter(request_id=term), False
        if not term or self.parse_id(term) is not None:
            return super().get_search_results(request, queryset, term)
        return queryset.filter(rows_of(term, request.user)), False

    def _is_request(self, term: str) -> bool:
        return bool(term.strip()) and UsageEvent.objects.filter(request_id=term.strip()).exists()


@admin.register(DailyUsage)
class DailyUsageAdmin(TitledAdmin, NamedRowsAdmin, PeriodAdmin, ReadOnlyAdmin):
    period_field = "day"
    id_fields = ("patient", "voice")
    id_parameters = ("patient__exact",)
    search_help_text = "The name of a patient, a voice or a model, in the chosen period. The id of a patient or voice."
    list_display = (
        "day",
        "patient_name",
        "voice_name",
        "kind",
        "characters",
        "credits",
        "saved_characters",
        "events",
        "failed",
    )
    list_filter = (PeriodFilter, ClinicFilter, "kind")
    search_fields = ("=model",)
    readonly_fields = ("patient_name", "voice_name")
    fieldsets = (
        (None, {"fields": ("day", "patient_name", "voice_name", "model", "kind")}),
        ("Usage", {"fields": ("characters", "credits", "saved_characters", "events", "failed")}),
        ("Internals", {"classes": ("collapse",), "fields": ("patient", "voice")}),
    )

    def title_of(self, obj: DailyUsage) -> str:
        return f"{obj.get_kind_display()}, {date_format(obj.day)}"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DailyUsage], search_term: str
    ) -> tuple[QuerySet[DailyUsage], bool]:
        term = search_term.strip()
        if not term or self.parse_id(term) is not None:
            return super().get_search_results(request, queryset, term)
        return queryset.filter(rows_of(term, request.user) | Q(model__iexact=term)), False
