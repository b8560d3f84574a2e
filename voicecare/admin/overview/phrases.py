"""The list of phrases with what they save, and the pages that suggest texts as phrases."""

import uuid
from collections.abc import Callable
from typing import Any, cast

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import number_format

from tts.admin.phrases import PhraseAdmin, PhraseForm
from tts.models import Phrase, Utterance
from usage.ledger import text_digests
from usage.models import UsageEvent
from usage.reports import repeated_texts
from usage.reports.repeated_texts import CacheUse
from voicecare.admin.lists import EMPTY, language_name
from voicecare.admin.overview import phrase_suggestions
from voicecare.admin.overview.phrase_suggestions import FoundText, Suggestion
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.dashboard.permissions import AdminPermissions

CONFIRMED = "confirmed"  # the box that says that others may hear the text


class PhraseChangeList(ChangeList):
    """Reads the use of all phrases of the page with four queries, if the user may see usage."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        phrases = cast(list[Phrase], list(self.result_list))
        self.result_list = cast(Any, phrases)
        if not AdminPermissions(request.user).can_view(UsageEvent):
            return
        digests = {phrase: phrase_suggestions.digest_of(phrase) for phrase in phrases}
        events = phrase_suggestions.visible_events(request.user)
        used = repeated_texts.cache_use(events, list(digests.values()))
        price = repeated_texts.average_price()
        for phrase, digest in digests.items():
            cast(Any, phrase).use, cast(Any, phrase).price = used.get(digest, CacheUse()), price


@admin.register(Phrase)
class PhraseOverviewAdmin(PhraseAdmin):
    """Adds the pages. Figures need the permission to view usage events, and texts the one to view messages."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ANN401 - Django's signature
        return PhraseChangeList

    def get_list_display(self, request: HttpRequest) -> list[str | Callable[[Any], str | bool]]:
        usage = ["from_cache", "saved"] if AdminPermissions(request.user).can_view(UsageEvent) else []
        return [*super().get_list_display(request), *usage]

    @admin.display(description="From the cache, in 31 days")
    def from_cache(self, phrase: Phrase) -> str:
        """How often it was played from the cache, of how often it was spoken. A greeting is not counted by its text."""
        use: CacheUse = cast(Any, phrase).use
        if use.hit_rate is None:
            return EMPTY
        return f"{use.hits:,} of {use.hits + use.paid:,} ({use.hit_rate:.0%})"

    @admin.display(description="Saved, in 31 days")
    def saved(self, phrase: Phrase) -> str:
        use, price = cast(Any, phrase).use, cast(Any, phrase).price
        if not use.saved_characters:
            return EMPTY
        words = f"{number_format(use.saved_characters, force_grouping=True)} characters"
        return words if price is None else f"{words}, {use.saved_characters * price:,.2f} {settings.PRICE_CURRENCY}"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("suggestions/", view(self.suggestions), name="tts_phrase_suggestions"),
            path("suggestions/<uuid:event_id>/", view(self.suggestion), name="tts_phrase_suggestion"),
            *super().get_urls(),
        ]

    def suggestions(self, request: HttpRequest) -> HttpResponse:
        """Show the repeated texts by their figures, without the texts."""
        self._check_may_see_figures(request)
        context = {
            "title": "Suggested phrases",
            "suggestions": [
                (suggestion, language_name(suggestion.language))
                for suggestion in phrase_suggestions.load_suggestions(request.user)
            ],
            "days": text_digests.DIGEST_DAYS,
            "currency": settings.PRICE_CURRENCY,
            "may_read": AdminPermissions(request.user).can_view(Utterance),
        }
        return self._page(request, "suggestions", context)

    def suggestion(self, request: HttpRequest, event_id: uuid.UUID) -> HttpResponse:
        """Show one text, which is recorded as reading it, and make it a phrase if the user says so.

        `event_id` is one of the events that have paid for the text.
        """
        self._check_may_see_figures(request)
        if not AdminPermissions(request.user).can_view(Utterance):
            raise PermissionDenied
        event = get_object_or_404(phrase_suggestions.visible_events(request.user), pk=event_id)
        suggestion = phrase_suggestions.load_suggestion(event, request.user)
        found = None if suggestion is None else phrase_suggestions.find_text(suggestion, request.user)
        if suggestion is None or found is None:
            self.message_user(request, "No message with this text is kept that you may see.", messages.WARNING)
            return HttpResponseRedirect(reverse("admin:tts_phrase_suggestions"))
        names = found.names()
        needs_consent = bool(names) or suggestion.text.patients == 1
        if request.method == "POST":
            if not self.has_add_permission(request):
                raise PermissionDenied
            if not needs_consent or CONFIRMED in request.POST:
                return self._accept(request, suggestion, found)
        record(request, Action.READ_TEXT, found.message)
        clips = phrase_suggestions.clips_of(suggestion, found.text)
        context = {
            "title": "Cache this text?",
            "suggestion": suggestion,
            "text": found.text,
            "names": names,
            "needs_consent": needs_consent,
            "is_refused": request.method == "POST",
            "clips": clips,
            "clip_characters": clips * suggestion.text.length,
            "language": language_name(suggestion.language),
            "days": text_digests.DIGEST_DAYS,
            "currency": settings.PRICE_CURRENCY,
            "may_add": self.has_add_permission(request),
        }
        return self._page(request, "suggestion", context)

    @transaction.atomic
    def _accept(self, request: HttpRequest, suggestion: Suggestion, found: FoundText) -> HttpResponse:
        values = {"kind": Phrase.Kind.COMMON.value, "language": suggestion.language, "text": found.text}
        form = self.get_form(request)(values)
        if not form.is_valid():
            refused = " ".join(str(error) for errors in form.errors.values() for error in errors)
            self.message_user(request, f"The text cannot be a phrase. {refused}", messages.ERROR)
            return HttpResponseRedirect(reverse("admin:tts_phrase_suggestions"))
        phrase = cast(PhraseForm, form).save(commit=False)
        self.save_model(request, phrase, form, change=False)
        record(request, Action.ADD, phrase)
        self.message_user(request, "The phrase was added. The worker generates its audio.")
        return HttpResponseRedirect(reverse("admin:tts_phrase_suggestions"))

    def _check_may_see_figures(self, request: HttpRequest) -> None:
        if not (self.has_view_permission(request) and AdminPermissions(request.user).can_view(UsageEvent)):
            raise PermissionDenied

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> TemplateResponse:
        page = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        response = TemplateResponse(request, f"admin/tts/phrase/{name}.html", page)
        response["Cache-Control"] = "no-store"
        return response
