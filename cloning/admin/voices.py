"""The admin pages of voices: list, details, "Sync now", samples, and a stock voice that is added by its id."""

import uuid
from collections.abc import Callable
from typing import Any

import structlog
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.files.base import ContentFile
from django.db.models import ForeignKey, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import formats
from django.utils.decorators import method_decorator
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from cloning.admin import voice_columns, voice_filters
from cloning.gateway import previews, provider_voices
from cloning.voices import additions, sync
from usage.alerts import lost_voices
from voicecare.api.ranges import range_response
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.admin import NoDeleteAdmin
from voicecare.patients.care_teams import STOCK_VOICE, CareTeamAdmin
from voicecare.patients.clinic_filter import ClinicFilter
from voicecare.patients.models import Voice
from voicecare.providers.errors import ProviderError

SAMPLE_MIME = "audio/mpeg"
SAMPLE_KEPT_S = 24 * 3600  # by the browser

log = structlog.get_logger(__name__)


class AddVoiceForm(forms.Form):
    """Asks the provider for the voice while it validates, and adds the voice. `voice` is the new one."""

    provider_id = forms.CharField(
        max_length=64,
        label="Voice id",
        help_text="The id of the voice at the speech provider, for example EXAVITQu4vr4xnSDxMaL. It is checked there. "
        "Name and details come from the provider.",
    )

    def clean_provider_id(self) -> str:
        provider_id: str = self.cleaned_data["provider_id"]
        try:
            self.voice = additions.add_stock_voice(provider_id)
        except additions.VoiceNotAdded as error:
            raise forms.ValidationError(error.message, code=error.code) from error
        return provider_id


@admin.register(Voice)
class VoiceAdmin(CareTeamAdmin, NoDeleteAdmin):
    """Source, patient and state cannot be edited. They are set when voices are read from the provider or cloned."""

    also_visible = STOCK_VOICE
    list_filter = (
        voice_filters.StatusFilter,
        voice_filters.SourceFilter,
        voice_filters.LanguageFilter,
        voice_filters.GenderFilter,
        voice_filters.AgeFilter,
        voice_filters.AccentFilter,
        ClinicFilter,
    )
    list_select_related = ("patient",)
    search_fields = ("name", "provider_id", "patient__name", "patient__preferred_name")
    search_help_text = "Name of the voice, its id at the provider, or the patient of a clone"
    actions = ("mark_gone", "clear_refusal")
    fieldsets = (
        (None, {"fields": ("name", "status", "source_in_words", "player", "successor")}),
        (
            "Details from the provider",
            {"fields": ("spoken_languages", "speaker_in_words", "description", "price", "ends_at", "end_source")},
        ),
        (
            "Internals",
            {
                "classes": ("collapse",),
                "fields": (
                    *("id", "provider_id", "revision", "state", "refusal", "category", "languages", "preview_url"),
                    *("price_rate", "notice_period_days", "read_at", "created_at"),
                ),
            },
        ),
    )

    class Media:
        css = {"all": ("voicecare/voices.css",)}

    def get_list_display(self, request: HttpRequest) -> list[str | Callable[[Voice], str | bool]]:
        return [*voice_columns.VoiceColumns().all()]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ANN401 - Django's signature
        return voice_columns.VoiceChangeList

    def get_readonly_fields(self, request: HttpRequest, obj: Voice | None = None) -> tuple[str, ...]:
        """The provider decides the name of a stock voice. The next reading would undo a change of it."""
        shown = [str(name) for _, fieldset in self.fieldsets for name in fieldset["fields"]]
        own_name = obj is not None and obj.source == Voice.Source.CLONED
        return tuple(name for name in shown if name != "successor" and not (name == "name" and own_name))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("sync/", view(self.sync_view), name="patients_voice_sync"),
            path("<uuid:voice_id>/sample/", view(self.sample_view), name="patients_voice_sample"),
            *super().get_urls(),
        ]

    def formfield_for_foreignkey(
        self,
        db_field: ForeignKey,
        request: HttpRequest,
        **kwargs: Any,  # noqa: ANN401 - Django's signature
    ) -> forms.ModelChoiceField | None:
        """A successor speaks to everybody who had the voice, so it is never a clone. The provider must have it."""
        if db_field.name == "successor":
            kwargs["queryset"] = Voice.objects.default_candidates().exclude(read_at=None)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    # Pages

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Replaces Django's view, which keeps a transaction open for the request. The provider is asked meanwhile."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AddVoiceForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            self.log_addition(request, form.voice, [{"added": {}}])
            return self.response_add(request, form.voice)
        page = {"opts": self.opts, "title": "Add a stock voice", "form": form, "is_popup": "_popup" in request.GET}
        template = "admin/patients/voice/add.html"
        return TemplateResponse(request, template, {**self.admin_site.each_context(request), **page})

    @method_decorator(require_POST)
    def sync_view(self, request: HttpRequest) -> HttpResponse:
        """Reads the provider's voices now, and says what has changed. Raises PermissionDenied (403)."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        try:
            result = sync.sync_stock_voices()
        except ProviderError as error:
            self.message_user(
                request, f"The voices could not be read. {provider_voices.in_words(error)}", messages.ERROR
            )
        else:
            record(request, Action.SYNC, Voice)
            self.message_user(request, _summary(result), messages.SUCCESS)
            if lost_voices.is_other_workspace_known():
                text = "Nearly all voices are missing at the provider. The API key may belong to another workspace."
                self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(reverse("admin:patients_voice_changelist"))

    def sample_view(self, request: HttpRequest, voice_id: uuid.UUID) -> HttpResponse:
        """Returns the sample that the provider publishes of this voice, for users who may view it.

        The page itself may not load it from another host. If the sample cannot be read, the request is redirected to
        the preview, for which this server has a sentence spoken.
        """
        voice = get_object_or_404(self.get_queryset(request), pk=voice_id)
        if not self.has_view_permission(request, voice):
            raise PermissionDenied
        address = previews.trusted_address(voice.preview_url, settings.ELEVENLABS_BASE_URL)
        if address is None:
            raise Http404("The provider publishes no sample of this voice.")
        try:
            sample = previews.read(address)
        except ProviderError as error:
            log.warning("voices.sample_not_read", voice=str(voice.pk), error=error.code)
            return HttpResponseRedirect(reverse("admin-voice-preview", args=[voice.pk]))
        record(request, Action.PLAY_PREVIEW, voice)
        response = range_response(ContentFile(sample), SAMPLE_MIME, request.headers.get("Range", ""))
        response["Cache-Control"] = f"private, max-age={SAMPLE_KEPT_S}"
        return response

    # Fields

    @admin.display(description="Status")
    def status(self, voice: Voice) -> str:
        return voice_columns.badges(voice, voice_columns.default_languages()) or "Can be used"

    @admin.display(description="Source")
    def source_in_words(self, voice: Voice) -> str:
        return voice_columns.source(voice)

    @admin.display(description="Listen")
    def player(self, voice: Voice) -> str:
        return voice_columns.player(voice)

    @admin.display(description="Languages")
    def spoken_languages(self, voice: Voice) -> str:
        return voice.language_names or voice_columns.EMPTY

    @admin.display(description="Gender, age, accent")
    def speaker_in_words(self, voice: Voice) -> str:
        return voice.speaker or voice_columns.EMPTY

    @admin.display(description="Price")
    def price(self, voice: Voice) -> str:
        if voice.price_rate in (None, 1.0):
            return "Normal"
        return f"{formats.localize(voice.price_rate)} times the normal price"

    # Actions

    @admin.action(description="Mark as gone: the speech provider no longer has them", permissions=["change"])
    def mark_gone(self, request: HttpRequest, voices: QuerySet[Voice]) -> None:
        """Marks voices as gone. For a change of the provider account, in which the old voices do not exist.

        The periodic comparison with the provider makes those voices usable again that the provider has.
        """
        usable = voices.filter(state=Voice.State.USABLE)
        lost = [voice for voice in usable.order_by("pk") if usable.filter(pk=voice.pk).update(state=Voice.State.GONE)]
        lost_voices.emit_gone(lost)
        count = len(lost)
        self.message_user(request, ngettext("%d voice marked as gone.", "%d voices marked as gone.", count) % count)

    @admin.action(description="Use again: the speech provider speaks in them again", permissions=["change"])
    def clear_refusal(self, request: HttpRequest, voices: QuerySet[Voice]) -> None:
        """Clears the refusal, so that these voices can be the default or backup voice again.

        The server does not do so itself: a voice that is refused again would interrupt a patient's speech.
        """
        count = voices.exclude(refusal="").update(refusal="")
        self.message_user(request, ngettext("%d voice is used again.", "%d voices are used again.", count) % count)


def _summary(result: sync.SyncResult) -> str:
    """For example "3 voices added, 1 is gone."."""
    counts = [(result.added, "added"), (result.changed, "changed"), (result.gone, "gone")]
    words = [f"{number} {'voice' if number == 1 else 'voices'} {verb}" for number, verb in counts if number]
    return f"The voices were read from the provider: {', '.join(words) or 'nothing has changed'}."
