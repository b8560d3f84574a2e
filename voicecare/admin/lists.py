"""What the lists and pages of several apps have in common: filters in words, badges, and times with seconds."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from voicecare.core import languages

EMPTY = "-"
NEARLY_USED_UP = 0.8  # of a budget; from here on it is shown as a warning
BadgeKind = Literal["good", "warning", "bad", "plain"]


class WordFilter(admin.SimpleListFilter):
    """A filter with a few choices. `conditions` has the words and the condition of each."""

    conditions: Mapping[str, tuple[str, Q]]

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in self.conditions.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.conditions.get(self.value() or "")
        return queryset.filter(chosen[1]) if chosen else queryset


class LanguageFilter(admin.SimpleListFilter):
    """By language without region: "German" also finds rows with German (Austria)."""

    title = "language"
    parameter_name = "language"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        tags = model_admin.model._base_manager.order_by().values_list("language", flat=True).distinct()
        codes = {languages.code_of(tag) for tag in tags}
        return sorted(((code, language_name(code)) for code in codes), key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        code = self.value()
        return queryset.filter(Q(language=code) | Q(language__startswith=f"{code}-")) if code else queryset


def language_name(tag: str) -> str:
    """The name of a language, without its region. A tag that is not in the list stays as it is."""
    return languages.LANGUAGES.get(languages.code_of(tag), tag)


def badge(kind: BadgeKind, words: object) -> SafeString:
    """A state in words. The kind chooses the background, which only repeats what the words say."""
    return format_html('<span class="badge badge-{}">{}</span>', kind, words)


def budget_share(used: int, budget: int | None) -> str:
    """How much of a budget is used, in per cent. "-" without a budget."""
    if budget is None:
        return EMPTY
    share = used / budget if budget else 1.0
    words = f"{share:.0%}"
    return badge("bad" if share >= 1 else "warning", words) if share >= NEARLY_USED_UP else words


def milliseconds(duration: float | None) -> str:
    """For example "1,234 ms". "-" if the duration is not known."""
    return EMPTY if duration is None else f"{duration:,.0f} ms"


def timestamp(moment: datetime | None) -> str:
    """The time with seconds, which Django's own format leaves out, and with the time zone. "-" if there is none."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}" if moment else EMPTY


def time_ago(moment: datetime | None) -> str:
    """How long ago the time is, in one unit, with the exact time as a tooltip. "-" if there is none."""
    if moment is None:
        return EMPTY
    return format_html('<span title="{}">{} ago</span>', timestamp(moment), timesince(moment, depth=1))


def link_to(row: Model | None) -> str:
    """A link to the page of the row. "-" if there is none."""
    if row is None:
        return EMPTY
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', url, row)
