"""The filters of the list of voices, in plain words."""

from collections.abc import Iterable

from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from voicecare.admin.lists import WordFilter
from voicecare.core import languages
from voicecare.patients.models import Voice

State = Voice.State
Choices = Iterable[tuple[str, str]]


class StatusFilter(WordFilter):
    title = "status"
    parameter_name = "status"
    conditions = {
        "usable": ("Can be used", Q(state=State.USABLE, refusal="")),
        "ends": ("Has an end date", Q(state=State.USABLE, ends_at__isnull=False)),
        "refused": ("Refused or missing", Q(state=State.USABLE) & ~Q(refusal="")),
        "gone": ("Gone", Q(state=State.GONE)),
        "withdrawn": ("Consent withdrawn", Q(state=State.WITHDRAWN)),
    }


class SourceFilter(WordFilter):
    title = "source"
    parameter_name = "source"
    conditions = {
        "stock": ("Stock voice", Q(source=Voice.Source.STOCK)),
        "cloned": ("Clone", Q(source=Voice.Source.CLONED)),
    }


class LanguageFilter(admin.SimpleListFilter):
    title = "language"
    parameter_name = "language"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Choices:
        lists = Voice.objects.order_by().values_list("languages", flat=True).distinct()
        spoken = {code for codes in lists for code in codes.split()}
        return sorted(((code, languages.LANGUAGES.get(code, code)) for code in spoken), key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Voice]) -> QuerySet[Voice]:
        code = self.value()
        if not code:
            return queryset
        first, other = Q(languages=code) | Q(languages__startswith=f"{code} "), Q(languages__contains=f" {code} ")
        return queryset.filter(first | other | Q(languages__endswith=f" {code}"))


class LabelFilter(admin.SimpleListFilter):
    """The base class of filters by a label of the provider. `parameter_name` is the name of its column."""

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Choices:
        column = str(self.parameter_name)
        values = Voice.objects.exclude(**{column: ""}).order_by(column).values_list(column, flat=True).distinct()
        return [(value, value.replace("_", " ").capitalize()) for value in values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Voice]) -> QuerySet[Voice]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class GenderFilter(LabelFilter):
    title = parameter_name = "gender"


class AgeFilter(LabelFilter):
    title = parameter_name = "age"


class AccentFilter(LabelFilter):
    title = parameter_name = "accent"
