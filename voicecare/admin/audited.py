"""Records in the audit trail what is done on the pages of a model in the admin. The site adds it to every admin."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.db.models.options import Options
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse

from voicecare.audit import changes, recording
from voicecare.audit.changes import Changes
from voicecare.audit.models import Action
from voicecare.patients.models import Patient

_Act = Callable[[ModelAdmin, HttpRequest, QuerySet[Any]], HttpResponseBase | None]
_AdminClass = TypeVar("_AdminClass", bound=type[ModelAdmin])


def audited(admin_class: _AdminClass) -> _AdminClass:
    """Returns a subclass of the admin that records everything."""
    name, namespace = admin_class.__name__, {"__module__": admin_class.__module__, "__doc__": admin_class.__doc__}
    return type(name, (AuditedAdmin, admin_class), namespace)  # type: ignore[return-value]


class AuditedAdmin(ModelAdmin):
    """Writes one entry for each row that a form or an action adds, changes or deletes, instead of Django's log.

    Django's log stores the names of rows, which can be names of patients, and forgets the entries of a deleted user.
    A page of its own that changes something calls `recording.record`.
    """

    def _get_obj_does_not_exist_redirect(
        self, request: HttpRequest, opts: "Options[Any]", object_id: str
    ) -> HttpResponseRedirect:
        """Redirects to the first page. Django's message repeats the id and asks whether the row was deleted.

        It says the same of a row that the user may not see, so that ids cannot be guessed.
        """
        self.message_user(
            request, f"This {opts.verbose_name} does not exist, or you are not allowed to see it.", messages.WARNING
        )
        return HttpResponseRedirect(reverse("admin:index"))

    def construct_change_message(  # type: ignore[override]  # Django's is a list of labels
        self, request: HttpRequest, form: BaseForm, formsets: Iterable[Any] | None, add: bool = False
    ) -> Changes:
        """Returns what Django passes on to `log_addition` or `log_change`. Of inline rows only their kind."""
        found = changes.of_form(self.model, form, is_new=add)
        for formset in formsets or ():
            if formset.new_objects or formset.changed_objects or formset.deleted_objects:
                found[formset.prefix] = None
        return found

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        recording.record(request, Action.ADD, obj, _changes_in(message))

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        recording.record(request, Action.CHANGE, obj, _changes_in(message))

    def log_deletions(self, request: HttpRequest, queryset: Iterable[Model]) -> None:  # type: ignore[override]
        rows = [(row, changes.differences(type(row), changes.values_of(row), {})) for row in queryset]
        recording.record_each(request, Action.DELETE, rows)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found: dict[str, Any] = super().get_actions(request)
        return {name: (_recorded(act, name), *others) for name, (act, *others) in found.items()}

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirects to the audit trail of this row, for a patient also of their devices, clones and messages."""
        if not request.user.has_perm("audit.view_auditentry"):
            raise PermissionDenied
        name = "patient_id" if self.model is Patient else "object_id"
        url = reverse("admin:audit_auditentry_changelist", query={name: unquote(object_id)})
        return HttpResponseRedirect(url)


def _changes_in(message: object) -> Changes:
    return message if isinstance(message, dict) else {}  # a page of its own may pass Django's list of labels


def _recorded(act: _Act, name: str) -> _Act:
    """Returns the action of a list with one entry for each selected row that it has changed.

    An answer that is a page asks to confirm. An action that changes rows of another model calls `recording.record`.
    """

    @functools.wraps(act)
    @transaction.atomic
    def recorded(admin: ModelAdmin, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponseBase | None:
        if act is delete_selected:  # calls `log_deletions`
            return act(admin, request, rows)
        before = {row.pk: row for row in rows.all()}
        response = act(admin, request, rows)
        if response is None or isinstance(response, HttpResponseRedirect):
            after = admin.model._base_manager.in_bulk(list(before))
            found = [(row, _difference(row, after.get(key))) for key, row in before.items()]
            recording.record_each(request, name, [(row, difference) for row, difference in found if difference])
        return response

    return recorded


def _difference(before: Model, after: Model | None) -> Changes:
    return changes.differences(type(before), changes.values_of(before), changes.values_of(after) if after else {})
