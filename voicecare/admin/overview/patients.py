"""The list of patients, with the state of their devices, their usage and their incidents."""

from collections.abc import Callable
from typing import Any, cast

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from usage.models import DailyUsage
from voicecare.admin.lists import EMPTY, LanguageFilter, badge, budget_share, language_name, time_ago
from voicecare.admin.overview import patient_filters
from voicecare.admin.overview.patient_facts import LAST_SEEN, PatientFacts, incident_keys, read_facts
from voicecare.admin.overview.patient_page import PatientPageAdmin
from voicecare.dashboard.permissions import AdminPermissions
from voicecare.patients.models import Clinic, Patient, Voice


class PatientChangeList(ChangeList):
    """Reads the facts of all patients of the page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        patients = cast(list[Patient], list(self.result_list))
        for patient, facts in read_facts(patients, AdminPermissions(request.user)).items():
            cast(Any, patient).facts = facts
        self.result_list = cast(Any, patients)


@admin.register(Patient)
class PatientOverviewAdmin(PatientPageAdmin):
    list_display_links = ("name_or_number",)
    show_facets = admin.ShowFacets.NEVER
    list_filter = (
        patient_filters.StatusFilter,
        patient_filters.DeviceFilter,
        patient_filters.VoiceFilter,
        LanguageFilter,
        patient_filters.TeamFilter,
        patient_filters.PatientClinicFilter,
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ANN401 - Django's signature
        return PatientChangeList

    def get_list_display(self, request: HttpRequest) -> list[str | Callable[[Any], str | bool]]:
        permissions = AdminPermissions(request.user)
        usage = ["characters_this_month", "budget_used"] if permissions.can_view(DailyUsage) else []
        has_clinics = permissions.can_view(Clinic) and Clinic.objects.exists()
        team = "clinic_and_team" if has_clinics else "care_team"
        return ["status", "name_or_number", "last_seen", "language_name", "voice_name", *usage, team]

    def get_sortable_by(self, request: HttpRequest) -> tuple[str, ...]:
        return ("name_or_number", "last_seen", "language_name", "voice_name", "clinic_and_team")

    @admin.display(description="Status")
    def status(self, patient: Patient) -> str:
        facts = _facts(patient)
        badges: list[SafeString] = []
        if patient.erased_at is not None:
            badges.append(badge("bad", "Erased"))
        elif patient.erases_at is not None:
            badges.append(badge("bad", f"To be erased on {timezone.localdate(patient.erases_at):%Y-%m-%d}"))
        elif patient.archived_at is not None:
            badges.append(badge("plain", "Archived"))
        elif not facts.devices:
            badges.append(badge("warning", "No device"))
        else:
            badges.append(badge("good", "Online") if facts.is_online else badge("plain", "Offline"))
        if facts.incidents:
            badges.append(_incident_badge(patient, facts.incidents))
        return mark_safe(" ".join(badges))  # noqa: S308 - all parts are escaped

    @admin.display(description="Name", ordering="name")
    def name_or_number(self, patient: Patient) -> str:
        return str(patient)

    @admin.display(description="Last seen", ordering=LAST_SEEN)
    def last_seen(self, patient: Patient) -> str:
        facts = _facts(patient)
        return "now" if facts.is_online else time_ago(facts.last_seen)

    @admin.display(description="Language", ordering="language")
    def language_name(self, patient: Patient) -> str:
        return language_name(patient.language)

    @admin.display(description="Voice", ordering="voice__name")
    def voice_name(self, patient: Patient) -> str:
        if patient.voice is None:
            return "Default voice"
        kind = "Clone" if patient.voice.source == Voice.Source.CLONED else "Stock"
        return format_html('{} <span class="quiet">{}</span>', patient.voice, kind)

    @admin.display(description="Characters this month")
    def characters_this_month(self, patient: Patient) -> str:
        """The billed characters, and what the phrase cache has saved: the share of what was spoken, and its price."""
        facts = _facts(patient)
        shown = number_format(facts.characters, force_grouping=True)
        if not facts.from_cache:
            return shown
        saved = f"{facts.from_cache / (facts.from_cache + facts.budgeted):.0%} from the cache"
        if facts.price is not None:
            saved += f", {facts.from_cache * facts.price:,.2f} {settings.PRICE_CURRENCY} saved"
        return format_html('{} <span class="quiet">{}</span>', shown, saved)

    @admin.display(description="Budget used")
    def budget_used(self, patient: Patient) -> str:
        return budget_share(_facts(patient).budgeted, patient.monthly_character_budget)

    @admin.display(description="Team")
    def care_team(self, patient: Patient) -> str:
        return ", ".join(_facts(patient).team) or EMPTY

    @admin.display(description="Clinic and team", ordering="clinic__name")
    def clinic_and_team(self, patient: Patient) -> str:
        """In one column, because a column for each is too wide for a screen of 1280 pixels."""
        if patient.clinic is None:
            return self.care_team(patient)
        return format_html('{} <span class="quiet">{}</span>', patient.clinic, ", ".join(_facts(patient).team))


def _facts(patient: Patient) -> PatientFacts:
    return cast(PatientFacts, cast(Any, patient).facts)


def _incident_badge(patient: Patient, number: int) -> SafeString:
    """Links to the open incidents of the patient and of the patient's voice."""
    query = {"key__in": ",".join(incident_keys(patient)), "resolved_at__isnull": "True"}
    words = f"{number} open incident{'' if number == 1 else 's'}"
    return format_html(
        '<a href="{}">{}</a>', reverse("admin:usage_incident_changelist", query=query), badge("bad", words)
    )
