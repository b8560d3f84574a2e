"""The page that asks before an action disconnects somebody or cannot be undone."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse

CONFIRMED = "confirmed"  # the name of the button that says yes
MAX_NAMES = 20  # more rows are only counted


@dataclass(frozen=True, slots=True)
class Question:
    """`title` is the question, `explanation` says what will happen, and `button` is the text of the button."""

    title: str
    explanation: str
    button: str


def confirm_action(
    admin: ModelAdmin,
    request: HttpRequest,
    question: Question,
    rows: Collection[Any],
    name: Callable[[Any], str] = str,
) -> TemplateResponse | None:
    """Returns the page that asks whether to do an action of a list for these rows. None if the user has said yes.

    `name` returns what the page calls a row.
    """
    if CONFIRMED in request.POST:
        return None
    options = admin.opts
    context = {
        "names": [name(row) for row in list(rows)[:MAX_NAMES]],
        "more": max(0, len(rows) - MAX_NAMES),
        "fields": [(key, request.POST[key]) for key in ("action", "select_across") if key in request.POST],
        "selected": request.POST.getlist("_selected_action"),
        "back": reverse(f"admin:{options.app_label}_{options.model_name}_changelist"),
    }
    return confirmation_page(admin, request, question, **context)


def confirmation_page(
    admin: ModelAdmin,
    request: HttpRequest,
    question: Question,
    **context: Any,  # noqa: ANN401 - of a template
) -> TemplateResponse:
    """Returns a page whose button sends a POST to its own address. `back` is the address of the link that says no."""
    page = {**admin.admin_site.each_context(request), "opts": admin.opts, **asdict(question), **context}
    return TemplateResponse(request, "admin/confirmation.html", page)
